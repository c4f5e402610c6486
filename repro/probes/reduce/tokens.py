"""The fewest tokens with which the model still shows the same fault, by delta debugging over token ids."""

import math
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor

from ..model.forward import judged_output, run
from ..model.inputs import Inputs, load_tokenizer
from ..model.load import Loaded
from ..observe.source import source_line
from ..observe.tape import Tape
from ..observe.watch import OpCall, Watch, watched
from ..values.figures import is_bad
from .seen import kinds_in, last_of
from .trials import Trials, ddmin

KINDS = ("nan", "posinf", "neginf")
# Mechanisms that are no operator's own: the values were there before it ran, or nothing is known of it.
NOT_THE_OPERATORS = ("bad_weights", "bad_input", "unset_memory", "written_outside", "unknown")


@dataclass(frozen=True)
class Place:
    """Where a fault is born, and which: what a smaller case has to show again.

    mechanism: None where one operator's record cannot tell it, such as for a value that lay in a weight. nan: whether
    its bad value is a NaN. kinds: what of "nan", "posinf" and "neginf" the operator is given.
    """

    module: str
    op: str
    source: Optional[str]
    mechanism: Optional[str]
    nan: bool
    kinds: frozenset[str]

    @staticmethod
    def of(origin: dict[str, Any]) -> "Place":
        own = origin["tensor"] is None and origin["mechanism"] not in NOT_THE_OPERATORS
        kinds = frozenset(kind for kind in KINDS for row in origin["inputs"] if row.get(kind))
        mechanism = origin["mechanism"] if own else None
        nan = math.isnan(origin["value"])
        return Place(origin["module"], origin["op"], origin["source"], mechanism, nan, kinds)

    def visit(self, call: OpCall) -> tuple[Any, bool]:
        """The operator's result, and whether it is this fault: the same operator on the same line, given nothing worse,
        with the same mechanism.
        """
        here = call.address
        if (here.module, here.op) != (self.module, self.op) or source_line() != self.source:
            return call.run(), False
        if not kinds_in((call.args, call.kwargs)) <= self.kinds:
            return call.run(), False
        tape = Tape()
        result = tape.visit(call)
        return result, self._shown_in(tape)

    def _shown_in(self, tape: Tape) -> bool:
        if self.mechanism is None:
            found = kinds_in([ref.tensor() for ref in tape.ops[-1].outputs])
            return "nan" in found if self.nan else bool(found - {"nan"})
        seen = last_of(tape, [ref.tensor() for ref in tape.ops[-1].inputs()])
        return seen is not None and seen.mechanism == self.mechanism and math.isnan(seen.value) == self.nan


def shows(loaded: Loaded, inputs: Inputs, place: Place) -> bool:
    """Whether the model's output is bad for these inputs, and the same operator makes a bad value in it."""
    met: list[bool] = []

    def visit(call: OpCall) -> Any:
        result, shown = place.visit(call)
        met.append(shown)
        return result

    outputs: list[Tensor] = []
    with watched(loaded.model, Watch(visit)):
        outputs.append(judged_output(run(loaded.model, inputs))[1])
    return any(met) and is_bad(outputs[0])


def fewest(loaded: Loaded, inputs: Inputs, place: Place, token: Optional[int], trials: Trials) -> Optional[Inputs]:
    """The inputs with as few tokens as the fault needs; the same object where none can go, or there is none; None where
    not even all of them show it again.

    token: position of the token that the origin's element belongs to. It is tried alone first, then with the first
    token, then with all before it: in a model that looks back only, the rest has no part.
    """
    count = inputs.length
    if not count:
        return inputs
    answers: dict[tuple[int, ...], bool] = {}

    def holds(positions: list[int]) -> bool:
        key, words = tuple(positions), f"{len(positions)} of {count} tokens"
        if key not in answers:
            answers[key] = trials.ask(words, lambda: shows(loaded, only(inputs, positions), place))
        return answers[key]

    kept = list(range(count))
    guesses = [] if token is None or token >= count else [[token], sorted({0, token}), list(range(token + 1))]
    for guess in guesses:
        if len(guess) < len(kept) and holds(guess):
            kept = guess
            break
    else:
        if not holds(kept):
            return inputs if trials.over else None
    kept = ddmin(kept, holds)
    small = only(inputs, kept) if len(kept) < count else inputs
    bare = replace(small, attention_mask=None)
    if small.attention_mask is not None and trials.ask("no mask", lambda: shows(loaded, bare, place)):
        return bare
    return small


def only(inputs: Inputs, positions: list[int]) -> Inputs:
    """The inputs with the tokens at ``positions`` alone; a decoder's ids follow, and pictures and sounds stay."""

    def cut(tensor: Optional[Tensor]) -> Optional[Tensor]:
        return None if tensor is None else tensor[:, positions]

    def cut_words(words: Optional[tuple[str, ...]]) -> Optional[tuple[str, ...]]:
        return None if words is None else tuple(words[at] for at in positions)

    ids = cut(inputs.input_ids)
    decoder, decoder_words = inputs.decoder_input_ids, inputs.decoder_tokens
    if decoder is not None and ids is not None:  # shifted right behind its start: one id for each that is left
        decoder = torch.cat([decoder[:, :1], ids[:, :-1]], dim=1)
        decoder_words = None if inputs.tokens is None else ("<decoder start>", *(cut_words(inputs.tokens) or ())[:-1])
    return replace(
        inputs,
        input_ids=ids,
        attention_mask=cut(inputs.attention_mask),
        decoder_input_ids=decoder,
        further=tuple(more.at(positions) for more in inputs.further),
        tokens=cut_words(inputs.tokens),
        decoder_tokens=decoder_words,
        special_first=inputs.special_first and positions[:1] == [0],
    )


def record(loaded: Loaded, before: Inputs, after: Inputs, trust_remote_code: bool) -> dict[str, Any]:
    """What was left, as it travels to the host."""
    tokenizer = load_tokenizer(loaded.source.folder, trust_remote_code) if after.source == "tokenizer" else None
    special = set(tokenizer.all_special_ids) if tokenizer is not None else set()
    ids = [] if after.input_ids is None else after.input_ids[0].tolist()
    return {
        "before": before.length,
        "after": len(ids),
        "ids": ids,
        "decoder_ids": None if after.decoder_input_ids is None else after.decoder_input_ids[0].tolist(),
        "attention_mask": after.attention_mask is not None,
        "tokens": None if after.tokens is None else list(after.tokens),
        "special": [token in special for token in ids],
        "further": [more.record() for more in after.further if more.by_token],
    }
