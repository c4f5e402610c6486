"""The command `repro prompts` from its file to its answer; what is stopped goes on, and nothing is lost or doubled.

A few runs of real models show the whole way, and several tests read each of them. What is the host's alone is asked of
a fake kit, which goes through the file as the kit does (what the kit makes of it: tests/probes/prompts).
"""

import collections
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from corpus.families import HIDDEN, PAD, build, write_tokenizer
from support.hosting import answers, command, environment, fake_python, model_folder, repro
from support.prompt_models import CHANNEL, KILL, POISON, RARE, write_lines, write_llama, write_odd

from repro.core.answer import read
from repro.core.records import Kind, Outcome
from repro.core.sweep_answers import Place, Skips, WhyOutcome
from repro.engine.kit import pack
from repro.sweeps.prompts.answer import summary
from repro.sweeps.prompts.records import PromptRecords

WORDS = [f"w{number}" for number in range(20, 76)]


def lines(folder):
    """The records as they stand, doubled or not."""
    text = (folder / "prompts.jsonl").read_text("utf-8")
    return [record for record in map(json.loads, text.splitlines()) if "index" in record]


def prompts_of(count, plain=5):
    """Prompts of `plain` words each, all different."""
    return [" ".join(WORDS[(number + 7 * place) % len(WORDS)] for place in range(plain)) for number in range(count)]


# --- real models -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "rare": write_llama(root / "rare", RARE),
        "pad": write_llama(root / "pad", PAD),
        "odd": write_odd(root / "odd"),
    }


def asked_of(model, file, *options, cwd):
    """The command with a real model, to its end; with its answer."""
    more = ("--trust-remote-code",) if model.name == "odd" else ("--dtype", "float16")
    done = repro("prompts", model, file, *more, *options, "--no-bundle", "--out", "out", cwd=cwd)
    path = cwd / "out" / "verdict.json"
    return SimpleNamespace(done=done, folder=cwd / "out", answer=read(path) if path.exists() else None)


@pytest.fixture(scope="module")
def rare(models, tmp_path_factory):
    """12 of 40 prompts have the rare token, at different places, in prompts of different lengths; one has two lines."""
    cwd, texts = tmp_path_factory.mktemp("rare"), prompts_of(40)
    for number in range(0, 36, 3):
        words = texts[number].split()[: 5 if number < 27 else 4]
        texts[number] = " ".join([*words[: number % 4], f"w{RARE}", *words[number % 4 :]])
    for number in range(1, 27, 3):
        texts[number] += " w13"  # as long as those
    texts[3] = texts[3].replace(" ", "\n", 1)
    (cwd / "p.json").write_text(json.dumps(texts))
    return SimpleNamespace(cwd=cwd, texts=texts, **vars(asked_of(models["rare"], "p.json", cwd=cwd)))


def test_a_rare_token_is_found_and_named_as_the_reason(rare):
    assert (rare.done.returncode, rare.done.stderr.count("Traceback")) == (1, 0)
    assert (rare.answer.verdict, rare.answer.kind) == (Outcome.BAD, Kind.NONFINITE)
    found = rare.answer.prompts
    assert (found.asked, found.total, found.good, found.bad, found.skip) == (40, 40, 28, 12, 0)
    assert found.places == (Place(layer="model.layers.1", token="w77", kind="text", examples=12),)
    assert (found.causes, found.why.outcome) == ({"own": 12}, WhyOutcome.PATTERN)
    first = found.why.findings[0]
    assert (first.topic.family, first.separates, first.significant) == ("token", True, True)
    assert str(RARE) in first.sentence
    said = "12 of 40 examples are bad. Each of them goes bad first in model.layers.1 at 'w77' (text)."
    assert rare.answer.headline.startswith(said + " The full search, run on 2 of them, says the same: ")
    assert rare.answer.headline in " ".join(rare.done.stdout.split())


