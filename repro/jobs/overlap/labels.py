"""What stands in front of every text of a set, such as ``Question:``, is no part of the prompts.

A job logs ``Question: Is it true ...`` and lists ``Is it true ...``. A label is left out where every text of a set has
it, and where no other set has it in front of some texts only: there it may tell two prompts apart.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from repro.jobs.overlap.matching import Population
from repro.jobs.overlap.sets import PromptSet

LABEL = re.compile(r"(?:[^\W\d_][\w .-]{0,22}:|<[^<>\s]{1,24}>|\[[A-Z/_]{1,12}\])\s*(?=\S)")
MOST = 4
"""How many labels one behind another are left out, as in ``<bos> User: Question:``."""


def without_labels(
    sets: Sequence[PromptSet], population: int | Population | None
) -> tuple[tuple[PromptSet, ...], int | Population | None]:
    """The sets and the population's texts without the label that all texts of one have in front, with a note."""
    found, every = tuple(sets), population
    for _ in range(MOST):
        texts = [{*(one.text for one in item.members if one.text), *(item.asked or ())} for item in found]
        known = [*texts, every.keys()] if isinstance(every, Mapping) else texts
        labels = [_labels(group) for group in known]
        mixed = frozenset[str | None]().union(*(those for those in labels if len(those) > 1))
        own = [next(iter(those)) if len(those) == 1 and not those & mixed else None for those in labels]
        if not any(own) or len(set(own)) == 1:  # one that all have tells nothing apart
            break
        found = tuple(_without(item, label) if label else item for item, label in zip(found, own, strict=False))
        if isinstance(every, Mapping) and own[-1]:
            every = {text.removeprefix(own[-1]): places for text, places in every.items()}
    return found, every


def _labels(texts: Iterable[str]) -> frozenset[str | None]:
    """What stands in front of the texts; None where nothing does."""
    found = (LABEL.match(text) for text in texts)
    return frozenset(None if label is None else label[0] for label in found)


def _without(item: PromptSet, label: str) -> PromptSet:
    members = tuple(replace(one, text=one.text.removeprefix(label)) for one in item.members)
    return replace(
        item,
        members=members,
        failed=frozenset(one.shown for one in members),
        asked=None if item.asked is None else frozenset(text.removeprefix(label) for text in item.asked),
        notes=(*item.notes, f"{label.strip()!r}, which every text begins with, is left out."),
    )
