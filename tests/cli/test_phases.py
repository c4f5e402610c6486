"""``--factory``, ``--generate`` and ``--train-step`` from the real command: the injected place, phase and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import families
from safetensors.torch import save_file
from support.hosting import repro
from transformers import ResNetConfig, ResNetForImageClassification

pytestmark = pytest.mark.usefixtures("forked_interpreters")

VOICE = """
import torch
from torch import nn


class Voice(nn.Module):
    \"\"\"Speech or not: a learned filter bank, the logarithm of its energy, a recurrent layer.\"\"\"

    def __init__(self, floor):
        super().__init__()
        self.bank = nn.Conv1d(1, 8, 16, stride=8)
        self.memory = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 1)
        self.floor = floor

    def forward(self, wave):
        energy = self.bank(wave.unsqueeze(1)).square() * (wave.abs().sum(-1) > 0)[:, None, None]
        logs = (energy + self.floor).log()
        state, _ = self.memory(logs.transpose(1, 2))
        return torch.sigmoid(self.head(state))


class Distance(nn.Module):
    def __init__(self, least):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.least = least

    def forward(self, x, target):
        apart = self.layer(x) * 0 + target
        return {"loss": (apart.square().sum(-1) + self.least).sqrt().mean()}


def waves():
    return torch.stack([torch.linspace(-1, 1, 64), torch.zeros(64)])


def silent(): return Voice(0.0), {"wave": waves()}
def voiced(): return Voice(1e-6), {"wave": waves()}
def targets(): return {"x": torch.ones(3, 4), "target": torch.tensor([[1.0], [0.0], [1.0]]).expand(3, 4).clone()}
def distance(): return Distance(0.0), targets()
def distance_sound(): return Distance(1e-3), targets()
"""


def line(words: str) -> str:
    (found,) = (number for number, text in enumerate(VOICE.split("\n"), 1) if words in text)
    return f"voice.py:{found}"


def asked(folder: Path, *args: str) -> tuple[int, dict[str, Any]]:
    (folder / "voice.py").write_text(VOICE)
    ran = repro(*args, "--no-bundle", "--out", "o", cwd=folder, env={"REPRO_CACHE_DIR": str(folder / "cache")})
    path = folder / "o" / "verdict.json"
    assert path.exists(), ran.stderr
    answer: dict[str, Any] = json.loads(path.read_text())
    return ran.returncode, answer


@pytest.mark.slow
def test_a_module_of_a_factory_is_found_out_and_reduced(tmp_path: Path) -> None:
    status, answer = asked(tmp_path, "--factory", "voice.py:silent")
    assert status == 1
    origin = answer["origin"]
    assert (origin["op"], origin["mechanism"], origin["source"]) == (
        "aten.log.default",
        "divide_by_zero",
        line("logs = "),
    )
    assert answer["reproducer"]["verified"] is True
    assert answer["model"]["weights"] == "factory"
    assert answer["files"] is None
    assert answer["command"].startswith("repro --factory ")


def test_its_sound_twin_is_good(tmp_path: Path) -> None:
    status, answer = asked(tmp_path, "--factory", "voice.py:voiced", "--no-ablations")
    assert (status, answer["verdict"], answer["origin"]) == (0, "good", None)


@pytest.mark.slow
def test_a_training_step_names_phase_line_gradient_and_example(tmp_path: Path) -> None:
    status, answer = asked(tmp_path, "--factory", "voice.py:distance", "--train-step", "2", "--no-reduce")
    assert status == 1
    origin = answer["origin"]
    assert (origin["phase"], origin["train_step"], origin["forward_source"]) == ("backward", 0, line('"loss"'))
    assert answer["train"]["examples"] == [1]
    assert answer["forward"]["verdict"] == "good"
    assert "in the backward of aten.sqrt.default" in answer["reason"]
    report = (tmp_path / "o" / "report.md").read_text("utf-8")
    assert "| step of the training (from 0) | 0 |" in report
    assert "| examples that make it bad | 1 |" in report
    assert "this one alone makes the training bad" in report  # the second step has the same fault


def test_an_accumulated_step_names_its_micro_batch(tmp_path: Path) -> None:
    status, answer = asked(
        tmp_path, "--factory", "voice.py:distance", "--train-step", "--accumulate", "3", "--no-reduce"
    )
    assert (status, answer["origin"]["micro_batch"], answer["train"]["examples"]) == (1, 1, [1])
    assert "in micro batch 1, the first bad gradient is that of" in answer["reason"]
    verdicts = {one["name"]: one["verdict"] for one in answer["ablations"]}
    assert (verdicts["accumulate=off"], verdicts["without_example"]) == ("bad", "good")
    report = (tmp_path / "o" / "report.md").read_text("utf-8")
    assert "| micro batch of the step (from 0) | 1 |" in report
    assert "| micro batches of a step | 3 |" in report
    assert "--train-step 1 --accumulate 3" in answer["command"]


def test_the_sound_training_is_good(tmp_path: Path) -> None:
    status, answer = asked(tmp_path, "--factory", "voice.py:distance_sound", "--train-step", "--no-ablations")
    assert (status, answer["verdict"], answer["train"]["steps"]) == (0, "good", 1)


@pytest.mark.slow
def test_a_generation_names_the_processor_and_the_greedy_one_works_around_it(tmp_path: Path) -> None:
    families.build("llama").save_pretrained(tmp_path / "model")
    config = {"do_sample": True, "temperature": 1e-39, "eos_token_id": None}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(config))
    status, answer = asked(tmp_path, "model", "--generate", "4", "--no-reduce")
    assert status == 1
    origin = answer["origin"]
    assert (origin["phase"], origin["generate_step"], origin["op"]) == ("generate", 0, "aten.div.Tensor")
    assert origin["source"].startswith("logits_process.py:")
    assert "do_sample=false" in answer["workarounds"]
    assert "use_cache=false" not in answer["workarounds"]
    assert answer["generate"]["verdict"] == "bad"


def test_a_factory_that_raises_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "voice.py").write_text("def f():\n    raise KeyError('weights')\n")
    ran = repro("--factory", "voice.py:f", "--no-bundle", "--out", "o", cwd=tmp_path)
    assert ran.returncode == 125
    assert "raised KeyError: 'weights' (voice.py:2)" in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--factory", "voice.py"), "--factory takes FILE.py:function or package.module:function, not 'voice.py'"),
        (("--factory", "none.py:f"), "the factory's file 'none.py' does not exist"),
        (("--factory", "a-b:f"), "neither a .py file nor the name of a module"),
        (("m", "--generate", "1", "--train-step"), "Give one of them"),
        (("m", "--accumulate", "2"), "add --train-step"),
        (("m", "--train-step", "--accumulate", "1"), "1 is not in the range"),
        (("voice.py", "--generate", "1"), "is a script, which takes no --generate"),
        (("x.txt", "--factory", "voice.py:f"), "the weights for --factory"),
        (("--generate", "0"), "0 is not in the range"),
        (("--factory", "voice.py:f", "--weights", "random:0"), "is of a configuration"),
        (("--factory", "voice.py:f", "--inputs", "x.npz", "--prompt", "a"), "so --prompt would not be used"),
        (("--factory", "voice.py:f", "--inputs", "x.npz", "--image", "a.png"), "so --image would not be used"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    (tmp_path / "voice.py").write_text("")
    ran = repro(*args, cwd=tmp_path)
    assert ran.returncode == 2
    assert words in ran.stderr


def test_a_changed_factory_is_not_gone_on_with(tmp_path: Path) -> None:
    asked(tmp_path, "--factory", "voice.py:voiced", "--no-ablations")
    (tmp_path / "voice.py").write_text(VOICE + "\n")
    ran = repro("--factory", "voice.py:voiced", "--no-ablations", "--no-bundle", "--out", "o", cwd=tmp_path)
    assert ran.returncode == 2
    assert "voice.py was sha256" in ran.stderr


NARROW = """
import torch
from torch import nn


