"""Events are JSON lines, and nobody else's output is among them."""

import io
import json
import os
import subprocess
import sys

import pytest
from support.handmade import INF, NAN

from repro.probes.protocol import wire
from repro.probes.protocol.wire import Emitter, jsonable, own_stdout


def events(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(("value", "text"), [(NAN, "nan"), (-NAN, "nan"), (INF, "inf"), (-INF, "-inf")])
def test_a_float_that_is_not_finite_travels_as_a_string(value, text):
    assert jsonable(value) == text


@pytest.mark.parametrize("value", [0.0, -1.5, 1.7976931348623157e308, 5e-324, 3, True, None, "nan"])
def test_other_values_travel_as_they_are(value):
    assert json.loads(json.dumps(jsonable(value))) == value


def test_nests_are_searched_whole():
    given = {"a": [1.0, (NAN, {"b": INF})], 3: {"c": -INF}}
    assert jsonable(given) == {"a": [1.0, ["nan", {"b": "inf"}]], "3": {"c": "-inf"}}


def test_an_event_is_one_line_of_strict_json():
    stream = io.StringIO()
    Emitter(stream).event("end", reason="two\nlines", value=NAN)
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {"event": "end", "reason": "two\nlines", "value": "nan"}


def test_an_event_is_flushed():
    flushed = []

    class Stream(io.StringIO):
        def flush(self):
            flushed.append(self.getvalue())

    Emitter(Stream()).event("hello")
    assert flushed == ['{"event": "hello"}\n']


def test_progress_comes_at_most_ten_times_a_second(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(wire.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    emitter = Emitter(stream)
    emitter.start("weights")
    for done in range(1001):  # two seconds of work, 2 ms each
        emitter.progress(done, 1001, "tensors")
        now[0] += 0.002
    shown = [event for event in events(stream) if event["event"] == "progress"]
    assert 18 <= len(shown) <= 21


def test_progress_names_its_step():
    stream = io.StringIO()
    emitter = Emitter(stream)
    emitter.start("weights")
    emitter.progress(3, 148, "tensors")
    assert events(stream)[1] == {"event": "progress", "step": "weights", "done": 3, "total": 148, "unit": "tensors"}


def test_a_new_step_shows_its_first_progress_at_once():
    stream = io.StringIO()
    emitter = Emitter(stream)
    for step in ("files", "weights"):
        emitter.start(step)
        emitter.progress(1, 2, "bytes")
    assert [event["step"] for event in events(stream) if event["event"] == "progress"] == ["files", "weights"]


PRINTS = """
import os, subprocess, sys
from repro.probes.protocol.wire import Emitter, own_stdout

print("before")
with own_stdout() as stream:
    print("python")
    sys.stdout.write("stdout\\n")
    os.write(1, b"descriptor\\n")
    subprocess.run([sys.executable, "-S", "-c", "print('child')"], check=True)
    Emitter(stream).event("done")
print("after")
"""


def test_only_events_reach_standard_output():
    ran = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, check=True)
    assert ran.stdout == 'before\n{"event": "done"}\nafter\n'
    assert sorted(ran.stderr.split()) == ["child", "descriptor", "python", "stdout"]


def open_descriptors():
    found = []
    for number in range(64):
        try:
            found.append((number, os.fstat(number).st_ino))
        except OSError:
            continue
    return found


def test_descriptors_and_sys_stdout_are_as_before(capfd):
    before, stdout = open_descriptors(), sys.stdout
    with own_stdout() as stream:
        stream.write("{}\n")
    assert (open_descriptors(), sys.stdout) == (before, stdout)


def test_they_are_put_back_when_the_body_raises(capfd):
    before, stdout = open_descriptors(), sys.stdout
    with pytest.raises(KeyError), own_stdout():
        raise KeyError
    assert (open_descriptors(), sys.stdout) == (before, stdout)


def test_a_step_in_other_letters_stays_readable(capfd):
    with own_stdout() as stream:
        Emitter(stream).event("end", reason="Zürich \u2603")
    assert json.loads(capfd.readouterr().out)["reason"] == "Zürich \u2603"
