"""Many cells through the real command, each with a fake interpreter that speaks the wire; the store hands them out."""

import contextlib
import functools
import json
import signal
import subprocess
import sys
import time

import pytest
from support.hosting import (
    BISECT,
    NAN_FORWARD,
    ROOT,
    Store,
    Told,
    answers,
    ask_cells,
    environment,
    fake_python,
    is_gone,
    model_folder,
    recipe,
)

from repro.core.encoding import encode
from repro.core.errors import Stopped, UsageError
from repro.core.records import Cell
from repro.environments.cells import recipes
from repro.environments.store import STAMP, _Stamp, fingerprint


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Ask cells of a small model; returns (document, lines)."""
    return functools.partial(ask_cells, tmp_path, monkeypatch)


def rows(document):
    return {row["id"]: row for row in document["cells"]}


def test_every_cell_has_its_row_and_its_own_run(asked, tmp_path):
    document, lines = asked(recipe("a"), recipe("b"))
    assert {name: row["verdict"] for name, row in rows(document).items()} == {"a": "good", "b": "good"}
    assert document["verdict"] == "good"
    for name in "ab":
        assert json.loads((tmp_path / "out" / name / "verdict.json").read_text())["verdict"] == "good"
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["cells"] == document["cells"]
    assert lines[0].startswith("[1/2] a: Python 3.11, torch 2.4.1, transformers 4.57.3, cpu")


def test_one_bad_cell_makes_the_matrix_bad_and_its_origin_is_the_reports(asked, tmp_path):
    steps = {"forward": NAN_FORWARD, "bisect": {"verdict": "bad", "payload": BISECT}}
    document, _ = asked(recipe("a"), steps=steps)
    assert (document["verdict"], document["origin"]["module"], document["shown_cell"]) == ("bad", "model.layers.7", "a")
    assert "model.layers.7" in (tmp_path / "out" / "report.md").read_text()


def test_a_script_is_asked_in_every_cell(asked, tmp_path):
    (tmp_path / "asks.py").write_text("")
    steps = {"script": {"verdict": "bad", "reason": "row 2 is NaN"}}
    document, _ = asked(recipe("a"), recipe("b"), steps=steps, options={"model": str(tmp_path / "asks.py")})
    assert {(row["verdict"], row["reason"]) for row in document["cells"]} == {("bad", "row 2 is NaN")}


def test_a_cell_that_cannot_be_built_is_skipped_with_its_reason_and_the_others_run(asked):
    document, lines = asked(recipe("a"), recipe("b"), broken=["a"])
    assert rows(document)["a"]["verdict"] == "skip"
    assert rows(document)["a"]["reason"] == "not built: no Python 3.11 on this machine"
    assert rows(document)["b"]["verdict"] == "good"
    assert "a: skip: not built: no Python 3.11 on this machine" in lines


def test_a_cell_that_was_built_is_told_with_the_disk_that_all_take(asked, monkeypatch):
    """Built means here: it does not stand, and the store makes it."""
    monkeypatch.setattr(Store, "built", lambda store, recipe: None)
    monkeypatch.setattr(Store, "build", lambda store, recipe, progress: Cell(str(store.python)), raising=False)
    monkeypatch.setattr(Store, "stored_bytes", lambda store: 5_200_000_000, raising=False)
    monkeypatch.setattr(Store, "folder", "cells", raising=False)
    monkeypatch.setattr(Told, "task", lambda told, name: contextlib.nullcontext(lambda done, total, unit: None))
    _, lines = asked(recipe("a"))
    assert any(line.startswith("a was built in ") for line in lines)
    assert "all cells together take 5.2 GB in cells" in " ".join(lines)


def test_where_no_cell_answers_the_matrix_is_a_skip_with_a_report(asked, tmp_path):
    document, _ = asked(recipe("a"), broken=["a"])
    assert document["verdict"] == "skip"
    assert "no Python 3.11" in (tmp_path / "out" / "report.md").read_text()


def test_a_cuda_cell_is_skipped_where_there_is_no_card(asked, monkeypatch):
    monkeypatch.setattr(
        "repro.sweeps.matrix.run.missing_device", lambda device: "no card" if device == "cuda" else None
    )
    document, _ = asked(recipe("a", device="cuda"), recipe("b"))
    assert (rows(document)["a"]["verdict"], rows(document)["a"]["reason"]) == ("skip", "no card")


def test_a_probe_that_is_killed_is_that_cells_crash(asked):
    document, _ = asked(recipe("a"), steps={"forward": {"before": ["SIGKILL"]}})
    row = rows(document)["a"]
    assert (row["verdict"], row["kind"]) == ("skip", "crash")
    assert "SIGKILL" in row["reason"]


def test_a_probe_that_is_killed_is_bad_where_the_crash_is_hunted(asked):
    document, _ = asked(recipe("a"), steps={"forward": {"before": ["SIGSEGV"]}}, options={"fault": "crash"})
    assert (rows(document)["a"]["verdict"], document["verdict"]) == ("bad", "bad")


def test_a_host_that_dies_is_a_row_and_the_next_cell_runs(asked, monkeypatch):
    """The run of one cell is a process of its own: here it cannot even start, for its options are wrong."""
    monkeypatch.setattr("repro.run.child.MAIN", "import os, sys; os.kill(os.getpid(), 9)")
    document, _ = asked(recipe("a"), recipe("b"))
    assert [row["verdict"] for row in document["cells"]] == ["skip", "skip"]
    assert "SIGKILL" in rows(document)["a"]["reason"]


def test_cells_run_side_by_side_give_the_same_rows(asked):
    known = [recipe(name) for name in "abcd"]
    document, _ = asked(*known, jobs=3)
    assert [row["id"] for row in document["cells"]] == list("abcd")
    assert {row["verdict"] for row in document["cells"]} == {"good"}


def test_cells_side_by_side_really_run_at_the_same_time(asked):
    """Each of two cells sleeps two seconds: one behind the other would take four."""
    begin = time.monotonic()
    asked(recipe("a"), recipe("b"), jobs=2, steps={"load": {"before": [{"sleep": 2}]}})
    alone = time.monotonic() - begin
    begin = time.monotonic()
    asked(recipe("a"), recipe("b"), jobs=1, steps={"load": {"before": [{"sleep": 2}]}}, out="one")
    assert time.monotonic() - begin > alone + 1


def test_a_folder_that_holds_the_matrix_is_gone_on_with_only_when_asked(asked):
    asked(recipe("a"))
    with pytest.raises(UsageError, match="--resume"):
        asked(recipe("a"))


def test_a_matrix_that_goes_on_asks_only_what_has_no_answer(asked):
    asked(recipe("a"), recipe("b"), broken=["b"])
    document, lines = asked(recipe("a"), recipe("b"), resume=True, steps={"forward": NAN_FORWARD})
    assert {name: row["verdict"] for name, row in rows(document).items()} == {"a": "good", "b": "bad"}
    assert any(line.startswith("a: good (answered before)") for line in lines)


def test_cells_asked_one_by_one_meet_in_one_table(asked):
    known = [recipe("a"), recipe("b"), recipe("c")]
    first, _ = asked(*known, only=["b"])
    both, _ = asked(*known, only=["a"], resume=True)
    assert (list(rows(first)), list(rows(both))) == (["b"], ["a", "b"])
    assert both["command"].endswith("--cell a --cell b")


def test_the_command_names_no_cell_where_all_were_asked(asked):
    assert "--cell" not in asked(recipe("a"), recipe("b"))[0]["command"]


def test_a_cell_of_another_recipe_is_asked_anew(asked):
    asked(recipe("a"))
    changed = recipe("a", pins={"torch": "2.5.1", "transformers": "4.57.3"})
    document, lines = asked(changed, resume=True, steps={"forward": NAN_FORWARD})
    assert rows(document)["a"]["verdict"] == "bad"
    assert not any("answered before" in line for line in lines)


def test_a_folder_of_another_question_is_refused(asked):
    asked(recipe("a"))
    with pytest.raises(UsageError, match="holds a matrix of another question"):
        asked(recipe("a"), resume=True, options={"dtype": "float16"})


def test_a_folder_of_another_run_is_refused(asked, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evidence.jsonl").write_text("")
    with pytest.raises(UsageError, match="holds another run"):
        asked(recipe("a"))


def test_ctrl_c_keeps_what_has_answered_and_says_how_to_go_on(asked, monkeypatch):
    """The interrupt comes where the second cell begins."""

    def interrupted(store, recipe):
        if recipe.id == "b":
            raise KeyboardInterrupt
        return Cell(str(store.python))

    monkeypatch.setattr(Store, "built", interrupted)
    with pytest.raises(Stopped) as caught:
        asked(recipe("a"), recipe("b"), recipe("c"))
    assert caught.value.exit_status == 130
    assert "--resume" in str(caught.value)
    monkeypatch.undo()


def test_sigterm_ends_the_cells_that_run_and_leaves_nothing_behind(tmp_path):
    """The real command with a recipe whose cell stands already; its probe spawns a child and sleeps."""
    model, python, pid = model_folder(tmp_path), fake_python(tmp_path), tmp_path / "pid"
    envs, cache = tmp_path / "envs", tmp_path / "cache"
    envs.mkdir()
    (envs / "a.toml").write_text(
        'python = "3.11"\ndevice = "cpu"\nwhy = "a test"\n[pins]\ntorch = "1"\ntransformers = "1"\n'
    )
    place = cache / "cells" / "a"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(python)
    (made,) = recipes(envs)
    (place / STAMP).write_text(encode(_Stamp(made, fingerprint(made))))
    steps = answers(tmp_path, load={"before": [{"spawn": str(pid)}, {"sleep": 600}]})
    command = [sys.executable, "-m", "repro", "matrix", str(model), "--envs", str(envs), "--out", str(tmp_path / "out")]
    child = subprocess.Popen(
        command, cwd=ROOT, env=environment(REPRO_CACHE_DIR=str(cache), **steps), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not pid.exists() or not pid.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 143
    assert "To go on: repro matrix" in said
    assert is_gone(int(pid.read_text()))
