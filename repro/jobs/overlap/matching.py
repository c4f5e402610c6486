"""Which members of several sets are the same prompt: by index, else by whole text, else by the only one that fits.

Logs truncate prompts. A truncated text stands for the prompt that begins so, if there is only one; where there are
several, whether two sets share it is not known, and is never taken for a no.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

Node = tuple[str, int]
"""A member: the name of its set, and its place in it."""
POPULATION = ""
"""The name under which the population takes part."""


@dataclass(frozen=True, slots=True)
class Member:
    """A prompt in a set: its ``normalised`` text, without the dots of one that is ``cut``, and its index if known."""

    text: str
    cut: bool = False
    index: int | None = None

    @property
    def shown(self) -> str:
        """The text, with an ellipsis where it goes on."""
        return f"{self.text}…" if self.cut else self.text

    def agrees(self, other: "Member") -> bool:
        """Whether both may be one prompt by their texts."""
        begins = (self.cut and other.text.startswith(self.text)) or (other.cut and self.text.startswith(other.text))
        return self.text == other.text or begins


@dataclass(frozen=True, slots=True)
class Matched:
    """``texts`` has the same text for the same prompt in all sets, in the order of the members.
    ``unclear[first, second]`` are those of ``first`` of which it is not known whether they are in ``second``, each with
    how many prompts there fit. ``completed`` counts the truncated texts of each set that were put in full.
    ``population``: its texts, of which one that begins like a truncated text, and is no other's, is replaced by that
    one: which of several it is is not known, and that it is one of them is.
    """

    texts: Mapping[str, tuple[str, ...]]
    unclear: Mapping[tuple[str, str], Mapping[str, int]]
    completed: Mapping[str, int]
    population: frozenset[str] = frozenset()

    @property
    def sets(self) -> dict[str, frozenset[str]]:
        """The texts of each set."""
        return {name: frozenset(texts) for name, texts in self.texts.items()}


def match(sets: Mapping[str, Sequence[Member]], population: Set[str] = frozenset()) -> Matched:
    """Match the members of sets; no two of one set are taken for the same prompt."""
    work = _Matching({**sets, POPULATION: [Member(text) for text in sorted(population)]})
    return work.done(tuple(sets))


class _Matching:
    """The state of one matching: which members are known to be one prompt."""

    def __init__(self, sets: Mapping[str, Sequence[Member]]) -> None:
        self._sets = sets
        self._root: dict[Node, Node] = {}
        self._owners: dict[Node, set[str]] = {}
        for name, members in sets.items():
            for place in range(len(members)):
                self._root[name, place], self._owners[name, place] = (name, place), {name}
        self._whole = sorted({one.text for members in sets.values() for one in members if not one.cut})
        self._unclear: dict[tuple[str, str], dict[Node, int]] = defaultdict(dict)
        names = [*sets]
        pairs = [(one, other) for place, one in enumerate(names) for other in names[place + 1 :]]
        pairs.sort(key=lambda pair: POPULATION not in pair)  # the population first: it has whole texts
        indexed = {pair: self._by_index(*pair) for pair in pairs}
        for same in (True, False):
            for pair in pairs:
                if same:
                    self._by_text(*pair, indexed=indexed[pair])
                else:
                    self._by_number(*pair)
                    self._by_start(*pair, indexed=indexed[pair])

    def done(self, names: Sequence[str]) -> Matched:
        shown = self._shown()
        unclear = {
            pair: {shown[self._find(node)]: count for node, count in found.items()}
            for pair, found in self._unclear.items()
            if POPULATION not in pair and found
        }
        completed = {
            name: sum(
                one.cut and not self._member(self._find((name, place))).cut
                for place, one in enumerate(self._sets[name])
            )
            for name in names
        }
        texts = {
            name: tuple(shown[self._find((name, place))] for place in range(len(self._sets[name]))) for name in names
        }
        return Matched(texts, unclear, completed, self._population(shown))

    def _population(self, shown: Mapping[Node, str]) -> frozenset[str]:
        known = [(POPULATION, place) for place in range(len(self._sets[POPULATION]))]
        free = [node for node in known if len(self._owners[self._find(node)]) == 1]
        found = {shown[self._find(node)] for node in known}
        left = {self._find(node) for node in self._root if node[0] != POPULATION}
        for root in sorted(left):
            member = self._member(root)
            if POPULATION in self._owners[root] or not member.cut:
                continue
            stand_in = next((node for node in free if self._member(node).text.startswith(member.text)), None)
            if stand_in is not None:
                free.remove(stand_in)
                found.discard(shown[self._find(stand_in)])
                found.add(shown[root])
        return frozenset(found)

    def _shown(self) -> dict[Node, str]:
        """A text for each prompt, no two the same."""
        shown: dict[Node, str] = {}
        taken: Counter[str] = Counter()
        for node in self._root:
            root = self._find(node)
            if root not in shown:
                member = self._member(root)
                text = member.shown
                taken[text] += 1
                if taken[text] > 1:
                    text += f" (index {member.index})" if member.index is not None else f" (another one, {taken[text]})"
                shown[root] = text
        return shown

    def _member(self, node: Node) -> Member:
        return self._sets[node[0]][node[1]]

    def _find(self, node: Node) -> Node:
        while self._root[node] != node:
            node = self._root[node] = self._root[self._root[node]]
        return node

    def _join(self, one: Node, other: Node) -> bool:
        """Take two for the same prompt; not if a set would then have it twice."""
        one, other = self._find(one), self._find(other)
        if one == other:
            return True
        if self._owners[one] & self._owners[other]:
            return False
        mine, theirs = self._member(one), self._member(other)
        if mine.cut and (not theirs.cut or len(theirs.text) > len(mine.text)):
            one, other = other, one  # the fuller text stands for both
        self._root[other] = one
        self._owners[one] |= self._owners.pop(other)
        return True

    def _by_index(self, first: str, second: str) -> bool:
        """Whether both sets count the same: they share an index, and no shared one has two different texts."""
        places = [
            {one.index: place for place, one in enumerate(self._sets[name]) if one.index is not None}
            for name in (first, second)
        ]
        for name, found in zip((first, second), places, strict=True):
            if len(found) < sum(one.index is not None for one in self._sets[name]):
                return False  # it counts anew in each batch
        both = places[0].keys() & places[1].keys()
        agreed = [
            self._sets[first][places[0][index]].agrees(self._sets[second][places[1][index]]) for index in sorted(both)
        ]
        if not both or not all(agreed):
            return False
        for index in sorted(both):
            self._join((first, places[0][index]), (second, places[1][index]))
        return True

    def _open(self, first: str, second: str) -> Iterator[Node]:
        """The members of the first set that are not in the second yet."""
        for place in range(len(self._sets[first])):
            if second not in self._owners[self._find((first, place))]:
                yield first, place

    def _by_text(self, first: str, second: str, *, indexed: bool) -> None:
        """Whole texts that are the same; truncated ones only where each set has one such."""
        left: dict[tuple[str, bool], list[Node]] = defaultdict(list)
        right: dict[tuple[str, bool], list[Node]] = defaultdict(list)
        for side, found in ((left, self._open(first, second)), (right, self._open(second, first))):
            for node in found:
                member = self._member(node)
                side[member.text, member.cut].append(node)
        for (text, cut), nodes in left.items():
            others = right.get((text, cut), [])
            if cut and (len(nodes) != 1 or len(others) != 1 or len(self._beginning(text)) > 1):
                continue
            for one, other in zip(nodes, others, strict=False):
                if not (cut and indexed and self._both_indexed(one, other)):
                    self._join(one, other)

    def _by_number(self, first: str, second: str) -> None:
        """As many truncated texts that look the same as the population has prompts that begin so are all of these."""
        if POPULATION not in (first, second):
            return
        name = first if second == POPULATION else second
        alike: dict[str, list[Node]] = defaultdict(list)
        for node in self._open(name, POPULATION):
            if self._member(node).cut:
                alike[self._member(node).text].append(node)
        for text, those in alike.items():
            fitting = [node for node in self._open(POPULATION, name) if self._member(node).text.startswith(text)]
            others = any(other != text and (other.startswith(text) or text.startswith(other)) for other in alike)
            if len(those) == len(fitting) > 1 and not others:
                for one, other in zip(those, fitting, strict=True):
                    self._join(one, other)

    def _by_start(self, first: str, second: str, *, indexed: bool) -> None:
        """Truncated texts, each with the only one that begins so; all others are not known."""
        edges: dict[Node, set[Node]] = defaultdict(set)
        for name, against in ((first, second), (second, first)):
            nodes = sorted((self._member(node).text, node) for node in self._open(against, name))
            for node in self._open(name, against):
                member = self._member(node)
                if not member.cut:
                    continue
                at = bisect_left(nodes, (member.text,))
                while at < len(nodes) and nodes[at][0].startswith(member.text):
                    if not (indexed and self._both_indexed(node, nodes[at][1])):
                        edges[node].add(nodes[at][1])
                        edges[nodes[at][1]].add(node)
                    at += 1
        joined: set[Node] = set()
        for node, others in edges.items():
            if node[0] == first and len(others) == 1:
                (other,) = others
                single = all(
                    not self._member(one).cut or len(self._beginning(self._member(one).text)) < 2
                    for one in (node, other)
                )
                if single and len(edges[other]) == 1 and self._join(node, other):
                    joined |= {node, other}
        for node, others in edges.items():
            if node not in joined:
                pair = (first, second) if node[0] == first else (second, first)
                known = len(self._beginning(self._member(node).text)) if self._member(node).cut else 0
                self._unclear[pair][node] = max(len(others), known)

    def _both_indexed(self, one: Node, other: Node) -> bool:
        return self._member(one).index is not None and self._member(other).index is not None

    def _beginning(self, text: str) -> Sequence[str]:
        """The known whole texts that begin so."""
        at = bisect_left(self._whole, text)
        end = at
        while end < len(self._whole) and self._whole[end].startswith(text):
            end += 1
        return self._whole[at:end]
