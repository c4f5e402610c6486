"""Which members of several sets are the same prompt: by index, else by whole text, else by the only one that fits.

Logs truncate prompts. A truncated text stands for the prompt of the population that begins so, if there is only one.
Where there are several, or where the population is not known and another prompt may begin so too, whether two sets
share it is not known, and is never taken for a yes or a no.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Node = tuple[str, int]
"""A member: the name of its set, and its place in it."""
POPULATION = ""
"""The name under which the population takes part."""
Population = Mapping[str, Sequence[int]]
"""Its texts, each with its places, counted from 0."""
NOTHING_KNOWN: Population = {}


@dataclass(frozen=True, slots=True)
class Member:
    """A prompt in a set: its ``normalised`` text, without the dots of one that is ``cut``, and its index if known. One
    that is known by its index alone is an empty text that is cut.
    """

    text: str
    cut: bool = False
    index: int | None = None
    dots: bool = False

    @property
    def shown(self) -> str:
        """The text, with an ellipsis where it goes on; the index of one without a text."""
        if not self.text and self.index is not None:
            return f"(index {self.index})"
        return f"{self.text}…" if self.cut else self.text

    def agrees(self, other: "Member") -> bool:
        """Whether both may be one prompt by their texts."""
        begins = (self.cut and other.text.startswith(self.text)) or (other.cut and self.text.startswith(other.text))
        return self.text == other.text or begins


@dataclass(frozen=True, slots=True)
class Matched:
    """``texts`` has the same text for the same prompt in all sets, in the order of the members.
    ``unclear[first, second]`` are those of ``first`` of which it is not known whether they are in ``second``, each with
    how many prompts there fit. ``completed`` counts the truncated texts of each set that were put in full, and
    ``by_index`` those of them that the index alone tells. ``assumed`` says what was taken for granted.
    ``population``: its texts, of which one that begins like a truncated text, and is no other's, is replaced by that
    one: which of several it is is not known, and that it is one of them is.
    """

    texts: Mapping[str, tuple[str, ...]]
    unclear: Mapping[tuple[str, str], Mapping[str, int]]
    completed: Mapping[str, int]
    by_index: Mapping[str, int]
    assumed: tuple[str, ...] = ()
    population: frozenset[str] = frozenset()

    @property
    def sets(self) -> dict[str, frozenset[str]]:
        """The texts of each set."""
        return {name: frozenset(texts) for name, texts in self.texts.items()}


def match(
    sets: Mapping[str, Sequence[Member]], population: Population = NOTHING_KNOWN, further: Iterable[str] = ()
) -> Matched:
    """Match the members of sets; no two of one set are taken for the same prompt.

    Args:
        sets: The members of each.
        population: All prompts that were run.
        further: Prompts that are known too; a truncated text may stand for one of them.
    """
    work = _Matching(sets, population, further)
    return work.done(tuple(sets))


class _Matching:
    """The state of one matching: which members are known to be one prompt."""

    def __init__(self, given: Mapping[str, Sequence[Member]], population: Population, further: Iterable[str]) -> None:
        self._sets = sets = {**given, POPULATION: [Member(text) for text in sorted(population)]}
        self._by_place: dict[int, list[Node]] = defaultdict(list)
        for place, one in enumerate(sets[POPULATION]):
            for index in population[one.text]:
                self._by_place[index].append((POPULATION, place))
        self._ordered = dict.fromkeys(given, 0)
        self._assumed: list[str] = []
        self._root: dict[Node, Node] = {}
        self._owners: dict[Node, set[str]] = {}
        for name, members in sets.items():
            for place in range(len(members)):
                self._root[name, place], self._owners[name, place] = (name, place), {name}
        self._whole = sorted({*further, *(one.text for members in sets.values() for one in members if not one.cut)})
        self._unclear: dict[tuple[str, str], dict[Node, int]] = defaultdict(dict)
        names = [*sets]
        pairs = [(one, other) for place, one in enumerate(names) for other in names[place + 1 :]]
        pairs.sort(key=lambda pair: POPULATION not in pair)  # the population first: it has whole texts
        for name in given:
            self._by_order(name)
        indexed = {pair: self._by_index(*pair) for pair in pairs}
        for same in (True, False):
            for pair in pairs:
                if same:
                    self._by_text(*pair)
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
        return Matched(texts, unclear, completed, self._ordered, tuple(self._assumed), self._population(shown))

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
        """A text for each prompt, no two the same: one that several have is followed by the index, if that is known."""
        roots = dict.fromkeys(self._find(node) for node in self._root)
        alike = Counter(self._member(root).shown for root in roots)
        shown: dict[Node, str] = {}
        taken: Counter[str] = Counter()
        for root in roots:
            member = self._member(root)
            text = member.shown
            if alike[text] > 1 and member.text and member.index is not None:
                text += f" (index {member.index})"
            taken[text] += 1
            shown[root] = text if taken[text] == 1 else f"{text} (another one, {taken[text]})"
        return {node: shown[self._find(node)] for node in self._root}

    def _member(self, node: Node) -> Member:
        return self._sets[node[0]][node[1]]

    def _known(self, node: Node) -> Member:
        """It with the fullest text of those that are the same prompt."""
        return self._member(self._find(node))

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

    def _by_order(self, name: str) -> None:
        """Each member with the population's prompt of its index, if no member's text speaks against that."""
        indexed = [
            ((name, place), one, one.index) for place, one in enumerate(self._sets[name]) if one.index is not None
        ]
        if not indexed or not self._by_place:
            return
        fitting: dict[int, list[tuple[Node, Node]]] = {}
        for start in (0, 1):
            pairs = [
                (node, other)
                for node, one, index in indexed
                for other in self._by_place.get(index - start, ())
                if one.agrees(self._member(other))
            ]
            # Fewer: a text speaks against it. The same one twice: it counts anew in each batch.
            if len({node for node, _ in pairs}) == len({other for _, other in pairs}) == len(pairs) == len(indexed):
                fitting[start] = pairs
        if not fitting:
            return
        first, pairs = next(iter(fitting.items()))
        if not any(one.text for _, one, _ in indexed):
            self._assumed.append(f"{name} counts the population from {first}; it has no text that would confirm it")
        elif len(fitting) > 1:
            self._assumed.append(f"{name} counts the population from {first}; its texts fit a count from 1 as well")
        for node, other in pairs:
            several = self._member(node).cut and len(self._beginning(self._member(node).text)) > 1
            self._ordered[name] += self._join(node, other) and several

    def _by_index(self, first: str, second: str) -> bool:
        """Whether both sets count the same: they share an index, and no shared one has two different texts."""
        places = [
            {one.index: place for place, one in enumerate(self._sets[name]) if one.index is not None}
            for name in (first, second)
        ]
        for name, found in zip((first, second), places, strict=True):
            if len(found) < sum(one.index is not None for one in self._sets[name]):
                return False  # it counts anew in each batch
        both = sorted(places[0].keys() & places[1].keys())
        pairs = [(self._sets[first][places[0][index]], self._sets[second][places[1][index]]) for index in both]
        if not both or not all(one.agrees(other) for one, other in pairs):
            return False
        if not any(one.text and other.text for one, other in pairs):
            self._assumed.append(f"an index is the same prompt in {first} and {second}; no text there confirms it")
        for index in both:
            self._join((first, places[0][index]), (second, places[1][index]))
        return True

    def _open(self, first: str, second: str) -> Iterator[Node]:
        """The members of the first set that are not in the second yet."""
        for place in range(len(self._sets[first])):
            if second not in self._owners[self._find((first, place))]:
                yield first, place

    def _by_text(self, first: str, second: str) -> None:
        """Whole texts that are the same, with dots at their ends too where no known text begins so."""
        others = {
            (member.text, member.cut): node
            for node in self._open(second, first)
            if not (member := self._member(node)).cut or member.dots
        }
        for node in list(self._open(first, second)):
            member = self._member(node)
            same = others.get((member.text, member.cut))
            if same is not None and (not member.cut or (member.dots and len(self._beginning(member.text)) < 2)):
                self._join(node, same)

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
        """Truncated texts, each with the only one of the population that begins so; all others are not known."""
        edges: dict[Node, set[Node]] = defaultdict(set)
        for name, against in ((first, second), (second, first)):
            nodes = sorted((self._known(node).text, node) for node in self._open(against, name))
            for node in self._open(name, against):
                member = self._known(node)
                if not member.cut or not member.text:
                    continue
                at = bisect_left(nodes, (member.text,))
                while at < len(nodes) and nodes[at][0].startswith(member.text):
                    if not (indexed and self._both_indexed(node, nodes[at][1])):
                        edges[node].add(nodes[at][1])
                        edges[nodes[at][1]].add(node)
                    at += 1
        joined: set[Node] = set()
        for node, others in edges.items():
            if POPULATION in (first, second) and node[0] == first and len(others) == 1:
                (other,) = others
                single = all(
                    not self._known(one).cut or len(self._beginning(self._known(one).text)) < 2 for one in (node, other)
                )
                if single and len(edges[other]) == 1 and self._join(node, other):
                    joined |= {node, other}
        for node, others in edges.items():
            if node not in joined:
                pair = (first, second) if node[0] == first else (second, first)
                known = len(self._beginning(self._known(node).text)) if self._known(node).cut else 0
                self._unclear[pair][node] = max(len(others), known)
        self._by_no_text(first, second, indexed=indexed)
        self._by_no_text(second, first, indexed=indexed)

    def _by_no_text(self, first: str, second: str, *, indexed: bool) -> None:
        """A failure of which only the index is known may be any prompt of the other set."""
        nameless = [node for node in self._open(first, second) if not self._known(node).text]
        others = [node for node in self._open(second, first) if not (indexed and self._member(node).index is not None)]
        for pair, nodes, fitting in (((first, second), nameless, others), ((second, first), others, nameless)):
            for node in nodes if fitting else ():
                self._unclear[pair][node] = max(self._unclear[pair].get(node, 0), len(fitting))

    def _both_indexed(self, one: Node, other: Node) -> bool:
        return self._member(one).index is not None and self._member(other).index is not None

    def _beginning(self, text: str) -> Sequence[str]:
        """The known whole texts that begin so."""
        at = bisect_left(self._whole, text)
        end = at
        while end < len(self._whole) and self._whole[end].startswith(text):
            end += 1
        return self._whole[at:end]
