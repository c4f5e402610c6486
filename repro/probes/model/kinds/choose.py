"""Which inputs a model is given. A pass decides, and is made only where there is a choice."""

import itertools
from dataclasses import replace
from typing import Callable, Optional

from ..compat import CannotLoad
from . import pictures, places, series, sounds
from .draws import Part, Takes
from .facts import IDS, NOT_DATA, Facts

Adapter = Callable[[Facts], list[Part]]
Offers = dict[tuple[str, ...], list[Part]]

ADAPTERS: tuple[tuple[tuple[str, ...], Adapter], ...] = (
    (pictures.NAMES, pictures.pictures),
    (sounds.FEATURES, sounds.spectrograms),
    (sounds.WAVES, sounds.waves),
    (series.NAMES, series.series),
    (series.DECISIONS, series.decisions),
    (places.BOXES, places.boxes),
    (places.POINTS, places.points),
    (pictures.VIDEOS, pictures.videos),
    (sounds.SPOKEN, sounds.spoken),
    (pictures.LATENTS, pictures.latents),
)
"""The inputs that each adapter is asked for, and the adapter; in the order in which they are tried."""
TYPES = ("mm_token_type_ids", "token_type_ids")
MOST_TOGETHER = 32  # ways of giving the needed inputs together that are tried


def possible(facts: Facts) -> list[str]:
    """What can be made of what the model takes, the ids first. Of a model of token ids alone, these."""
    ids = [IDS] if IDS in facts.parameters or IDS in facts.main else []
    return ids + [name for names, _ in ADAPTERS for name in names if name in facts.parameters]


def choose(facts: Facts, class_name: str, runs: Callable[[Takes], Optional[str]], widest: bool = True) -> Takes:
    """What the model is given: its main input and what it needs beside that, then all else that it runs with.

    runs: None where a pass with such inputs ends, else what it raised. widest: false where the fewest are wanted.

    Raises:
        CannotLoad: it needs something that cannot be made here, or runs with none of what can.
    """
    known = possible(facts)
    asked = {names: adapter(facts) for names, adapter in ADAPTERS if facts.parameters.intersection(names)}
    offers = {names: parts for names, parts in asked.items() if parts}
    _refuse_strange(facts, class_name, known, offers)
    if not offers:
        return Takes()
    takes_ids = IDS in known
    types = tuple(name for name in TYPES if name in facts.parameters)
    first = [name for name in known if name in facts.main or name in facts.needed] or known[:1]
    base = [names for names in offers if set(names) & set(first)]
    others = [names for names in offers if names not in base]
    with_ids = IDS in first
    only = offers[base[0]] if len(base) == 1 else []
    if not others and len(only) == 1 and (with_ids or not takes_ids):
        return Takes(with_ids, tuple(only), types)

    refused: list[str] = []

    def tried(takes: Takes) -> bool:
        why = runs(takes)
        if why is not None:
            refused.append(why)
        return why is None

    found = _first_that_runs(offers, base, others, with_ids, takes_ids, types, tried)
    if found is None:
        wanted = ", ".join(known)
        raise CannotLoad(
            f"{class_name} runs with none of the inputs that can be made here ({wanted}); it raised {refused[-1]}."
            " Give exact ones with --inputs FILE."
        )
    if widest:
        if takes_ids and not found.ids and tried(replace(found, ids=True)):
            found = replace(found, ids=True)
        for names in offers:
            if not set(names) & set(found.names):
                more = (replace(found, parts=(*found.parts, part)) for part in offers[names])
                found = next((takes for takes in more if tried(takes)), found)
    given = {*found.names, *([IDS] if found.ids else [])}
    return replace(found, without=tuple(name for name in known if name not in given))


def _first_that_runs(
    offers: Offers,
    base: list[tuple[str, ...]],
    others: list[tuple[str, ...]],
    with_ids: bool,
    takes_ids: bool,
    types: tuple[str, ...],
    tried: Callable[[Takes], bool],
) -> Optional[Takes]:
    """The inputs that are needed, in the first layout that runs; with one more kind of them where these do not
    suffice, then with all.
    """
    sets = [base, *([*base, more] for more in others), *([[*base, *others]] if len(others) > 1 else [])]
    ways = [(with_ids, names) for names in sets]
    if takes_ids and not with_ids:
        ways[1:1] = [(True, base)]
    for ids, names in ways:
        layouts = itertools.product(*(offers[name] for name in names))
        for parts in itertools.islice(layouts, MOST_TOGETHER):
            takes = Takes(ids, parts, types)
            if (ids or parts) and tried(takes):
                return takes
    return None


def _refuse_strange(facts: Facts, class_name: str, known: list[str], offers: Offers) -> None:
    """Raises:
    CannotLoad: the model needs what no adapter makes, or nothing that one makes.
    """
    made = {name for parts in offers.values() for part in parts for name in part.names}
    strange = sorted(facts.needed - made - NOT_DATA - set(known))
    if strange or not known:
        wanted = ", ".join(strange or facts.main or ["nothing that is known here"])
        makes = ", ".join([IDS, *(name for names, _ in ADAPTERS for name in names)])
        raise CannotLoad(
            f"{class_name} takes {wanted}, and only these can be made here: {makes}."
            " Give exact inputs with --inputs FILE."
        )
