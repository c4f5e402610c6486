"""The screen: every call's range, the first bad call in order, bad tokens by layer."""

import math

import pytest
import torch
from support.handmade import INF, NAN, Function, Small, hooks_of
from torch import nn

from repro.probes.observe.screen import Call, blocks, screened, spread_of


def calls_of(model, tensor):
    with screened(model) as screen, torch.no_grad():
        model(tensor)
    return screen.calls()


class Chain(Small):
    def __init__(self, *functions):
        super().__init__()
        self.parts = nn.ModuleList(Function(function) for function in functions)

    def forward(self, input_ids):
        for part in self.parts:
            input_ids = part(input_ids)
        return input_ids


def test_calls_come_in_the_order_in_which_they_end():
    calls = calls_of(Chain(lambda x: x * 2, lambda x: x - 1), torch.tensor([1.0, -3.0]))
    assert calls == [
        Call("parts.0", "Function", 0, -6.0, 2.0),
        Call("parts.1", "Function", 0, -7.0, 1.0),
        Call("", "Chain", 0, -7.0, 1.0),
    ]


def test_the_first_bad_call():
    calls = calls_of(Chain(lambda x: x, lambda x: x / 0, lambda x: x * 0), torch.tensor([1.0, 2.0]))
    assert [call.bad for call in calls] == [False, True, True, True]


def test_a_module_that_is_called_again_has_a_number():
    class Twice(Chain):
        def forward(self, input_ids):
            return self.parts[0](self.parts[0](input_ids))

    calls = calls_of(Twice(lambda x: x * 2), torch.tensor([1.0]))
    assert [(c.module, c.call_index, c.max) for c in calls] == [("parts.0", 0, 2.0), ("parts.0", 1, 4.0), ("", 0, 4.0)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1, 3, 16, 33, 100])
def test_a_nan_is_seen_at_every_place(dtype, size):
    """Longer than a vector register, and the tail behind it."""
    for place in range(size):
        given = torch.zeros(size, dtype=dtype)
        given[place] = NAN
        call = calls_of(Function(lambda x: x + 0), given)[0]
        assert call.bad
        assert math.isnan(call.min)
        assert math.isnan(call.max)


@pytest.mark.parametrize("value", [INF, -INF])
def test_an_infinity_is_seen(value):
    call = calls_of(Function(lambda x: x + 0), torch.tensor([1.0, value, 2.0]))[0]
    assert call.bad
    assert call.absmax == INF


@pytest.mark.parametrize(
    "kind", [tuple, list, lambda items: {"a": items[0], "b": items[1]}], ids=["tuple", "list", "dict"]
)
def test_all_outputs_of_a_call_count(kind):
    call = calls_of(Function(lambda x: kind([x + 1, x - 9])), torch.tensor([2.0]))[0]
    assert (call.min, call.max) == (-7.0, 3.0)


def test_outputs_in_two_dtypes():
    call = calls_of(Function(lambda x: (x.half(), x.double() * 1e200)), torch.tensor([2.0, -1.0]))[0]
    assert (call.min, call.max) == (-1e200, 2e200)


def test_a_float64_value_beyond_float32_is_finite():
    assert not calls_of(Function(lambda x: x.double() * 1e300), torch.tensor([1.0]))[0].bad


@pytest.mark.skipif(not hasattr(torch, "float8_e4m3fn"), reason="this torch has no float8_e4m3fn")
def test_a_float8_output():
    call = calls_of(Function(lambda x: x.to(torch.float8_e4m3fn)), torch.tensor([2.0, -1.0]))[0]
    assert (call.min, call.max) == (-1.0, 2.0)


@pytest.mark.parametrize("function", [lambda x: None, lambda x: x > 0, lambda x: x[:0], lambda x: x.long()])
def test_a_call_without_floating_values_is_not_listed(function):
    assert calls_of(Function(function), torch.tensor([2.0])) == []


def test_a_module_that_passes_on_what_it_got_has_the_same_range():
    calls = calls_of(Chain(lambda x: x * 3, lambda x: x), torch.tensor([2.0]))
    assert [call.max for call in calls] == [6.0, 6.0, 6.0]


