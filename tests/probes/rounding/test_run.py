"""The step ``reference``: what it says of sound models, of wrong kernels and of passes that are not finite."""

import pytest
import torch
from score.architectures import architectures
from support import wrong_kernels
from support.asking import rounding_of
from torch import nn

from repro.probes.checkpoint.resolve import Source
from repro.probes.model.forward import look
from repro.probes.model.inputs import make_inputs
from repro.probes.model.load import Loaded
from repro.probes.model.ready import ready
from repro.probes.rounding.run import hold

CPU = torch.device("cpu")
SWEPT = (
    "llama", "gpt2", "gemma3", "t5_gated", "bart", "mamba", "mixtral", "bert", "vit", "clip", "whisper", "resnet",
)  # fmt: skip


def passes_of(loaded, prompts):
    return [look(loaded.model, given) for given in make_inputs(loaded, prompts, False)]


def tiny(dtype=torch.float32):
    model = architectures()["gpt2"].build().to(dtype)
    return Loaded(model, "", Source("random", None), dtype, CPU, None, {})


def of_a_module(module, *args):
    loaded, given = ready(module, args)
    return loaded, [look(loaded.model, given)]


class Network(nn.Module):
    """The third of three networks, beside a sound one: for a fault that one prompt alone meets."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = wrong_kernels.Network("gelu", 1).eval()

    def forward(self, ids):
        if int(ids[0, 0]) == 1:
            wrong_kernels.chosen["gelu"] = "scaled"
        try:
            return self.network(ids)
        finally:
            wrong_kernels.chosen.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_sound_model_is_good_and_the_figures_say_what_was_held(dtype):
    loaded = tiny(dtype)
    (verdict, reason, payload), departure = hold(loaded, passes_of(loaded, []))
    assert verdict == "good"
    assert departure is None
    assert reason.startswith(f"each of {payload['operators']} operators")
    assert payload["operators"] > 20
    assert payload["departed"] == 0
    assert payload["origin"] is None
    assert payload["not_judged"] == {}
    name = str(dtype).removeprefix("torch.")
    assert all(0 <= kind["ratio"] <= 1 and kind["dtype"] == name for kind in payload["kinds"])
    assert [kind["ratio"] for kind in payload["kinds"]] == sorted((k["ratio"] for k in payload["kinds"]), reverse=True)


def test_a_wrong_kernel_is_bad_with_its_origin(monkeypatch):
    torch.manual_seed(1)
    network = wrong_kernels.Network("mm", 1).eval()
    loaded, passes = of_a_module(network, torch.randint(100, (2, 12)))
    monkeypatch.setitem(wrong_kernels.chosen, "mm", "scaled")
    (verdict, reason, payload), departure = hold(loaded, passes)
    origin = payload["origin"]
    assert verdict == "bad"
    assert departure[0].address.module == origin["module"] == "layers.1.used"
    assert origin["op"] == "wrong.mm.default"
    assert origin["module_class"] == "Used"
    assert origin["mechanism"] == "wrong_constant"
    assert origin["value"] == pytest.approx(1.05 * origin["reference_value"], rel=1e-4)
    assert "wrong_kernels.py" in origin["source"]
    assert "OPS.mm" in origin["code"] or "OPS.mm" in str(origin["excerpt"])
    assert origin["output"] == {"dtype": "float32", "shape": [24, 128]}
    assert payload["departed"] == 1
    assert reason.startswith("wrong.mm.default in layers.1.used gives ")
    assert "every number is 1.05 times what float64 gives" in reason
    assert payload["others"] == []


def test_the_first_of_several_is_the_origin(monkeypatch):
    torch.manual_seed(1)
    networks = nn.Sequential(nn.Embedding(100, 128), *(wrong_kernels.Layer("gelu", 128, 12) for _ in range(3)))
    loaded, passes = of_a_module(networks.eval(), torch.randint(100, (2, 12)))
    monkeypatch.setitem(wrong_kernels.chosen, "gelu", "scaled")
    (verdict, reason, payload), _ = hold(loaded, passes)
    assert verdict == "bad"
    assert payload["origin"]["module"] == "1.used"
    assert [other["module"] for other in payload["others"]] == ["2.used", "3.used"]
    assert "2 more operators depart" in reason


def test_a_pass_that_is_not_finite_is_another_question():
    module = nn.Linear(4, 4)
    with torch.no_grad():
        module.bias[2] = float("nan")
    (verdict, reason, payload), departure = hold(*of_a_module(module, torch.ones(1, 4)))
    assert (verdict, payload, departure) == ("skip", None, None)
    assert "not finite" in reason


def test_nothing_to_hold_is_not_good():
    class Nothing(nn.Module):
        def forward(self, x):
            return x

    (verdict, reason, payload), _ = hold(*of_a_module(Nothing(), torch.ones(1, 4)))
    assert verdict == "skip"
    assert reason == "no operator could be held against float64"
    assert payload["operators"] == 0


def test_every_prompt_is_held_and_the_one_that_departs_is_named():
    network = Network()
    loaded, first = of_a_module(network, torch.tensor([[5, 6, 7]]))
    _, second = ready(network, (torch.tensor([[1, 6, 7]]),))
    passes = [*first, look(loaded.model, second)]
    (verdict, _, payload), _ = hold(loaded, passes)
    assert verdict == "bad"
    assert payload["prompt"] == 1
    assert payload["origin"]["module"] == "network.layers.1.used"
    (verdict, _, payload), _ = hold(loaded, [*first, *first])
    assert (verdict, payload["prompt"], payload["departed"]) == ("good", 1, 0)


def test_the_model_is_as_it_was():
    loaded = tiny()
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    hold(loaded, passes_of(loaded, []))
    assert all(torch.equal(before[name], tensor) for name, tensor in loaded.model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SWEPT)
def test_sound_architectures_are_sound(name, dtype):
    architecture = architectures()[name]
    model = architecture.build().to(dtype)
    given = architecture.inputs(model)
    given = {key: value.to(dtype) if value.is_floating_point() else value for key, value in given.items()}
    rounding = rounding_of(model, **given)
    assert rounding.departures == []
    assert rounding.judged > 20


def test_a_model_in_float64_is_said_to_be_held_against_itself():
    (verdict, reason, payload), _ = hold(*of_a_module(nn.Linear(4, 4).double(), torch.ones(1, 4).double()))
    assert verdict == "good"
    assert "; all of them are in float64 by themselves, so nothing independent was compared there" in reason
    assert payload["alone"] == {"aten.addmm.default": 1}


def test_an_operator_of_a_library_is_said_to_be_held_against_itself():
    torch.manual_seed(1)
    network = wrong_kernels.Network("gelu", 1).eval()
    (verdict, reason, payload), _ = hold(*of_a_module(network, torch.randint(100, (2, 12))))
    assert verdict == "good"
    assert "held against its own float64: nothing independent was compared there" in reason
    assert set(payload["alone"]) == {"wrong.gelu.default"}


def test_pytorchs_own_are_held_against_something():
    (_, reason, payload), _ = hold(*of_a_module(nn.Linear(4, 4), torch.ones(1, 4)))
    assert (payload["alone"], "independent" in reason) == ({}, False)


STRIDES = torch.library.Library("strides", "DEF")
STRIDES.define("scaled(Tensor x, float factor) -> Tensor")
STRIDES.impl(
    "scaled",
    lambda x, factor: torch.as_strided(x, x.shape, torch.empty(x.shape).stride()) * factor,
    "CompositeExplicitAutograd",
)


class Strided(nn.Module):
    """Gives an operator that reads memory in its order, whatever the strides, a transposed tensor or a plain one."""

    def __init__(self, is_transposed):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.is_transposed = nn.Linear(8, 8), is_transposed

    def forward(self, x):
        hidden = self.layer(x)
        return torch.ops.strides.scaled(hidden.transpose(0, 1) if self.is_transposed else hidden, 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_an_operator_that_ignores_strides_is_found(dtype):
    (verdict, reason, payload), _ = hold(*of_a_module(Strided(True).to(dtype), torch.randn(6, 8).to(dtype)))
    assert verdict == "bad"
    assert payload["origin"]["mechanism"] == "wrong_position"
    assert "it ignores the strides of its inputs: of contiguous copies of them it gives other numbers" in reason
    assert hold(*of_a_module(Strided(False).to(dtype), torch.randn(6, 8).to(dtype)))[0][0] == "good"
