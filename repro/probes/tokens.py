"""The fewest tokens with which the model still shows the same fault, by delta debugging over token ids."""

import math
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor

from .forward import main_output, run
from .inputs import Inputs, load_tokenizer
from .load import Loaded
from .summary import is_bad, is_float, tensors_in
from .trials import Trials, ddmin
from .watch import Address, Watch, watched


@dataclass(frozen=True)
class Place:
    """Where a fault is born, and which: what a smaller input has to show again."""

    module: str
    op: str
    source: Optional[str]
    mechanism: str
    nan: bool
    finite: bool

    @staticmethod
    def of(origin: dict[str, Any]) -> "Place":
        rows = origin["inputs"]
        finite = not any(row.get(key) for row in rows for key in ("nan", "posinf", "neginf"))
        return Place(
            origin["module"], origin["op"], origin["source"], origin["mechanism"], math.isnan(origin["value"]), finite
        )

    def shown_in(self, results: list[Tensor]) -> bool:
        """Whether an operator's results are bad in the same way: by a NaN where there was one."""
        bad = [tensor for tensor in results if is_float(tensor) and is_bad(tensor)]
        return bool(bad) and (not self.nan or any(bool(torch.isnan(tensor).any()) for tensor in bad))


def shows(loaded: Loaded, inputs: Inputs, place: Place) -> bool:
    """Whether the model's output is bad for these inputs, and the same operator makes a bad value in it."""
    met: list[bool] = []

    def visit(here: Address, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if here.module != place.module or here.op != place.op:
            return func(*args, **kwargs)
        given = [tensor for tensor in tensors_in((args, kwargs)) if is_float(tensor)]
        sound = not place.finite or not any(map(is_bad, given))
        result = func(*args, **kwargs)
        if sound and place.shown_in(list(tensors_in(result))):
            met.append(True)
        return result

    outputs: list[Tensor] = []
    with watched(loaded.model, Watch(visit)):
        outputs.append(main_output(run(loaded.model, inputs))[1])
    return bool(met) and is_bad(outputs[0])


def fewest(loaded: Loaded, inputs: Inputs, place: Place, token: Optional[int], trials: Trials) -> Inputs:
    """The inputs with as few tokens as the fault needs.

    token: position of the token that the origin's element belongs to. It is tried alone first, then with the first
    token, then with all before it: in a model that looks back only, the rest has no part.
    """
    count = inputs.input_ids.shape[-1]

    def holds(positions: list[int]) -> bool:
        words = f"{len(positions)} of {count} tokens"
        return trials.ask(words, lambda: shows(loaded, only(inputs, positions), place))

    kept = list(range(count))
    guesses = [] if token is None or token >= count else [[token], sorted({0, token}), list(range(token + 1))]
    for guess in guesses:
        if len(guess) < len(kept) and holds(guess):
            kept = guess
            break
    kept = ddmin(kept, holds)
    small = only(inputs, kept) if len(kept) < count else inputs
    bare = replace(small, attention_mask=None)
    if small.attention_mask is not None and trials.ask("no mask", lambda: shows(loaded, bare, place)):
        return bare
    return small


def only(inputs: Inputs, positions: list[int]) -> Inputs:
    """The inputs with the tokens at ``positions`` alone; a decoder's ids follow."""

    def cut(tensor: Optional[Tensor]) -> Optional[Tensor]:
        return None if tensor is None else tensor[:, positions]

    def cut_words(words: Optional[tuple[str, ...]]) -> Optional[tuple[str, ...]]:
        return None if words is None else tuple(words[at] for at in positions)

    decoder, decoder_words = inputs.decoder_input_ids, inputs.decoder_tokens
    if decoder is not None:  # shifted right behind its start: one id for each that is left
        decoder = torch.cat([decoder[:, :1], inputs.input_ids[:, positions][:, :-1]], dim=1)
        decoder_words = None if inputs.tokens is None else ("<decoder start>", *(cut_words(inputs.tokens) or ())[:-1])
    return replace(
        inputs,
        input_ids=inputs.input_ids[:, positions],
        attention_mask=cut(inputs.attention_mask),
        decoder_input_ids=decoder,
        tokens=cut_words(inputs.tokens),
        decoder_tokens=decoder_words,
        special_first=inputs.special_first and positions[:1] == [0],
    )


def record(loaded: Loaded, before: Inputs, after: Inputs, trust_remote_code: bool) -> dict[str, Any]:
    """What was left, as it travels to the host."""
    tokenizer = load_tokenizer(loaded.source.folder, trust_remote_code) if after.source == "tokenizer" else None
    special = set(tokenizer.all_special_ids) if tokenizer is not None else set()
    ids = after.input_ids[0].tolist()
    return {
        "before": before.input_ids.shape[-1],
        "after": len(ids),
        "ids": ids,
        "decoder_ids": None if after.decoder_input_ids is None else after.decoder_input_ids[0].tolist(),
        "attention_mask": after.attention_mask is not None,
        "tokens": None if after.tokens is None else list(after.tokens),
        "special": [token in special for token in ids],
    }
