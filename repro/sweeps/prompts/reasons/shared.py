"""What the failing prompts have in common, whatever the passing ones have: sentences."""

from collections import Counter
from collections.abc import Sequence

from repro.core.sentences import BAD_LOGITS, EVERY, OUTPUT, listed
from repro.sweeps.prompts.reasons.questions import Record

MOST_NAMED = 3
"""How many different layers or tokens of the failing prompts are named."""


def shared(failing: Sequence[Record]) -> tuple[str, ...]:
    """What the failing prompts have in common: where they go bad first, at which token, and whether alone too."""
    inside = [record for record in failing if record.get("layer") != OUTPUT]
    layers = _most([record.get("layer") for record in inside], "in", len(failing))
    tokens = _most(_where(inside), "at", len(failing))
    return tuple(said for said in (_logits(failing, inside), layers, tokens, _alone_too(failing)) if said)


def _logits(failing: Sequence[Record], inside: Sequence[Record]) -> str | None:
    """How many have bad logits behind layers that are finite, and which module gives them."""
    count = len(failing) - len(inside)
    if not count:
        return None
    modules = Counter(record.get("module") for record in failing if record.get("layer") == OUTPUT)
    named = listed([str(name) for name in modules if name is not None])
    which = f"{count} of {len(failing)}" if inside else f"all {count}" if count > 1 else "the"
    prompts = "prompt has" if len(failing) == 1 else "prompts have"
    return f"{which} failing {prompts} {BAD_LOGITS}" + (f": {named} gives them." if named else ".")


def _alone_too(failing: Sequence[Record]) -> str | None:
    """How many fail without their batch, and how many of the others with its padding alone."""
    seen = Counter(record.get("alone") for record in failing)
    causes = Counter(record.get("cause") for record in failing)
    asked = seen["bad"] + seen["good"]
    if not asked:
        return None
    said = f"of {asked} failing prompts that were run alone, {seen['bad']} fail alone too and {seen['good']} only"
    padded = causes["padding"] + causes["composition"]
    more = f", {causes['padding']} of these for the padding that they have in it" if padded else ""
    return f"{said} in their batch{more}."


def _where(records: Sequence[Record]) -> list[str | None]:
    """The first bad token of each: text or id, kind, and the place where that is the same for all or all there is."""
    same_place = len({record.get("token_index") for record in records}) == 1
    said: list[str | None] = []
    for record in records:
        place, text, number, kind = (record.get(key) for key in ("token_index", "token", "token_id", "token_kind"))
        if kind == EVERY:
            said.append("every token")
            continue
        name = repr(text) if isinstance(text, str) else "" if number is None else f"id {number}"
        parts = [name, f"({kind})" if kind else ""]
        if place is not None and (same_place or not any(parts)):
            parts.insert(0, str(place))
        words = " ".join(part for part in parts if part)
        said.append(f"token {words}" if words else None)
    return said


def _most(values: Sequence[str | None], preposition: str, failing: int) -> str | None:
    """``all 38 failing prompts go bad first in model.layers.7.``, or the most frequent places with their counts."""
    known = Counter(value for value in values if value is not None)
    if not known:
        return None
    if len(known) == 1 and known.total() == len(values):
        which = "the failing prompt goes" if failing == 1 else f"all {failing} failing prompts go"
        which = which if len(values) == failing else f"{len(values)} of {failing} failing prompts go"
        return f"{which} bad first {preposition} {next(iter(known))}."
    most = known.most_common(MOST_NAMED)
    named = [f"{count} {preposition} {name}" for name, count in most]
    rest = known.total() - sum(count for _, count in most)
    places = listed([*named, f"{rest} elsewhere"] if rest else named)
    return f"where the {failing} failing prompts go bad first: {places}."
