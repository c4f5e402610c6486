"""What saves the prompts that fail: each ablation, run on the failing examples, with its cost.

Each change is made on the loaded model, the same examples are run in batches again, and everything is put back. The
share that is saved is of the examples that fail as they were run; the cost is that of the very same examples.
"""

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

import torch
from torch import nn

from ..model.ablations import NotApplicable, SameAsCase, attention_ablation, dtype_ablation
from ..model.load import Loaded
from ..protocol.failures import one_line
from ..protocol.wire import Emitter
from ..values.figures import dtype_name, is_float
from ..values.nest import rebuild
from .batches import Example, Tokens, captured

MOST = 128  # failing examples that are run under each change; of more, the first, and the answer says so
HALVES = 2  # a shorter maximal length is the longest prompt's half


@dataclass(frozen=True)
class Setting:
    """How the failing examples are run. ``batch_size``, ``max_length``, ``padding_side``: None as in the case."""

    examples: tuple[Example, ...]
    batch_size: int
    max_length: Optional[int]
    padding_side: Optional[str]


@dataclass(frozen=True)
class Ablation:
    """An ablation: its name, the setting that it gives, and what has to hold on the model meanwhile."""

    name: str
    setting: Callable[[Setting], Setting]
    around: Callable[[], "contextlib.AbstractContextManager[Any]"]


def measure(
    loaded: Loaded,
    tokenizer: Any,
    failing: Sequence[tuple[Example, dict[str, Any]]],
    options: dict[str, Any],
    layers: list[str],
    emitter: Emitter,
) -> list[dict[str, Any]]:
    """A row for each change: name, verdict, reason, saved, asked, share, seconds, and the memory that the weights take.

    failing: examples with their records.
    """
    some = failing[:MOST]
    plain = Setting(
        tuple(example for example, _ in some),
        int(options.get("batch_size") or 8),
        options.get("max_length"),
        options.get("padding_side"),
    )
    rows = []
    every = changes(loaded, tokenizer, plain, [record for _, record in some])
    for number, change in enumerate(every, 1):
        rows.append(_row(loaded, tokenizer, change, plain, layers))
        emitter.progress(number, len(every), "changes")
    return [*rows, _earlier_layer([record for _, record in some], layers)]


def changes(loaded: Loaded, tokenizer: Any, plain: Setting, records: Sequence[dict[str, Any]]) -> list[Ablation]:
    """The changes to try: first the same again, which shows whether the fault is steady."""
    case: dict[str, Any] = {}
    nothing = contextlib.nullcontext
    tokens = Tokens(loaded, tokenizer, None, plain.padding_side)
    other = "right" if tokens.side == "left" else "left"
    longest = max((int(record.get("tokens") or 0) for record in records), default=0)
    blamed = next((record["layer"] for record in records if record.get("layer_index") is not None), None)
    first = {record["token_ids"][0] for record in records if record.get("token_ids")}

    def same(setting: Setting) -> Setting:
        return setting

    dtypes = {f"dtype={name}": dtype_ablation(name) for name in ("float32", "bfloat16", "float16")}
    attention = {f"attn={name}": attention_ablation(name) for name in ("eager", "sdpa")}
    found = [Ablation("as it was", same, nothing)]
    found += [
        Ablation(name, same, functools.partial(ablation, loaded, (), case))
        for name, ablation in {**dtypes, **attention}.items()
    ]
    found.append(Ablation("batch_size=1", lambda setting: replace(setting, batch_size=1), nothing))
    found.append(Ablation(f"padding_side={other}", lambda setting: replace(setting, padding_side=other), nothing))
    if longest >= HALVES:
        short = longest // HALVES
        found.append(Ablation(f"max_length={short}", lambda setting: replace(setting, max_length=short), nothing))
    if blamed is not None:
        found.append(Ablation(f"{blamed} in float32", same, lambda: in_float32(loaded, blamed)))
    if first and first <= tokens.special:
        found.append(
            Ablation("no first special token", lambda setting: without_first(loaded, tokenizer, setting), nothing)
        )
    return found


