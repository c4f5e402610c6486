"""Many cells through the real command, each with a fake interpreter that speaks the wire; the store hands them out."""

import contextlib
import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.hosting import (
    BISECT,
    NAN_FORWARD,
    OPTIONS,
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

from repro.cli.options import request_from
from repro.core.answer import read
from repro.core.encoding import encode
from repro.core.errors import Stopped, UsageError
from repro.core.records import Cell, Kind, Outcome
from repro.environments.cells import recipes
from repro.environments.store import STAMP, _Stamp, fingerprint
from repro.sweeps.matrix.run import Matrix

GOOD, BAD, SKIP = Outcome.GOOD, Outcome.BAD, Outcome.SKIP
NO_PYTHON = "not built: no Python 3.11 on this machine"
OVERFLOW = {"forward": NAN_FORWARD, "bisect": {"verdict": "bad", "payload": BISECT}}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Ask cells of a small model; returns (answer, lines)."""
    return functools.partial(ask_cells, tmp_path, monkeypatch)


def rows(answer):
    return {row.id: row for row in answer.cells}


def verdicts(answer):
    return {row.id: row.verdict for row in answer.cells}


# Several cells


def test_every_cell_has_its_row_and_its_own_run(asked, tmp_path):
    answer, lines = asked(recipe("a"), recipe("b"))
    assert (answer.verdict, verdicts(answer)) == (GOOD, {"a": GOOD, "b": GOOD})
    for name in "ab":
        assert read(tmp_path / "out" / name / "verdict.json").verdict is GOOD
    assert read(tmp_path / "out" / "verdict.json") == answer
    assert lines[0].startswith("[1/2] a: Python 3.11, torch 2.4.1, transformers 4.57.3, cpu")


def test_one_bad_cell_makes_the_matrix_bad_and_its_origin_is_the_reports(asked, tmp_path):
    answer, _ = asked(recipe("a"), recipe("b"), broken=["b"], steps=OVERFLOW)
    assert (answer.verdict, answer.origin.module, answer.shown_cell) == (BAD, "model.layers.7", "a")
    assert "model.layers.7" in (tmp_path / "out" / "report.md").read_text()


def test_a_script_is_asked_in_every_cell(asked, tmp_path):
    (tmp_path / "asks.py").write_text("")
    steps = {"script": {"verdict": "bad", "reason": "row 2 is NaN"}}
    answer, _ = asked(recipe("a"), recipe("b"), steps=steps, options={"model": str(tmp_path / "asks.py")})
    assert {(row.verdict, row.reason) for row in answer.cells} == {(BAD, "row 2 is NaN")}


def test_the_module_of_a_factory_is_trained_in_every_cell(asked, tmp_path):
    (tmp_path / "net.py").write_text("")
    steps = {"train": {"verdict": "bad", "reason": "the loss is NaN"}}
    options = {"model": "", "factory": f"{tmp_path / 'net.py'}:make", "train_step": 3}
    answer, _ = asked(recipe("a"), recipe("b"), steps=steps, options=options)
    assert {(row.verdict, row.reason) for row in answer.cells} == {(BAD, "the loss is NaN")}
    assert answer.command == f"repro matrix --factory {tmp_path / 'net.py'}:make --train-step 3 --no-ablations"
    rows = [json.loads((tmp_path / "out" / name / "verdict.json").read_text())["case"] for name in "ab"]
    assert {(row["factory"], row["train_step"]) for row in rows} == {(options["factory"], 3)}


def test_good_cells_that_generate_are_not_said_to_give_the_same(asked):
    """The digests are of the forward pass; what was generated behind it may differ."""
    passes = {"forward": {"verdict": "good", "payload": {"logits": {}, "prompts": [{"index": 0, "digest": "d"}]}}}
    plain, _ = asked(recipe("a"), recipe("b"), steps=passes, out="plain")
    generated, _ = asked(recipe("a"), recipe("b"), steps=passes, options={"generate": 4})
    assert [[row.outputs for row in answer.cells] for answer in (plain, generated)] == [[("d",)] * 2, [()] * 2]


def test_cells_of_a_table_keep_a_sketch_of_what_they_end_with_and_a_cell_alone_none(asked):
    forward = {"verdict": "good", "payload": {"logits": {}, "prompts": [{"index": 0, "digest": "d"}]}}
    sketch = {"verdict": "good", "payload": {"passes": [{"output": "logits", "shape": [1, 2]}]}}
    steps = {"forward": forward, "sketch": sketch}
    several, _ = asked(recipe("a"), recipe("b"), steps=steps, out="several")
    alone, _ = asked(recipe("a"), steps=steps)
    assert [[kept.shape for kept in row.sketches] for row in several.cells] == [[(1, 2)], [(1, 2)]]
    assert (alone.cells, "sketch" in {row.step for row in alone.steps}) == (None, False)


def test_a_cell_that_cannot_be_built_is_skipped_with_its_reason_and_the_others_run(asked):
    answer, lines = asked(recipe("a"), recipe("b"), broken=["a"])
    assert verdicts(answer) == {"a": SKIP, "b": GOOD}
    assert rows(answer)["a"].reason == NO_PYTHON
    assert f"a: skip: {NO_PYTHON}" in lines


def test_a_cell_that_was_built_is_told_with_the_disk_that_all_take(asked, monkeypatch):
    """Built means here: it does not stand, and the store makes it."""
    monkeypatch.setattr(Store, "built", lambda store, recipe: None)
    monkeypatch.setattr(Store, "build", lambda store, recipe, progress, say: Cell(str(store.python)), raising=False)
    monkeypatch.setattr(Store, "stored_bytes", lambda store: 5_200_000_000, raising=False)
    monkeypatch.setattr(Store, "folder", "cells", raising=False)
    monkeypatch.setattr(Told, "task", lambda told, name: contextlib.nullcontext(lambda done, total, unit: None))
    _, lines = asked(recipe("a"))
    assert any(line.startswith("a was built in ") for line in lines)
    assert "all cells together take 5.2 GB in cells" in " ".join(lines)


def test_where_no_cell_answers_the_matrix_is_a_skip_with_a_report(asked, tmp_path):
    answer, _ = asked(recipe("a"), recipe("b"), broken=["a", "b"])
    assert (answer.verdict, answer.shown_cell) == (SKIP, None)
    assert "no Python 3.11" in (tmp_path / "out" / "report.md").read_text()


def test_a_cuda_cell_is_skipped_where_there_is_no_card(asked, monkeypatch):
    monkeypatch.setattr(
        "repro.sweeps.matrix.run.missing_device", lambda device: "no card" if device == "cuda" else None
    )
    answer, _ = asked(recipe("a", device="cuda"), recipe("b"))
    assert (rows(answer)["a"].verdict, rows(answer)["a"].reason) == (SKIP, "no card")


def test_a_probe_that_is_killed_is_that_cells_crash(asked):
    answer, _ = asked(recipe("a"), steps={"forward": {"before": ["SIGKILL"]}})
    assert (answer.verdict, answer.kind) == (SKIP, Kind.CRASH)
    assert "SIGKILL" in answer.reason


def test_a_probe_that_is_killed_is_bad_where_the_crash_is_hunted(asked):
    answer, _ = asked(recipe("a"), steps={"forward": {"before": ["SIGSEGV"]}}, options={"fault": "crash"})
    assert answer.verdict is BAD


def test_a_host_that_dies_is_a_row_and_the_next_cell_runs(asked, monkeypatch):
    """The run of one cell is a process of its own: here it cannot even start, for its options are wrong."""
    monkeypatch.setattr("repro.run.child.MAIN", "import os, sys; os.kill(os.getpid(), 9)")
    answer, _ = asked(recipe("a"), recipe("b"))
    assert verdicts(answer) == {"a": SKIP, "b": SKIP}
    assert "SIGKILL" in rows(answer)["a"].reason


def test_cells_run_side_by_side_give_the_same_rows(asked):
    answer, _ = asked(*(recipe(name) for name in "abcd"), jobs=3)
    assert verdicts(answer) == dict.fromkeys("abcd", GOOD)


def test_cells_side_by_side_really_run_at_the_same_time(asked, tmp_path):
    """Each of the two waits until both are there."""
    (tmp_path / "met").mkdir()
    meet = {"before": [{"meet": str(tmp_path / "met"), "count": 2}]}
    answer, _ = asked(recipe("a"), recipe("b"), jobs=2, steps={"load": meet})
    assert verdicts(answer) == {"a": GOOD, "b": GOOD}


def test_a_folder_that_holds_the_matrix_is_resumed_only_when_asked(asked):
    asked(recipe("a"))
    with pytest.raises(UsageError, match="--resume"):
        asked(recipe("a"))


def test_a_matrix_that_resumes_asks_only_what_has_no_answer(asked):
    asked(recipe("a"), recipe("b"), broken=["b"])
    answer, lines = asked(recipe("a"), recipe("b"), resume=True, steps={"forward": NAN_FORWARD})
    assert verdicts(answer) == {"a": GOOD, "b": BAD}
    assert any(line.startswith("a: good (answered before)") for line in lines)


def test_the_command_names_no_cell_where_all_were_asked(asked):
    assert "--cell" not in asked(recipe("a"), recipe("b"))[0].command


def test_a_cell_of_another_recipe_is_asked_anew(asked):
    asked(recipe("a"))
    changed = recipe("a", pins={"torch": "2.5.1", "transformers": "4.57.3"})
    answer, lines = asked(changed, resume=True, steps={"forward": NAN_FORWARD})
    assert answer.verdict is BAD
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


@pytest.mark.parametrize(
    ("name", "damage", "place"),
    [("matrix.json", {"case": None}, "case: expected object"), ("a/row.json", {"ran": "yes"}, "ran: expected bool")],
)
def test_a_damaged_file_of_the_matrix_is_refused_with_its_place(asked, tmp_path, name, damage, place):
    asked(recipe("a"))
    path = tmp_path / "out" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(UsageError, match=f"{name} cannot be read \\({place}"):
        asked(recipe("a"), resume=True)


# One cell


def test_a_matrix_of_one_cell_is_a_run(asked, tmp_path):
    answer, lines = asked(recipe("a"), recipe("b"), only=["a"], steps=OVERFLOW)
    place = tmp_path / "out" / "a"
    assert (answer.verdict, answer.origin.module) == (BAD, "model.layers.7")
    assert (answer.cells, answer.differences, answer.shown_cell) == (None, None, None)
    assert read(place / "verdict.json") == answer
    assert all((place / name).exists() for name in ("report.md", "report.html", "bundle.zip", "evidence.jsonl"))
    assert [path.name for path in sorted((tmp_path / "out").iterdir()) if path.is_file()] == [".lock", "matrix.json"]
    assert lines == ["a: Python 3.11, torch 2.4.1, transformers 4.57.3, cpu"]


def test_its_command_builds_the_environment_too(asked, tmp_path):
    answer, _ = asked(recipe("a"), recipe("b"), only=["a"])
    assert answer.command == f"repro matrix {tmp_path / 'model'} --no-ablations --cell a"


def test_it_is_run_once_and_looks_for_a_reproducer_on_the_loaded_model(asked, tmp_path):
    answer, _ = asked(recipe("a"), steps=OVERFLOW)
    assert [step.step for step in answer.steps][-1] == "reduce"
    assert len((tmp_path / "out" / "a" / "host.log").read_text().split("BAD: ")) == 2  # one summary, of one run


def test_of_several_only_the_one_that_stands_for_all_looks_for_one(asked, tmp_path):
    new = recipe("b", pins={"torch": "2.5.1", "transformers": "4.57.3"})
    _, lines = asked(recipe("a"), new, steps=OVERFLOW)
    steps = {name: [step.step for step in read(tmp_path / "out" / name / "verdict.json").steps] for name in "ab"}
    assert sum("reduce" in of_cell for of_cell in steps.values()) == 1
    assert sum(line.endswith("looking for a reproducer") for line in lines) == 1


def test_a_cell_alone_that_cannot_be_built_is_a_skip_with_a_report(asked, tmp_path):
    answer, _ = asked(recipe("a"), broken=["a"])
    assert (answer.verdict, answer.reason, answer.cells) == (SKIP, NO_PYTHON, None)
    assert "no Python 3.11" in (tmp_path / "out" / "a" / "report.md").read_text()


def test_a_cell_alone_that_could_not_be_built_is_asked_again(asked):
    asked(recipe("a"), broken=["a"])
    answer, _ = asked(recipe("a"), resume=True)
    assert (answer.verdict, answer.cells) == (GOOD, None)


def test_a_cell_alone_that_has_answered_is_not_run_again(asked, tmp_path):
    first, _ = asked(recipe("a"), steps=OVERFLOW)
    again, lines = asked(recipe("a"), resume=True)
    assert again == first
    assert any("answered before" in line for line in lines)


def test_cells_asked_one_by_one_meet_in_one_table(asked, tmp_path):
    """As nox asks them: the first is a run, and with the second there is a table, in which both stand."""
    known = [recipe("a"), recipe("b"), recipe("c")]
    first, _ = asked(*known, only=["b"])
    both, _ = asked(*known, only=["a"], resume=True)
    again, _ = asked(*known, only=["b"], resume=True)
    assert (first.cells, list(rows(both)), list(rows(again))) == (None, ["a", "b"], ["a", "b"])
    assert both.command.endswith("--cell a --cell b")
    assert read(tmp_path / "out" / "verdict.json") == again
    assert read(tmp_path / "out" / "b" / "verdict.json") == first


# Stopped


def test_ctrl_c_keeps_what_has_answered_and_says_how_to_go_on(asked, monkeypatch, tmp_path):
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
    assert read(tmp_path / "out" / "a" / "verdict.json").verdict is GOOD
    monkeypatch.undo()


def test_ctrl_c_before_the_first_answer_leaves_no_table(asked, monkeypatch, tmp_path):
    def interrupted(store, recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "built", interrupted)
    with pytest.raises(Stopped):
        asked(recipe("a"))
    assert not (tmp_path / "out" / "verdict.json").exists()
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


def test_the_command_that_asks_again_names_the_folder_of_the_recipes():
    request = request_from("run", {**OPTIONS, "model": "gpt2"})
    matrix = Matrix(request, (), (), envs=Path("my cells"))
    assert matrix.argv([])[-2:] == ("--envs", "my cells")
