"""The command `repro prompts` from its file to its answer; what is stopped goes on, and nothing is lost or doubled."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpus.families import BOS, HIDDEN, PAD
from support.hosting import command, environment, repro
from support.prompt_models import KILL, POISON, RARE, WAIT, write_lines, write_llama, write_odd

from repro.sweeps.prompts.records import PromptRecords
from repro.sweeps.prompts.run import summary

WORDS = [f"w{number}" for number in range(20, 76)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "rare": write_llama(root / "rare", RARE),
        "bos": write_llama(root / "bos", BOS),
        "pad": write_llama(root / "pad", PAD),
        "odd": write_odd(root / "odd"),
        "odd, no tokenizer": write_odd(root / "mute", tokenizer=False),
    }


def ask(model, file, *options, cwd, out="out", env=None):
    more = ("--dtype", "float16") if "mute" not in str(model) and "odd" not in str(model) else ("--trust-remote-code",)
    return repro("prompts", model, file, *more, *options, "--no-bundle", "--out", out, cwd=cwd, env=env)


def answer(folder):
    return json.loads((folder / "verdict.json").read_text("utf-8"))


def lines(folder):
    """The records as they stand, doubled or not."""
    text = (folder / "prompts.jsonl").read_text("utf-8")
    return [record for record in map(json.loads, text.splitlines()) if "index" in record]


def prompts_of(count, plain=5):
    """Prompts of `plain` words each, all different."""
    return [" ".join(WORDS[(number + 7 * place) % len(WORDS)] for place in range(plain)) for number in range(count)]


# --- the whole way -----------------------------------------------------------------------------------------------


def test_a_rare_token_is_found_and_named_as_the_reason(models, tmp_path):
    """12 of 40 prompts have the token, at different places, in prompts of different lengths."""
    texts = prompts_of(40)
    for number in range(0, 36, 3):
        words = texts[number].split()
        texts[number] = " ".join([*words[: number % 4], f"w{RARE}", *words[number % 4 :]])
    for number in range(1, 36, 3):
        texts[number] += " w13"  # as long as those
    done = ask(models["rare"], write_lines(tmp_path / "p.txt", *texts), cwd=tmp_path)
    assert (done.returncode, done.stderr.count("Traceback")) == (1, 0)
    found = answer(tmp_path / "out")
    assert (found["verdict"], found["kind"]) == ("bad", "nonfinite")
    section = found["prompts"]
    assert [section[name] for name in ("asked", "total", "good", "bad", "skip")] == [40, 40, 28, 12, 0]
    assert section["places"] == [{"layer": "model.layers.1", "token": "w77", "kind": "text", "examples": 12}]
    assert section["causes"] == {"own": 12}
    assert section["why"]["outcome"] == "pattern"
    first = section["why"]["findings"][0]
    assert (first["topic"]["family"], first["separates"], first["significant"]) == ("token", True, True)
    assert str(RARE) in first["sentence"]
    assert "12 of 40 examples are bad. Each of them goes bad first in model.layers.1 at 'w77' (text)." in done.stdout


def test_where_nothing_tells_the_prompts_apart_it_says_so(models, tmp_path):
    """A batch-only fault: which prompts stand beside the poison hangs on nothing that they are."""
    texts = prompts_of(64)
    order = [3, 14, 30, 47]
    for place in order:
        texts[place] = f"w{POISON} w20 w21 w22 w23"
    done = ask(models["odd"], write_lines(tmp_path / "p.txt", *texts), "--batch-size", 4, cwd=tmp_path)
    assert done.returncode == 1
    section = answer(tmp_path / "out")["prompts"]
    assert section["causes"] == {"composition": 12}
    assert section["why"]["outcome"] == "no pattern"


def test_padding_is_found_as_the_reason(models, tmp_path):
    texts = [text if number % 2 else " ".join(text.split()[:2]) for number, text in enumerate(prompts_of(40, 6))]
    file = write_lines(tmp_path / "p.txt", *texts)
    done = ask(models["pad"], file, "--padding-side", "left", cwd=tmp_path)
    section = answer(tmp_path / "out")["prompts"]
    assert (done.returncode, section["bad"], section["causes"]) == (1, 20, {"padding": 20})
    assert section["places"] == [{"layer": "model.layers.1", "token": "<pad>", "kind": "padding", "examples": 20}]
    assert section["padding_rows_bad_in"] == {"model.layers.1": 20}
    significant = [item["topic"]["family"] for item in section["why"]["findings"] if item["significant"]]
    assert "padding" in significant
    assert "padding" in section["why"]["sentence"]


def test_bad_values_are_factored_into_whole_rows(models, tmp_path):
    """In the last layer every row of a prompt of n words is NaN: (n + 1) x 32 values, its <bos> being one."""
    texts = ["w3 w4 w5", "w6 w7", "w8", "w9 w10"]
    ask(models["bos"], write_lines(tmp_path / "p.txt", *texts), cwd=tmp_path)
    section = answer(tmp_path / "out")["prompts"]
    assert section["counts"][0] == {"values": 3 * HIDDEN, "rows": 3, "row_size": HIDDEN, "whole": True, "examples": 2}
    assert {(item["values"], item["rows"]) for item in section["counts"]} == {(128, 4), (96, 3), (64, 2)}


def test_a_model_without_a_tokenizer_takes_ids(models, tmp_path):
    file = write_lines(tmp_path / "p.jsonl", '{"ids": [3, 4]}', '{"ids": [5]}', '{"ids": [500]}')
    done = ask(models["odd, no tokenizer"], file, cwd=tmp_path)
    assert done.returncode == 125
    assert [(item["verdict"], item["text"]) for item in lines(tmp_path / "out")] == [
        ("good", None), ("good", None), ("skip", None),
    ]  # fmt: skip
    why = "1 of 3 examples gave no answer: token id 500 is none of the model's 128; the other 2 are good."
    assert why in done.stdout
    assert (tmp_path / "out" / "skipped.txt").read_text() == "index 2\n"


def test_a_model_without_a_tokenizer_does_not_take_texts(models, tmp_path):
    done = ask(models["odd, no tokenizer"], write_lines(tmp_path / "p.txt", "w3"), cwd=tmp_path)
    assert done.returncode == 125
    assert "no tokenizer" in done.stdout + done.stderr
    assert lines(tmp_path / "out") == []


def test_the_skip_list_has_each_lost_prompt_in_a_line_and_its_reason(models, tmp_path):
    file = tmp_path / "p.json"
    file.write_text(json.dumps(["w3 w4", f"w5\nw{RARE}  w6", "w7"]))
    ask(models["rare"], file, cwd=tmp_path)
    assert (tmp_path / "out" / "skipped.txt").read_text() == "w5 w77 w6\n"
    (record,) = map(json.loads, (tmp_path / "out" / "skipped.jsonl").read_text().splitlines())
    assert (record["index"], record["verdict"], record["text"]) == (1, "bad", "w5\nw77  w6")
    assert record["reason"].startswith("bad first in model.layers.1 at token 2 'w77' (text)")


def test_lost_pairs_are_counted_and_compared_with_the_rest(models, tmp_path):
    pairs = [{"question": text, "positive": "w11", "negative": "w12"} for text in prompts_of(30)]
    for number in range(0, 30, 3):
        pairs[number]["negative"] = f"w{RARE}"
    file = tmp_path / "p.json"
    file.write_text(json.dumps(pairs))
    done = ask(models["rare"], file, "--pairs", "--batch-size", 7, "--vectors", "v.safetensors", cwd=tmp_path)
    section = answer(tmp_path / "out")["prompts"]
    assert (done.returncode, section["asked"], section["bad"], section["pairs"]) == (1, 60, 10, 30)
    assert section["pairs_lost"] == list(range(0, 30, 3))
    assert (section["vectors"]["used"], section["vectors"]["lost"]) == (20, 10)
    assert section["lost_why"]["failing"] == 20
    assert (tmp_path / "v.safetensors").exists()
    assert "20 pairs used, 10 lost" in done.stdout


def test_options_of_the_pipeline_reach_the_model(models, tmp_path):
    """Cut to two tokens, <bos> and one word, the rare token is gone."""
    file = write_lines(tmp_path / "p.txt", f"w3 w4 w{RARE}", "w5")
    done = ask(models["rare"], file, "--max-length", 2, "--layer", -1, "--padding-side", "left", cwd=tmp_path)
    section = answer(tmp_path / "out")["prompts"]
    assert done.returncode == 0
    assert (section["layers"], section["padding_side"]) == (["model.layers.2"], "left")
    assert [item["token_ids"] for item in lines(tmp_path / "out")] == [[BOS, 3], [BOS, 5]]
    again = answer(tmp_path / "out")["command"]
    assert "--max-length 2 --padding-side left --batch-size 8 --layer -1" in again


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--vectors", "v.safetensors"), "--vectors needs --pairs"),
        (("--prompt", "w3"), "the prompts are those of FILE"),
        (("--pairs",), "no fields and no pairs"),
        (("--layer", "1.5"), "--layer"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_model_is_loaded(models, tmp_path, options, message):
    done = ask(models["rare"], write_lines(tmp_path / "p.txt", "w3"), *options, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_layer_that_is_not_there_is_said(models, tmp_path):
    done = ask(models["rare"], write_lines(tmp_path / "p.txt", "w3"), "--layer", 3, cwd=tmp_path)
    assert done.returncode == 125
    assert "There is no layer 3: the model has 3, 0 to 2" in done.stdout


# --- stopped and gone on -----------------------------------------------------------------------------------------


def test_a_batch_that_kills_its_process_is_skipped_and_the_others_are_answered(models, tmp_path):
    texts = prompts_of(10)
    texts[5] = f"w{KILL}"
    done = ask(models["odd"], write_lines(tmp_path / "p.txt", *texts), "--batch-size", 2, cwd=tmp_path)
    assert done.returncode == 125
    found = lines(tmp_path / "out")
    assert [record["index"] for record in found] == list(range(10))
    assert [record["index"] for record in found if record["verdict"] == "skip"] == [4, 5]
    assert {record["reason"] for record in found if record["verdict"] == "skip"} == {"the process died in this batch"}
    why = "2 of 10 examples gave no answer: the process died in this batch; the other 8 are good."
    assert why in done.stdout
    assert re.search(r"SIGKILL.* in trial batch 2; going on behind it", done.stderr + done.stdout)


def started(model, file, cwd, *options):
    """The command on its way, in a group of its own."""
    words = command("prompts", model, file, "--trust-remote-code", *options, "--no-bundle", "--out", "out")
    return subprocess.Popen(
        words, cwd=cwd, env=environment(ODD_WAIT=str(cwd / "wait")), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", start_new_session=True,
    )  # fmt: skip


def waits_for(folder, count):
    """Until so many answers are on the disk."""
    for _ in range(1200):
        path = folder / "prompts.jsonl"
        if path.exists() and sum('"index"' in line for line in path.read_text("utf-8").splitlines()) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no answers came")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_is_stopped_goes_on_and_no_example_is_lost_or_doubled(models, tmp_path, number, status):
    texts = prompts_of(9)
    texts[5] = f"w{WAIT}"
    file = write_lines(tmp_path / "p.txt", *texts)
    (tmp_path / "wait").touch()
    process = started(models["odd"], file, tmp_path, "--batch-size", 2)
    try:
        waits_for(tmp_path / "out", 4)  # written while the third batch is still running
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        (tmp_path / "wait").unlink()
        if process.poll() is None:
            process.kill()
    assert process.returncode == status
    assert [record["index"] for record in lines(tmp_path / "out")] == [0, 1, 2, 3]
    before = (tmp_path / "out" / "prompts.jsonl").read_bytes()
    if number == signal.SIGKILL:  # a line that the kill cut short
        with (tmp_path / "out" / "prompts.jsonl").open("a") as torn:
            torn.write('{"index": 4, "si')
    process = started(models["odd"], file, tmp_path, "--batch-size", 2)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert (tmp_path / "out" / "prompts.jsonl").read_bytes().startswith(before)
    whole = list(PromptRecords(tmp_path / "out" / "prompts.jsonl"))
    assert [record["index"] for record in whole] == list(range(9))
    assert {record["verdict"] for record in whole} == {"good"}
    assert "All of the 9 examples are finite" in output


def test_a_run_out_of_time_says_how_far_it_came_and_goes_on(models, tmp_path):
    texts = prompts_of(6)
    texts[3] = f"w{WAIT}"
    file = write_lines(tmp_path / "p.txt", *texts)
    (tmp_path / "wait").touch()
    words = (models["odd"], file, "--batch-size", 2, "--step-timeout", 10)
    env = {"ODD_WAIT": str(tmp_path / "wait")}
    done = ask(*words, cwd=tmp_path, env=env)
    assert done.returncode == 125
    assert "2 of 6 examples were run: " in done.stdout
    assert "the time limit of a step (10 s) was up" in done.stdout
    (tmp_path / "wait").unlink()
    done = ask(*words, cwd=tmp_path, env=env)
    assert done.returncode == 0
    assert [record["index"] for record in lines(tmp_path / "out")] == list(range(6))


def test_a_finished_run_is_read_again_and_not_run_again(models, tmp_path):
    file = write_lines(tmp_path / "p.txt", "w3", f"w{RARE}")
    first = ask(models["rare"], file, cwd=tmp_path)
    before = (tmp_path / "out" / "prompts.jsonl").read_bytes()
    second = ask(models["rare"], file, cwd=tmp_path)
    assert (first.returncode, second.returncode) == (1, 1)
    assert (tmp_path / "out" / "prompts.jsonl").read_bytes() == before
    assert answer(tmp_path / "out")["prompts"]["bad"] == 1


def test_other_prompts_or_another_question_need_another_folder(models, tmp_path):
    file = write_lines(tmp_path / "p.txt", "w3")
    ask(models["rare"], file, cwd=tmp_path)
    done = ask(models["rare"], file, "--batch-size", 2, cwd=tmp_path)
    assert (done.returncode, "holds the prompts of another question" in done.stderr) == (2, True)
    write_lines(file, "w3", "w4")
    done = ask(models["rare"], file, cwd=tmp_path)
    assert (done.returncode, "has changed since --out" in done.stderr) == (2, True)


# --- the records on disk -----------------------------------------------------------------------------------------


def kept(tmp_path, *records, text=""):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"record": "header"}\n' + "".join(json.dumps(record) + "\n" for record in records) + text)
    return PromptRecords(path)


def record(index, reason, side=None):
    return {"index": index, "side": side, "verdict": "good", "reason": reason}


def test_a_later_stretch_replaces_what_it_covers_and_only_that(tmp_path):
    """Each process goes on at its last batch or, with vectors, from the start."""
    first = [record(number, "first") for number in range(6)]
    second = [record(number, "second") for number in range(2)]
    third = [record(number, "third") for number in range(1, 4)]
    found = [(item["index"], item["reason"]) for item in kept(tmp_path, *first, *second, *third)]
    assert sorted(found) == [(0, "second"), (1, "third"), (2, "third"), (3, "third"), (4, "first"), (5, "first")]


def test_the_sides_of_a_pair_are_two_examples(tmp_path):
    sides = [record(number, "first", side) for number in range(2) for side in ("positive", "negative")]
    again = record(1, "second", "negative")
    found = [(item["index"], item["side"], item["reason"]) for item in kept(tmp_path, *sides, again)]
    assert found == [
        (0, "positive", "first"), (0, "negative", "first"), (1, "positive", "first"), (1, "negative", "second"),
    ]  # fmt: skip


def test_what_is_written_behind_a_line_cut_short_is_not_lost(tmp_path):
    records = kept(tmp_path, record(0, "first"), text='{"index": 1, "si')
    records.append(record(1, "again"))
    assert [(item["index"], item["reason"]) for item in records] == [(0, "first"), (1, "again")]


def test_pairs_are_counted_once_and_a_lost_side_loses_its_pair():
    sides = [("good", "good"), ("bad", "good"), ("skip", "bad"), ("good", "skip")]
    records = [
        {"index": index, "side": side, "verdict": verdict, "reason": "a reason", "layer": "a"}
        for index, pair in enumerate(sides)
        for side, verdict in zip(("positive", "negative"), pair, strict=True)
    ]
    found = summary(records)
    assert (found["pairs"], found["pairs_lost"]) == (4, [1, 2, 3])
    assert [found[name] for name in ("asked", "good", "bad", "skip")] == [8, 4, 2, 2]


def test_reasons_of_what_was_skipped_are_counted():
    records = [{"index": n, "verdict": "skip", "reason": reason} for n, reason in enumerate(["a", "b", "b"])]
    assert summary(records)["skips"] == [{"reason": "b", "examples": 2}, {"reason": "a", "examples": 1}]


# --- memory ------------------------------------------------------------------------------------------------------

PEAKS = """
import pathlib, re, resource, sys
from repro.cli.main import main
status = main(sys.argv[1:])
host = int(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
print("PEAKS", status, host, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peaks(model, file, cwd, out):
    """Status, and the peak memory of the host and of its kit, in MB."""
    words = ["prompts", str(model), str(file), "--dtype", "float16", "--batch-size", "500", "--out", out, "--no-bundle"]
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, *words], cwd=cwd, env=environment(), capture_output=True, encoding="utf-8",
        stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    status, host, kit = map(int, re.search(r"PEAKS (\d+) (\d+) (\d+)", done.stdout).groups())
    return status, host / 1024, kit / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_number_of_prompts(models, tmp_path):
    """28,000 more prompts: a kilobyte for each would be 28 MB. Of each kind the first 10,000 are compared, and kept."""
    few = write_lines(tmp_path / "few.txt", *(["w3"] * 12_000))
    many = write_lines(tmp_path / "many.txt", *(["w3"] * 40_000))
    one = peaks(models["rare"], few, tmp_path, "few")
    other = peaks(models["rare"], many, tmp_path, "many")
    assert (one[0], other[0]) == (0, 0)
    assert other[1] - one[1] < 8
    assert other[2] - one[2] < 8