class Stream(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)
        with torch.no_grad():
            self.layers[1].weight.mul_(FACTOR).clamp_(-60_000, 60_000)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x / x.abs().amax())
        return self.head(self.norm(x))


def make(): return Stream(), {"x": torch.randn(2, 8, generator=torch.Generator().manual_seed(1))}
"""


@pytest.mark.parametrize(("kept", "key"), [("float32", "keep"), ("bfloat16", "keep_bfloat16")])
def test_the_modules_that_must_be_kept_and_the_code_that_keeps_them(kept: str, key: str, tmp_path: Path) -> None:
    (tmp_path / "narrow.py").write_text(NARROW.replace("FACTOR", "1e6"))
    options = ("--dtype", "float16", f"--keep-{kept}", "auto", "--no-ablations", "--no-reduce")
    status, answer = asked(tmp_path, "--factory", "narrow.py:make", *options)
    keep, code = answer[key], (tmp_path / "o" / f"keep_{kept}.py").read_text()
    assert (status, keep["verdict"], keep["verified"]) == (1, "good", True)
    assert "layers.1" in keep["modules"]
    assert "norm" in keep["modules"]
    assert "head" not in keep["modules"]
    assert keep["rmse"] <= keep["allowed"] * keep["noise"]
    assert code == keep["code"]
    report = (tmp_path / "o" / "report.md").read_text()
    assert "## Kept in another dtype" in report
    assert f"DTYPE = torch.{kept}" in report
    assert f"--keep-{kept} auto" in answer["command"]
    assert (keep["kept_in"], keep["bytes"] == 0) == (kept, kept == "bfloat16")


@pytest.mark.parametrize(("factor", "verdict"), [("1e6", "overflows"), ("1e3", "sound")])
def test_a_finite_run_tells_what_float16_would_do(factor: str, verdict: str, tmp_path: Path) -> None:
    (tmp_path / "narrow.py").write_text(NARROW.replace("FACTOR", factor))
    status, answer = asked(tmp_path, "--factory", "narrow.py:make", "--no-ablations")
    row = next(row for row in answer["forecast"]["dtypes"] if row["dtype"] == "float16")
    assert (status, row["verdict"]) == (0, verdict)
    assert "without a run in them" in (tmp_path / "o" / "report.md").read_text()


SWALLOWING = """
import torch
class Norm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8))
    def forward(self, x):
        return self.weight * x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)
