"""What can be asked about a prompt: each question with its answer for every prompt that was compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from repro.core.encoding import number
from repro.core.sentences import listed
from repro.core.sweep_answers import Topic

Record = Mapping[str, Any]
"""A line of ``prompts.jsonl``."""
Family = Literal["length", "padding", "position", "special", "token", "side", "activation"]

NAMED_IDS = 4
"""How many token ids a question names where it is about several that always come together."""


def is_number(topic: Topic) -> bool:
    """Whether it is answered by a number, and not by yes or no."""
    return bool(topic.more)


def is_consequence(topic: Topic) -> bool:
    """Whether it is what the model made of the prompt, and not the prompt."""
    return topic.family == "activation"


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its answers, one for each prompt: a number, 1 and 0 for yes and no, None where there is none."""

    topic: Topic
    values: Sequence[float | None]

    @property
    def varies(self) -> bool:
        """Whether there are two different answers; else there is nothing to tell apart."""
        return len({value for value in self.values if value is not None}) > 1


def questions(records: Sequence[Record], special_ids: Sequence[int] = ()) -> tuple[Question, ...]:
    """Every question that the records can answer in more than one way.

    Args:
        records: Lines of ``prompts.jsonl`` that are good or bad.
        special_ids: The tokenizer's special tokens, where they are known.
    """
    asked = [*_numbers(records), *_yes_or_no(records), *_special(records, special_ids), *_tokens(records, special_ids)]
    return tuple(question for question in asked if question.varies)


def _numbers(records: Sequence[Record]) -> list[Question]:
    """The numbers of a line; one that is not finite is the failure itself, and no answer."""
    asked: list[tuple[str, Family, str, str, str]] = [
        ("tokens", "length", "the length in tokens", "are longer", "are shorter"),
        ("padding", "padding", "the amount of padding", "have more padding", "have less padding"),
        ("index", "position", "the place in the file", "come later in the file", "come earlier in the file"),
        ("row", "position", "the row in the batch", "stand later in their batch", "stand earlier in their batch"),
        ("absmax", "activation", "the greatest activation", "reach greater activations", "reach smaller activations"),
    ]
    return [
        Question(
            Topic(name=name, family=family, words=words, more=more, less=less),
            tuple(_finite(record.get(name)) for record in records),
        )
        for name, family, words, more, less in asked
    ]


def _finite(value: object) -> float | None:
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def _yes_or_no(records: Sequence[Record]) -> list[Question]:
    padding = [_finite(record.get("padding")) for record in records]
    sides = [record.get("side") for record in records]
    return [
        Question(
            Topic(name="padded", family="padding", words="padding"),
            tuple(None if n is None else float(n > 0) for n in padding),
        ),
        Question(
            Topic(name="side", family="side", words="the positive side", verb="are on"),
            tuple(None if side is None else float(side == "positive") for side in sides),
        ),
    ]


def _special(records: Sequence[Record], special_ids: Sequence[int]) -> list[Question]:
    """How many special tokens a prompt has, and whether it starts with one; asked where it is known which they are."""
    if not special_ids:
        return []
    special, ids = set(special_ids), [record.get("token_ids") for record in records]
    counts = tuple(float(sum(item in special for item in own)) if own else None for own in ids)
    first = tuple(float(own[0] in special) if own else None for own in ids)
    more, less = "have more special tokens", "have fewer special tokens"
    return [
        Question(
            Topic(name="special", family="special", words="the number of special tokens", more=more, less=less), counts
        ),
        Question(Topic(name="starts_special", family="special", words="a special token at the start"), first),
    ]


def _tokens(records: Sequence[Record], special_ids: Sequence[int]) -> list[Question]:
    """Whether a prompt has a token; tokens that always come together are one question.

    Asked where every record has its ids. There may be thousands of these, so an answer takes one byte.
    """
    ids = [record.get("token_ids") or () for record in records]
    if not all(ids):
        return []
    places: dict[int, list[int]] = {}
    for place, own in enumerate(ids):
        for item in dict.fromkeys(own):
            places.setdefault(item, []).append(place)
    together: dict[tuple[int, ...], list[int]] = {}
    for item, where in sorted(places.items()):
        together.setdefault(tuple(where), []).append(item)
    names, special = _names(records), set(special_ids)
    return [
        Question(
            Topic(name=f"token {items[0]}", family="token", words=_token_words(items, names, special)),
            _marked(len(records), where),
        )
        for where, items in together.items()
        if len(where) < len(records)
    ]


def _marked(count: int, places: Sequence[int]) -> bytes:
    """1 at these places, 0 at all others."""
    marked = bytearray(count)
    for place in places:
        marked[place] = 1
    return bytes(marked)


def _names(records: Sequence[Record]) -> dict[int, str]:
    """The text of a token, where a line names it."""
    return {
        record["token_id"]: record["token"]
        for record in records
        if record.get("token_id") is not None and isinstance(record.get("token"), str)
    }


def _token_words(items: Sequence[int], names: Mapping[int, str], special: set[int]) -> str:
    named = [f"{item} ({names[item]!r})" if item in names else str(item) for item in items]
    more = len(named) - NAMED_IDS
    shown = listed([*named[:NAMED_IDS], f"{more} more"] if more > 0 else named)
    kind = "special token" if special.issuperset(items) else "token"
    return f"{kind} {shown}" if len(items) == 1 else f"{kind}s {shown} (always together)"