def test_a_tensor_changed_in_place_is_measured_again():
    calls = calls_of(Chain(lambda x: x * 3, lambda x: x.mul_(INF)), torch.tensor([2.0]))
    assert [call.bad for call in calls] == [False, True, True]


def test_a_value_that_is_overwritten_afterwards_is_seen_as_it_was():
    calls = calls_of(Chain(lambda x: x * INF, lambda x: x.fill_(1.0)), torch.tensor([2.0]))
    assert [call.bad for call in calls] == [True, False, False]


def test_a_model_in_inference_mode():
    class Inference(Small):
        @torch.inference_mode()
        def forward(self, input_ids):
            return input_ids * 2

    assert calls_of(Inference(), torch.tensor([2.0]))[0].max == 4.0


def test_hooks_are_gone_afterwards():
    model = Chain(lambda x: x)
    calls_of(model, torch.ones(1))
    assert hooks_of(model) == [0, 0, 0]


def test_hooks_are_gone_when_the_forward_raises():
    def fail(x):
        raise ValueError

    model = Chain(fail)
    with pytest.raises(ValueError):  # noqa: PT011 - the model's own, without a text
        calls_of(model, torch.ones(1))
    assert hooks_of(model) == [0, 0, 0]


def test_the_output_is_not_changed():
    model = Chain(lambda x: x * 3, lambda x: x / 7)
    given = torch.tensor([2.0, 1e-40])
    with screened(model):
        under = model(given)
    assert torch.equal(under, model(given))


# --- blocks and spread -------------------------------------------------------------------------------------------


class Model(Small):
    """Two lists of layers, one of which has a list inside each layer."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(self.layer() for _ in range(3))
        self.mixed = nn.ModuleList([nn.Linear(1, 1), nn.ReLU()])
        self.single = nn.ModuleList([nn.Linear(1, 1)])
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList(nn.Linear(1, 1) for _ in range(2))

    def layer(self):
        made = nn.Module()
        made.experts = nn.ModuleList(nn.Linear(1, 1) for _ in range(4))
        return made


def test_blocks_are_the_outermost_lists_of_one_class():
    assert blocks(Model()) == ["layers.0", "layers.1", "layers.2", "encoder.block.0", "encoder.block.1"]


class Attention(nn.Sequential):
    pass


class StateSpace(nn.Sequential):
    pass


def alternating(*kinds):
    """A model whose layers are of these classes, each with a list of experts inside."""
    model = nn.Module()
    model.layers = nn.ModuleList(kind(nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])) for kind in kinds)
    return model


@pytest.mark.parametrize(
    "kinds",
    [(StateSpace, Attention), (StateSpace, Attention, StateSpace, Attention), (StateSpace, StateSpace, Attention)],
)
def test_layers_of_alternating_classes_are_layers(kinds):
    assert blocks(alternating(*kinds)) == [f"layers.{n}" for n in range(len(kinds))]


def test_parts_that_stand_in_one_list_are_no_layers():
    class Embed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(2, 2)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    model = nn.Module()
    model.parts = nn.ModuleList([Embed(), Encoder()])
    assert blocks(model) == [f"parts.1.layers.{n}" for n in range(3)]


def test_a_list_that_is_the_model_itself():
    assert blocks(nn.ModuleList([nn.ReLU(), nn.ReLU()])) == ["0", "1"]


def test_layers_beyond_nine_are_no_prefix_of_each_other():
    model = nn.Module()
    model.layers = nn.ModuleList(nn.ModuleList([nn.ReLU(), nn.ReLU()]) for _ in range(12))
    assert blocks(model) == [f"layers.{n}" for n in range(12)]


def test_the_spread_over_tokens():
    def spoil(places):
        def function(x):
            x = x.clone()
            for token, channel, value in places:
                x[0, token, channel] = value
            return x

        return function

    model = Chain(spoil([]), spoil([(2, 1, NAN)]), spoil([(0, 0, INF), (3, 1, -INF)]))
    with spread_of(model) as rows:
        model(torch.zeros(1, 4, 2))
    assert rows == [
        {"module": "parts.0", "bad_tokens": [], "tokens": 4},
        {"module": "parts.1", "bad_tokens": [2], "tokens": 4},
        {"module": "parts.2", "bad_tokens": [0, 2, 3], "tokens": 4},
    ]
    assert set(hooks_of(model)) == {0}