def make(): return Norm(), {"x": 800 * torch.randn(2, 8, generator=torch.Generator().manual_seed(1))}
"""


def test_an_overflow_that_is_swallowed_gets_a_script_of_torch_alone(tmp_path: Path) -> None:
    (tmp_path / "norm.py").write_text(SWALLOWING)
    status, answer = asked(tmp_path, "--factory", "norm.py:make", "--dtype", "float16", "--no-ablations")
    script = answer["reproducer"]
    assert (status, answer["kind"], answer["origin"]["mechanism"]) == (1, "divergent", "overflow")
    assert (script["verified"], script["needs"], script["exit_statuses"]) == (True, ["torch"], [1, 1, 1])
    text = (tmp_path / "o" / script["path"]).read_text()
    assert "rounding allows" in text
    assert "This is not a PyTorch bug." in text
    assert answer["owner"]["project"] != "pytorch"


@pytest.mark.parametrize(("options", "said"), [
    (("--keep-float32", "auto"), "add --dtype float16 or bfloat16"),
    (("--keep-bfloat16", "auto", "--dtype", "bfloat16"), "add --dtype float16."),
])  # fmt: skip
def test_what_is_kept_wants_a_dtype_for_the_rest(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    ran = repro("gpt2", *options, cwd=tmp_path)
    assert (ran.returncode, said in ran.stderr) == (2, True)


def test_two_factories_are_compared_in_a_training(tmp_path: Path) -> None:
    factories = ("--factory", "voice.py:distance", "--factory", "voice.py:distance_sound")
    (tmp_path / "voice.py").write_text(VOICE)
    ran = repro("compare", *factories, "--train-step", "2", "--no-measure", "--no-bundle", "--out", "o", cwd=tmp_path)
    answer = json.loads((tmp_path / "o" / "verdict.json").read_text())
    models = {one["name"]: (one["verdict"], one["parameters"], one["asked"]) for one in answer["comparison"]["models"]}
    assert ran.returncode == 1, ran.stderr
    assert models == {"distance": ("bad", 20, None), "distance_sound": ("good", 20, None)}
    assert (answer["origin"]["phase"], answer["origin"]["op"]) == ("backward", "aten.div.Tensor")
    again = answer["command"].split()
    assert [Path(word).name for word in again if "voice.py" in word] == ["voice.py:distance", "voice.py:distance_sound"]
    assert again[-4:] == ["--train-step", "2", "--no-measure", "--no-bundle"]


def test_two_files_of_weights_are_compared_in_one_module(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\ndef make(): return torch.nn.Linear(2, 1), torch.tensor([[6e4, 6e4]])\n"
    )
    for name, weight in (("small", 1e-3), ("large", 1e34)):
        state = {"weight": torch.full((1, 2), weight), "bias": torch.zeros(1)}
        save_file(state, tmp_path / f"{name}.safetensors")
    words = ("small.safetensors", "large.safetensors", "--factory", "net.py:make", "--no-measure", "--no-bundle")
    ran = repro("compare", *words, "--out", "o", cwd=tmp_path)
    answer = json.loads((tmp_path / "o" / "verdict.json").read_text())
    models = {one["name"]: one["verdict"] for one in answer["comparison"]["models"]}
    assert (ran.returncode, models) == (1, {"small.safetensors": "good", "large.safetensors": "bad"})


@pytest.mark.parametrize(("value", "project"), [(-0.7, "checkpoint"), (0.7, None)])
def test_a_negative_variance_in_the_file_is_the_files(tmp_path: Path, value: float, project: str | None) -> None:
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3, image_size=32
    )
    model = ResNetForImageClassification(config).eval()
    tensor = "resnet.encoder.stages.1.layers.0.layer.0.normalization.running_var"
    dict(model.named_buffers())[tensor][5] = value
    model.save_pretrained(tmp_path / "model")
    _, answer = asked(tmp_path, "model", "--no-ablations", "--no-reduce")
    assert (answer["verdict"] == "bad", answer["owner"] and answer["owner"]["project"]) == (value < 0, project)
    if project is not None:
        held = answer["origin"]["held"]
        assert (held["tensor"], held["index"], held["in_file"]) == (tensor, [5], True)
        assert (held["value"], held["instead"]) == (pytest.approx(-0.7), pytest.approx(0.7))
        assert "normalization.running_var holds -0.7 at [5]" in answer["owner"]["reason"]
        assert "| decided by | `resnet." in (tmp_path / "o" / "report.md").read_text("utf-8")


ROOTED = """
import torch
from torch import nn

