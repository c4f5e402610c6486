"""What logs say together: the seed's tables number by number, and no more than the logs bear."""

import pytest
from support.intake_logs import FAILED_12B, FAILED_27B, write_seed_logs

from repro.core.case import SHIPPED
from repro.core.errors import UsageError
from repro.jobs.logs import read_log
from repro.jobs.logs.answer import answer
from repro.jobs.logs.tables import counts, rows, verdict, verdict_of
from repro.jobs.logs.tallies import hidden_size, shipped_name
from repro.jobs.overlap.sets import read_sets

STAMP = "2025-11-17 10:54:09,297 |"
EVERY = "every element of these tokens is NaN."
ALIKE = "the same number of NaN token rows in both; their NaN counts differ only by hidden size."
CONFOUNDED = (
    "dtype (bfloat16 passing, float16 failing), layer (16 passing, 18, 26 failing) "
    "and max_length (512 passing, 384 failing)"
)
FAILED = [
    f"{STAMP} ERROR | Invalid activations in batch example 0: NaN count=7680",
    f"{STAMP} ERROR | Problematic text: Why?",
]


@pytest.fixture(scope="module")
def seed(tmp_path_factory):
    return [read_log(path) for path in write_seed_logs(tmp_path_factory.mktemp("seed"))]


def read(folder, *lines, name="job.err", **more):
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_log(folder / name, **more)


def test_the_seeds_table_of_losses(seed):
    assert [(row.label, row.total, row.failed, row.succeeded, row.rate) for row in rows(seed)] == [
        ("gemma-3-4b-it", 100, 0, 100, 1.0),
        ("gemma-3-12b-it", 100, 38, 62, 0.62),
        ("gemma-3-27b-it", 100, 19, 81, 0.81),
    ]


def test_the_seeds_counts_in_token_rows(seed):
    assert [(row.counts, row.row_size, row.rows, row.whole) for row in rows(seed)] == [
        (None, 2560, None, 0),
        ((80_640, 157_440), 3840, (21, 41), 38),
        ((166_656, 198_912), 5376, (31, 37), 19),
    ]


def test_the_seeds_line_is_34_rows(tmp_path):
    reading = read(tmp_path, FAILED[0].replace("7680", "130560"), name="job_gemma3_12b_it.err")
    assert [(one.nan, one.rows, one.times) for one in counts([reading])] == [(130_560, 34, 1)]


def test_the_seeds_overlap(seed):
    found = answer(seed).overlap
    (pair,) = found.pairs
    assert (found.population, pair.both, len(pair.only_first), len(pair.only_second)) == (100, 19, 19, 0)
    assert f"{pair.chance:.2e}" == "2.67e-10"


def test_the_seeds_conclusions(seed):
    assert answer(seed).sentences == (
        "gemma-3-4b-it: 0 of 100 prompts failed, 100 (100 %) are usable.",
        "gemma-3-12b-it: 38 of 100 prompts failed, 62 (62 %) are usable.",
        f"gemma-3-12b-it: NaN counts 80,640 to 157,440 are 21 to 41 whole token rows of 3,840 elements: {EVERY}",
        "gemma-3-27b-it: 19 of 100 prompts failed, 81 (81 %) are usable.",
        f"gemma-3-27b-it: NaN counts 166,656 to 198,912 are 31 to 37 whole token rows of 5,376 elements: {EVERY}",
        *answer(seed).overlap.sentences,
        "Assumed: every log ran the same 100 prompts, since each reports that number.",
        f"19 of 19 prompts that failed in both gemma-3-12b-it and gemma-3-27b-it have {ALIKE}",
        "No failures up to gemma-3-4b-it, failures from gemma-3-12b-it up; no size in between was run.",
        f"Model size is confounded: failing and passing logs also differ in {CONFOUNDED}.",
    )


def test_rows_of_a_prompt_that_differ_between_models_are_counted(tmp_path):
    one = read(tmp_path, *FAILED, name="gemma-3-12b.err")
    other = read(tmp_path, FAILED[0].replace("7680", str(3 * 5376)), FAILED[1], name="gemma-3-27b.err")
    (found,) = answer([one, other]).same_rows
    assert (found.same, found.both) == (0, 1)


