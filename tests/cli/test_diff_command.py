"""`repro diff` as a user meets it: its four exit statuses, its report, and another interpreter."""

import json
import sys

import pytest
import torch
from corpus import families
from safetensors.torch import save_file
from support.hosting import repro

pytestmark = pytest.mark.usefixtures("forked_interpreters")

PROMPT = "w17 w42 w99 w5 w63 w28 w110 w77"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a sound model, and the same model with another base of its rotary embedding."""
    place = tmp_path_factory.mktemp("models")
    for name, config in (("model", {}), ("other", {"rope_theta": 20000.0})):
        families.build("llama", **config).save_pretrained(place / name)
        families.write_tokenizer(place / name)
    return place


def diff(place, against, *more):
    return repro("diff", "model", "--against", against, "--prompt", PROMPT, "--no-bundle", *more, cwd=place)


def test_two_ways_that_agree_end_with_0(place, tmp_path):
    ran = diff(place, "eager", "--dtype", "bf16", "--out", str(tmp_path / "out"))
    assert ran.returncode == 0, ran.stderr
    assert "GOOD:" in ran.stdout
    assert "agree within rounding" in ran.stdout
    report = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "## Two ways of running it" in report
    assert "KL divergence" in report


def test_two_that_part_end_with_1_and_name_the_module_as_an_origin(place, tmp_path):
    ran = diff(place, "./other", "--json", "--out", str(tmp_path / "out"))
    assert ran.returncode == 1, ran.stderr
    found = json.loads(ran.stdout)
    assert (found["verdict"], found["kind"], found["origin"]["module"]) == ("bad", "divergent", "model.rotary_emb")
    assert found["diff"]["departure"]["weights"][0]["tensor"] == "model.rotary_emb.inv_freq"
    assert "rope_theta is 10000.0 here and 20000.0 there" in found["diff"]["notes"][0]
    report = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "differs from" in report.splitlines()[0]
    assert "model.rotary\\_emb" in report or "model.rotary_emb" in report


def test_the_cases_own_way_ends_with_125(place, tmp_path):
    ran = diff(place, "sdpa", "--out", str(tmp_path / "out"))
    assert ran.returncode == 125
    assert "the case itself runs with sdpa attention" in ran.stdout


@pytest.mark.parametrize(
    ("against", "words"),
    [
        ("sideways", "expected one of float64"),
        ("nothing.safetensors", "there is no such file"),
        ("@main", "a revision only means something where MODEL is a Hub id"),
        ("./nowhere", "--against ./nowhere: './nowhere' does not exist"),
    ],
)
def test_what_cannot_be_held_against_ends_with_2(place, against, words):
    ran = diff(place, against)
    assert ran.returncode == 2
    assert words in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_against_is_needed(place):
    ran = repro("diff", "model", cwd=place)
    assert (ran.returncode, "Missing option '--against'" in ran.stderr) == (2, True)


@pytest.mark.slow
def test_another_interpreter_is_asked_in_a_process_of_its_own(place, tmp_path):
    ran = diff(place, sys.executable, "--json", "--out", str(tmp_path / "out"))
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)["diff"]
    assert found["elsewhere"]["torch"] == torch.__version__
    assert found["nearest"]["deviation"] == 0.0
    assert found["way"].startswith("Python ")


@pytest.mark.slow
def test_what_was_recorded_is_held_against_later(place, tmp_path):
    trace = tmp_path / "trace"
    assert diff(place, f"record:{trace}", "--out", str(tmp_path / "record")).returncode == 0
    ran = diff(place, f"held:{trace}", "--json", "--out", str(tmp_path / "same"))
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)["diff"]
    assert (found["nearest"]["deviation"], found["way"].split()[0]) == (0.0, "Python")
    assert found["notes"][0].startswith('"here" is what was recorded with Python')
    ran = repro("diff", "other", "--against", f"held:{trace}", "--prompt", PROMPT, "--no-bundle", "--json",
                "--out", str(tmp_path / "other"), cwd=place)  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    assert json.loads(ran.stdout)["origin"]["module"] == "model.rotary_emb"
    assert "rope_theta is 10000.0 here and 20000.0 there" in " ".join(json.loads(ran.stdout)["diff"]["notes"])


@pytest.mark.slow
def test_a_folder_that_holds_something_else_is_neither_written_to_nor_read(place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it", "utf-8")
    for kind, words in (("record", "thesis.txt"), ("held", "there is no recording in")):
        ran = diff(place, f"{kind}:{tmp_path / 'mine'}", "--out", str(tmp_path / kind))
        assert ran.returncode == 125
        assert words in ran.stdout
    assert [item.name for item in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_interpreter_without_torch_could_not_be_told(place, tmp_path):
    python = tmp_path / "python-bare"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n', "utf-8")
    python.chmod(0o755)
    ran = diff(place, str(python), "--out", str(tmp_path / "out"))
    assert ran.returncode == 125
    assert "has no torch" in ran.stdout


def test_the_logits_of_another_engine_are_read_from_a_file(place, tmp_path):
    save_file({"input_ids": torch.tensor([1, 17]), "logits": torch.zeros(2, 128)}, tmp_path / "engine.safetensors")
    ran = diff(place, str(tmp_path / "engine.safetensors"), "--out", str(tmp_path / "out"))
    assert ran.returncode == 1
    assert "token 2 of prompt 0 is 42 here and no token in the file" in ran.stdout


def test_a_folder_of_another_question_is_refused(place, tmp_path):
    out = ("--out", str(tmp_path / "out"))
    assert diff(place, "training", *out).returncode == 0
    assert diff(place, "training", *out).returncode == 0  # resumed
    ran = diff(place, "float64", *out)
    assert (ran.returncode, "another case" in ran.stderr) == (2, True)


def test_help_names_every_way(place):
    from repro.core.finite.against import WAYS

    shown = repro("diff", "--help", cwd=place).stdout
    assert all(name.partition(":")[0] in shown for name in WAYS)
