"""The reduce step: its stages in one, and a model that really kills its process in the middle of them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus.answers import case_of
from corpus.families import DEFAULT_IDS, VOCAB
from corpus.faults import BY_NAME, POSITION, TOKEN
from support.handmade import Function, as_loaded, inputs_of
from support.hosting import Listener
from support.reducing import module_result, number, result_of, trials
from torch import Tensor

from repro.core.records import Case, Cell, Ending, Observation, Outcome, Plan
from repro.engine.evidence import TRIALS, TrialLog
from repro.engine.kit import pack
from repro.engine.runner import Limits, Setting, run
from repro.probes.main import run_plan
from repro.probes.model.forward import look
from repro.probes.origin.search import bisect
from repro.probes.protocol.wire import Emitter
from repro.probes.reduce.reduce import in_words, reduce

STEPS = ("load", "forward", "bisect", "reduce")


def reduced(name: str, folder: Path) -> dict[str, Any]:
    """The end event of the reduce step of an injected model."""
    fault = BY_NAME[name]
    fault.build(folder / "model")
    stream = io.StringIO()
    plan = {"steps": list(STEPS), "case": case_of(fault, folder / "model"), "cache": str(folder)}
    run_plan(plan, Emitter(stream))
    ends = [event for event in map(json.loads, stream.getvalue().splitlines()) if event["event"] == "end"]
    found: dict[str, Any] = ends[-1]
    assert (found["step"], found["error"]) == ("reduce", None)
    return found


def of_function(function: Any, tensor: Tensor) -> tuple[str, str, Any]:
    loaded = as_loaded(Function(function), tensor.dtype)
    seen = look(loaded.model, inputs_of(tensor))
    origin = bisect(loaded, [seen])[2]["origin"]
    asked, _ = trials()
    return reduce(loaded, [seen], origin, asked, False)


def test_the_injected_product_of_query_and_key_becomes_one_product_of_two_numbers(tmp_path: Path) -> None:
    found = reduced("llama-qk-overflow", tmp_path)
    payload = found["payload"]
    program = payload["program"]
    assert found["verdict"] == "bad"
    assert [call["op"] for call in program["calls"]] == ["aten.bmm.default"]
    assert [leaf["shape"] for leaf in program["leaves"]] == [[1, 1, 1], [1, 1, 1]]
    assert result_of(program) == number(program["seen"])
    assert str(module_result(payload["module"])) == payload["module"]["seen"] == "nan"
    assert payload["inputs"]["after"] == 1
    assert payload["trials"] < 55  # what functorch's minifier needs for one alike, by FACTS.md
    assert (payload["crashed_trials"], payload["notes"]) == (0, [])


def test_what_is_left_of_the_layers_is_said(tmp_path: Path) -> None:
    layers = reduced("gpt2-residual-overflow", tmp_path)["payload"]["layers"]
    assert layers.pop("trials") > 0
    assert layers == {"path": "transformer.h", "total": 3, "kept": [1], "fed": "captured hidden states"}


def test_where_no_module_can_be_called_the_model_keeps_as_few_layers_as_it_can(tmp_path: Path) -> None:
    payload = reduced("custom-mask-module-residual", tmp_path)["payload"]
    assert payload["module"] is None
    assert payload["layers"] == {"path": "layers", "total": 3, "kept": [1], "trials": 2, "fed": "token ids"}


def test_a_bad_weight_is_reduced_to_its_token_and_no_operator_is_blamed(tmp_path: Path) -> None:
    payload = reduced("gpt2-nan-embedding", tmp_path)["payload"]
    assert payload["inputs"]["ids"] == [TOKEN]
    assert payload["program"] is payload["module"] is payload["layers"] is None


@pytest.mark.parametrize(("name", "reason"), [("llama-sound-float16", "nothing to reduce")])
def test_a_sound_model_has_nothing_to_reduce(tmp_path: Path, name: str, reason: str) -> None:
    found = reduced(name, tmp_path)
    assert (found["verdict"], found["payload"]) == ("good", None)
    assert reason in found["reason"]


def test_without_an_origin_nothing_is_reduced() -> None:
    loaded = as_loaded(Function(lambda x: x / 0))
    asked, events = trials()
    verdict, reason, payload = reduce(loaded, [look(loaded.model, inputs_of(torch.ones(1, 2)))], None, asked, False)
    assert (verdict, payload, events) == ("skip", None, [])
    assert "the origin is not known" in reason


def test_an_operator_in_place_in_the_model_itself_is_reduced() -> None:
    def function(x: Tensor) -> Tensor:
        return x.clone().add_(x)

    verdict, _, payload = of_function(function, torch.tensor([[1.0, 40000.0]]).half())
    assert verdict == "bad"
    assert [call["op"] for call in payload["program"]["calls"]] == ["aten.add.Tensor"]
    assert "the fault is born in the model itself, not in a layer of it" in payload["notes"]


def test_a_fault_that_comes_and_goes_is_not_reduced_by_guessing() -> None:
    calls: list[int] = []

    def function(x: Tensor) -> Tensor:
        calls.append(1)
        return x + x if len(calls) < 100 else x

    loaded = as_loaded(Function(function), torch.float16)
    seen = look(loaded.model, inputs_of(torch.tensor([[1.0, 40000.0]]).half()))
    origin = bisect(loaded, [seen])[2]["origin"]
    calls.extend([1] * 100)
    asked, _ = trials()
    _, _, payload = reduce(loaded, [seen], origin, asked, False)
    assert payload["program"] is None
    assert payload["inputs"]["before"] == payload["inputs"]["after"] == 2
    assert any("a repeated pass did not show the fault" in note for note in payload["notes"])


def test_fewer_tokens_that_bring_up_another_origin_are_not_taken() -> None:
    """The last number alone overflows as it did; but without the first one, 0 / 0 is made before."""

    def function(x: Tensor) -> Tensor:
        there = (x[0] == 1.0).any().half()
        one = torch.ones_like(x) * (there / there)
        return (x * 2.0) + one

    verdict, _, payload = of_function(function, torch.tensor([[1.0, 3.0, 40000.0]]).half())
    assert verdict == "bad"
    assert payload["inputs"]["after"] == 3
    assert "with fewer tokens the fault could not be shown to be the same one" in payload["notes"]
    assert payload["program"]["calls"][0]["op"] == "aten.mul.Tensor"


@pytest.mark.cuda
def test_an_injected_fault_is_reduced_on_the_device_it_is_on(tmp_path: Path) -> None:
    fault = BY_NAME["llama-residual-overflow"]
    fault.build(tmp_path / "model")
    stream = io.StringIO()
    case = {**case_of(fault, tmp_path / "model"), "device": "cuda"}
    run_plan({"steps": list(STEPS), "case": case, "cache": str(tmp_path)}, Emitter(stream))
    payload = json.loads(stream.getvalue().splitlines()[-2])["payload"]
    assert payload["program"]["device"].startswith("cuda")
    assert [leaf["shape"] for leaf in payload["program"]["leaves"]] == [[1], [1]]
    assert payload["module"]["op"] == "aten.add.Tensor"


def test_the_reason_is_one_line() -> None:
    payload = {
        "inputs": {"before": 6, "after": 1},
        "program": {"calls": [{"op": "a"}, {"op": "b"}], "leaves": [{"shape": [1]}]},
        "configuration": None,
        "module": None,
        "layers": {"kept": [1, 2], "total": 9},
        "trials": 7,
    }
    assert in_words(payload) == "1 of 6 tokens; a then b on inputs of (1,); 2 of 9 layers; 7 trials"


# --- real kills --------------------------------------------------------------------------------------------------

CONFIGURATION = """
from transformers import PretrainedConfig