def test_the_texts_are_given_on(seed):
    texts = [[prompt.text for prompt in reading.sections[0].prompts] for reading in seed]
    assert texts == [[], FAILED_12B, FAILED_27B]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("job_1067566_gemma3_12b_it_fp16.err", "gemma-3-12b"),
        ("google/gemma-3-270m", "gemma-3-270m"),
        ("Gemma3-27B-it", "gemma-3-27b"),
        ("openai-community/gpt2-xl", "gpt2-xl"),
        ("runs/gpt2.log", "gpt2"),
        ("distilgpt2", "distilgpt2"),
        ("gpt20b", None),
        ("gemma-3-120b", None),
        ("pythia-12b", None),
        ("job.err", None),
    ],
)
def test_a_model_is_known_by_its_name_however_it_is_spelt(words, name):
    assert shipped_name(words) == name


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_configuration_has_a_width_and_is_known_by_its_own_name(name):
    assert (hidden_size(name) % 32, shipped_name(name)) == (0, name)


@pytest.mark.parametrize(("sizes", "found"), [((), None), ((1920,), (4, 4)), ((7,), None), ((7, 768), (10, 10))])
def test_a_size_that_is_given_counts(tmp_path, sizes, found):
    assert rows([read(tmp_path, *FAILED, sizes=sizes)])[0].rows == found


def test_counts_that_are_no_whole_rows_are_told(tmp_path):
    found = answer([read(tmp_path, *FAILED, FAILED[0].replace("7680", "7681"), name="gemma-3-12b.err")])
    assert any("1 of 2 are whole token rows" in said for said in found.sentences)


LOADED = f"{STAMP} INFO | Loaded 100 prompts"
BUILT = f"{STAMP} INFO | Built vector bank with 99 samples"
ENDED = "Traceback (most recent call last):"
OTHER = [FAILED[0], FAILED[1].replace("Why", "How")]


@pytest.mark.parametrize(
    ("lines", "total", "rate", "note"),
    [
        (FAILED, None, None, "does not give its number of prompts"),
        (FAILED, 4, 0.75, None),
        ([LOADED, LOADED.replace("100", "50"), *FAILED], None, None, "gives 100 and 50 as its number"),
        ([*FAILED, *OTHER], 1, None, "2 distinct prompts failed of only 1"),
        ([*FAILED, BUILT.replace("99", "62")], 100, 0.99, "62 were kept, but 99 did not fail"),
        ([*FAILED, BUILT], 100, 0.99, None),
        ([LOADED, *FAILED, ENDED], None, None, "may have ended early, so there is no rate (line 4: Traceback"),
        (
            [LOADED, *FAILED, ENDED, BUILT],
            None,
            0.99,
            None,
        ),  # the exception was caught
    ],
)
def test_a_rate_needs_the_number_of_prompts_and_a_whole_job(tmp_path, lines, total, rate, note):
    (row,) = rows([read(tmp_path, *lines)], total)
    assert row.rate == rate
    assert [bool(note and note in said) for said in row.notes] == [True] * bool(note)


def test_a_prompt_that_fails_twice_is_one_prompt(tmp_path):
    reading = read(tmp_path, *FAILED, *FAILED, *[line.replace("Why?", " Why? ") for line in FAILED])
    assert (reading.sections[0].failures, [one.times for one in reading.sections[0].prompts]) == (3, [3])


def test_a_log_of_two_models_has_a_row_for_each(tmp_path):
    one, other = (f"{STAMP} INFO | Loading model {name}" for name in ("gpt2", "gpt2-xl"))
    reading = read(tmp_path, one, *FAILED, other, *FAILED, FAILED[0])
    assert [(row.label, row.failed, row.row_size) for row in rows([reading])] == [
        ("gpt2", 1, 768),
        ("gpt2-xl", 2, 1600),
    ]


def test_a_log_whose_job_loaded_another_model_is_told(tmp_path):
    loaded = f"{STAMP} INFO | Loading model google/gemma-3-4b-it"
    found = answer([read(tmp_path, loaded, *FAILED, name="gemma3_12b.err")])
    assert "gemma3_12b.err is named for gemma-3-12b, but its job loaded google/gemma-3-4b-it." in found.sentences


