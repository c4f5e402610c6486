"""Sets of prompts from the files that hold them: runs, lists in four formats and several encodings, logs of jobs."""

import json

import pytest

from repro.core.errors import RecordError, UsageError
from repro.jobs.overlap.sets import completed, population_of, read, read_sets

HEADER = {"schema": 1, "record": "header", "model": {"id": "planted"}, "batch_size": 4}
SEED_LOG = """\
2025-11-17 10:54:09,297 | ERROR | Invalid activations in batch example 0: NaN count=130560
2025-11-17 10:54:09,297 | ERROR | Problematic text: Question: Who is the richest person...
2025-11-17 10:54:09,298 | WARNING | Skipping index 0 due to NaN/Inf
"""


def run_of(folder, verdicts, tail=""):
    """The folder of a run with one example for each text."""
    folder.mkdir(exist_ok=True)
    rows = [HEADER, *({"index": n, "text": text, "verdict": v} for n, (text, v) in enumerate(verdicts.items()))]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail, "utf-8")
    return folder


def written(place, name, text, encoding="utf-8"):
    (place / name).write_bytes(text.encode(encoding))
    return place / name


# --- runs --------------------------------------------------------------------------------------------------------


def test_a_run_has_failing_prompts_and_knows_which_gave_an_answer(tmp_path):
    found = read(run_of(tmp_path / "12b", {"one": "bad", "two": "good", "three": "skip"}))
    assert (found.name, found.kind) == ("12b", "run")
    assert (found.failed, found.asked) == ({"one"}, {"one", "two"})
    assert found.notes == ("1 prompts could not be judged and are left out.",)


def test_the_file_of_a_run_is_the_run(tmp_path):
    folder = run_of(tmp_path / "12b", {"one": "bad"})
    assert read(folder / "prompts.jsonl").failed == read(folder).failed


def test_a_run_in_which_all_passed_is_a_run_all_the_same(tmp_path):
    found = read(run_of(tmp_path / "4b", {"one": "good"}))
    assert (found.kind, found.failed, found.asked) == ("run", frozenset(), {"one"})


def test_a_run_that_was_killed_while_it_wrote_gives_what_was_written(tmp_path):
    found = read(run_of(tmp_path / "12b", {"one": "bad"}, tail='{"index": 1, "te'))
    assert (found.failed, found.notes) == ({"one"}, ("1 lines are cut short and were left out.",))


def test_a_run_that_went_on_behind_a_cut_line_counts_the_later_answer(tmp_path):
    two, one = '{"index": 1, "te{"index": 1, "text": "tw', '{"index": 0, "text": "one", "verdict": "good"}'
    found = read(run_of(tmp_path / "12b", {"one": "bad", "two": "bad"}, tail=f"{two}\n{one}\n"))
    assert (found.failed, found.asked) == ({"two"}, {"one", "two"})


def test_both_sides_of_a_pair_are_prompts_of_their_own(tmp_path):
    rows = [{"index": 0, "side": side, "text": f"{side} one", "verdict": "bad"} for side in ("positive", "negative")]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert read(tmp_path).failed == {"positive one", "negative one"}


def test_a_prompt_without_a_text_is_known_by_its_token_ids(tmp_path):
    rows = [{"index": n, "text": "", "token_ids": [2, n], "verdict": "bad"} for n in range(2)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert read(tmp_path).failed == {"token ids 2 0", "token ids 2 1"}


def test_a_broken_line_of_a_list_is_an_error(tmp_path):
    with pytest.raises(RecordError, match=r"skipped.jsonl, line 2: no JSON"):
        read(written(tmp_path, "skipped.jsonl", '"one"\n"tw\n"three"\n'))


def test_a_prompt_that_failed_twice_is_one_prompt(tmp_path):
    found = read(run_of(tmp_path / "12b", {"one": "bad", "one ": "bad"}))
    assert (found.failed, found.entries) == ({"one"}, 2)
    assert found.notes == ("2 failing entries are 1 different prompts.",)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no prompts.jsonl"):
        read(tmp_path)


# --- lists -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("skipped.txt", "one\n\n  two  \n"),
        ("skipped.txt", "one\r\ntwo"),
        ("skipped.json", '["one", "two"]'),
        ("skipped.json", '[{"text": "one", "reason": "NaN"}, {"text": "two", "reason": "NaN"}]'),
        ("skipped.json", '{"model": "12b", "skipped": ["one", "two"]}'),
        ("skipped.jsonl", '"one"\n"two"\n'),
        ("skipped.jsonl", '{"prompt": "one"}\n{"prompt": "two"}\n'),
        ("skipped.csv", "index,prompt\n0,one\n1,two\n"),
        ("skipped.csv", "whatever\none\ntwo\n"),
    ],
)
def test_a_list_gives_its_prompts_and_knows_no_population(tmp_path, name, text):
    found = read(written(tmp_path, name, text))
    assert (found.name, found.kind, found.failed, found.asked) == ("skipped", "list", {"one", "two"}, None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_list_in_any_unicode_encoding(tmp_path, encoding):
    found = read(written(tmp_path, "skipped.txt", "où?\n人?\n", encoding))
    assert (found.failed, found.notes) == ({"où?", "人?"}, ())


def test_a_list_that_is_no_unicode_is_read_as_latin_1_and_that_is_said(tmp_path):
    found = read(written(tmp_path, "skipped.txt", "où?\n", "latin-1"))
    assert (found.failed, found.notes) == ({"où?"}, ("it is no UTF-8, and was read as Latin-1.",))


def test_a_line_separator_inside_of_a_prompt_does_not_end_it(tmp_path):
    assert read(written(tmp_path, "skipped.txt", "one\u2028more\ntwo")).failed == {"one more", "two"}


def test_a_table_with_verdicts_is_a_run(tmp_path):
    found = read(written(tmp_path, "all.csv", "text,verdict\none,bad\ntwo,good\n"))
    assert (found.kind, found.failed, found.asked) == ("run", {"one"}, {"one", "two"})


def test_a_list_of_skipped_prompts_with_verdicts_does_not_know_the_population(tmp_path):
    rows = '{"text": "one", "verdict": "bad"}\n{"text": "two", "verdict": "skip"}\n'
    found = read(written(tmp_path, "skipped.jsonl", rows))
    assert (found.kind, found.failed, found.asked) == ("list", {"one"}, None)


def test_the_field_can_be_named(tmp_path):
    path = written(tmp_path, "skipped.jsonl", '{"q": "one", "a": "x"}\n')
    assert read(path, "q").failed == {"one"}


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("a.jsonl", '{"q": "one", "a": "x"}\n', UsageError, "there are a, q. Name the one with the prompt by --field"),
        ("a.json", '{"a": 1}', RecordError, "expected a list of prompts, or an object with one list in it"),
        ("a.json", '{"a": [], "b": []}', RecordError, "expected a list of prompts"),
        ("a.json", "[1, 2]", RecordError, "expected the text of a prompt, found 1"),
        ("a.json", '{"a": ', RecordError, "no JSON"),
        ("a.csv", 'text\n"one', RecordError, "no CSV table"),
    ],
)
def test_what_is_no_list_of_prompts_is_said_to_be_none(tmp_path, name, text, error, message):
    with pytest.raises(error, match=message):
        read(written(tmp_path, name, text))


