"""Failing examples that fail alike, and the few that stand for them.

Alike are those that go bad first in the same module, at the same kind of token, for the same cause, with the same kinds
of bad values. Of each such group a few are kept, of different tokens where there are several.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from .answers import KINDS

FEW = 3  # examples of a group that stand for it
TOKENS = 6  # of a group with several first tokens: as many examples, each with another token where that is possible
GROUPS = 32  # groups of which examples are kept; the first ones
Key = tuple[Any, ...]


def name_of(index: int, side: Optional[str]) -> int:
    """An example's own number: small, for there may be many."""
    return 2 * index + (side == "negative")


def place_of(record: dict[str, Any]) -> Key:
    """What the host tells groups apart by as well: module, kind of token, cause."""
    return record["module"] or record["layer"], record["token_kind"], record["cause"]


@dataclass
class Group:
    """``examples`` fail alike; ``kept`` are records of some of them, at most FEW of a token."""

    examples: int = 0
    kept: list[dict[str, Any]] = field(default_factory=list)

    def take(self, record: dict[str, Any]) -> None:
        self.examples += 1
        same = sum(record["token_id"] == other["token_id"] for other in self.kept)
        tokens = {other["token_id"] for other in self.kept}
        if same < FEW and (same or len(tokens) < TOKENS):
            self.kept.append(record)

    def few(self) -> list[dict[str, Any]]:
        """Those that stand for the group: first one of each token."""
        met: list[Any] = []
        ranked = []
        for record in self.kept:
            ranked.append((met.count(record["token_id"]), len(met), record))
            met.append(record["token_id"])
        most = FEW if len(set(met)) == 1 else TOKENS
        return [record for *_, record in sorted(ranked, key=lambda item: item[:2])][:most]


class Failing:
    """The failing examples of a run. ``own`` and ``others``: their numbers, those that fail alone too and those that
    need their batch.
    """

    def __init__(self) -> None:
        self.groups: dict[Key, Group] = {}
        self.own: set[int] = set()
        self.others: set[int] = set()
        self._layers: list[Optional[int]] = []

    def __len__(self) -> int:
        return len(self.own) + len(self.others)

    def take(self, record: dict[str, Any]) -> None:
        name = name_of(record["index"], record["side"])
        if name in self.own or name in self.others:
            return
        (self.own if record["cause"] == "own" else self.others).add(name)
        index = record["layer_index"]
        if index is None or None in self._layers:
            self._layers = [None]
        else:
            self._layers = [min([index, *(at for at in self._layers if at is not None)])]
        key = (*place_of(record), *(bool(record[kind]) for kind in KINDS))
        if key in self.groups or len(self.groups) < GROUPS:
            self.groups.setdefault(key, Group()).take(record)

    @property
    def first_layer(self) -> Optional[int]:
        """The first layer in which any goes bad; None where one goes bad elsewhere."""
        return self._layers[0] if self._layers else None

    def ranked(self) -> list[Group]:
        """The groups, the largest first."""
        return sorted(self.groups.values(), key=lambda group: -group.examples)

    def representatives(self) -> list[dict[str, Any]]:
        return [record for group in self.ranked() for record in group.few()]


def names_of(records: Iterable[dict[str, Any]]) -> set[int]:
    return {name_of(record["index"], record["side"]) for record in records}


def batches_of(records: Sequence[dict[str, Any]]) -> set[int]:
    """The numbers of the batches of those that need their batch to fail."""
    return {record["batch"] for record in records if record["cause"] != "own"}