class Rooted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return {"loss": (self.layer(x) * self.scale.sqrt()).square().mean()}

def make(): return Rooted(), {"x": torch.ones(2, 4)}
"""


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_scale_of_0_in_the_file_that_spoils_its_gradient_is_the_files(tmp_path: Path, value: float) -> None:
    (tmp_path / "net.py").write_text(ROOTED)
    state = {"layer.weight": torch.ones(4, 4), "layer.bias": torch.ones(4), "scale": torch.ones(4)}
    state["scale"][3] = value
    save_file(state, tmp_path / "net.safetensors")
    words = ("net.safetensors", "--factory", "net.py:make", "--train-step", "--no-ablations", "--no-reduce")
    status, answer = asked(tmp_path, *words)
    assert status == int(value == 0.0)
    if status:
        assert (answer["origin"]["phase"], answer["owner"]["project"]) == ("backward", "checkpoint")
        assert "scale holds 0 at [3]" in answer["owner"]["reason"]


@pytest.mark.parametrize(
    ("phase", "verdict", "last"),
    [((), "good", "aten.mean.default"), (("--train-step", "2"), "bad", "aten.addcdiv_.default")],
)
def test_the_operators_of_a_module_are_recorded_through_its_training(
    tmp_path: Path, phase: tuple[str, ...], verdict: str, last: str
) -> None:
    (tmp_path / "voice.py").write_text(VOICE)
    ran = repro("trace", "--factory", "voice.py:distance", *phase, "--out", "o", cwd=tmp_path)
    lines = map(json.loads, (tmp_path / "o" / "evidence.jsonl").read_text().splitlines())
    (seen,) = (line for line in lines if line.get("step") == "trace")
    rows = [dict(zip(seen["payload"]["columns"], row, strict=True)) for row in seen["payload"]["rows"]]
    assert (ran.returncode, seen["verdict"]["outcome"]) == ({"good": 0, "bad": 1}[verdict], verdict)
    roots = [row for row in rows if row["op"] == "aten.sqrt.default" and "voice" in row["source"]]
    assert [row["source"] for row in roots] == [line('"loss"')] * max(1, len(phase))
    assert last in {row["op"] for row in rows}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("weights", "--factory", "f.py:make"), "this command reads files"),
        (("weights", "m", "--generate", "2"), "ask `repro MODEL --generate N`"),
        (("weights", "m", "--train-step"), "nothing is trained"),
        (("prompts", "m", "p.txt", "--factory", "f.py:make"), "without the tokenizer"),
        (("prompts", "m", "p.txt", "--generate", "2"), "`repro MODEL --generate N --prompt TEXT`"),
        (("prompts", "m", "p.txt", "--train-step"), "the answer names the example"),
        (("compare", "a", "b", "--prompts", "p.txt", "--generate", "2"), "so --generate would not be used"),
        (("compare", "--prompts", "p.txt", "--factory", "f.py:make"), "so --factory would not be used"),
        (("compare", "a", "--factory", "f.py:make", "--factory", "f.py:other"), "Give one --factory with them"),
        (("compare", "--factory", "f.py:make"), "at least two models"),
        (("versions", "--factory", "f.py:make", "--train-step", "--fault", "divergent", "--package", "torch",
          "--good", "2.4.1", "--bad", "2.5.1"), "--train-step asks for more than one"),
        (("matrix", "--cell", "torch-2.4.1"), "--factory FILE.py:function in its place"),
    ],
)  # fmt: skip
def test_where_a_factory_or_a_phase_makes_no_sense_a_sentence_says_what_to_do(
    tmp_path: Path, args: tuple[str, ...], words: str
) -> None:
    (tmp_path / "f.py").write_text("")
    (tmp_path / "p.txt").write_text("one\n")
    ran = repro(*args, cwd=tmp_path)
    assert (ran.returncode, words in ran.stderr) == (2, True), ran.stderr
    assert "No such option" not in ran.stderr
