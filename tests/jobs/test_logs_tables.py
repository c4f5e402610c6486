"""What logs say together: the seed's tables number by number, and no more than the logs bear."""

import pytest
from support.intake_logs import FAILED_12B, FAILED_27B, write_seed_logs

from repro.core.case import SHIPPED
from repro.jobs.logs import read_log
from repro.jobs.logs.conclusions import same_rows, sentences, shared
from repro.jobs.logs.sizes import hidden_size, shipped_name
from repro.jobs.logs.tables import counts, rows, verdict, verdict_of

STAMP = "2025-11-17 10:54:09,297 |"
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


def notes(reading, total=None):
    return " ".join(rows([reading], total)[0].notes)


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
    found = shared(seed, rows(seed))
    (pair,) = found.pairs
    assert (found.population, pair.both, len(pair.only_first), len(pair.only_second)) == (100, 19, 19, 0)
    assert f"{pair.chance:.2e}" == "2.67e-10"
    assert "all of the 19 in gemma-3-27b-it are among the 38 in gemma-3-12b-it" in pair.sentence


def test_the_seeds_conclusions(seed):
    said = "\n".join(sentences(seed, rows(seed)))
    assert "gemma-3-12b-it: 38 of 100 prompts failed, 62 (62 %) are usable." in said
    assert "NaN counts 166,656 to 198,912 are whole token rows of 5,376 elements: 31 to 37 tokens" in said
    assert "No failure up to gemma-3-4b-it, failures from gemma-3-12b-it; nothing in between was run." in said
    assert "dtype (bfloat16 where it is sound, float16 where it fails)" in said
    assert "max_length (512 where it is sound, 384 where it fails)" in said
    assert "That all of them ran the same 100 prompts is taken from their number." in said


def test_the_same_prompt_has_as_many_rows_in_both_models(seed):
    (found,) = same_rows(seed)
    assert (found.same, found.both) == (19, 19)


def test_other_rows_of_the_same_prompt_are_counted_as_such(tmp_path):
    one = read(tmp_path, *FAILED, name="gemma-3-12b.err")
    other = read(tmp_path, FAILED[0].replace("7680", str(3 * 5376)), FAILED[1], name="gemma-3-27b.err")
    (found,) = same_rows([one, other])
    assert (found.same, found.both) == (0, 1)
    assert "0 of 1 prompts that failed in both gemma-3-12b and gemma-3-27b have as many" in " ".join(
        sentences([one, other], rows([one, other]))
    )


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
    reading = read(tmp_path, *FAILED, FAILED[0].replace("7680", "7681"), name="gemma-3-12b.err")
    assert "1 of 2 are whole token rows of 3,840 elements" in " ".join(sentences([reading], rows([reading])))


def test_no_rate_without_the_number_of_prompts(tmp_path):
    reading = read(tmp_path, *FAILED)
    assert (rows([reading])[0].rate, rows([reading], 4)[0].rate) == (None, 0.75)
    assert "say it with --total N" in notes(reading)


def test_two_numbers_of_prompts_are_no_number(tmp_path):
    reading = read(tmp_path, f"{STAMP} INFO | Loaded 100 prompts", f"{STAMP} INFO | Loaded 50 prompts", *FAILED)
    assert rows([reading])[0].rate is None
    assert "the log names 100 and 50 as the number of its prompts" in notes(reading)


def test_more_failures_than_prompts_give_no_rate(tmp_path):
    reading = read(tmp_path, *FAILED, FAILED[0], FAILED[1].replace("Why", "How"))
    assert rows([reading], 1)[0].rate is None
    assert "2 different prompts failed, and there were 1" in notes(reading, 1)


def test_a_prompt_that_fails_twice_is_one_prompt(tmp_path):
    reading = read(tmp_path, *FAILED, *FAILED, *[line.replace("Why?", " Why? ") for line in FAILED])
    assert (reading.sections[0].failures, [one.times for one in reading.sections[0].prompts]) == (3, [3])