class KillingConfig(PretrainedConfig):
    model_type = "killing"

    def __init__(self, vocab_size=128, deadly=(), how="SIGSEGV", **more):
        super().__init__(**more)
        self.vocab_size, self.deadly, self.how = vocab_size, list(deadly), how
"""
MODELING = """
import ctypes
import os
import signal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .configuration_killing import KillingConfig


class KillingForCausalLM(PreTrainedModel):
    config_class = KillingConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, 4)
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.embed_tokens

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        if input_ids[0].tolist() in self.config.deadly:
            if self.config.how == "SIGSEGV":
                ctypes.string_at(0)
            os.kill(os.getpid(), signal.SIGKILL)
        x = self.embed_tokens(input_ids)
        return CausalLMOutput(logits=x + x)
"""


def killing_model(folder: Path, deadly: list[list[int]], how: str) -> Path:
    """A model whose one token overflows in an add, and that dies at some inputs."""
    from corpus import files

    folder.mkdir()
    table = torch.zeros(VOCAB, 4)
    table[TOKEN, 2] = 40000.0
    files.write(folder / files.WEIGHTS, {"embed_tokens.weight": table})
    (folder / "configuration_killing.py").write_text(CONFIGURATION)
    (folder / "modeling_killing.py").write_text(MODELING)
    auto = {
        "AutoConfig": "configuration_killing.KillingConfig",
        "AutoModelForCausalLM": "modeling_killing.KillingForCausalLM",
    }
    config = {
        "architectures": ["KillingForCausalLM"], "auto_map": auto, "model_type": "killing", "vocab_size": VOCAB,
        "deadly": deadly, "how": how,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def follow(folder: Path, model: Path, finished: tuple[Observation, ...] = ()) -> dict[str, Observation]:
    """The real runner with the real kit."""
    case = Case(str(model), device="cpu", dtype="float16", trust_remote_code=True)
    kit = pack()
    setting = Setting(
        plan=Plan(STEPS, case, str(folder / "cache")),
        cell=Cell(sys.executable),
        kit=kit.write(folder),
        kit_sha256=kit.sha256,
        folder=folder,
        limits=Limits(run_seconds=300.0),
    )
    return run(setting, lambda _: None, Listener(), finished, TrialLog(folder))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / TRIALS).read_text().splitlines()]


def processes(folder: Path) -> int:
    return (folder / "kit.log").read_text().count("[repro] steps:")


@pytest.mark.slow
@pytest.mark.parametrize(("how", "times"), [("SIGSEGV", 1), ("SIGKILL", 3)])
def test_the_step_goes_on_behind_a_trial_that_killed_its_process(tmp_path: Path, how: str, times: int) -> None:
    """The smallest input, the token alone, is deadly: the answer is the next larger one that shows the fault. SIGKILL
    may have come from elsewhere, so that trial is made three times.
    """
    model = killing_model(tmp_path / "model", [[TOKEN]], how)
    known = follow(tmp_path, model)
    reduce_step = known["reduce"]
    assert reduce_step.ending is Ending.ENDED
    assert reduce_step.verdict.outcome is Outcome.BAD
    payload: Any = reduce_step.payload
    assert payload["inputs"]["ids"] == [DEFAULT_IDS[0], TOKEN]
    assert payload["crashed_trials"] == 1
    assert payload["program"]["calls"][0]["op"] == "aten.add.Tensor"
    assert processes(tmp_path) == 1 + times
    last = {line["trial"]: line["holds"] for line in lines(tmp_path)}
    assert [trial for trial, holds in last.items() if holds is None] == [f"1: 1 of {len(DEFAULT_IDS)} tokens"]

    # A second run into the same folder takes the answers from there: nothing dies any more.
    before = lines(tmp_path)
    again = follow(tmp_path, model, tuple(known[step] for step in STEPS[:-1]))
    assert again["reduce"].payload == payload
    assert processes(tmp_path) == 2 + times
    new = [line["trial"] for line in lines(tmp_path)[len(before) :]]
    assert all(trial.startswith("made ") for trial in new)


def test_the_token_alone_is_the_answer_of_a_model_that_does_not_die(tmp_path: Path) -> None:
    known = follow(tmp_path, killing_model(tmp_path / "model", [], "SIGSEGV"))
    payload: Any = known["reduce"].payload
    assert payload["inputs"]["ids"] == [TOKEN] == [DEFAULT_IDS[POSITION]]
    assert payload["crashed_trials"] == 0
    assert processes(tmp_path) == 1
