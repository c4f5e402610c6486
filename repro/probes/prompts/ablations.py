"""What saves the prompts that fail: each ablation, run on failing examples, with its cost.

Each change is made on the loaded model, the same examples are run in batches again, and everything is put back. Of the
examples that fail alike a few are run under every change. The change that saves these at the least cost is then made
once more for all the others. The cost is that of the very same examples.
"""

import contextlib
import functools
import time
from collections.abc import Iterable, Iterator, Sequence
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
from .alike import Failing, batches_of, name_of, names_of
from .batches import Example, NotEncodable, Tokens, fails

HALVES = 2  # a shorter maximal length is the longest prompt's half
CONFIRMED = 2  # changes that are made for all failing examples, until one saves all
AS_IT_WAS = "as it was"
Batches = tuple[tuple[Example, ...], ...]


@dataclass(frozen=True)
class Asked:
    """The run whose examples failed: the model, how its prompts become ids, and ``batches``, which reads the batches
    of the file anew.
    """

    loaded: Loaded
    tokenizer: Any
    tokens: Tokens
    options: dict[str, Any]
    layers: list[str]
    batches: Callable[[], Iterable[list[Example]]]

    @property
    def batch_size(self) -> int:
        return int(self.options.get("batch_size") or 8)

    def batch_of(self, record: dict[str, Any]) -> list[Example]:
        """The examples of a record's batch that the model can be given."""
        for number, examples in enumerate(self.batches()):
            if number == record["batch"]:
                return self.usable(examples)
        return []

    def usable(self, examples: Iterable[Example]) -> list[Example]:
        return [example for example in examples if self._is_usable(example)]

    def _is_usable(self, example: Example) -> bool:
        try:
            return self.tokens.refusal(self.tokens.ids(example)) is None
        except NotEncodable:
            return False

    def as_they_fail(self, own: set[int], whole: set[int]) -> Iterator[tuple[Example, ...]]:
        """Batches in which examples fail as they did: those that fail alone too beside each other, and whole batches
        where an example needs its batch. own: their numbers; whole: the numbers of such batches.
        """
        held: list[Example] = []
        for number, examples in enumerate(self.batches()):
            if number in whole:
                yield tuple(self.usable(examples))
                continue
            held += self.usable(example for example in examples if name_of(example.index, example.side) in own)
            while len(held) >= self.batch_size:
                yield tuple(held[: self.batch_size])
                held = held[self.batch_size :]
        if held:
            yield tuple(held)


@dataclass(frozen=True)
class Setting:
    """How failing examples are run. ``counted``: the numbers of those that failed; the others of a batch are there for
    these. ``max_length``, ``padding_side``: None as in the case. ``apart``: each by itself. ``cut``: without the first
    token.
    """

    counted: frozenset[int]
    max_length: Optional[int]
    padding_side: Optional[str]
    apart: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Ablation:
    """An ablation: its name, the setting that it gives, and what has to hold on the model meanwhile. ``shortens``: it
    takes something away from the prompts.
    """

    name: str
    setting: Callable[[Setting], Setting]
    around: Callable[[], "contextlib.AbstractContextManager[Any]"]
    shortens: bool = False


def measure(asked: Asked, failing: Failing, emitter: Emitter) -> list[dict[str, Any]]:
    """A row for each change: name, verdict, reason, saved, asked, failing (all that fail), share, seconds, and the
    memory that the weights take.
    """
    few = failing.representatives()
    names = names_of(few)
    batches = tuple(asked.as_they_fail(names & failing.own, batches_of(few)))
    plain = Setting(
        frozenset(names if not batches_of(few) else _failing_in(batches, failing)),
        asked.options.get("max_length"),
        asked.options.get("padding_side"),
    )
    every = changes(asked, plain, few)
    rows: dict[str, dict[str, Any]] = {}
    for number, change in enumerate(every, 1):
        rows[change.name] = _row(asked, change, plain, batches, len(failing))
        emitter.progress(number, len(every), "changes")
    if len(plain.counted) < len(failing):
        _confirm(asked, failing, every, plain, rows)
    return [*rows.values(), _earlier_layer(failing, asked.layers)]


def _failing_in(batches: Batches, failing: Failing) -> set[int]:
    names = {name_of(example.index, example.side) for batch in batches for example in batch}
    return names & (failing.own | failing.others)


def _confirm(
    asked: Asked, failing: Failing, every: Sequence[Ablation], plain: Setting, rows: dict[str, dict[str, Any]]
) -> None:
    """All failing examples under the change that helps those that stand for them; the cheapest first, and one that
    takes nothing away from the prompts.
    """
    helping = [change for change in every if rows[change.name]["verdict"] == "good" and change.name != AS_IT_WAS]
    helping.sort(key=lambda change: (change.shortens, rows[change.name]["seconds"]))
    whole = {
        number
        for number, examples in enumerate(asked.batches())
        if any(name_of(example.index, example.side) in failing.others for example in examples)
    }
    setting = replace(plain, counted=frozenset(failing.own | failing.others))
    for change in helping[:CONFIRMED]:
        row = _row(asked, change, setting, asked.as_they_fail(failing.own, whole), len(failing))
        rows[change.name] = {**row, "seconds": rows[change.name]["seconds"]}
        if row["verdict"] == "good":
            return