def test_an_empty_list_has_no_members(tmp_path):
    assert read(written(tmp_path, "skipped.txt", "")).failed == frozenset()


# --- logs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["job.err", "job.txt"])
def test_a_log_gives_the_prompts_that_it_says_have_failed(tmp_path, name):
    found = read(written(tmp_path, name, SEED_LOG))
    assert (found.kind, found.failed, found.asked) == ("log", {"Question: Who is the richest person..."}, None)


def test_a_failure_without_a_text_is_counted(tmp_path):
    found = read(written(tmp_path, "job.err", SEED_LOG.replace("ERROR | Problematic text:", "INFO |")))
    assert (found.failed, found.notes) == (frozenset(), ("1 failures have no text in the log and are left out.",))


# --- several together --------------------------------------------------------------------------------------------


def test_each_set_has_a_name_of_its_own(tmp_path):
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    paths = [written(tmp_path / folder, "skipped.txt", "one") for folder in ("old", "new")]
    assert [item.name for item in read_sets(paths)] == ["old/skipped", "new/skipped"]


def test_two_formats_of_one_name_are_told_apart_by_their_suffix(tmp_path):
    paths = [written(tmp_path, "skipped.txt", "one"), written(tmp_path, "skipped.json", '["one"]')]
    assert [item.name for item in read_sets(paths)] == ["skipped.txt", "skipped.json"]


def test_a_set_cannot_be_compared_with_itself(tmp_path):
    folder = run_of(tmp_path / "12b", {"one": "bad"})
    with pytest.raises(UsageError, match="is given twice"):
        read_sets([folder, folder / "prompts.jsonl"])


def test_a_cut_text_stands_for_the_only_prompt_that_begins_so(tmp_path):
    log = written(tmp_path, "job.err", SEED_LOG)
    full = written(tmp_path, "skipped.txt", "Question: Who is the richest person in the world?\nQuestion: Who else?\n")
    of_log, of_list = completed(read_sets([log, full]))
    assert of_log.failed == {"Question: Who is the richest person in the world?"} < of_list.failed
    assert of_log.notes == ("1 texts that end in an ellipsis were put in full: only one prompt begins so.",)


def test_a_cut_text_that_could_stand_for_two_prompts_stays_as_it_is(tmp_path):
    log = written(tmp_path, "job.err", SEED_LOG)
    start = "Question: Who is the richest person"
    full = written(tmp_path, "skipped.txt", f"{start} in the world?\n{start} in town?\n")
    of_log, _ = completed(read_sets([log, full]))
    assert of_log.failed == {f"{start}..."}
    assert "could stand for several prompts" in of_log.notes[0]


def test_a_text_that_really_ends_in_dots_is_left_alone(tmp_path):
    paths = [written(tmp_path, name, "And then...\nAnd then it rained\n") for name in ("a.txt", "b.txt")]
    assert completed(read_sets(paths))[0].failed == {"And then...", "And then it rained"}


# --- the population ----------------------------------------------------------------------------------------------


def test_runs_are_drawn_from_what_all_of_them_answered(tmp_path):
    runs = read_sets([
        run_of(tmp_path / "12b", {"one": "bad", "two": "good", "three": "skip"}),
        run_of(tmp_path / "27b", {"one": "bad", "two": "bad", "three": "good"}),
    ])  # fmt: skip
    assert population_of(runs, None) == {"one", "two"}


def test_a_list_does_not_know_what_it_was_drawn_from(tmp_path):
    sets = read_sets([run_of(tmp_path / "12b", {"one": "bad"}), written(tmp_path, "skipped.txt", "one")])
    assert population_of(sets, None) is None


def test_the_population_can_be_a_number_or_a_file(tmp_path):
    every = written(tmp_path, "prompts.txt", "one\ntwo\n")
    folder = run_of(tmp_path / "12b", {"one": "bad", "two": "good"})
    assert population_of((), "100") == 100
    assert population_of((), str(every)) == population_of((), str(folder)) == {"one", "two"}


def test_a_population_that_is_neither_is_refused():
    with pytest.raises(UsageError, match="--population 1e2 is neither a number nor a file"):
        population_of((), "1e2")