@pytest.mark.parametrize(
    ("lines", "outcome", "reason"),
    [
        (FAILED, "bad", "1 failure"),
        (["{'loss': nan, 'epoch': 1}"], "bad", "1 failure"),
        ([f"{STAMP} INFO | Loaded 100 prompts"], "good", "no failure"),
        (["{'loss': 2.3, 'epoch': 1}"], "good", "no failure"),
        (["Epoch 1: best_val_loss: inf", "logging_nan_inf_filter=True"], "skip", "no line says how the job went"),
        (["Epoch 1: best_val_loss: inf", "step 1 loss: 2.0"], "good", "no failure"),
        (["number of nan iterations: 0 | lm loss: NAN"], "bad", "1 failure"),
        (["step 1", "step 2"], "skip", "2 lines, none in a known form"),
        (["Loaded 100 prompts", "tensor 7 -> NaN!"], "skip", "1 line about NaN or Inf in no known form"),
        (["Loaded 100 prompts", "Traceback (most recent call last):"], "skip", "may have ended early (line 2)"),
        (["Loaded 100 prompts", "OVERFLOW! Rank 0 Skipping step."], "good", "no failure"),
        (["Loaded 100 prompts", "the dominant info of finance"], "good", "no failure"),
    ],
)
def test_a_log_is_judged_by_what_it_bears(tmp_path, lines, outcome, reason):
    found = verdict_of(read(tmp_path, *lines))
    assert found.outcome.value == outcome
    assert reason in found.reason


def test_one_log_that_could_not_be_told_is_not_hidden_by_a_good_one(tmp_path):
    good = read(tmp_path, "Loaded 100 prompts", name="a.err")
    unknown = read(tmp_path, "nothing", name="b.err")
    bad = read(tmp_path, *FAILED, name="c.err")
    judged = [verdict(logs).outcome.value for logs in ([good], [good, unknown], [good, unknown, bad])]
    assert judged == ["good", "skip", "bad"]


def test_what_is_not_understood_is_counted_by_its_shape(tmp_path):
    lines = [f"tensor {number} -> NaN" for number in range(30)] + ["an error in a file", "step 3"]
    reading = read(tmp_path, *lines)
    assert (reading.unclear, reading.unclear_nonfinite, reading.others) == (31, 30, 1)
    shapes = [(one.times, one.line, one.sample) for one in reading.unclear_shapes]
    assert shapes == [(30, 1, "tensor 0 -> NaN"), (1, 31, "an error in a file")]
    assert reading.other_samples == ("step 3",)


def test_no_chance_is_claimed_of_jobs_that_may_have_ended_early(tmp_path):
    whole = [read(tmp_path, LOADED, *FAILED, name=name) for name in ("gpt2.err", "gpt2-xl.err")]
    ended = read(tmp_path, LOADED, *FAILED, ENDED, name="gpt2-xl.err")
    assert answer(whole).overlap.pairs[0].chance == 0.01
    assert answer([whole[0], ended]).overlap.pairs[0].chance is None


