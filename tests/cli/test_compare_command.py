"""`repro compare` as a user meets it: injected models of three sizes through the real command, and its refusals."""

import json
import signal
import subprocess
import time

import pytest
import torch
from click.testing import CliRunner
from corpus import families
from support.hosting import answers, command, environment, fake_python, is_gone, repro
from transformers import GPT2LMHeadModel

from repro.cli.compare import compare
from repro.core.errors import UsageError

pytestmark = pytest.mark.usefixtures("forked_interpreters")

SIZES = {"small": (16, 2, 100.0), "middle": (32, 3, 10_000.0), "large": (64, 4, 40_000.0)}
"""Hidden size, layers, and what each of the first two layers adds to channel 5: twice 40,000 is beyond float16."""


def build(folder, hidden, layers, step):
    config = families.gpt2_config()
    config.n_embd, config.n_layer = hidden, layers
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config).eval()
        for block in model.transformer.h[:2]:
            block.mlp.c_proj.bias[5] = step
    model.save_pretrained(folder)
    families.write_tokenizer(folder)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(exit status, document, stderr, parameters by name, report) of three siblings with a file of prompts."""
    place = tmp_path_factory.mktemp("compared")
    parameters = {name: build(place / name, *injected) for name, injected in SIZES.items()}
    (place / "prompts.txt").write_text("w3 w4 w5\nw6 w7\nw8 w9 w10\n")
    options = ["--dtype", "fp16", "--prompts", "prompts.txt", "--no-bundle", "--json", "--out", "out"]
    done = repro("compare", "large", "small", "middle", *options, cwd=place)
    report = (place / "out" / "report.md").read_text()
    return done.returncode, json.loads(done.stdout), done.stderr, parameters, report


def models(compared):
    return {one["name"]: one for one in compared[1]["comparison"]["models"]}


@pytest.mark.slow
def test_one_bad_model_ends_with_1(compared):
    assert compared[0] == 1
    assert compared[1]["verdict"] == "bad"


def test_the_models_stand_in_order_of_size(compared):
    assert list(models(compared)) == ["small", "middle", "large"]


@pytest.mark.parametrize("name", SIZES)
def test_each_model_has_its_figures(compared, name):
    found = models(compared)[name]
    hidden, layers, step = SIZES[name]
    assert (found["hidden_size"], found["layers"], found["dtype"]) == (hidden, layers, "float16")
    assert found["parameters"] == compared[3][name]
    assert found["peak"]["value"] == pytest.approx(2 * step, abs=10)
    assert (found["asked"], found["failed"]) == (3, 3 if name == "large" else 0)


def test_the_threshold_and_its_cause(compared):
    found = compared[1]["comparison"]["threshold"]
    assert (found["kind"], found["below"], found["above"]) == ("bad_from", "middle", "large")
    assert (found["headroom"], found["headroom_with_size"]) == ("cause", "falls")


def test_headroom_is_below_1_where_it_fails_only(compared):
    short = {name: one["headroom"]["float16"] < 1 for name, one in models(compared).items()}
    assert short == {"small": False, "middle": False, "large": True}
    assert all(one["headroom"]["bfloat16"] > 1 for one in models(compared).values())


def test_the_settings_that_were_injected_are_the_ones_that_differ(compared):
    found = {one["path"]: one for one in compared[1]["comparison"]["settings"]}
    assert found.keys() == {"hidden_size", "num_hidden_layers"}
    assert found["hidden_size"]["values"] == [16, 32, 64]
    assert {one["order"] for one in found.values()} == {"rises"}


def test_the_bad_model_is_born_where_the_second_step_is_added(compared):
    assert models(compared)["large"]["born"]["module"] == "transformer.h.1"


def test_the_report_says_what_follows(compared):
    assert "Good up to middle" in compared[4]


def test_with_json_the_table_goes_to_stderr(compared):
    assert "largest output" in compared[2]


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "p.txt").write_text("one\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "at least two models"),
        (["a"], "at least two models"),
        (["a", "a"], "named twice"),
        (["a", "b", "--prompt", "x", "--prompts", "p.txt"], "Give one of the two"),
        (["a", "b", "--pairs"], "how the FILE of --prompts is read"),
        (["a", "b", "--out", "a"], "where MODEL would be looked for"),
    ],
)
def test_what_cannot_be_compared_is_refused(place, arguments, words):
    found = CliRunner().invoke(compare, arguments).exception
    assert isinstance(found, UsageError)
    assert words in str(found)


# --- stopping ----------------------------------------------------------------------------------------------------


def test_a_comparison_that_is_stopped_says_how_it_goes_on(place, tmp_path):
    pid = tmp_path / "pid"
    steps = answers(tmp_path, load={"before": [{"spawn": str(pid)}, {"sleep": 600}]})
    asked = command("compare", "a", "b", "--out", "out", "--python", fake_python(tmp_path))
    running = subprocess.Popen(asked, cwd=tmp_path, env=environment(**steps), stderr=subprocess.PIPE, text=True)
    while not pid.exists() or not pid.read_text():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 143
    assert "repro compare a b" in told
    assert told.strip().endswith("--out out")
    assert is_gone(int(pid.read_text()))
