"""What the configurations of sibling models do differently, and how that goes with size and verdict."""

import itertools
from collections.abc import Mapping, Sequence

from repro.core.payloads import Plain
from repro.core.records import Outcome
from repro.core.sweep_answers import Setting
from repro.jobs.settings.comparing import compare
from repro.jobs.settings.layers import Job
from repro.jobs.settings.tree import Leaf, Tree, kind_of

NUMBERS = ("whole number", "number")


def differing(
    names: Sequence[str],
    settings: Sequence[Plain],
    sizes: Sequence[int | None],
    verdicts: Sequence[Outcome],
) -> tuple[tuple[Setting, ...], int]:
    """The settings that differ, those first that decide most, and how many are alike.

    Args:
        names: Of the models.
        settings: Of each of them; empty where they are not known, and then the model is left out.
        sizes: Parameters of each.
        verdicts: Of each.
    """
    known = [place for place, own in enumerate(settings) if own]
    if len(known) < 2:
        return (), 0
    compared = compare([Job(names[place], (), _object(settings[place]), (), ()) for place in known])
    found = []
    for one in compared.differences:
        leaves: list[Leaf | None] = [None] * len(names)
        for place, leaf in zip(known, one.values, strict=True):
            leaves[place] = leaf
        found.append(
            Setting(
                path=one.path,
                values=tuple(None if leaf is None else leaf.value for leaf in leaves),
                absent=tuple(leaf is None for leaf in leaves),
                topic=one.topic.name if one.topic else None,
                order=_order(leaves, sizes),
                separates=_separates(leaves, verdicts),
            )
        )
    return tuple(found), compared.same


def _object(data: Mapping[str, object]) -> dict[str, Tree]:
    return {str(key): _tree(value) for key, value in data.items()}


def _tree(value: object) -> Tree:
    if isinstance(value, Mapping):
        return _object(value)
    if isinstance(value, list | tuple):
        return [_tree(item) for item in value]
    return Leaf(value, kind_of(value), "")


def _order(leaves: Sequence[Leaf | None], sizes: Sequence[int | None]) -> str | None:
    """How a number goes with the number of parameters, of which no two may be equal."""
    pairs = [(size, _number(leaf)) for size, leaf in zip(sizes, leaves, strict=True)]
    known = [(size, value) for size, value in pairs if size is not None and value is not None]
    if len(known) < len(pairs) or len({size for size, _ in known}) < len(known) or len(known) < 2:
        return None
    return trend([value for _, value in sorted(known)])


def trend(values: Sequence[float]) -> str:
    """ "rises", "falls" or "not in order": each is at least, or at most, the one before, and the last is another."""
    steps = [after - before for before, after in itertools.pairwise(values)]
    if all(step >= 0 for step in steps) and any(steps):
        return "rises"
    return "falls" if all(step <= 0 for step in steps) and any(steps) else "not in order"


def _number(leaf: Leaf | None) -> float | None:
    return float(str(leaf.value)) if leaf is not None and leaf.kind in NUMBERS else None


def _separates(leaves: Sequence[Leaf | None], verdicts: Sequence[Outcome]) -> bool:
    """Numbers: a limit lies between those of the bad models and those of the good ones. Anything else: one side has a
    single value, which the other side does not have.
    """
    sides = [
        [leaf for leaf, own in zip(leaves, verdicts, strict=True) if own is side]
        for side in (Outcome.BAD, Outcome.GOOD)
    ]
    if not all(sides):
        return False
    bad, good = ([_number(leaf) for leaf in side] for side in sides)
    low, high = [value for value in bad if value is not None], [value for value in good if value is not None]
    if len(low) == len(bad) and len(high) == len(good):
        return max(low) < min(high) or max(high) < min(low)
    one, other = ({(leaf.kind, str(leaf.value)) if leaf else None for leaf in side} for side in sides)
    return not one & other and 1 in (len(one), len(other))
