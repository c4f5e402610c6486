"""The lines of code around the line that runs an operator, as the answer has them."""

import linecache
import os

import pytest

from repro.probes.observe.source import Place, excerpt


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text("".join(f"line {number}\n" for number in range(1, 11)))
    return str(path)


@pytest.mark.parametrize(("line", "first", "last"), [(5, 2, 8), (1, 1, 4), (10, 7, 10)])
def test_three_lines_on_each_side_as_far_as_there_are_any(script, line, first, last):
    found = excerpt(Place(script, line, "m"))
    lines = [f"line {number}" for number in range(first, last + 1)]
    assert found == {"source": f"script.py:{line}", "package": "m", "first": first, "lines": lines}


def test_no_lines_where_there_is_no_such_line(script):
    assert excerpt(Place(script, 11, "m")) is None
    assert excerpt(Place(script, 0, "m")) is None
    assert excerpt(Place(script + "x", 1, "m")) is None
    assert excerpt(None) is None


def test_long_lines_are_cut(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("x" * 10_000)
    assert [len(line) for line in excerpt(Place(str(path), 1, "m"))["lines"]] == [200]


def test_a_cell_of_a_notebook_has_its_lines():
    name = "<ipython-input-1>"
    linecache.cache[name] = (4, None, ["a = 1\n"], name)
    found = excerpt(Place(name, 1, "__main__"))
    assert (found["source"], found["lines"]) == ("In [1]:1", ["a = 1"])
    del linecache.cache[name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.py")
    assert excerpt(Place(str(tmp_path / "a.py"), 1, "m")) is None
