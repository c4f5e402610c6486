"""Pieces the lines of one failure together: its count, its text and its index, separately for each rank.

Ranks that prefix their lines are kept apart. Where several write to one file without a prefix, the lines of two
failures may interleave; then a text goes to the first failure that lacks one, and the record says it is not certain.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from repro.jobs.logs.heads import Front
from repro.jobs.logs.patterns import Pattern
from repro.jobs.logs.records import Failure

STALE_LINES = 50
"""A failure gets no more lines this far below its last one, times the number of ranks that write in between."""
MOST_OPEN = 16
MOST_TEXT_LINES = 200
MOST_TEXT_CHARACTERS = 1 << 16
MOST_SAID = 300
SHORTENED = ("...", "…")
"""How programs end a text that they truncate."""
NO_TEXT = re.compile(r"\s*\d{1,3}%\||Traceback \(most recent call last\)")
"""A progress bar or a traceback has no logger's head, and is no part of a prompt."""
OWN = frozenset({"example", "index", "text", "nan", "inf", "rank", "time", "level"})
"""Groups of patterns that have a field of their own in a record."""
KINDS = {"failure": "step", "quantity": "step", "notice": "notice"}


@dataclass(frozen=True, slots=True)
class Said:
    """A line that a pattern matches: its number, what precedes the message, the extracted fields, and the names on it
    that are NaN or Inf."""

    line: int
    front: Front
    pattern: Pattern
    fields: Mapping[str, str]
    quantities: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Open:
    """A failure that may still get lines, and the number of its last line so far."""

    failure: Failure
    last_line: int


@dataclass(slots=True)
class _Stream:
    """The open failures of one rank, oldest first, and the one whose text continues."""

    open: list[_Open] = field(default_factory=list)
    text: _Open | None = None
    text_kinds: frozenset[str] = frozenset()
    text_lines: int = 0


class Assembly:
    """Takes what lines say, in order; gives each failure to ``give`` once it is complete."""

    def __init__(self, log: str, give: Callable[[Failure], None]) -> None:
        self._log = log
        self._give = give
        self._streams: dict[str | None, _Stream] = {}

    @property
    def in_text(self) -> bool:
        """Whether a text may continue on the next line."""
        return any(stream.text is not None for stream in self._streams.values())

    def continues(self, line: int, front: Front) -> bool:
        """Take a line as part of the text above it if it is from the same rank and has no logger's head."""
        stream = self._streams.get(front.rank)
        if stream is None or stream.text is None:
            return False
        held, failure = stream.text, stream.text.failure
        too_long = stream.text_lines >= MOST_TEXT_LINES or len(failure.text or "") > MOST_TEXT_CHARACTERS
        if front.kinds & stream.text_kinds or NO_TEXT.match(front.rest):
            stream.text = None
        elif too_long:
            held.failure, stream.text = replace(failure, text_cut=True), None
        else:
            stream.text_lines += 1
            held.last_line = line
            held.failure = replace(failure, text=f"{failure.text}\n{front.rest.rstrip()}")
        return stream.text is not None

    def add(self, said: Said) -> None:
        """Take a line that a failure pattern matches."""
        new = _new(self._log, said)
        stream = self._streams.setdefault(new.rank, _Stream())
        stream.text = None
        self._close_old(stream, said.line)
        role = said.pattern.role
        if role in KINDS:
            self._give(new)
        elif role != "example":
            self._join(stream, "text" if role == "text" else "index", new, said)
        elif not _zero(new):
            self._open(stream, new)

    def interrupt(self, rank: str | None) -> None:
        """A line of something else: it ends this rank's text."""
        if rank in self._streams:
            self._streams[rank].text = None

    def finish(self) -> None:
        """No more lines come, or those that come belong to something else."""
        for stream in self._streams.values():
            while stream.open:
                self._close(stream)
        self._streams.clear()

    def _join(self, stream: _Stream, what: str, new: Failure, said: Said) -> None:
        """Give text or index to the first open failure that lacks it; if there is none, it is a new failure."""
        lacking = [one for one in stream.open if getattr(one.failure, what) is None]
        if not lacking:
            held = self._open(stream, new)
        else:
            held, old = lacking[0], lacking[0].failure
            held.last_line = said.line
            certain = old.certain and len(lacking) == 1
            if what == "text":
                held.failure = replace(old, text=new.text, text_cut=new.text_cut, certain=certain)
            else:
                held.failure = replace(old, index=new.index, certain=certain)
        # Without a head, further lines of the text could not be told from whatever is printed below it.
        if what == "text" and not new.text_cut and said.front.kinds:
            stream.text, stream.text_kinds, stream.text_lines = held, said.front.kinds, 0

    def _open(self, stream: _Stream, failure: Failure) -> _Open:
        if len(stream.open) >= MOST_OPEN:
            self._close(stream)
        stream.open.append(_Open(failure, failure.line))
        return stream.open[-1]

    def _close_old(self, stream: _Stream, line: int) -> None:
        """Close the oldest failures that are complete or too far above."""
        reach = STALE_LINES * len(self._streams)
        while stream.open and (_complete(stream.open[0].failure) or line - stream.open[0].last_line > reach):
            self._close(stream)

    def _close(self, stream: _Stream) -> None:
        failure = stream.open.pop(0).failure
        text = failure.text
        if text is not None and "\n" in text:
            text = text.rstrip()
            failure = replace(failure, text=text, text_cut=failure.text_cut or text.endswith(SHORTENED))
        self._give(failure)


def _new(log: str, said: Said) -> Failure:
    fields, front = said.fields, said.front
    text = (fields.get("text") or "").strip() or None
    return Failure(
        log=log,
        line=said.line,
        kind=KINDS.get(said.pattern.role, "example"),
        pattern=said.pattern.id,
        said=front.rest.strip()[:MOST_SAID],
        rank=fields.get("rank") or front.rank,
        time=front.time,
        example=_whole(fields.get("example")),
        index=_whole(fields.get("index")),
        text=text if text is None else text[:MOST_TEXT_CHARACTERS],
        text_cut=bool(text and (text.endswith(SHORTENED) or len(text) > MOST_TEXT_CHARACTERS)),
        nan=_whole(fields.get("nan")),
        inf=_whole(fields.get("inf")),
        fields={name: value for name, value in fields.items() if name not in OWN},
        quantities=said.quantities,
    )


def _whole(text: str | None) -> int | None:
    """A number, with or without separators between thousands."""
    return None if text is None else int(re.sub(r"[,_]", "", text))


def _zero(failure: Failure) -> bool:
    """Whether something was counted, and the count is zero."""
    counts = [count for count in (failure.nan, failure.inf) if count is not None]
    return bool(counts) and not any(counts)


def _complete(failure: Failure) -> bool:
    return None not in (failure.text, failure.index, failure.nan)
