"""One log from its path to a reading, line by line, in constant memory."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from repro.jobs.content import many
from repro.jobs.logs.assembly import Assembly, Said
from repro.jobs.logs.heads import Front, Fronts, text_of
from repro.jobs.logs.patterns import Pattern, patterns
from repro.jobs.logs.reading import Source
from repro.jobs.logs.records import Failure, Reading, Section, Shape
from repro.jobs.logs.scanning import NONFINITE_WORD, TROUBLE_WORD, Line, Scanner, shape
from repro.jobs.logs.tallies import Tally

FIRST_LINES = 50
MOST_SHAPES = 1000
SHOWN_SHAPES = 20
LOOKED_AT = 2000
"""Characters of a line that patterns are tried on: messages start near the front, and a hostile line must not hold up
the search. An error further on is counted as not understood."""
MOST_SECTIONS = 1000
"""Changes of the model in one log; the failures below further ones count for the last."""
SAMPLES = 5
ABOUT, SOUND = "about", "sound"


def read_log(
    path: Path,
    *,
    name: str | None = None,
    sizes: Iterable[int] = (),
    encoding: str | None = None,
    give: Callable[[Failure], None] | None = None,
    progress: Callable[[int], None] = lambda _: None,
    known: Sequence[Pattern] | None = None,
) -> Reading:
    """Read one log.

    Args:
        path: The log, plain or compressed with gzip, bzip2 or xz.
        name: Its name in records; by default the file's name.
        sizes: Elements per token, by which counts are divided; by default the model's hidden size.
        encoding: Python's name of the encoding; by default it is detected.
        give: Is given each failure as soon as it is complete.
        progress: Is told the bytes read so far.
        known: Patterns, by default the shipped ones.

    Raises:
        UsageError: the file cannot be read.
    """
    source = Source(path, encoding)
    reader = _Reader(name or path.name, sizes, give or (lambda _: None), patterns() if known is None else known)
    reader.read(_told(source, progress))
    return reader.reading(source)


class _Reader:
    """The state of one reading."""

    def __init__(
        self, log: str, sizes: Iterable[int], give: Callable[[Failure], None], known: Sequence[Pattern]
    ) -> None:
        self._log = log
        self._sizes = tuple(sizes)
        self._give = give
        self._known = tuple(pattern for pattern in known if pattern.role != SOUND)
        self._ordinary = tuple(pattern for pattern in known if pattern.role == SOUND)
        self._hints = tuple(dict.fromkeys(hint for pattern in self._known for hint in pattern.hints))
        self._hinted: dict[tuple[str, ...], tuple[Pattern, ...]] = {}
        self._scanner = Scanner(self._hints, self._sample)
        self._fronts = Fronts(())
        self._tally = self._new_tally()
        self._sections: list[Section] = []
        self._assembly = Assembly(log, lambda failure: self._tally.add(failure))
        self._understood = 0
        self._unclear: Counter[str] = Counter()
        self._unclear_first: dict[str, tuple[int, str]] = {}
        self._unclear_nonfinite = 0
        self._not_utf8 = self._changes_left = 0
        self._sound_samples = 0
        self._other_samples: list[str] = []

    def read(self, blocks: Iterator[bytes]) -> None:
        first = next(blocks, b"")
        self._fronts = Fronts([text_of(line)[0] for line in first[: 1 << 16].splitlines()[:FIRST_LINES]])
        for line in self._scanner.read(_again(first, blocks)):
            self._line(line)
            self._scanner.every = self._assembly.in_text
        self._assembly.finish()
        self._sections.append(self._tally.section())

    def reading(self, source: Source) -> Reading:
        unclear, notes = sum(self._unclear.values()), list(source.notes)
        if self._not_utf8:
            notes.append(f"{many(self._not_utf8, 'line')} not in {source.encoding}, read as Windows-1252")
        if self._changes_left:
            notes.append(f"the model changes more than {MOST_SECTIONS:,} times: what follows counts for the last one")
        shown = self._unclear.most_common(SHOWN_SHAPES)
        shapes = [Shape(times, *self._unclear_first[key]) for key, times in shown if key in self._unclear_first]
        others = self._scanner.lines - self._understood - unclear
        return Reading(
            log=self._log,
            sections=tuple(self._sections),
            lines=self._scanner.lines,
            bytes=source.size,
            understood=self._understood,
            unclear=unclear,
            unclear_nonfinite=self._unclear_nonfinite,
            others=others,
            unclear_shapes=tuple(shapes),
            shapes_left_out=len(self._unclear) - len(shapes),
            sound_samples=self._sound_samples,
            other_samples=tuple(self._other_samples) if others else (),
            encoding=source.encoding or "",
            compression=source.compression,
            notes=tuple(notes),
        )

    def _sample(self, data: bytes) -> None:
        """Keep a line that contains none of the words, and count it if it is an ordinary line of a healthy loop."""
        text, _ = text_of(data)
        self._sound_samples += any(pattern.regex.search(text) for pattern in self._ordinary)
        if len(self._other_samples) < SAMPLES:
            self._other_samples.append(text)

    def _line(self, line: Line) -> None:
        text, whole = text_of(line.data)
        self._not_utf8 += not whole
        front = self._fronts.read(text)
        said = self._said(line.number, front, text) if line.met else None
        exact = said is not None and not said.pattern.last and said.pattern.role != ABOUT
        if not exact and self._assembly.continues(line.number, front):  # words of a prompt, whatever they speak of
            self._understood += 1
        elif said is not None:
            self._understood += 1
            self._take(said)
        elif line.met:
            self._trouble(line, text)

    def _said(self, number: int, front: Front, text: str) -> Said | None:
        """What the first matching pattern extracts from a line; of patterns about the job, what all of them extract."""
        looked_at = text[:LOOKED_AT]
        lowered = looked_at.lower()
        first: Pattern | None = None
        fields: dict[str, str] = {}
        for pattern in self._with(tuple([hint for hint in self._hints if hint in lowered])):
            if first is not None and pattern.role != ABOUT:
                continue
            match = pattern.regex.search(looked_at)
            if match is None:
                continue
            first = first or pattern
            fields = {**{name: value for name, value in match.groupdict().items() if value is not None}, **fields}
            if first.role != ABOUT:
                break
        if first is not None and first.role == "text" and len(text) > LOOKED_AT:
            fields["text"] += text[LOOKED_AT:]
        return None if first is None else Said(number, front, first, fields)

    def _with(self, hints: tuple[str, ...]) -> tuple[Pattern, ...]:
        """The patterns with any of the hints; the same few combinations occur again and again."""
        if hints not in self._hinted:
            present = set(hints)
            self._hinted[hints] = tuple(pattern for pattern in self._known if present.intersection(pattern.hints))
        return self._hinted[hints]

    def _take(self, said: Said) -> None:
        role = said.pattern.role
        if role in (ABOUT, "crash", "harmless"):
            self._assembly.interrupt(said.front.rank)
        if role == ABOUT:
            self._about(said)
        elif role == "crash":
            self._tally.ended = self._tally.ended or Failure(
                self._log, said.line, "end", said.pattern.id, said.front.rest.strip()[:300], time=said.front.time
            )
        elif role != "harmless":
            self._assembly.add(said)

    def _about(self, said: Said) -> None:
        """Take what a job says about itself. From where it names another model, a new section begins."""
        model, before = said.fields.get("model"), self._tally.model
        changes = model is not None and before is not None and model.rpartition("/")[2] != before.rpartition("/")[2]
        if changes and len(self._sections) >= MOST_SECTIONS:
            self._changes_left += 1
            return
        if changes:
            self._assembly.finish()
            self._sections.append(self._tally.section())
            self._tally = self._new_tally()
        self._tally.about(said.fields)

    def _new_tally(self) -> Tally:
        return Tally(self._log, self._sizes, self._give)

    def _trouble(self, line: Line, text: str) -> None:
        """Count a line that mentions an error that no pattern knows."""
        if not TROUBLE_WORD.search(text):
            return
        self._unclear_nonfinite += NONFINITE_WORD.search(text) is not None
        key = shape(text)
        if key not in self._unclear and len(self._unclear) >= MOST_SHAPES:
            key = ""
        self._unclear[key] += 1
        self._unclear_first.setdefault(key, (line.number, text.strip()[:300]))


def _told(source: Source, progress: Callable[[int], None]) -> Iterator[bytes]:
    for block in source.blocks():
        progress(source.size)
        yield block


def _again(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others
