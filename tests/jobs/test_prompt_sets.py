"""Sets of failed prompts: from runs, lists and logs of jobs, and what they were drawn from."""

import json

import pytest

from repro.core.errors import UsageError
from repro.jobs.overlap.compare import overlap
from repro.jobs.overlap.sets import completed, population_of, read, read_sets

STAMP = "2025-11-17 10:54:09,297"
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
    assert found.notes == ("1 prompt without a verdict (skip) left out.",)


def test_the_file_of_a_run_is_the_run(tmp_path):
    folder = run_of(tmp_path / "12b", {"one": "bad"})
    assert read(folder / "prompts.jsonl").failed == read(folder).failed


def test_a_run_in_which_all_passed_is_a_run_all_the_same(tmp_path):
    found = read(run_of(tmp_path / "4b", {"one": "good"}))
    assert (found.kind, found.failed, found.asked) == ("run", frozenset(), {"one"})


def test_a_prompt_that_failed_twice_is_one_prompt(tmp_path):
    found = read(run_of(tmp_path / "12b", {"one": "bad", "one ": "bad"}))
    assert (found.failed, found.entries) == ({"one"}, 2)
    assert found.notes == ("2 failing entries, 1 distinct prompt.",)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"it has no prompts.jsonl"):
        read(tmp_path)


# --- lists -------------------------------------------------------------------------------------------------------


def test_a_list_gives_its_prompts_and_knows_no_population(tmp_path):
    found = read(written(tmp_path, "skipped.txt", "one\n\n  two  \n"))
    assert (found.name, found.kind, found.failed, found.asked) == ("skipped", "list", {"one", "two"}, None)


def test_a_table_with_verdicts_is_a_run(tmp_path):
    found = read(written(tmp_path, "all.csv", "text,verdict\none,bad\ntwo,good\n"))
    assert (found.kind, found.failed, found.asked) == ("run", {"one"}, {"one", "two"})


def test_a_list_of_skipped_prompts_with_verdicts_does_not_know_the_population(tmp_path):
    rows = '{"text": "one", "verdict": "bad"}\n{"text": "two", "verdict": "skip"}\n'
    found = read(written(tmp_path, "skipped.jsonl", rows))
    assert (found.kind, found.failed, found.asked) == ("list", {"one"}, None)


def test_an_empty_list_has_no_members(tmp_path):
    assert read(written(tmp_path, "skipped.txt", "")).failed == frozenset()


# --- logs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["job.err", "job.txt"])
def test_a_log_gives_the_prompts_that_it_says_have_failed(tmp_path, name):
    found = read(written(tmp_path, name, SEED_LOG))
    assert (found.kind, found.failed, found.asked) == ("log", {"Question: Who is the richest person…"}, None)


def test_a_failure_without_a_text_is_counted(tmp_path):
    log = SEED_LOG.replace("ERROR | Problematic text:", "INFO |")
    found = read(written(tmp_path, "job.err", log))
    assert (found.failed, found.notes) == ({"(index 0)"}, ("1 failure with an index and no text.",))
    found = read(written(tmp_path, "b.err", log.replace("WARNING | Skipping index", "INFO |")))
    assert (found.failed, found.notes) == (frozenset(), ("1 failure without a text or an index in the log left out.",))


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
    every = population_of((), str(full))
    (of_log, of_list), matched = completed(read_sets([log, full]), every)
    assert of_log.failed == {"Question: Who is the richest person in the world?"} < of_list.failed
    assert of_log.notes == ("1 truncated text completed: only one prompt of the population starts that way.",)
    assert not matched.unclear


def test_without_a_population_a_cut_text_may_be_the_only_prompt_that_begins_so(tmp_path):
    log = written(tmp_path, "job.err", SEED_LOG)
    full = written(tmp_path, "skipped.txt", "Question: Who is the richest person in the world?\nQuestion: Who else?\n")
    pair = pair_of([log, full])
    assert (pair.both, [*pair.unclear_first.values()], [*pair.unclear_second.values()]) == (0, [1], [1])
    assert pair.sentence.startswith("0 of the 1 in job.err are among the 2 in skipped; 1 may be, as a truncated text")


def test_without_a_population_two_cut_texts_that_are_the_same_may_be_one_prompt(tmp_path):
    logs = [job(tmp_path, name, [27], index=False) for name in ("a.err", "b.err")]
    pair = pair_of(logs)
    assert (pair.both, pair.only_first, pair.only_second, [*pair.unclear_first.values()]) == (0, (), (), [1])


def test_a_known_prompt_that_did_not_fail_is_a_candidate_too(tmp_path):
    start = "Question: Who is the richest person"
    run = run_of(tmp_path / "12b", {f"{start} in the world?": "bad", f"{start} in town?": "good"})
    pair = pair_of([written(tmp_path, "job.err", SEED_LOG.replace("index 0", "index 7")), run])
    assert pair.unclear_first == {f"{start}…": 2}


