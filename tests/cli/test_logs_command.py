"""The command: what it prints and leaves, and how it ends."""

import json

import pytest
from click.testing import CliRunner
from support.intake_logs import FAILED_12B, write_seed_logs

from repro.cli.logs import logs
from repro.core.errors import UsageError

FAILED = (
    "2025-11-17 10:54:09,297 | ERROR | Invalid activations in batch example 0: NaN count=7680\n"
    "2025-11-17 10:54:09,297 | ERROR | Problematic text: Why?\n"
)


def run(*args):
    return CliRunner().invoke(logs, [str(arg) for arg in args])


@pytest.mark.parametrize(("text", "status"), [(FAILED, 1), ("Loaded 100 prompts\n", 0), ("step 3\n", 125), ("", 125)])
def test_the_status_is_the_verdict(tmp_path, text, status):
    (tmp_path / "job.err").write_text(text)
    assert run(tmp_path / "job.err").exit_code == status


def test_the_seeds_logs_are_shown_as_tables_and_sentences(tmp_path):
    done = run(*write_seed_logs(tmp_path))
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "model prompts failed usable NaN counts token rows"
    assert lines[2] == "gemma-3-12b-it 100 38 62 (62 %) 80,640 to 157,440 21 to 41"
    assert lines[3] == "gemma-3-27b-it 100 19 81 (81 %) 166,656 to 198,912 31 to 37"
    assert "job_1067566_gemma3_12b_it_fp16.err gemma-3-12b-it 157 119 0 38" in lines
    assert "probability 2.67e-10" in done.stdout
    assert done.exit_code == 1


def test_the_document_is_all_of_it(tmp_path):
    done = run(*write_seed_logs(tmp_path), "--json")
    document = json.loads(done.stdout)
    assert [row["failed"] for row in document["table"]] == [0, 38, 19]
    assert (document["verdict"], document["overlap"]["pairs"][0]["both"]) == ("bad", 19)
    assert sum(one["times"] for one in document["counts"]) == 57
    assert document["speed"]["lines"] == 5 + 157 + 81


def test_records_and_skip_lists_are_left_in_the_folder(tmp_path):
    out = tmp_path / "out"
    run(*write_seed_logs(tmp_path), "--out", out)
    header, *records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert (header["record"], len(header["logs"]), len(records)) == ("header", 3, 57)
    assert {record["rows"] * record["row_size"] - record["nan"] for record in records} == {0}
    assert (out / "skipped.txt").read_text().splitlines() == FAILED_12B
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [len(one["reasons"]) for one in skipped] == [2] * 19 + [1] * 19
    assert json.loads((out / "logs.json").read_text())["verdict"] == "bad"


def test_a_text_of_several_lines_is_one_line_in_the_list_and_whole_in_the_other(tmp_path):
    (tmp_path / "job.err").write_text(FAILED + "second\n")
    run(tmp_path / "job.err", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "skipped.txt").read_text() == "Why? second\n"
    assert json.loads((tmp_path / "out" / "skipped.jsonl").read_text())["text"] == "Why?\nsecond"


def test_the_failed_prompts_are_handed_on(tmp_path):
    (tmp_path / "job.err").write_text(FAILED)
    out = tmp_path / "out"
    done = run(tmp_path / "job.err", "--out", out, "--rerun", "gpt2")
    assert f"repro prompts gpt2 {out / 'skipped.jsonl'} --field text" in done.stdout


def test_a_log_cannot_move_the_cursor(tmp_path):
    (tmp_path / "job.err").write_text("error: \x1b[2J\x07\x08\u202e\n")
    assert not set(run(tmp_path / "job.err").stdout) & set("\x1b\x07\x08\u202e")


def test_a_form_of_ones_own_is_tried_first(tmp_path):
    (tmp_path / "job.err").write_text("blew up at 12\n")
    (tmp_path / "own.toml").write_text(
        'what = "w"\nsource = "s"\n[[pattern]]\nname = "n"\nrole = "failure"\nhints = ["blew up"]\n'
        'regex = "blew up at (?P<step>[0-9]+)"\n[[pattern.examples]]\nline = "blew up at 1"\nfields = {step = "1"}\n'
    )
    assert run(tmp_path / "job.err").exit_code == 125
    assert run(tmp_path / "job.err", "--patterns", tmp_path / "own.toml").exit_code == 1


def test_logs_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / folder / "job.err" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(FAILED)
    document = json.loads(run(*paths, "--json").stdout)
    assert [log["log"] for log in document["logs"]] == [str(path) for path in paths]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["job.err", "./job.err"], "is given twice"),
        (["job.err", "--encoding", "morse"], "--encoding morse is not a text encoding"),
        (["job.err", "--encoding", "base64"], "--encoding base64 is not a text encoding"),
        (["job.err", "--rerun", "gpt2"], "Name one with --out DIR"),
    ],
)
def test_wrong_usage_is_refused(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.err").write_text(FAILED)
    done = run(*args)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


@pytest.mark.parametrize("args", [[], ["nowhere.err"], ["."], ["job.err", "--total", "0"]])
def test_wrong_arguments_end_with_2(tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.err").write_text(FAILED)
    assert run(*args).exit_code == 2