def test_more_prompts_than_are_told_apart_are_counted_and_give_no_rate(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.jobs.logs.tallies.MOST_PROMPTS", 20)
    path = tmp_path / "job.log"
    lines = [f"Skipping example {number}: NaN in the hidden states\n" for number in (*range(50), 3)]
    path.write_text("Loaded 100 prompts\n" + "".join(lines))
    reading = read_log(path)
    (section,) = reading.sections
    assert (section.failures, len(section.prompts), section.untold) == (51, 20, 30)
    (row,) = answer([reading]).table
    assert (row.failed, row.rate) == (20, None)
    said = "\n".join(answer([reading]).sentences)
    assert "at least 20 distinct prompts failed" in said
    assert "30 failures of further prompts are counted alone" in said
    with pytest.raises(UsageError, match="30 failures of more prompts than are told apart"):
        read_sets([path], pairs=False)


def test_a_log_that_changes_its_model_on_every_line_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.jobs.logs.logs.MOST_SECTIONS", 5)
    path = tmp_path / "job.log"
    path.write_text(
        "".join(f"Loading model org/model-{n}b\nSkipping example {n}: NaN in the hidden states\n" for n in range(30))
    )
    reading = read_log(path)
    assert len(reading.sections) <= 6
    assert sum(section.failures for section in reading.sections) == 30
    assert any("changes more than 5 times" in note for note in reading.notes)


CUT = f"{STAMP} ERROR | Problematic text: Question: Is it true what they ..."


def cut_job(indices, *more):
    lines = []
    for index in indices:
        lines += [FAILED[0], CUT]
        lines += [] if index is None else [f"{STAMP} WARNING | Skipping index {index} due to NaN/Inf"]
    return [LOADED, *lines, *more]


@pytest.mark.parametrize(
    ("indices", "more", "failed", "rate", "note"),
    [
        ((27, 63), (), 2, 0.98, None),
        ((27, 27), (), 1, 0.99, None),
        ((None, None), (), 1, None, "1 to 2 prompts: truncated texts without an index may be the same or not"),
        ((None, None), ("2 of 100 prompts failed",), 2, 0.98, "the log's own number, 2, is believed"),
        ((None, None), ("skipped: 1",), 1, 0.99, "the log's own number, 1, is believed"),
        ((27, 63), ("3 of 100 prompts failed",), 2, None, "the log's own number is 3; its lines are believed"),
        ((27, 63), ("1 of 100 prompts failed",), 2, 0.98, "the log's own number is 1; its lines are believed"),
        ((27, 63), ("3 of 100 prompts failed", BUILT.replace("99", "97")), 3, 0.97, "it fits the 97 kept"),
    ],
)
def test_failures_that_look_the_same_are_told_apart_by_index_or_by_the_logs_own_number(
    tmp_path, indices, more, failed, rate, note
):
    (row,) = rows([read(tmp_path, *cut_job(indices, *more))])
    assert (row.failed, row.rate) == (failed, rate)
    assert note is None or any(note in said for said in row.notes)


def test_an_index_that_counts_anew_in_each_batch_is_not_believed(tmp_path):
    lines = []
    for text in ("Why?", "How?", "Who?"):
        lines += [FAILED[0], FAILED[1].replace("Why?", text), f"{STAMP} WARNING | Skipping index 0 due to NaN/Inf"]
    assert rows([read(tmp_path, LOADED, *lines)])[0].failed == 3


def test_a_fixed_width_truncates_too(tmp_path):
    lines = [
        line
        for number in range(9)
        for line in (FAILED[0], FAILED[1].replace("Why?", f"Question {number} is it so that one and tw"))
    ]
    (section,) = read(tmp_path, LOADED, *lines).sections
    assert all(prompt.first.text_cut for prompt in section.prompts)


@pytest.mark.parametrize(
    ("text", "failed", "total", "outcome"),
    [
        ("Skipped 5 of 100 prompts due to NaN", 5, 100, "bad"),
        ("38 prompts failed with NaN", 38, None, "bad"),
        ("Skipped 5 of 100 prompts", 5, 100, "skip"),
        ("Skipped 0 of 100\nTraining complete", 0, 100, "good"),
        ("Failed: 0 / 100", 0, 100, "good"),
        ("0 of 5 nodes failed", 0, None, "skip"),
        ("Skipped 0 of 12 files", 0, None, "skip"),
    ],
)
def test_the_logs_own_number_is_in_the_table_and_in_the_verdict(tmp_path, text, failed, total, outcome):
    (tmp_path / "job.err").write_text(f"{text}\n")
    found = answer([read_log(tmp_path / "job.err")])
    assert (found.table[0].failed, found.table[0].total, found.verdict.outcome.value) == (failed, total, outcome)


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("Loading google/gemma-3-270m", 2),
        ("Loading weights from google/gemma-3-270m-it ...", 2),
        ("Model: google/gemma-3-270m", 2),
        ("model_name=google/gemma-3-270m", 2),
        ('{"model_name_or_path": "google/gemma-3-270m", "seed": 1}', 2),
        ("Namespace(model='/data/gemma-3-270m', seed=1)", 2),
        ("python run.py --model google/gemma-3-270m --dtype float16", 2),
        ("Loading data/train_1b.json", None),
        ("Saving model: out/checkpoint-500", None),
        ("Model: 26 layers", None),
    ],
)
def test_a_header_names_the_model(tmp_path, header, rows):
    (tmp_path / "job.err").write_text(f"{header}\nInvalid activations in batch example 0: NaN count=1280\n")
    (section,) = read_log(tmp_path / "job.err").sections
    assert (section.model is not None, section.row_size) == (rows is not None, rows and 640)
