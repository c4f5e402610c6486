"""The command line and the plan: events, verdicts and exit statuses."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from corpus import families, files
from support.handmade import case_of, write_floats

from repro.probes.main import main, run_plan
from repro.probes.protocol.wire import Emitter

ROOT = Path(__file__).resolve().parents[2]


def plan_of(folder, *steps, **case):
    return {"schema": 2, "steps": list(steps), "case": case_of(folder, **case), "cache": str(folder)}


def ran(plan):
    """(the steps' verdicts, all events) of a plan that is run in this process."""
    stream = io.StringIO()
    verdicts = run_plan(plan, Emitter(stream))
    return dict(verdicts), [json.loads(line) for line in stream.getvalue().splitlines()]


def ends(events):
    return {event["step"]: event for event in events if event["event"] == "end"}


# --- a plan ------------------------------------------------------------------------------------------------------


def test_events_come_in_order(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    write_floats(tmp_path / "model.safetensors", a=[1.0])
    verdicts, events = ran(plan_of(tmp_path, "files", "weights"))
    kinds = [(event["event"], event.get("step")) for event in events if event["event"] != "progress"]
    assert kinds == [
        ("hello", None),
        ("start", "files"),
        ("end", "files"),
        ("start", "weights"),
        ("end", "weights"),
        ("done", None),
    ]
    assert verdicts == {"files": "good", "weights": "good"}
    assert (events[0]["schema"], events[0]["pid"]) == (2, os.getpid())


def test_an_end_has_every_key(tmp_path):
    _, events = ran(plan_of(tmp_path, "files"))
    assert set(ends(events)["files"]) == {"event", "step", "verdict", "reason", "seconds", "payload", "error"}


def test_a_model_that_is_not_there_ends_the_run(tmp_path):
    verdicts, events = ran(plan_of(tmp_path / "gone", "files", "weights", "load"))
    assert verdicts == {"files": "skip"}
    assert ends(events)["files"]["payload"] == {"fatal": True}
    assert ends(events)["files"]["error"]["type"] == "CannotResolve"
    assert events[-1] == {"event": "done"}


def test_a_step_that_is_not_known_is_skipped(tmp_path):
    verdicts, events = ran(plan_of(tmp_path, "guess", "ablation:guess"))
    assert verdicts["guess"] == "skip"
    assert "there is no step 'guess'" in ends(events)["guess"]["reason"]
    assert verdicts["ablation:guess"] == "skip"


def test_a_step_that_raises_is_skip_and_never_bad(tmp_path, checkpoints):
    shutil.copytree(checkpoints["gpt2"], tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["n_head"] = 5  # 32 channels do not divide into 5 heads: the constructor raises
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    verdicts, events = ran(plan_of(tmp_path / "model", "load", "forward", "bisect"))
    assert verdicts == {"load": "skip", "forward": "skip", "bisect": "skip"}
    error = ends(events)["load"]["error"]
    assert error["type"] == "CannotLoad"
    assert error["message"].startswith("The model could not be loaded: config.json says n_head 5. ")
    assert "(transformers raised ValueError: " in error["message"]
    assert "Traceback" in error["traceback"]


def test_a_dtype_that_the_device_lacks_is_skip(checkpoints, monkeypatch):
    """The model's own code says what PyTorch says where a kernel is missing."""
    from transformers import GPT2LMHeadModel

    def missing(*args, **kwargs):
        raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'")

    monkeypatch.setattr(GPT2LMHeadModel, "forward", missing)
    verdicts, events = ran(plan_of(checkpoints["gpt2"], "forward", dtype="float16"))
    assert verdicts == {"forward": "skip"}
    assert "no kernel for it here" in ends(events)["forward"]["reason"]


def test_a_good_model_is_good_in_every_step(checkpoints):
    steps = ("files", "weights", "load", "forward", "bisect", "ablation:use_cache=false")
    verdicts, _ = ran(plan_of(checkpoints["gpt2"], *steps))
    assert verdicts == dict.fromkeys(steps, "good")


def test_a_device_that_is_not_there_is_skip(checkpoints):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    verdicts, events = ran(plan_of(checkpoints["gpt2"], "load", device="cuda"))
    assert verdicts == {"load": "skip"}
    assert "finds no cuda device" in ends(events)["load"]["reason"]


def test_a_pickle_that_would_run_code_is_not_loaded_either(tmp_path, checkpoints):
    shutil.copytree(checkpoints["gpt2"], tmp_path / "model")
    marker = tmp_path / "ran"

    class Touches:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    tensors = files.read(tmp_path / "model" / files.WEIGHTS)
    (tmp_path / "model" / files.WEIGHTS).unlink()
    torch.save({**tensors, "x": Touches()}, tmp_path / "model" / "pytorch_model.bin")
    verdicts, _ = ran(plan_of(tmp_path / "model", "load"))
    assert (verdicts, marker.exists()) == ({"load": "skip"}, False)


# --- the command -------------------------------------------------------------------------------------------------


def command(*arguments, python=(sys.executable,), **environment):
    """One process of the kit: exit status, events, standard error."""
    done = subprocess.run(
        [*python, "-m", "repro.probes", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def spoilt(folder, source):
    """A copy in which the last norm is NaN."""
    shutil.copytree(source, folder)
    files.change(folder, replace={"transformer.ln_f.weight": torch.full((families.HIDDEN,), float("nan"))})
    return folder


def test_a_bad_model_ends_in_1(checkpoints, tmp_path):
    folder = spoilt(tmp_path / "model", checkpoints["gpt2"])
    status, events, _ = command("forward", folder, "--cache", tmp_path)
    assert status == 1
    verdicts = {step: end["verdict"] for step, end in ends(events).items()}
    assert verdicts == {"files": "good", "load": "good", "forward": "bad"}


def test_a_good_model_ends_in_0(checkpoints, tmp_path, capfd):
    assert main(["forward", str(checkpoints["gpt2"]), "--cache", str(tmp_path)]) == 0


def test_the_origin_of_a_bad_model(checkpoints, tmp_path, capfd):
    folder = spoilt(tmp_path / "model", checkpoints["gpt2"])
    assert main(["bisect", str(folder), "--cache", str(tmp_path)]) == 1
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    origin = ends(events)["bisect"]["payload"]["origin"]
    assert (origin["mechanism"], origin["tensor"]) == ("bad_weights", "transformer.ln_f.weight")


def test_a_model_that_is_not_there_ends_in_125(tmp_path, capfd):
    assert main(["forward", str(tmp_path / "gone")]) == 125
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert "There is no file or folder" in ends(events)["files"]["reason"]


@pytest.mark.parametrize("step", ["script", "trace"])
@pytest.mark.parametrize(("ending", "expected"), [("0", 0), ("1", 1), ("125", 125), ("7", 125)])
def test_a_script_alone_is_answered_by_its_status(tmp_path, capfd, monkeypatch, step, ending, expected):
    (tmp_path / "asks.py").write_text(f"import sys\nprint('seen')\nsys.exit({ending})\n")
    monkeypatch.chdir(tmp_path)
    assert main([step, "asks.py"]) == expected
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [event["step"] for event in events if event["event"] == "start"] == [step]


def test_a_trace_of_a_model_stands_on_its_files_and_its_load(checkpoints, tmp_path, capfd):
    assert main(["trace", str(checkpoints["gpt2"]), "--cache", str(tmp_path)]) == 0
    found = ends([json.loads(line) for line in capfd.readouterr().out.splitlines()])
    assert list(found) == ["files", "load", "trace"]
    assert found["trace"]["payload"]["classes"]["transformer.ln_f"] == "LayerNorm"


def test_a_trace_of_a_bad_model_ends_in_1_with_its_rows(checkpoints, tmp_path, capfd):
    folder = spoilt(tmp_path / "model", checkpoints["gpt2"])
    assert main(["trace", str(folder), "--cache", str(tmp_path)]) == 1
    found = ends([json.loads(line) for line in capfd.readouterr().out.splitlines()])
    payload = found["trace"]["payload"]
    bad = [row for row in payload["rows"] if row[payload["columns"].index("nan")]]
    assert bad[0][0] == "transformer.ln_f"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-step", "model"],
        ["forward"],
        ["forward", "model", "--dtype", "int8"],
        ["forward", "model", "--no-such-option"],
        ["run"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_in_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("weights", ["random", "rnadom:0", "random:x"])
def test_weights_that_are_neither_checkpoint_nor_seed_end_in_2(weights, checkpoints, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["files", str(checkpoints["gpt2"]), "--weights", weights])
    assert ended.value.code == 2


@pytest.mark.parametrize("content", [None, "", "{", '{"schema": 1}', "[]"])
def test_a_plan_that_cannot_be_read_ends_in_125(tmp_path, content, capfd):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)
    assert main(["run", str(path)]) == 125
    assert capfd.readouterr().out == ""


def test_a_plan_ends_in_0_whatever_the_verdicts(tmp_path, capfd):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_of(tmp_path / "gone", "files")))
    assert main(["run", str(path)]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert ends(events)["files"]["verdict"] == "skip"


def test_an_interpreter_without_torch_says_so_in_one_line(tmp_path):
    """-S leaves out site-packages, where torch is."""
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_of(tmp_path, "environment", "files")))
    status, events, errors = command("run", path, python=(sys.executable, "-S"), PYTHONPATH="")
    assert status == 0
    assert list(ends(events)) == ["environment"]
    end = ends(events)["environment"]
    assert (end["verdict"], end["payload"]) == ("skip", {"fatal": True})
    assert end["reason"].count("\n") == 0
    assert sys.executable in end["reason"]
    assert "no torch and no transformers" in end["reason"]
    assert "--python" in end["reason"]
    assert errors == ""


def test_a_single_step_without_torch_ends_in_125(tmp_path):
    status, events, _ = command("weights", tmp_path, python=(sys.executable, "-S"), PYTHONPATH="")
    assert status == 125
    assert events[-1] == {"event": "done"}
