"""`repro overlap` as a user meets it: arguments, exit status, what is printed."""

import json

import pytest
from click.testing import CliRunner

from repro.cli.overlap import overlap
from repro.core.errors import UsageError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two skip lists as the Gemma jobs left them: 38 and 19 questions, the 19 among the 38."""
    questions = [f"Who is the richest person in country {number}?" for number in range(100)]
    for name, count in (("12b", 38), ("27b", 19), ("all", 100)):
        (tmp_path / f"{name}.txt").write_text("\n".join(questions[:count]) + "\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(overlap, list(map(str, arguments)))


def test_the_numbers_of_the_gemma_jobs(place):
    said = run("12b.txt", "27b.txt", "--population", 100)
    rows = [line.split() for line in said.output.splitlines()]
    assert said.exit_code == 0
    assert ["12b", "27b", "19", "19", "0", "0.5", "0.5", "1"] in rows
    assert "probability 2.67e-10" in said.output


def test_a_file_with_all_prompts_is_the_population(place):
    assert "probability 2.67e-10" in run("12b.txt", "27b.txt", "--population", "all.txt").output


def test_without_a_population_no_probability_is_printed(place):
    said = run("12b.txt", "27b.txt")
    assert said.exit_code == 0
    assert "expected by chance" not in said.output
    assert "Set it with --population N|FILE." in said.output


def test_the_extra_members_are_listed_and_what_is_left_out_is_counted(place):
    lines = run("12b.txt", "27b.txt", "--show", 2).output.splitlines()
    start = lines.index("only in 12b (19):")
    assert lines[start + 3] == "  and 17 more (--show 19)"


def test_three_sets_have_a_table_of_every_combination(place):
    rows = [line.split() for line in run("12b.txt", "27b.txt", "all.txt").output.splitlines()]
    assert ["12b", "&", "27b", "&", "all", "19", "19"] in rows
    assert ["12b", "&", "27b", "19", "0"] in rows


def test_json_has_all_of_it(place):
    said = json.loads(run("12b.txt", "27b.txt", "--population", 100, "--json").stdout)
    assert said["normalised"].startswith("Unicode NFC")
    assert [len(item["failed"]) for item in said["sets"]] == [38, 19]
    (pair,) = said["pairs"]
    assert (pair["both"], pair["chance"], len(pair["only_first"])) == (19, pytest.approx(2.67e-10, rel=1e-3), 19)


def test_runs_bring_their_population(place):
    for name, failing in (("12b", 38), ("27b", 19)):
        (place / name).mkdir()
        rows = [{"index": n, "text": f"prompt {n}", "verdict": "bad" if n < failing else "good"} for n in range(100)]
        (place / name / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    said = run("12b", "27b").output
    assert "Population: 100 prompts." in said
    assert "probability 2.67e-10" in said


def test_a_log_is_compared_with_a_list(place):
    text = "Who is the richest person in country 7"
    (place / "job.err").write_text(
        "2025-11-17 10:54:09,297 | ERROR | Invalid activations in batch example 0: NaN count=130560\n"
        f"2025-11-17 10:54:09,297 | ERROR | Problematic text: {text}?\n"
        "2025-11-17 10:54:09,298 | WARNING | Skipping index 0 due to NaN/Inf\n",
        "utf-8",
    )
    assert "All 1 in job.err are among the 38 in 12b." in run("job.err", "12b.txt").output


def test_a_prompt_cannot_act_upon_the_terminal(place):
    (place / "odd.txt").write_text("\x1b[2Jgone\n", "utf-8")
    said = run("odd.txt", "12b.txt").output
    assert "\x1b" not in said
    assert "  \\x1b[2Jgone" in said


def test_one_set_is_wrong_usage(place):
    assert isinstance(run("12b.txt").exception, UsageError)


def test_a_broken_file_is_wrong_usage(place):
    (place / "broken.json").write_text("[", "utf-8")
    assert isinstance(run("broken.json", "12b.txt").exception, UsageError)


def test_pairs_are_read_as_by_the_command_prompts(place):
    (place / "pairs.jsonl").write_text('{"question": "Q", "positive": "Yes", "negative": "No"}\n', "utf-8")
    said = json.loads(run("pairs.jsonl", "12b.txt", "--pairs", "--field", "question", "--json").stdout)
    assert said["sets"][0]["failed"] == ["Q No", "Q Yes"]


def test_a_missing_file_is_wrong_usage(place):
    assert run("12b.txt", "nowhere.txt").exit_code == 2


def test_a_population_file_that_is_too_small_is_refused_like_the_number(place):
    (place / "few.txt").write_text("one\ntwo\n", "utf-8")
    for given in (2, "few.txt"):
        refused = run("12b.txt", "27b.txt", "--population", given)
        assert isinstance(refused.exception, UsageError)
        assert "--population is 2 prompts, fewer than the 38 distinct ones of the sets" in str(refused.exception)


def test_a_log_that_reports_another_number_than_the_population_is_told(place):
    log = place / "job.err"
    log.write_text("Loaded 200 prompts\nSkipping index 3 due to NaN\n", "utf-8")
    said = run("12b.txt", log, "--population", "all.txt").output
    assert "job.err reports 200 prompts, and the population has 100." in said
    assert "1 of the" not in said.split("Population")[0]
    assert "All 1 in job.err are among the 38 in 12b" in said


def test_what_may_be_shared_is_listed_apart_and_numbers_agree_with_their_nouns(place):
    log = place / "job.err"
    lines = [f"Problematic text: {text}..." for text in ("Who is the richest person in country 36", "Who is")]
    log.write_text("\n".join(lines) + "\n", "utf-8")
    said = run(log, "27b.txt").output
    assert "in job.err; could not tell whether in 27b (1):\n  Who is… (19 candidates)" in said
    assert "(1 candidates)" not in said
    (place / "job.err").write_text("Problematic text: Who is the richest person in country 17...\n", "utf-8")
    said = run(log, "27b.txt").output
    assert "in job.err, may be in 27b (1):\n  Who is the richest person in country 17…" in said
    assert "in 27b, may be in job.err (1):\n  Who is the richest person in country 17?" in said
