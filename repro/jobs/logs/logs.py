"""One log from its path to a reading, line by line, in constant memory."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from repro.jobs.content import many
from repro.jobs.logs.assembly import Assembly, Said
from repro.jobs.logs.heads import Front, Fronts, text_of
from repro.jobs.logs.loops.columns import Columns
from repro.jobs.logs.loops.losses import Losses
from repro.jobs.logs.loops.names import LOOKED_AT, given, kind_of, names_on, window, without_harmless
from repro.jobs.logs.patterns import Pattern, patterns
from repro.jobs.logs.reading import Source
from repro.jobs.logs.records import Failure, Reading, Section, Shape
from repro.jobs.logs.scanning import ERROR_WORD, NONFINITE_WORD, TROUBLE_WORD, Line, Scanner, shape
from repro.jobs.logs.tallies import Tally

FIRST_LINES = 50
MOST_SHAPES = 1000
SHOWN_SHAPES = 20
MOST_MEMBERS = 60
"""Lines of a JSON object that are searched for the step of one of its members."""
MOST_ABOVE = 200
"""Lines above a bad value that are searched for the epoch that they are headed by."""
MEMBER = re.compile(r'\s*"[^"]+"\s*:\s*[^{}\[\]]*$')
EPOCH_HEAD = re.compile(r"\s*Epoch (?P<epoch>\d+)/\d+\s*$")
MOST_SECTIONS = 1000
"""Changes of the model in one log; the failures below further ones count for the last."""
SAMPLES = 5
ABOUT, SOUND, HARMLESS, QUANTITY, PLACE = "about", "sound", "harmless", "quantity", "place"
EXACT = frozenset({"example", "text", "skipped"})
"""Roles of lines that belong to one failed example."""
APART = frozenset({HARMLESS, QUANTITY, PLACE, SOUND})
"""Roles that do not compete for a line."""


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
        self._ordinary = tuple(pattern for pattern in known if pattern.role == SOUND)
        self._places = tuple(pattern for pattern in known if pattern.role == PLACE)
        self._known = tuple(pattern for pattern in known if pattern.role not in (SOUND, PLACE))
        self._hints = tuple(dict.fromkeys(hint for pattern in self._known for hint in pattern.hints))
        self._hinted: dict[tuple[str, ...], tuple[Pattern, ...]] = {}
        self._at_ends = tuple(pattern for pattern in self._known if pattern.ends)
        sought = (hint for pattern in self._known if not pattern.ends for hint in pattern.hints)
        self._scanner = Scanner(sought, self._sample)
        self._columns = Columns()
        self._losses = Losses()
        self._tells = 0
        self._unclear_errors = 0
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
        lines = [text_of(line)[0] for line in first[: 1 << 16].splitlines()[:FIRST_LINES]]
        self._fronts = Fronts(lines)
        self._columns.first_line(next(filter(str.strip, lines), ""))
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
            tells=self._tells,
            unclear_errors=self._unclear_errors,
            unread=source.unread,
            suspicion=self._losses.suspicion(),
        )

    def _sample(self, number: int, data: bytes) -> None:
        """Look at a line that contains none of the words: it may be an ordinary line of a healthy loop."""
        text, _ = text_of(data)
        lowered = text.lower()
        for pattern in self._at_ends:
            if any(hint in lowered for hint in pattern.hints) and pattern.regex.search(text):
                self._line(Line(number, data, met=True))
                return
        found = next(filter(None, (pattern.regex.search(text) for pattern in self._ordinary)), None)
        row = {} if found is not None else self._columns.numbers(text)
        if found is None and not row:
            if len(self._other_samples) < SAMPLES:
                self._other_samples.append(text)
            return
        self._sound_samples += 1
        self._understood += 1
        self._tells += 1
        self._loss(number, found)
        self._tally.scaler.at(_whole(self._place_of(text).get("step")))

    def _loss(self, number: int, found: re.Match[str] | None) -> None:
        value = None if found is None else found.groupdict().get("value")
        if value is not None:
            self._losses.take(number, float(value))

    def _line(self, line: Line) -> None:
        text, whole = text_of(line.data)
        self._not_utf8 += not whole
        front = self._fronts.read(text)
        said = self._said(line, front, text) if line.met else None
        exact = said is not None and not said.pattern.last and said.pattern.role != ABOUT
        if not exact and self._assembly.continues(line.number, front):  # words of a prompt, whatever they speak of
            self._understood += 1
        elif said is not None:
            self._understood += 1
            self._tells += said.pattern.tells
            self._take(said)
            if said.pattern.role not in EXACT:
                self._met_loss(line.number, text)
        elif line.met and not self._row(line, front, text):
            self._trouble(line, text)

    def _met_loss(self, number: int, text: str) -> None:
        """A line with one of the words may have a loss too."""
        for pattern in self._ordinary:
            if found := pattern.regex.search(text[:LOOKED_AT]):
                self._tells += 1
                self._loss(number, found)
                return

    def _row(self, line: Line, front: Front, text: str) -> bool:
        """Take a line as a row of a table that has names above it."""
        if not NONFINITE_WORD.search(text):
            return False
        found = self._columns.bad(text, lambda: (text_of(one)[0] for one in self._scanner.above(line)))
        if found is None:
            return False
        self._understood += 1
        self._assembly.add(Said(line.number, front, self._columns.pattern, found.place, found.bad))
        return True

    def _said(self, line: Line, front: Front, text: str) -> Said | None:
        """What a line says: its first pattern with what it extracts (of patterns about the job, with what all of them
        extract), and the names on it that are NaN or Inf."""
        whole = looked_at = window(text)
        lowered = looked_at.lower()
        fitting = self._with(tuple([hint for hint in self._hints if hint in lowered]))
        harmless, looked_at = without_harmless(looked_at, fitting)
        first, fields = _matched(whole, looked_at, fitting)
        if first is not None and first.role == "text" and len(text) > LOOKED_AT:
            fields["text"] += text[LOOKED_AT:]
        if first is not None and first.role in EXACT:
            return Said(line.number, front, first, fields)
        quantities, found, places = names_on(looked_at, fitting)
        if first is not None:
            quantities = _named(first, fields, quantities)
        if quantities and found is not None and (first is None or first.role in ("crash", "notice", ABOUT)):
            if first is not None and first.role != "notice":
                self._take(Said(line.number, front, first, fields))
            first, fields = found, {}
        if first is None and harmless is not None and not NONFINITE_WORD.search(looked_at):
            first = harmless
        if first is None:
            return None
        if first.role in ("failure", QUANTITY, "notice"):
            fields = {**self._context(line, looked_at, quantities), **places, **fields}
        return Said(line.number, front, first, fields, quantities)

    def _context(self, line: Line, text: str, quantities: Mapping[str, str]) -> dict[str, str]:
        """The step, epoch or batch of a line: its own, or that of the JSON object or the epoch that it stands in."""
        places = self._place_of(text)
        if "step" in places or "epoch" in places or not quantities:
            return places
        if MEMBER.match(text):
            for lines, end in ((self._scanner.above(line), "{"), (self._scanner.below(line), "}")):
                for _, data in zip(range(MOST_MEMBERS), lines, strict=False):
                    member = text_of(data)[0]
                    if end in member:
                        break
                    places = {**self._place_of(member), **places}
        elif not self._tally.knows(quantities):
            for _, data in zip(range(MOST_ABOVE), self._scanner.above(line), strict=False):
                if (head := EPOCH_HEAD.match(text_of(data)[0])) is not None:
                    return {"epoch": head["epoch"], **places}
        return places

    def _place_of(self, text: str) -> dict[str, str]:
        places: dict[str, str] = {}
        for pattern in self._places:
            if (match := pattern.regex.search(text)) is not None:
                places = {**given(match), **places}
        return places

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
        elif role != HARMLESS:
            if role == "notice":
                self._tally.scaler.skipped(said.line, said.fields)
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
        self._tally.about(said.fields, bad=NONFINITE_WORD.search(said.front.rest) is not None)

    def _new_tally(self) -> Tally:
        return Tally(self._log, self._sizes, self._give)

    def _trouble(self, line: Line, text: str) -> None:
        """Count a line that mentions an error that no pattern knows."""
        if not TROUBLE_WORD.search(text):
            return
        nonfinite = NONFINITE_WORD.search(without_harmless(window(text), self._known)[1]) is not None
        self._unclear_nonfinite += nonfinite
        self._unclear_errors += not nonfinite and ERROR_WORD.search(text) is not None
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


def _matched(whole: str, text: str, fitting: Sequence[Pattern]) -> tuple[Pattern | None, dict[str, str]]:
    """The first pattern that matches, and what it extracts; of patterns about the job, what all of them extract. Those
    of one example look at the whole line, all others at what is left of it."""
    first: Pattern | None = None
    fields: dict[str, str] = {}
    for pattern in fitting:
        if pattern.role in APART or (first is not None and pattern.role != ABOUT):
            continue
        match = pattern.regex.search(whole if pattern.role in EXACT else text)
        if match is None:
            continue
        first = first or pattern
        fields = {**given(match), **fields}
        if first.role != ABOUT:
            break
    return first, fields


def _named(first: Pattern, fields: Mapping[str, str], quantities: dict[str, str]) -> dict[str, str]:
    """The names that count on a line of this pattern: a scaler that skips a step has seen an infinite gradient, which
    is its work, and a check may name what it has looked at."""
    if first.role == "notice":
        return {name: value for name, value in quantities.items() if "grad" not in name.lower()}
    if first.role == "failure" and not quantities and "what" in fields:
        return {fields["what"]: kind_of(fields.get("value", "nan"))}
    return quantities


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)