def test_what_is_said_of_all_was_put_to_the_full_search_on_some(rare):
    searched = rare.answer.prompts.searched
    assert (searched.asked, searched.answered, searched.agreed) == (2, 2, 2)
    for sample in searched.samples:
        place = rare.texts[sample.index].split().index(f"w{RARE}") + 1  # behind <bos>
        assert (sample.found.layer, sample.found.token_index, sample.found.token) == ("model.layers.1", place, "w77")
        assert (sample.origin.mechanism, sample.origin.channel_index) == ("overflow", CHANNEL)


def test_bad_values_are_factored_into_whole_rows(rare):
    """In the last layer every row of a prompt of n words is NaN: (n + 1) x 32 values, its <bos> being one."""
    counts = [(item.values, item.rows, item.row_size, item.whole, item.examples) for item in rare.answer.prompts.counts]
    assert counts == [(7 * HIDDEN, 7, HIDDEN, True, 9), (6 * HIDDEN, 6, HIDDEN, True, 3)]


def test_the_skip_list_has_each_lost_prompt_in_a_line_and_its_reason(rare):
    lost = [" ".join(text.split()) for text in rare.texts if f"w{RARE}" in text.split()]
    assert (rare.folder / "skipped.txt").read_text().splitlines() == lost
    records = list(map(json.loads, (rare.folder / "skipped.jsonl").read_text().splitlines()))
    assert (records[1]["index"], records[1]["verdict"], records[1]["text"]) == (3, "bad", rare.texts[3])
    assert records[1]["reason"].startswith("bad first in model.layers.1 at token 4 'w77' (text)")


def test_the_run_that_would_find_the_owner_has_the_settings_of_this_one(rare):
    assert " --dtype float16 --prompt TEXT` with one of these prompts" in rare.answer.owner.reason


def test_a_finished_run_is_read_again_and_not_run_again(rare, models):
    before = (rare.folder / "prompts.jsonl").read_bytes()
    again = asked_of(models["rare"], "p.json", cwd=rare.cwd)
    assert (again.done.returncode, again.answer.prompts) == (1, rare.answer.prompts)
    assert (rare.folder / "prompts.jsonl").read_bytes() == before


def test_where_nothing_tells_the_prompts_apart_it_says_so(models, tmp_path):
    """A batch-only fault: which prompts stand beside the poison hangs on nothing that they are."""
    texts = prompts_of(64)
    for place in (3, 14, 30, 47):
        texts[place] = f"w{POISON} w20 w21 w22 w23"
    found = asked_of(models["odd"], write_lines(tmp_path / "p.txt", *texts), "--batch-size", 4, cwd=tmp_path)
    assert found.done.returncode == 1
    assert found.answer.prompts.causes == {"composition": 12}
    assert found.answer.prompts.why.outcome is WhyOutcome.NO_PATTERN


def test_padding_is_found_as_the_reason(models, tmp_path):
    texts = [text if number % 2 else " ".join(text.split()[:2]) for number, text in enumerate(prompts_of(40, 6))]
    file = write_lines(tmp_path / "p.txt", *texts)
    section = asked_of(models["pad"], file, "--padding-side", "left", cwd=tmp_path).answer.prompts
    assert (section.bad, section.causes) == (20, {"padding": 20})
    assert section.places == (Place(layer="model.layers.1", token="<pad>", kind="padding", examples=20),)
    assert section.padding_rows_bad_in == {"model.layers.1": 20}
    assert "padding" in [item.topic.family for item in section.why.findings if item.significant]
    assert "padding" in section.why.sentence


def test_lost_pairs_are_counted_and_compared_with_the_rest(models, tmp_path):
    pairs = [{"question": text, "positive": "w11", "negative": "w12"} for text in prompts_of(30)]
    for number in range(0, 30, 3):
        pairs[number]["negative"] = f"w{RARE}"
    (tmp_path / "p.json").write_text(json.dumps(pairs))
    options = ("--pairs", "--batch-size", 7, "--vectors", "v.safetensors")
    found = asked_of(models["rare"], "p.json", *options, cwd=tmp_path)
    section = found.answer.prompts
    assert (found.done.returncode, section.asked, section.bad, section.pairs) == (1, 60, 10, 30)
    assert section.pairs_lost == tuple(range(0, 30, 3))
    assert (section.vectors.used, section.vectors.lost, section.lost_why.failing) == (20, 10, 20)
    assert (tmp_path / "v.safetensors").exists()
    assert "20 pairs used, 10 lost" in found.done.stdout