def without_first(loaded: Loaded, tokenizer: Any, setting: Setting) -> Setting:
    tokens = Tokens(loaded, tokenizer, setting.max_length, None)
    shorter = [replace(example, ids=tuple(tokens.ids(example)[1:])) for example in setting.examples]
    return replace(setting, examples=tuple(example for example in shorter if example.ids))


def _row(loaded: Loaded, tokenizer: Any, change: Ablation, plain: Setting, layers: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": change.name, "verdict": "skip", "reason": "", "saved": None, "asked": None}
    row.update(share=None, seconds=None, weights_bytes=None)
    try:
        with change.around():
            setting = change.setting(plain)
            begin = time.monotonic()
            saved = run(loaded, tokenizer, setting, layers)
            seconds, weights = time.monotonic() - begin, weights_bytes(loaded.model)
    except SameAsCase:
        return {**row, "reason": "the case has this setting itself"}
    except (NotApplicable, RuntimeError, ValueError) as error:
        return {**row, "reason": one_line(str(error))}
    asked = len(setting.examples)
    verdict = "good" if saved == asked else "bad"
    reason = f"{saved} of {asked} failing examples are finite"
    row.update(verdict=verdict, reason=reason, saved=saved, asked=asked, share=saved / asked if asked else None)
    return {**row, "seconds": seconds, "weights_bytes": weights}


def run(loaded: Loaded, tokenizer: Any, setting: Setting, layers: list[str]) -> int:
    """How many of the examples are finite at every layer and at the output."""
    tokens = Tokens(loaded, tokenizer, setting.max_length, setting.padding_side)
    saved = 0
    for begin in range(0, len(setting.examples), setting.batch_size):
        batch = tokens.batch(0, setting.examples[begin : begin + setting.batch_size])
        saved += int((~captured(loaded.model, batch, layers).failing(batch)).sum())
    return saved


def weights_bytes(model: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _earlier_layer(records: Sequence[dict[str, Any]], layers: list[str]) -> dict[str, Any]:
    """Taking the residual stream from the last layer that is sound for all: known from the run itself."""
    first = [record["layer_index"] for record in records if record.get("layer_index") is not None]
    at = min(first, default=0) - 1
    row: dict[str, Any] = {"share": None, "saved": None, "asked": len(records), "seconds": 0.0, "weights_bytes": None}
    if len(first) < len(records) or at < 0:
        row.update(saved=0, share=0.0)
        return {**row, "name": "an earlier layer", "verdict": "bad", "reason": "no layer before is sound for all"}
    reason = f"every failing example is finite up to {layers[at]}"
    row.update(saved=len(records), share=1.0)
    return {**row, "name": f"layer {layers[at]} in place of a later one", "verdict": "good", "reason": reason}


@contextlib.contextmanager
def in_float32(loaded: Loaded, path: str) -> Iterator[None]:
    """One module computes in float32; what goes in and out keeps the model's dtype."""
    if loaded.dtype == torch.float32:
        raise SameAsCase
    module = loaded.model.get_submodule(path)
    dtype = loaded.dtype
    if any(tensor.dtype != dtype for tensor in module.parameters()):
        raise NotApplicable(f"not all of {path} is {dtype_name(dtype)}")

    def cast(to: torch.dtype) -> Any:
        return lambda tensor: tensor.to(to) if is_float(tensor) else tensor

    def widen(inner: nn.Module, args: Any, kwargs: Any) -> Any:
        return rebuild(args, torch.Tensor, cast(torch.float32)), rebuild(kwargs, torch.Tensor, cast(torch.float32))

    handles = [
        module.register_forward_pre_hook(widen, with_kwargs=True),
        module.register_forward_hook(lambda inner, args, output: rebuild(output, torch.Tensor, cast(dtype))),
    ]
    module.float()
    try:
        yield
    finally:
        module.to(dtype)  # float32 held every one of these numbers exactly
        for handle in handles:
            handle.remove()