def test_a_cut_text_that_could_stand_for_two_prompts_stays_as_it_is(tmp_path):
    log = written(tmp_path, "job.err", SEED_LOG)
    start = "Question: Who is the richest person"
    full = written(tmp_path, "skipped.txt", f"{start} in the world?\n{start} in town?\n")
    (of_log, _), matched = completed(read_sets([log, full]))
    unclear = matched.unclear
    assert of_log.failed == {f"{start}…"}
    assert unclear["job.err", "skipped"] == {f"{start}…": 2}
    assert unclear["skipped", "job.err"] == {f"{start} in the world?": 1, f"{start} in town?": 1}
    assert "1 prompt could not be told" in of_log.notes[0]


def test_a_text_that_really_ends_in_dots_is_left_alone(tmp_path):
    paths = [written(tmp_path, name, "And then...\nAnd then it rained\n") for name in ("a.txt", "b.txt")]
    (first, second), matched = completed(read_sets(paths))
    assert (len(first.failed), first.failed, matched.unclear) == (2, second.failed, {})


QUESTIONS = [f"Question: {number} is what they say of number {number}?" for number in range(100)]
QUESTIONS[27], QUESTIONS[63] = (f"Question: Is it true what they say about {kind}?" for kind in ("cats", "dogs"))
FAILED_12B = sorted({*range(1, 64, 2), 64, 66, 68, 70, 72, 74})
FAILED_27B = sorted({*FAILED_12B[::2], 27, 63})[:19]


def job(place, name, failed, *, width=32, index=True, total=None):
    """A job's log that truncates its prompts."""
    lines = []
    for number in failed:
        lines.append(
            f"2025-11-17 10:54:09,297 | ERROR | Invalid activations in batch example {number % 4}: NaN count=7680"
        )
        lines.append(f"2025-11-17 10:54:09,297 | ERROR | Problematic text: {QUESTIONS[number][:width].rstrip()}...")
        if index:
            lines.append(f"2025-11-17 10:54:09,298 | WARNING | Skipping index {number} due to NaN/Inf")
    if total is not None:
        lines.append(f"{STAMP} | WARNING | {total} of 100 prompts failed")
    return written(place, name, "\n".join(lines) + "\n")


def pair_of(paths, population=100):
    sets = read_sets(paths)
    drawn = population_of(sets, str(population))
    _, matched = completed(sets, {} if isinstance(drawn, int) else drawn)
    return overlap(matched.sets, matched.population or drawn, matched.unclear).pairs[0]


def test_the_failures_are_those_of_the_write_up():
    assert (len(FAILED_12B), len(FAILED_27B), set(FAILED_27B) <= set(FAILED_12B)) == (38, 19, True)
    assert {27, 63} <= set(FAILED_27B)


@pytest.mark.parametrize("widths", [(32, 32), (32, 40), (20, 36)])
def test_two_logs_that_truncate_are_matched_by_index(tmp_path, widths):
    logs = [job(tmp_path, "a.err", FAILED_12B, width=widths[0]), job(tmp_path, "b.err", FAILED_27B, width=widths[1])]
    pair = pair_of(logs)
    assert (pair.both, len(pair.only_first), len(pair.only_second), f"{pair.chance:.3g}") == (19, 19, 0, "2.67e-10")


def test_an_index_of_another_file_is_not_believed(tmp_path):
    log = job(tmp_path, "a.err", range(40), width=60)
    other = written(tmp_path, "b.err", log.read_text().replace("index 1", "index 2").replace("index 3 ", "index 9 "))
    pair = pair_of([log, other])
    assert (pair.both, pair.only_first, set(pair.unclear_first.values())) == (0, (), {1})
    every = written(tmp_path, "all.txt", "\n".join(QUESTIONS))
    assert pair_of([log, other], every).both == 40


def test_a_list_of_whole_texts_is_matched_by_how_they_begin(tmp_path):
    skipped = written(tmp_path, "27b.txt", "\n".join(QUESTIONS[number] for number in FAILED_27B))
    pair = pair_of([skipped, job(tmp_path, "a.err", FAILED_12B)])
    assert (pair.both, pair.only_first) == (0, ())
    assert sorted(pair.unclear_first.values()) == [1] * 17 + [2] * 2
    assert "17 may be, as a truncated text fits; could not tell for 2, as a truncated text fits several (2 " in (
        pair.sentence
    )
    assert not pair.sentence.startswith("None")


def test_all_that_begin_so_in_the_population_are_known(tmp_path):
    skipped = written(tmp_path, "27b.txt", "\n".join(QUESTIONS[number] for number in FAILED_27B))
    every = written(tmp_path, "all.txt", "\n".join(QUESTIONS))
    pair = pair_of([skipped, job(tmp_path, "a.err", FAILED_12B)], every)
    assert (pair.both, pair.unclear_first, f"{pair.chance:.3g}") == (19, {}, "2.67e-10")


