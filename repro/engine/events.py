"""What the kit says while it runs: one JSON object a line, read as one of these records."""

from typing import Any

from msgspec import field

from repro.core.encoding import Number, Record, decode, from_text
from repro.core.records import Failure
from repro.core.steps import Needs


class Announced(Record, frozen=True, kw_only=True):
    """A step that the kit knows."""

    name: str
    question: str
    needs: Needs


class Event(Record, frozen=True, tag_field="event"):
    """Any of the events below; the key ``event`` says which."""


class Hello(Event, frozen=True, kw_only=True, tag="hello"):
    """The first event: which schema this kit speaks, and the steps that it was asked for."""

    schema: int | None = None
    steps: tuple[Announced, ...] = ()


class Start(Event, frozen=True, kw_only=True, tag="start"):
    """A step begins."""

    step: str


class Progress(Event, frozen=True, kw_only=True, tag="progress"):
    """How far a step is."""

    step: str
    done: int = 0
    total: int = 0
    unit: str = ""


class Trial(Event, frozen=True, kw_only=True, tag="trial"):
    """A trial of a reduction begins (``holds`` is None), or has its answer."""

    step: str
    trial: str
    holds: bool | None = None


class Example(Event, frozen=True, kw_only=True, tag="example"):
    """One example of a file of prompts has its answer."""

    step: str
    record: dict[str, Any] = field(default_factory=dict)


class End(Event, frozen=True, kw_only=True, tag="end"):
    """A step has its answer."""

    step: str
    verdict: str | None = None
    reason: str | None = None
    seconds: Number | None = None
    payload: dict[str, Any] | None = None
    error: Failure | None = None


class Done(Event, frozen=True, kw_only=True, tag="done"):
    """Every step of the plan has ended."""


EVENTS = Hello | Start | Progress | Trial | Example | End | Done
NAMES = frozenset({"hello", "start", "progress", "trial", "example", "end", "done"})


def read(line: bytes) -> Event | None:
    """The event in a line; None for an event that this version does not know.

    Raises:
        RecordError: the line is no event.
    """
    data = from_text(line)
    if isinstance(data, dict) and isinstance(data.get("event"), str) and data["event"] not in NAMES:
        return None
    event: Event = decode(EVENTS, data)  # type: ignore[arg-type] # a union is no class
    return event
