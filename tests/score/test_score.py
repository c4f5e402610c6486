"""The score's table, its marks, and a seeded tenth of it, really run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from score import lines, mark, records, session
from score.drive import Answered

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "score.md"
TRUTH = records.Truth(
    (records.Place("early", ("aten.log",), 7),), ("divide_by_zero",), ("caller",), "log(0)", ("table.weight",), (9, 5)
)
RIGHT = Answered("bad", "", 0.1, "early", "aten.log.default", "script.py:7", mechanism="divide_by_zero", owner="caller")


def changed(**parts: Any) -> mark.Mark:
    """The mark of the right answer with something else in it."""
    said = {field: getattr(RIGHT, field) for field in Answered.__dataclass_fields__}
    return mark.mark(Answered(**{**said, **parts}), TRUTH)


# The table


def test_the_table_is_as_broad_as_it_says() -> None:
    faults = [case for case in session.every() if case.truth is not None]
    ways = {case.way for case in faults}
    assert len(faults) >= 400
    assert len({case.architecture for case in faults}) >= 25
    assert ways == {
        "folder", "script", "backward", "loss", "generate", "vision", "audio", "inputs", "quantised", "compiled",
    }  # fmt: skip


def test_every_fault_has_its_sound_twin() -> None:
    names = [case.name for case in session.every()]
    faults = {case.name for case in session.every() if case.truth is not None}
    assert len(names) == len(set(names))
    assert sorted(names) == sorted([*faults, *(name + session.SOUND for name in faults)])


def test_the_tenth_is_always_the_same_and_has_the_twins() -> None:
    first, again = ([case.name for case in session.tenth(session.every())] for _ in range(2))
    faults = [name for name in first if not name.endswith(session.SOUND)]
    assert first == again
    assert len(first) == 2 * len(faults)


# The marks


def test_the_whole_truth_is_right() -> None:
    assert changed() == mark.Mark("right", "right", "right", "right")


@pytest.mark.parametrize(
    "parts",
    [
        {"module": "late"}, {"op": "aten.div.Tensor"}, {"source": "script.py:8"}, {"tensor": "other.weight"},
        {"tensor": "table.weight", "tensor_index": (5, 9)},
        {"mechanism": "overflow"}, {"owner": "pytorch"}, {"verdict": "good"},
    ],
    ids=lambda parts: list(parts)[-1],
)  # fmt: skip
def test_anything_else_that_is_claimed_is_a_wrong_claim(parts: dict[str, str]) -> None:
    assert changed(**parts).claims


def test_what_is_not_said_is_no_claim() -> None:
    nothing = changed(verdict="skip", module=None, op=None, source=None, mechanism=None, owner=None)
    assert nothing == mark.Mark("not known", "not known", "not known", "not known")


def test_a_twin_that_is_called_bad_is_a_false_alarm() -> None:
    assert mark.mark(RIGHT, None).claims


# The oracle


SCRIPT = "import sys\nimport torch\nx = torch.zeros(3)\ny = torch.log(x + {})\nsys.exit(int(not y.isfinite().all()))\n"


@pytest.mark.parametrize(
    ("op", "line", "agrees"), [("aten.log", 4, True), ("aten.add", 4, False), ("aten.log", 3, False)]
)
def test_the_oracle_disagrees_with_a_wrong_table(op: str, line: int, agrees: bool) -> None:
    truth = records.Truth((records.Place(None, (op,), line),), ("divide_by_zero",), ("caller",), "log(0)")
    assert (lines.checked(SCRIPT.format(0), SCRIPT.format(1), truth) is None) is agrees


# The tenth


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the tenth gave, in a process that has computed nothing before it forks."""
    path = tmp_path_factory.mktemp("score") / "results.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tests", ROOT)))}
    command = [sys.executable, "-m", "score", "--tenth", "--alone", "--json", str(path)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert path.exists(), ran.stderr
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_plain_torch_agrees_with_the_table(results: list[dict[str, Any]]) -> None:
    assert {one["name"]: one["table"] for one in results if one["table"]} == {}


def test_every_case_has_an_answer(results: list[dict[str, Any]]) -> None:
    assert {one["name"]: one["failed"] for one in results if one["failed"]} == {}


def test_no_sound_twin_is_called_bad(results: list[dict[str, Any]]) -> None:
    assert {one["name"]: one["mark"]["claims"] for one in results if one["is_twin"] and one["mark"]["claims"]} == {}


def test_a_wrong_claim_is_one_that_the_score_lists(results: list[dict[str, Any]]) -> None:
    listed = PAGE.read_text("utf-8").partition("## Wrong claims")[2].partition("\n## ")[0]
    wrong = {one["name"]: one["mark"]["claims"] for one in results if one["mark"] and one["mark"]["claims"]}
    assert {name: claims for name, claims in wrong.items() if f"`{name}`" not in listed} == {}