def only_indices(place, name, indices):
    """A log that names its failed prompts by index alone."""
    return written(place, name, "".join(f"{STAMP} | WARNING | Skipping index {n} due to NaN/Inf\n" for n in indices))


@pytest.mark.parametrize("start", [0, 1])
def test_an_index_is_looked_up_in_the_population(tmp_path, start):
    """Where the texts alone would fit several."""
    alike = [f"Question: Is it true what they say about number {number}?" for number in range(9)]
    every = written(tmp_path, "all.txt", "\n".join([*alike, "Question: Who?"]))
    lines = "".join(
        f"{STAMP} | ERROR | Problematic text: {text}...\n{STAMP} | WARNING | Skipping index {at} due to NaN/Inf\n"
        for text, at in [(alike[3][:30], 3 + start), (alike[7][:30], 7 + start), ("Question: Wh", 9 + start)]
    )
    log = written(tmp_path, "job.err", lines)
    skipped = written(tmp_path, "skipped.txt", "\n".join([alike[3], alike[5]]))
    sets, matched = completed(read_sets([log, skipped]), population_of((), str(every)))
    assert sets[0].failed == {alike[3], alike[7], "Question: Who?"}
    assert (matched.unclear, matched.by_index, matched.assumed) == ({}, {"job.err": 2, "skipped": 0}, ())


def test_an_index_alone_is_looked_up_and_what_was_assumed_is_said(tmp_path):
    every = written(tmp_path, "all.txt", "\n".join(QUESTIONS))
    log = only_indices(tmp_path, "job.err", [27, 63])
    (of_log,), matched = completed(read_sets([log]), population_of((), str(every)))
    assert of_log.failed == {QUESTIONS[27], QUESTIONS[63]}
    assert matched.assumed == ("job.err counts the population from 0; it has no text that would confirm it",)


def test_an_index_beyond_the_population_is_not_looked_up(tmp_path):
    every = written(tmp_path, "all.txt", "\n".join(QUESTIONS[:50]))
    (of_log,), matched = completed(
        read_sets([only_indices(tmp_path, "job.err", [27, 63])]), population_of((), str(every))
    )
    assert of_log.failed == {"(index 27)", "(index 63)"}
    assert matched.assumed == ()


def test_a_text_that_speaks_against_the_population_s_order_is_believed(tmp_path):
    every = written(tmp_path, "all.txt", "\n".join(QUESTIONS[::-1]))
    (of_log,), _ = completed(read_sets([job(tmp_path, "a.err", [5, 27, 40])]), population_of((), str(every)))
    assert of_log.failed == {QUESTIONS[5], QUESTIONS[40], f"{QUESTIONS[27][:32]}…"}


def test_a_log_of_indices_alone_is_not_empty_and_not_said_to_share_nothing(tmp_path):
    log, other = only_indices(tmp_path, "job.err", [27]), written(tmp_path, "skipped.txt", QUESTIONS[63])
    assert "may be" in pair_of([log, other]).sentence
    assert pair_of([log, only_indices(tmp_path, "b.err", [27, 63])]).both == 1


def test_each_of_several_cut_texts_that_look_alike_has_its_index(tmp_path):
    log = job(tmp_path, "a.err", [27, 63])
    (of_log, _), _ = completed(read_sets([log, written(tmp_path, "b.txt", "Quite another one\n")]))
    assert of_log.failed == {f"{QUESTIONS[27][:32]}… (index 27)", f"{QUESTIONS[27][:32]}… (index 63)"}


def test_texts_that_share_no_beginning_are_not_matched(tmp_path):
    other = written(tmp_path, "b.txt", "Quite another one...\nAnd one more...\n")
    pair = pair_of([other, job(tmp_path, "a.err", FAILED_12B)])
    assert (pair.both, len(pair.only_first), pair.unclear_first) == (0, 2, {})


# --- the population ----------------------------------------------------------------------------------------------


def test_runs_are_drawn_from_what_all_of_them_answered(tmp_path):
    runs = read_sets([
        run_of(tmp_path / "12b", {"one": "bad", "two": "good", "three": "skip"}),
        run_of(tmp_path / "27b", {"one": "bad", "two": "bad", "three": "good"}),
    ])  # fmt: skip
    assert set(population_of(runs, None)) == {"one", "two"}


def test_a_list_does_not_know_what_it_was_drawn_from(tmp_path):
    sets = read_sets([run_of(tmp_path / "12b", {"one": "bad"}), written(tmp_path, "skipped.txt", "one")])
    assert population_of(sets, None) is None


def test_the_population_can_be_a_number_or_a_file(tmp_path):
    every = written(tmp_path, "prompts.txt", "one\ntwo\n")
    folder = run_of(tmp_path / "12b", {"one": "bad", "two": "good"})
    assert population_of((), "100") == 100
    assert population_of((), str(every)) == population_of((), str(folder)) == {"one": [0], "two": [1]}


def test_a_population_that_is_neither_is_refused():
    with pytest.raises(UsageError, match="--population 1e2 is neither a number nor a file"):
        population_of((), "1e2")