def changes(asked: Asked, plain: Setting, records: Sequence[dict[str, Any]]) -> list[Ablation]:
    """The changes to try: first the same again, which shows whether the fault is steady."""
    case: dict[str, Any] = {}
    loaded, nothing = asked.loaded, contextlib.nullcontext
    tokens = Tokens(loaded, asked.tokenizer, None, plain.padding_side)
    other = "right" if tokens.side == "left" else "left"
    longest = max((int(record.get("tokens") or 0) for record in records), default=0)
    blamed = next((record["layer"] for record in records if record.get("layer_index") is not None), None)
    first = {record["token_ids"][0] for record in records if record.get("token_ids")}

    def same(setting: Setting) -> Setting:
        return setting

    dtypes = {f"dtype={name}": dtype_ablation(name) for name in ("float32", "bfloat16", "float16")}
    attention = {f"attn={name}": attention_ablation(name) for name in ("eager", "sdpa")}
    found = [Ablation(AS_IT_WAS, same, nothing)]
    found += [
        Ablation(name, same, functools.partial(ablation, loaded, (), case))
        for name, ablation in {**dtypes, **attention}.items()
    ]
    found.append(Ablation("batch_size=1", lambda setting: replace(setting, apart=True), nothing))
    found.append(Ablation(f"padding_side={other}", lambda setting: replace(setting, padding_side=other), nothing))
    if longest >= HALVES:
        short = longest // HALVES
        found.append(
            Ablation(f"max_length={short}", lambda setting: replace(setting, max_length=short), nothing, shortens=True)
        )
    if blamed is not None:
        found.append(Ablation(f"{blamed} in float32", same, lambda: in_float32(loaded, blamed)))
    if first and first <= tokens.special:
        cut = Ablation("no first special token", lambda setting: replace(setting, cut=True), nothing, shortens=True)
        found.append(cut)
    return found


def _row(
    asked: Asked, change: Ablation, plain: Setting, batches: Iterable[tuple[Example, ...]], failing: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": change.name, "verdict": "skip", "reason": "", "saved": None, "asked": None}
    row.update(failing=failing, share=None, seconds=None, weights_bytes=None)
    try:
        with change.around():
            setting = change.setting(plain)
            begin = time.monotonic()
            saved, ran = run(asked, setting, batches)
            seconds, weights = time.monotonic() - begin, weights_bytes(asked.loaded.model)
    except SameAsCase:
        return {**row, "reason": "the case has this setting itself"}
    except (NotApplicable, RuntimeError, ValueError) as error:
        return {**row, "reason": one_line(str(error))}
    verdict = "good" if saved == ran else "bad"
    reason = f"{saved:,} of {ran:,} failing examples are finite"
    if ran < failing:
        reason += f"; they stand for all {failing:,}"
    row.update(verdict=verdict, reason=reason, saved=saved, asked=ran, share=saved / ran if ran else None)
    return {**row, "seconds": seconds, "weights_bytes": weights}


def run(asked: Asked, setting: Setting, batches: Iterable[tuple[Example, ...]]) -> tuple[int, int]:
    """How many of the counted examples are finite at every layer and at the output, and how many there were."""
    tokens = Tokens(asked.loaded, asked.tokenizer, setting.max_length, setting.padding_side)
    saved = ran = 0
    for examples in _changed(tokens, setting, batches):
        batch = tokens.batch(0, examples)
        counted = torch.tensor([name_of(example.index, example.side) in setting.counted for example in examples])
        saved += int((~fails(asked.loaded.model, batch, asked.layers, counted) & counted).sum())
        ran += int(counted.sum())
    return saved, ran


def _changed(tokens: Tokens, setting: Setting, batches: Iterable[tuple[Example, ...]]) -> Iterator[Sequence[Example]]:
    """The batches as the setting has them."""
    for batch in batches:
        examples = list(batch)
        if setting.cut:
            shorter = [replace(example, ids=tuple(tokens.ids(example)[1:])) for example in examples]
            examples = [example for example in shorter if example.ids]
        if setting.apart:
            yield from ([one] for one in examples if name_of(one.index, one.side) in setting.counted)
        elif examples:
            yield examples


def weights_bytes(model: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _earlier_layer(failing: Failing, layers: list[str]) -> dict[str, Any]:
    """Taking the residual stream from the last layer that is sound for all: known from the run itself."""
    first = failing.first_layer
    row: dict[str, Any] = {"share": None, "saved": None, "seconds": 0.0, "weights_bytes": None}
    row.update(asked=len(failing), failing=len(failing))
    if not first:
        row.update(saved=0, share=0.0)
        return {**row, "name": "an earlier layer", "verdict": "bad", "reason": "no layer before is sound for all"}
    at = first - 1
    reason = f"every failing example is finite up to {layers[at]}"
    row.update(saved=len(failing), share=1.0)
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
