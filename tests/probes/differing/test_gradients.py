"""Gradients of two ways: sound models agree, a wrong backward pass is found where it was planted."""

import contextlib
import types
from dataclasses import replace

import pytest
import torch
from corpus import families
from support.handmade import Angle, case_of, emitter

from repro.probes.differing import gradients
from repro.probes.differing.gradients import Backward
from repro.probes.differing.held.noise import Noise
from repro.probes.differing.ways import plain
from repro.probes.model.ready import ready
from repro.probes.model.session import Session
from repro.probes.steps.diff import run

PROMPTS = ["w17 w42 w99 w5 w63 w28 w110", "w3 w9 w17 w80 w2"]


class Scaled(torch.autograd.Function):
    """The same value; a gradient that is ``factor`` times too large."""

    @staticmethod
    def forward(ctx, given, factor):
        ctx.factor = factor
        return given.view_as(given)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None


def diff(folder, against, dtype, inject=None):
    case = {**case_of(folder, dtype), "prompts": PROMPTS, "against": against}
    asked = Session(case, str(folder), emitter()[0])
    if inject is not None:
        inject(asked.loaded().model)
    return run(asked, "diff")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for family in ("llama", "gpt2", "bert", "t5"):
        made[family] = tmp_path_factory.mktemp(family)
        families.build(family).save_pretrained(made[family])
        families.write_tokenizer(made[family])
    return made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("against", ["training", "training:checkpointing"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5"])
def test_the_gradients_of_a_sound_model_agree(folders, family, against, dtype):
    verdict, reason, payload = diff(folders[family], against, dtype)
    assert (verdict, payload["departure"]) == ("good", None)
    assert payload["gradients"]["parameters"] > 20
    assert payload["gradients"]["places"] > payload["gradients"]["parameters"]
    assert "agree as well" in reason


def in_training(name, change):
    """The module's forward, changed in training mode."""

    def inject(model):
        module = model.get_submodule(name)
        own = module.forward

        def forward(self, *args, **kwargs):
            return change(self, own, *args, **kwargs) if self.training else own(*args, **kwargs)

        module.forward = types.MethodType(forward, module)

    return inject


def scaled_output(module, own, *args, **kwargs):
    return Scaled.apply(own(*args, **kwargs), 2.0)


def scaled_weight(module, own, given):
    return torch.nn.functional.linear(given, Scaled.apply(module.weight, 2.0), module.bias)


def detached_weight(module, own, given):
    return torch.nn.functional.linear(given, module.weight.detach(), module.bias)


def scaled_input(module, own, given):
    return own(Scaled.apply(given, 2.0))


LAYER = "model.layers.1"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "change", "path"),
    [
        (f"{LAYER}.mlp.up_proj", scaled_weight, f"{LAYER}.mlp.up_proj.weight"),
        ("model.layers.0.self_attn.q_proj", scaled_weight, "model.layers.0.self_attn.q_proj.weight"),
        (f"{LAYER}.mlp.down_proj", scaled_output, f"{LAYER}.mlp.down_proj.weight"),
        (f"{LAYER}.post_attention_layernorm", scaled_output, f"{LAYER}.post_attention_layernorm.weight"),
        ("model.norm", scaled_input, ""),
    ],
)
def test_a_wrong_backward_pass_is_found_in_its_module(folders, dtype, name, change, path):
    verdict, reason, payload = diff(folders["llama"], "training", dtype, in_training(name, change))
    found = payload["departure"]
    assert (verdict, found["what"]) == ("bad", "gradient")
    assert (found["module"], found["path"]) == (name, path)
    assert any(found[part] > most for part, most in zip(("whole", "row", "column"), found["limits"], strict=True))
    assert found["other"] == pytest.approx(found["this"] * 2.0, rel=0.1)
    assert "the two give the same" in reason


def test_a_gradient_that_one_way_alone_has_is_named(folders):
    name = "model.layers.1.self_attn.k_proj"
    _, reason, payload = diff(folders["llama"], "training", "float32", in_training(name, detached_weight))
    assert (payload["departure"]["module"], payload["departure"]["path"]) == (name, f"{name}.weight")
    assert "in one of them alone (this way)" in reason


def test_a_wrong_value_is_told_before_any_gradient(folders):
    def off(module, own, *args, **kwargs):
        return own(*args, **kwargs) * 2.0

    _, _, payload = diff(folders["llama"], "training", "float32", in_training("model.layers.0.mlp", off))
    assert (payload["departure"]["what"], payload["departure"]["module"]) == ("output", "model.layers.0.mlp")
    assert "gradients" not in payload


def test_gradients_that_were_there_and_hooks_are_as_they_were(folders):
    case = {**case_of(folders["llama"], "float32"), "prompts": PROMPTS, "against": "training"}
    asked = Session(case, str(folders["llama"]), emitter()[0])
    model = asked.loaded().model
    weight = model.lm_head.weight
    weight.grad = torch.ones_like(weight)
    run(asked, "diff")
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert all(parameter.grad is None for parameter in model.parameters() if parameter is not weight)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert not any(parameter._backward_hooks for parameter in model.parameters())


def test_a_gradient_that_few_roundings_move_is_drawn_again_before_it_is_said_to_part(monkeypatch):
    """Of ways that add up in another order, where the first draws happen to move nothing."""

    class Still(Noise):
        def __init__(self, seed):
            super().__init__(seed)
            if seed in gradients.SEEDS:
                self._steps = torch.zeros_like(self._steps)

    @contextlib.contextmanager
    def from_the_back():
        model.back = True
        yield
        model.back = False

    def parts():
        return gradients.held(Backward(model, (given,), "output"), this, other)["departure"] is not None

    model = Angle()
    _, given = ready(model, (torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(2)),))
    this = plain((given,))
    other = replace(this, setting=from_the_back)
    monkeypatch.setattr(gradients, "Noise", Still)
    assert not parts()
    monkeypatch.setattr(gradients, "MORE_SEEDS", ())
    assert parts()