@pytest.mark.slow
def test_a_batch_that_kills_its_process_is_skipped_and_the_others_are_answered(models, tmp_path):
    texts = prompts_of(10)
    texts[5] = f"w{KILL}"
    found = asked_of(models["odd"], write_lines(tmp_path / "p.txt", *texts), "--batch-size", 2, cwd=tmp_path)
    assert found.done.returncode == 125
    records = lines(found.folder)
    assert [record["index"] for record in records] == list(range(10))
    assert [record["index"] for record in records if record["verdict"] == "skip"] == [4, 5]
    assert found.answer.prompts.skips == (Skips(reason="the process died in this batch", examples=2),)
    assert "2 of 10 examples gave no answer: the process died in this batch; the other 8 are good." in found.done.stdout
    assert re.search(r"SIGKILL.* in trial batch 2; going on behind it", found.done.stderr + found.done.stdout)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A sound GPT-2 but for one number in the row of a rare word."""
    folder = tmp_path_factory.mktemp("spoilt") / "model"
    model = build("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight[RARE, 3] = float("inf")
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def test_a_word_that_is_bad_in_the_file_is_the_checkpoints_and_the_tensor_is_named(spoilt, tmp_path):
    file = write_lines(tmp_path / "p.txt", "w3 w4", f"w5 w{RARE}", "w6")
    found = asked_of(spoilt, file, "--dtype", "float32", cwd=tmp_path)
    assert (found.done.returncode, found.answer.kind, found.answer.owner.project) == (1, Kind.WEIGHTS, "checkpoint")
    assert found.answer.prompts.places == (Place(layer="transformer.wte", token="w77", kind="text", examples=1),)
    (sample,) = found.answer.prompts.searched.samples
    assert (sample.origin.tensor, sample.origin.tensor_index) == ("transformer.wte.weight", (RARE, 3))
    assert f"transformer.wte.weight: 0 NaN, 1 +inf, 0 -inf, first at [{RARE}, 3]." in found.answer.headline


def test_weights_that_are_bad_are_no_good_though_no_prompt_meets_them(spoilt, tmp_path):
    found = asked_of(spoilt, write_lines(tmp_path / "p.txt", "w3 w4"), "--dtype", "float32", cwd=tmp_path)
    assert (found.done.returncode, found.answer.kind, found.answer.prompts.good) == (1, Kind.WEIGHTS, 1)
    assert "The one example is finite" in found.answer.headline
    assert "But not all is well: 1 tensor is not finite" in found.answer.headline


@pytest.mark.slow
def test_chats_are_asked_by_the_models_template_or_by_their_contents(tmp_path):
    model = write_llama(tmp_path / "model", RARE)
    settings = model / "tokenizer_config.json"
    template = "{{ bos_token }}{% for m in messages %} w30 {{ m.content }}{% endfor %}"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": template}))
    chat = {"data": {"chat": [{"role": "user", "content": "w3"}, {"role": "user", "content": f"w{RARE}"}]}}
    file = write_lines(tmp_path / "p.jsonl", json.dumps(chat))
    found = asked_of(model, file, "--field", "data.chat", cwd=tmp_path)
    assert [(record["token_ids"], record["token_index"]) for record in lines(found.folder)] == [
        ([1, 30, 3, 30, RARE], 4)
    ]
    assert "chat template: the model's own (tokenizer_config.json, SHA-256 " in found.done.stdout
    (tmp_path / "out").rename(tmp_path / "before")
    found = asked_of(model, file, "--field", "data.chat", "--no-chat-template", cwd=tmp_path)
    assert [record["token_ids"] for record in lines(found.folder)] == [[1, 3, RARE]]
    assert "chat template" not in found.done.stdout
    assert "--no-chat-template" in found.answer.command


# --- the host's part, with a fake kit ------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path):
    """Ask a fake kit that goes through the file; returns the finished process, or one on its way."""

    def ask(file, *options, on_its_way=False, step=None, **batches):
        wanted = step or {"before": [{"batches": {**batches, "waits": str(tmp_path / "wait")}}]}
        words = ["prompts", model_folder(tmp_path), file, "--python", fake_python(tmp_path), *options]
        words += ["--no-bundle", "--out", "out"]
        variables = answers(tmp_path, prompts=wanted)
        if not on_its_way:
            return repro(*words, cwd=tmp_path, env=variables)
        return subprocess.Popen(
            command(*words), cwd=tmp_path, env=environment(**variables), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", start_new_session=True,
        )  # fmt: skip

    return ask


def test_options_reach_the_kit_and_the_command(fake, tmp_path):
    options = ("--max-length", 2, "--layer", -1, "--padding-side", "left")
    assert fake(write_lines(tmp_path / "p.txt", "w3 w4", "w5"), *options).returncode == 0
    asked = json.loads((tmp_path / "out" / "plan.json").read_text())["prompts"]
    names = ("total", "batch_size", "max_length", "padding_side", "layers", "vectors", "ablations")
    assert [asked[name] for name in names] == [2, 8, 2, "left", [-1], None, False]
    again = "--max-length 2 --padding-side left --batch-size 8 --layer -1"
    assert again in read(tmp_path / "out" / "verdict.json").command


def test_a_file_may_hold_token_ids(fake, tmp_path):
    done = fake(write_lines(tmp_path / "p.jsonl", '{"ids": [3, 4]}', '{"ids": [5]}', '{"ids": [500]}'), skip="w500")
    assert done.returncode == 125
    assert [(item["verdict"], item["text"]) for item in lines(tmp_path / "out")] == [
        ("good", None), ("good", None), ("skip", None),
    ]  # fmt: skip
    assert "1 of 3 examples gave no answer: it is skip; the other 2 are good." in done.stdout
    assert (tmp_path / "out" / "skipped.txt").read_text() == "index 2\n"


def test_where_nothing_could_be_run_the_steps_reason_is_the_answer(fake, tmp_path):
    step = {"verdict": "skip", "reason": "there is no layer 3: the model has 3, 0 to 2"}
    done = fake(write_lines(tmp_path / "p.txt", "w3"), step=step)
    assert done.returncode == 125
    assert "there is no layer 3: the model has 3, 0 to 2" in (done.stdout + done.stderr).replace("There", "there")
    assert lines(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--vectors", "v.safetensors"), "--vectors needs --pairs"),
        (("--prompt", "w3"), "the prompts are those of FILE"),
        (("--pairs",), "no fields and no pairs"),
        (("--layer", "1.5"), "--layer"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_model_is_loaded(fake, tmp_path, options, message):
    done = fake(write_lines(tmp_path / "p.txt", "w3"), *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_other_prompts_or_another_question_need_another_folder(fake, tmp_path):
    file = write_lines(tmp_path / "p.txt", "w3")
    fake(file)
    done = fake(file, "--batch-size", 2)
    assert (done.returncode, "holds the prompts of another question" in done.stderr) == (2, True)
    done = fake(write_lines(file, "w3", "w4"))
    assert (done.returncode, "has changed since --out" in done.stderr) == (2, True)


def test_a_damaged_header_is_refused_with_its_name_and_the_place(fake, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "prompts.json").write_text('{"schema": 2, "command": [], "total": "1", "sha256": ""}')
    done = fake(write_lines(tmp_path / "p.txt", "w3"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "prompts.json cannot be read (total: expected int, got str)" in done.stderr


def waits_for(folder, count):
    """Until so many answers are on the disk."""
    for _ in range(1200):
        path = folder / "prompts.jsonl"
        if path.exists() and sum('"index"' in line for line in path.read_text("utf-8").splitlines()) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no answers came")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_is_stopped_goes_on_and_no_example_is_lost_or_doubled(fake, tmp_path, number, status):
    file = write_lines(tmp_path / "p.txt", *prompts_of(7))
    (tmp_path / "wait").touch()
    process = fake(file, "--batch-size", 2, on_its_way=True)
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
    done = fake(file, "--batch-size", 2)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "out" / "prompts.jsonl").read_bytes().startswith(before)
    whole = list(PromptRecords(tmp_path / "out" / "prompts.jsonl"))
    assert [record["index"] for record in whole] == list(range(7))
    assert {record["verdict"] for record in whole} == {"good"}
    assert "All of the 7 examples are finite" in done.stdout


def test_a_run_out_of_time_says_how_far_it_came_and_goes_on(fake, tmp_path):
    file = write_lines(tmp_path / "p.txt", *prompts_of(6))
    (tmp_path / "wait").touch()
    words = (file, "--batch-size", 2, "--step-timeout", 3)
    done = fake(*words)
    assert done.returncode == 125
    assert "2 of 6 examples were run: " in done.stdout
    assert "the time limit of a step (3 s) was up" in done.stdout
    (tmp_path / "wait").unlink()
    assert fake(*words).returncode == 0
    assert [record["index"] for record in lines(tmp_path / "out")] == list(range(6))


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
    assert (found.pairs, found.pairs_lost) == (4, (1, 2, 3))
    assert (found.asked, found.good, found.bad, found.skip) == (8, 4, 2, 2)


def test_reasons_of_what_was_skipped_are_counted():
    records = [{"index": n, "verdict": "skip", "reason": reason} for n, reason in enumerate(["a", "b", "b"])]
    assert summary(records).skips == (Skips(reason="b", examples=2), Skips(reason="a", examples=1))


# --- memory ------------------------------------------------------------------------------------------------------

FEW, MANY = 12_000, 40_000
"""28,000 more prompts: a kilobyte for each would be 28 MB. Of each kind the first 10,000 are compared, and kept."""
MOST_MB = 8
PEAK = """
import pathlib, re, sys
from repro.cli.main import main
main(sys.argv[1:])
print("PEAK", re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")


@needs_proc
def test_the_hosts_memory_does_not_grow_with_the_number_of_prompts(tmp_path):
    variables = environment(**answers(tmp_path, prompts={"before": [{"batches": {}}]}))

    def peak(count):
        file = write_lines(tmp_path / f"{count}.txt", *(["w3"] * count))
        words = ["prompts", model_folder(tmp_path), file, "--python", fake_python(tmp_path), "--batch-size", 500]
        words = [sys.executable, "-c", PEAK, *map(str, words), "--no-bundle", "--out", str(count)]
        done = subprocess.run(
            words, cwd=tmp_path, env=variables, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
            check=True,
        )  # fmt: skip
        assert f"All of the {count:,} examples" in done.stdout
        return int(done.stdout.split("PEAK ")[1]) / 1024

    assert peak(MANY) - peak(FEW) < MOST_MB


@pytest.mark.slow
@needs_proc
def test_the_kits_memory_does_not_grow_with_the_number_of_prompts(models, tmp_path):
    """Read from outside while one process goes through the file; 14,000 more prompts, and half as much room."""
    few, many = FEW // 2, MANY // 2
    with (tmp_path / "examples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"index": n, "side": None, "text": "w3", "ids": None}) + "\n" for n in range(many))
    case = {"model": str(models["rare"]), "dtype": "float16", "device": "cpu", "prompts": []}
    batches = {"file": str(tmp_path / "examples.jsonl"), "total": many, "batch_size": 500}
    plan = {"schema": 2, "steps": ["load", "prompts"], "case": case, "cache": str(tmp_path), "prompts": batches}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    kit = pack().write(tmp_path)
    words = [sys.executable, kit, "run", tmp_path / "plan.json"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peaks, seen = {}, collections.Counter()
    with process:
        for line in process.stdout:
            event = json.loads(line)
            seen[event["event"]] += 1
            if event["event"] == "example" and seen["example"] in (few, many):
                status = Path(f"/proc/{process.pid}/status").read_text()
                peaks[seen["example"]] = int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024
    assert (process.returncode, seen["example"], seen["done"]) == (0, many, 1)
    assert peaks[many] - peaks[few] < MOST_MB / 2
