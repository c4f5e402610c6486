"""Lines of the kit as records."""

import pytest

from repro.core.errors import RecordError
from repro.core.records import Failure
from repro.core.steps import Needs
from repro.engine.events import NAMES, Announced, Done, End, Hello, Progress, Start, read


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"event": "start", "step": "load"}', Start(step="load")),
        (b'{"event": "done"}', Done()),
        (b'{"event": "progress", "step": "a", "done": 1, "total": 2, "unit": "x"}',
         Progress(step="a", done=1, total=2, unit="x")),
        (b'{"event": "hello", "schema": 2, "pid": 1, "steps": [{"name": "a", "question": "b?", "needs": "files"}]}',
         Hello(schema=2, steps=(Announced(name="a", question="b?", needs=Needs.FILES),))),
        (b'{"event": "end", "step": "a", "verdict": "skip", "seconds": "nan", "error": {"type": "E", "message": "m"}}',
         End(step="a", verdict="skip", seconds="nan", error=Failure("E", "m"))),
    ],
)  # fmt: skip
def test_an_event_is_read(line, expected):
    assert read(line) == expected


def test_an_event_of_a_later_version_is_passed_over():
    assert read(b'{"event": "sung", "step": 3}') is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"plain text", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "expected object, got array"),
        (b"{}", "event"),
        (b'{"event": 3}', "event"),
        (b'{"event": "start"}', "step"),
        (b'{"event": "start", "step": 3}', "step: expected str, got int"),
        (b'{"event": "end", "step": "a", "payload": []}', "payload: expected object"),
    ],
)
def test_what_is_no_event_is_refused_with_the_place(line, words):
    with pytest.raises(RecordError, match=words):
        read(line)


def test_every_event_has_a_record():
    for name in NAMES - {"hello", "done"}:
        with pytest.raises(RecordError, match="step"):
            read(f'{{"event": "{name}"}}'.encode())
