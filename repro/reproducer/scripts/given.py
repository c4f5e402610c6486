"""What a model is given, as lines of a script: token ids, and tensors that are drawn from a seed or written out."""

from collections.abc import Mapping, Sequence
from typing import Any

from repro.core.payloads import Further
from repro.core.sentences import listed
from repro.reproducer.code.tensors import literal


def input_lines(inputs: Mapping[str, Sequence[int]], further: Sequence[Further], move: str = "") -> list[str]:
    """An assignment for each input. ``move``: what brings it to the device."""
    lines = [f"{name} = torch.tensor([{list(ids)}]){move}" for name, ids in inputs.items()]
    return lines + [f"{item.name} = {_made(item)}{move}" for item in further]


def taken(name: str) -> str:
    """What stands behind a model's call, so that its judged output is taken; ``output`` has no name of its own."""
    return "[0]" if name == "output" else f".{name}"


def can_be_written(further: Sequence[Further]) -> bool:
    """Whether each input is drawn from a seed, or has so few values that they are in the record."""
    drawn = ("normal", "whole")
    return all(
        item.made == "ones" or (item.made in drawn and item.seed is not None) or item.values is not None
        for item in further
    )


def count_words(inputs: Mapping[str, Sequence[int]], further: Sequence[Further]) -> str:
    """What is given, in words: "3 tokens and attention_mask"."""
    count = len(inputs.get("input_ids", ()))
    named = ["one token" if count == 1 else f"{count} tokens"] if count else []
    return listed([*named, *(f"seeded {item.name}" if item.seed is not None else item.name for item in further)])


def arguments(inputs: Mapping[str, Sequence[int]], further: Sequence[Further], ones: bool, cast: str = "") -> str:
    """The arguments of the model's forward pass.

    Args:
        inputs: The token ids by argument.
        further: What is given beside them.
        ones: Whether a mask of ones is given, where no other is.
        cast: What brings a floating tensor to the model's dtype.
    """
    named = [f"{name}={name}" for name in inputs]
    named += [f"{item.name}={item.name}{cast if 'float' in item.dtype else ''}" for item in further]
    if ones and "input_ids" in inputs and "attention_mask" not in {item.name for item in further}:
        named.append("attention_mask=torch.ones_like(input_ids)")
    return ", ".join(named)


def _made(item: Further) -> str:
    """The expression that makes the same tensor again."""
    seeded = f"generator=torch.Generator().manual_seed({item.seed})"
    if item.made == "normal":
        return f"torch.randn({item.shape}, {seeded}).to(torch.{item.dtype})"
    if item.made == "whole":
        return f"torch.randint(0, {max(item.below or 1, 1)}, {item.shape}, {seeded}).to(torch.{item.dtype})"
    if item.made == "ones":
        return f"torch.ones({item.shape}, dtype=torch.{item.dtype})"
    return f"torch.tensor({literal(_numbers(item.values))}, dtype=torch.{item.dtype}).reshape({item.shape})"


def _numbers(values: Any) -> Any:
    """Numbers that are not finite travel as words."""
    if isinstance(values, list | tuple):
        return [_numbers(value) for value in values]
    return float(values) if isinstance(values, str) else values
