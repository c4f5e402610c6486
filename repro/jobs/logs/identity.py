"""Which failures are the same prompt: by index, else by whole text, else by the only prompt that begins so.

Logs truncate prompts, so two prompts may look the same; an index tells them apart. An index is believed only while no
two different texts have it: some jobs count anew in each batch, or in each rank.
"""

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from repro.jobs.logs.records import Failure, Prompt
from repro.jobs.overlap.compare import normalised

SHORTENED = ("...", "…")
"""How programs end a text that they truncate."""


@dataclass(slots=True)
class Kept:
    """Failures that agree in rank, index and text."""

    first: Failure
    times: int = 0
    rows: set[int] = field(default_factory=set)

    def join(self, other: "Kept") -> None:
        """Take the failures of another one, which is the same prompt."""
        if (other.first.text or "") and (self.first.text is None or (self.first.text_cut and not other.first.text_cut)):
            self.first = other.first
        self.times += other.times
        self.rows |= other.rows

    def prompt(self) -> Prompt:
        """It as a record."""
        return Prompt(self.first.text, self.first, self.times, tuple(sorted(self.rows)))


def key_of(failure: Failure) -> tuple[Hashable, ...]:
    """What is told apart while a log is read."""
    text = None if failure.text is None else normalised(failure.text)
    return failure.rank, failure.index, text, failure.text_cut


def told_apart(found: Iterable[Kept], told: int | None = None) -> tuple[tuple[Prompt, ...], int]:
    """The prompts, and how many failures with a truncated text and no index may be further ones.

    ``told`` is the log's own number of them: where each of these failures has to be a prompt of its own to make it,
    each is.
    """
    kept = list(found)
    scope = _scope(kept)
    prompts: dict[Hashable, Kept] = {}
    left: list[Kept] = []
    for one in kept:
        index = one.first.index
        if index is not None and (scope or one.first.text is None):
            rank = one.first.rank if scope != "index" or one.first.text is None else None
            _put(prompts, ("index", rank, index), one)
        else:
            left.append(one)
    alike = 0
    indexed = list(prompts.values())
    by_text = {stem(one.first): one for one in reversed(indexed) if not one.first.text_cut and one.first.text}
    starts = sorted((stem(one.first), place) for place, one in enumerate(indexed) if one.first.text)
    for one in left:
        text = stem(one.first)
        if not one.first.text_cut:
            _put(prompts, None if text in by_text else ("text", text), one, by_text.get(text))
            continue
        fitting = _fitting(text, starts)
        if len(fitting) > 1:
            alike += one.times
        elif fitting:
            indexed[fitting[0]].join(one)
        else:
            alike += one.times - 1
            _put(prompts, ("cut", text), one)
    made = [one.prompt() for one in prompts.values()]
    again = sum(one.times - 1 for key, one in prompts.items() if isinstance(key, tuple) and key[0] == "cut")
    if again and again == alike and told == len(made) + alike:
        apart: list[Prompt] = []
        for key, one in prompts.items():
            several = isinstance(key, tuple) and key[0] == "cut"
            apart += [replace(one.prompt(), times=1)] * one.times if several else [one.prompt()]
        made = apart
    return tuple(made), alike


def stem(failure: Failure) -> str:
    """The text as far as the log has it, without what says that it goes on."""
    text = normalised(failure.text or "")
    return text.removesuffix("...").removesuffix("…").rstrip() if failure.text_cut else text


def _put(prompts: dict[Hashable, Kept], key: Hashable, one: Kept, other: Kept | None = None) -> None:
    other = other or prompts.get(key)
    if other is None:
        prompts[key] = one
    else:
        other.join(one)


def _scope(kept: Sequence[Kept]) -> str | None:
    """Whether an index stands for one prompt in the whole log, or in one rank only; None where not even there."""
    for scope in ("index", "rank"):
        seen: dict[Hashable, list[Failure]] = {}
        for one in kept:
            if one.first.index is not None and one.first.text is not None:
                rank = one.first.rank if scope == "rank" else None
                seen.setdefault((rank, one.first.index), []).append(one.first)
        if all(agree(first, other) for first, *others in seen.values() for other in others):
            return scope
    return None


def agree(one: Failure, other: Failure) -> bool:
    """Whether two texts may be of one prompt: the same, or one is how the other begins and goes on."""
    first, second = stem(one), stem(other)
    return (
        first == second
        or (one.text_cut and second.startswith(first))
        or (other.text_cut and first.startswith(second))
    )  # fmt: skip


def _fitting(start: str, starts: Sequence[tuple[str, int]]) -> list[int]:
    """The places of texts that begin so, two at most: more are not needed to know that it is not one."""
    at = bisect_left(starts, (start, -1))
    return [place for text, place in starts[at : at + 2] if text.startswith(start)]