def test_what_was_kept_is_held_against_what_failed(tmp_path):
    built = f"{STAMP} INFO | Built vector bank with 62 samples"
    assert "the log says that 62 were kept, but 99 did not fail" in notes(read(tmp_path, *FAILED, built), 100)
    assert notes(read(tmp_path, *FAILED, built.replace("62", "99")), 100) == ""


def test_a_log_of_two_models_has_a_row_for_each(tmp_path):
    one, other = (f"{STAMP} INFO | Loading model {name}" for name in ("gpt2", "gpt2-xl"))
    reading = read(tmp_path, one, *FAILED, other, *FAILED, FAILED[0])
    assert [(row.label, row.failed, row.row_size) for row in rows([reading])] == [
        ("gpt2", 1, 768),
        ("gpt2-xl", 2, 1600),
    ]


def test_a_log_whose_job_loaded_another_model_is_told(tmp_path):
    loaded = f"{STAMP} INFO | Loading model google/gemma-3-4b-it"
    reading = read(tmp_path, loaded, *FAILED, name="gemma3_12b.err")
    assert "gemma3_12b.err is named for gemma-3-12b, and its job loaded google/gemma-3-4b-it." in sentences(
        [reading], rows([reading])
    )


@pytest.mark.parametrize(
    ("lines", "outcome", "reason"),
    [
        (FAILED, "bad", "1 failure"),
        (["{'loss': nan, 'epoch': 1}"], "bad", "1 failure"),
        ([f"{STAMP} INFO | Loaded 100 prompts"], "good", "no failure"),
        (["{'loss': 2.3, 'epoch': 1}"], "good", "no failure"),
        (["Epoch 1: best_val_loss: inf", "logging_nan_inf_filter=True"], "good", "no failure"),
        (["number of nan iterations: 0 | lm loss: NAN"], "bad", "1 failure"),
        (["step 1", "step 2"], "skip", "2 lines, none of a form that is known"),
        (["Loaded 100 prompts", "tensor 7 -> NaN!"], "skip", "no form that is known has 1 line about NaN or Inf"),
        (["Loaded 100 prompts", "Traceback (most recent call last):"], "skip", "may have ended early: line 2"),
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
    lines = [f"tensor {number} -> NaN" for number in range(30)] + ["RuntimeError: no such file", "step 3"]
    reading = read(tmp_path, *lines)
    assert (reading.unclear, reading.unclear_nonfinite, reading.others) == (31, 30, 1)
    shapes = [(one.times, one.line, one.sample) for one in reading.unclear_shapes]
    assert shapes == [(30, 1, "tensor 0 -> NaN"), (1, 31, "RuntimeError: no such file")]
    assert reading.other_samples == ("step 3",)


def test_no_rate_of_a_job_that_may_have_ended_early(tmp_path):
    """One that says at its end what it kept has caught its exception."""
    lines = [f"{STAMP} INFO | Loaded 100 prompts", *FAILED, "Traceback (most recent call last):"]
    reading = read(tmp_path, *lines)
    assert (rows([reading])[0].failed, rows([reading])[0].rate) == (1, None)
    assert "the job may have ended early, so no rate is given (line 4: Traceback" in notes(reading)
    assert rows([read(tmp_path, *lines, f"{STAMP} INFO | Built vector bank with 99 samples")])[0].rate == 0.99


def test_no_chance_is_claimed_of_jobs_that_may_have_ended_early(tmp_path):
    lines = [f"{STAMP} INFO | Loaded 100 prompts", *FAILED]
    whole = [read(tmp_path, *lines, name=name) for name in ("gpt2.err", "gpt2-xl.err")]
    ended = read(tmp_path, *lines, "Traceback (most recent call last):", name="gpt2-xl.err")
    assert shared(whole, rows(whole)).pairs[0].chance == 0.01
    assert shared([whole[0], ended], rows([whole[0], ended])).pairs[0].chance is None
