"""Logs in the forms of the field: which quantity is NaN, on how many lines, at which step first; and no false good."""

import pytest
from support.field_logs import FORMS, GRADIENT_FROM, LOSS_FROM, counted, written

from repro.jobs.logs import read_log
from repro.jobs.logs.answer import answer
from repro.jobs.logs.tables import verdict_of


def read(folder, text, name="job.log"):
    (folder / name).write_text(text, "utf-8")
    return read_log(folder / name)


def test_there_are_forty_forms():
    assert len(FORMS) >= 40


@pytest.mark.parametrize("name", FORMS)
def test_what_is_nan_is_counted_by_name_with_its_first_step(tmp_path, name):
    form = FORMS[name]
    text = written(form, GRADIENT_FROM, LOSS_FROM)
    reading = read(tmp_path, text)
    (section,) = reading.sections
    found = section.quantities
    assert {one.name: one.lines for one in found} == counted(form, GRADIENT_FROM, LOSS_FROM)
    first = found[0]
    wanted = GRADIENT_FROM if form.norm is not None else LOSS_FROM
    if form.step is not None:
        assert float(first.place[form.step]) == (wanted / 100 if "." in first.place[form.step] else wanted)
    assert first.name == (form.norm or form.loss)
    assert form.nan in text.splitlines()[first.line - 1]
    assert not any(form.nan in line.split() for line in text.splitlines()[: first.line - 1])
    assert verdict_of(reading).outcome.value == "bad"


@pytest.mark.parametrize("name", FORMS)
def test_a_sound_job_is_good(tmp_path, name):
    reading = read(tmp_path, written(FORMS[name]))
    assert (verdict_of(reading).outcome.value, reading.sections[0].quantities) == ("good", ())


def test_it_is_said_in_words(tmp_path):
    said = answer([read(tmp_path, written(FORMS["logfmt"], GRADIENT_FROM, LOSS_FROM))]).sentences
    assert "job.log: NaN or Inf on 7 lines: grad_norm in 7, loss in 5." in said
    assert "job.log: grad_norm is NaN first, at step 116 (line 9), 2 lines before loss (step 120, line 11)." in said


DEEPSPEED = "[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: {}, reducing to {}"
APEX = "Gradient overflow.  Skipping step, loss scaler 0 reducing loss scale to {}"
SOUND = ["step 1 loss 2.31", "step 2 loss 2.30"]
TRACEBACK = ["Traceback (most recent call last):", '  File "train.py", line 3, in <module>']


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ([*SOUND, *[DEEPSPEED.format(1, 1)] * 50], "bad"),
        ([f"step {n}: grad overflow, skipping step, loss scale 1.0" for n in range(50)], "bad"),
        ([f"step {n}: grad overflow, skipping step, loss scale 65536" for n in range(50)], "bad"),
        ([*SOUND, "Skipped 50 of 50 steps"], "bad"),
        ([*SOUND, "[Rank 0] step=50, skipped=50, lr=[0.0001]"], "bad"),
        ([APEX.format(2.0**-n) for n in range(3)] + [APEX.format("0.0"), *TRACEBACK, "ZeroDivisionError: x"], "bad"),
        ([*SOUND, "Training: Loss 9.5353   Global Step: 60   Fp16 Grad Scale:  0   Required: 9 hours"], "bad"),
        ([DEEPSPEED.format(2**32 >> n, 2**31 >> n) for n in range(15)] + SOUND * 10, "good"),
        ([APEX.format(32768.0), *SOUND, APEX.format(32768.0), *SOUND], "good"),
        ([f"{{'loss': 0.0, 'learning_rate': 1e-05, 'epoch': {n}}}" for n in range(9)], "skip"),
        (["step 1 loss 2.4", *[f"step {n} loss 0.0" for n in range(2, 9)]], "skip"),
        ([f"step {n} loss {10.0**-n:.4f}" for n in range(9)], "good"),
        ([f"phase {n} of the plan was carried out" for n in range(8)], "skip"),
        ([*SOUND, *TRACEBACK, "KeyError: 'x'"], "skip"),
        ([*SOUND, "torch.OutOfMemoryError: CUDA out of memory."], "skip"),
        ([*SOUND, "Segmentation fault (core dumped)"], "skip"),
        ([*SOUND, "srun: error: gpu12: task 0: Exited with exit code 1"], "skip"),
        ([*SOUND, "2025-03-02 11:00:07 | ERROR | batch 3 is corrupt"], "skip"),
        ([*SOUND, "38 of 100 prompts failed"], "skip"),
        ([*SOUND, "Skipped 38/100 prompts due to NaN"], "bad"),
        ([*SOUND, "tensor 7 -> NaN!"], "skip"),
        (["|wikitext|      2|none  |     0|word_perplexity|↓  |   nan|±  |   N/A|"], "bad"),
        (["wandb:         train/loss nan"], "bad"),
        (["wandb:         train/loss 2.31"], "good"),
        (["Final estimate: PPL = nan +/- nan"], "bad"),
        (["WARNING step 12: NaN loss, batch dropped"], "bad"),
        (["loss went to nan"], "bad"),
        (["Batch 12: Invalid loss, terminating training", "loss: nan"], "bad"),
    ],
)
def test_no_false_good(tmp_path, lines, outcome):
    assert verdict_of(read(tmp_path, "\n".join(lines) + "\n")).outcome.value == outcome


@pytest.mark.parametrize(
    "line",
    [
        "a banana for Nancy and the dominant finance minister",
        "no NaN found",
        "No NaN or Inf in the gradients",
        "nan_count: 0",
        "nan count=0, inf count=0",
        "num_nans: 0",
        "has_nan=False",
        "loss is nan: False",
        "the activations were checked for nan",
        "checking loss for nan every 10 steps",
        "the loss is not NaN",
        "Training stops if the loss is nan",
        "will abort when loss is nan",
        "User Nan logged in",
        "user: nan",
        "Author: Nan Li",
        "saved to /home/nan/run3/model.pt",
        "wrote nan_report.json",
        "val_loss improved from inf to 0.41200",
        "best_val_loss: inf",
        "clip_grad_norm_: max_norm=1.0, norm_type=inf",
        "fill_value: nan",
        "scores = torch.nan_to_num(scores, nan=0.0)",
        "check_for_nan_in_loss_and_grad ... True",
        "NaN check enabled",
        "0 NaNs in 26 layers",
    ],
)
def test_no_false_alarm(tmp_path, line):
    found = verdict_of(read(tmp_path, "\n".join([*SOUND, line, "step 3 loss 2.29"]) + "\n"))
    assert (found.outcome.value, found.reason) == ("good", "no failure")


def test_a_failure_beside_a_harmless_part_counts(tmp_path):
    (section,) = read(tmp_path, "step 3 best_loss: inf nan_count: 0 loss: nan\n").sections
    assert [one.name for one in section.quantities] == ["loss"]


def test_an_event_file_without_its_library_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    found = verdict_of(read(tmp_path, "x", "events.out.tfevents.1.host"))
    assert found.outcome.value == "skip"
    assert "pip install tensorboard" in found.reason


def test_a_binary_file_of_wandb_is_named(tmp_path):
    found = verdict_of(read(tmp_path, ":W&B\x00\x01", "run-x.wandb"))
    assert (found.outcome.value, "package wandb" in found.reason) == ("skip", True)
