"""What an answer is worth, held against the truth.

A wrong claim is a confident answer that is wrong: "good" for a fault, another place, another mechanism, another owner.
It is worse than "not known", and is counted apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .drive import Answered
from .records import Place, Truth

RIGHT, OPEN, WRONG = "right", "not known", "wrong"


@dataclass(frozen=True)
class Mark:
    """How each part of the answer came out, and what was claimed wrongly, in words."""

    verdict: str
    origin: str
    mechanism: str
    owner: str
    claims: tuple[str, ...] = ()


def mark(answered: Answered, truth: Truth | None) -> Mark:
    """Of a fault, or, without a truth, of a sound twin."""
    if truth is None:
        verdict = {"good": RIGHT, "skip": OPEN}.get(answered.verdict, WRONG)
        claims = (f"a sound twin is called {answered.verdict}: {answered.reason}",) if verdict == WRONG else ()
        return Mark(verdict, RIGHT, RIGHT, RIGHT, claims)
    verdict = {"bad": RIGHT, "skip": OPEN}.get(answered.verdict, WRONG)
    origin = _origin(answered, truth)
    mechanism = _of(answered.mechanism if answered.mechanism != "unknown" else None, truth.mechanisms)
    owned = _of(answered.owner, truth.owners)
    claims = []
    if verdict == WRONG:
        claims.append(f"a fault is called good: {answered.reason}")
    if origin == WRONG:
        claims.append(f"born in {said(answered)}; it is {' or '.join(map(words, truth.places))}{_in(truth)}")
    if mechanism == WRONG:
        claims.append(f"mechanism {answered.mechanism}; it is {' or '.join(truth.mechanisms)}")
    if owned == WRONG:
        claims.append(f"owner {answered.owner}; it is {' or '.join(truth.owners) or 'open'}")
    return Mark(verdict, origin, mechanism, owned, tuple(claims))


def _of(given: str | None, right: tuple[str, ...]) -> str:
    return OPEN if given is None else RIGHT if given in right else WRONG


def _origin(answered: Answered, truth: Truth) -> str:
    if answered.op is None and answered.module is None:
        return OPEN
    tensor = answered.tensor is None or not truth.tensors or answered.tensor in truth.tensors
    known = answered.tensor is not None and answered.tensor_index is not None and truth.index is not None
    index = not known or tuple(answered.tensor_index or ()) == truth.index
    phase = answered.phase is None or truth.phase is None or answered.phase == truth.phase
    fits = any(_fits(answered, place) for place in truth.places)
    return RIGHT if fits and tensor and index and phase else WRONG


def _fits(answered: Answered, place: Place) -> bool:
    op, source = answered.op, answered.source
    if place.forward:
        op, source = answered.forward_op, answered.forward_source
    line = place.line is None or (source or "").endswith(f":{place.line}")
    # The tool calls the second outermost module of a script root1, and so on: not a part of the module's own name.
    module = place.module is None or re.sub(r"^root\d+\.", "", answered.module or "") == place.module
    return module and line and (not place.ops or (op or "").startswith(place.ops))


def _in(truth: Truth) -> str:
    at = "" if truth.index is None else f" at {list(truth.index)}"
    return f", tensor {truth.tensors[0]}{at}" if truth.tensors else ""


def words(place: Place) -> str:
    """A place in words."""
    what = "/".join(op.removeprefix("aten.") for op in place.ops)
    where = f" in {place.module or 'the whole'}" if place.module is not None else ""
    return f"{what}{where}" + (f" at line {place.line}" if place.line else "")


def said(answered: Answered) -> str:
    """The answered place in words."""
    behind = f", behind it {answered.forward_op} at {answered.forward_source}" if answered.forward_op else ""
    index = "" if answered.tensor_index is None else f" at {list(answered.tensor_index)}"
    tensor = f", tensor {answered.tensor}{index}" if answered.tensor else ""
    return f"{answered.op} in {answered.module or 'the whole'} at {answered.source}{behind}{tensor}"
