"""torch.compile, stage by stage; a backend with a wrong constant is found in its stage and module."""

from unittest import mock

import pytest
import torch
from corpus import families
from support.handmade import case_of, emitter

from repro.probes.model.session import Session
from repro.probes.steps.diff import run

compiled = torch.compile


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    families.build("llama").save_pretrained(folder)
    families.write_tokenizer(folder)
    return folder


def diff(folder, against):
    case = {**case_of(folder, "float32"), "prompts": ["w17 w42 w99 w5 w63 w28"], "against": against}
    asked = Session(case, str(folder), emitter()[0])
    outcome = run(asked, "diff")
    assert not any("forward" in vars(module) for module in asked.loaded().model.modules())
    return outcome


def test_a_sound_backend_agrees(llama):
    verdict, _, payload = diff(llama, "compile:eager")
    assert (verdict, [stage["name"] for stage in payload["stages"]]) == ("good", ["compile:eager"])
    assert payload["end"]["top1_flips"] == 0


def wrong(graph, inputs):
    """A backend that makes 1.05 of each 1 behind silu."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and "silu" in str(node.target):
            with graph.graph.inserting_after(node):
                more = graph.graph.call_function(torch.mul, (node, 1.05))
            node.replace_all_uses_with(more)
            more.args = (node, 1.05)
    graph.recompile()
    return graph.forward


@pytest.mark.slow
def test_the_first_stage_that_is_wrong_is_named_with_its_module(llama):
    def compile_(function, backend):
        return compiled(function, backend=wrong if backend == "aot_eager" else backend)

    with mock.patch.object(torch, "compile", compile_):
        verdict, reason, payload = diff(llama, "compile")
    assert verdict == "bad", reason
    assert [(stage["name"], stage["verdict"]) for stage in payload["stages"]] == [
        ("compile:eager", "good"),
        ("compile:aot_eager", "bad"),
    ]
    found = payload["departure"]
    assert (found["module"], found["layer"]) == ("model.layers.0.mlp", "aot_eager")
    assert "AOTAutograd" in reason


def test_a_backend_that_refuses_the_model_could_not_be_told(llama):
    def refuses(graph, inputs):
        raise ValueError("no such operator here")

    with mock.patch.object(torch, "compile", lambda function, backend: compiled(function, backend=refuses)):
        verdict, reason, _ = diff(llama, "compile:eager")
    assert verdict == "skip"
    assert "torch.compile with eager" in reason
