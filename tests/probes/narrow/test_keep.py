"""Which modules must stay in float32, against all sets of them tried in plain PyTorch."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from repro.probes.model.forward import look
from repro.probes.model.precision import in_dtype
from repro.probes.model.ready import ready
from repro.probes.narrow.keep import NotSound, Search, cost, wide_run
from repro.probes.narrow.keeping import keep_in
from repro.probes.narrow.kept import code_of, in_short
from repro.probes.narrow.noise import TIMES, noise_of
from repro.probes.narrow.passes import Telling

CHANNELS, TOKENS = 8, 4


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(CHANNELS))

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * self.weight


class Attention(nn.Module):
    """``size`` is in the queries and the keys alike: in their product it is squared."""

    def __init__(self, size):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(CHANNELS, CHANNELS, bias=False) for _ in range(3))
        with torch.no_grad():
            self.q.weight.mul_(size)
            self.k.weight.mul_(size)

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(-1, -2)
        return (scores / (1.0 + scores.abs().amax())).softmax(-1) @ self.v(x)


class Layer(nn.Module):
    def __init__(self, size, part):
        super().__init__()
        self.norm = Norm()
        self.part = part
        self.out = nn.Linear(CHANNELS, CHANNELS, bias=False)
        with torch.no_grad():
            self.out.weight.mul_(size)

    def forward(self, x):
        return x + self.out(self.part(self.norm(x)))


class Model(nn.Module):
    def __init__(self, sizes=(1.0, 1.0), attention=0.0):
        super().__init__()
        torch.manual_seed(0)
        part = Attention(attention) if attention else nn.Identity()
        self.layers = nn.ModuleList(Layer(size, part if at == 0 else nn.Identity()) for at, size in enumerate(sizes))
        self.norm = Norm()
        self.head = nn.Linear(CHANNELS, 5)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.head(self.norm(x))}


def numbers():
    return torch.randn(1, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(1))


def searched(model, x=None, dtype=torch.float32):
    with torch.no_grad():
        loaded, given = ready(model.half(), (numbers().half() if x is None else x.half(),))
    with in_dtype(loaded, torch.float32):
        wide = wide_run(
            replace(loaded, dtype=torch.float32), [given], torch.float16, None if dtype == torch.float32 else dtype
        )
    return Search(loaded, wide, dtype)


def is_sound(make, names, dtype=torch.float32):
    """By hand: finite, and within 2 % of the largest logit in float32."""
    narrow, wide = make().half(), make().half().float()
    if names:
        keep_in(narrow, list(names), dtype)
    with torch.no_grad():
        actual, expected = narrow(numbers().half())["logits"].float(), wide(numbers().half().float())["logits"]
    return bool(torch.isfinite(actual).all()) and bool((actual - expected).abs().max() < 0.02 * expected.abs().max())


def leaves(model):
    return [name for name, part in model.named_modules() if any(True for _ in part.parameters(recurse=False))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [(1.0, 1.0), (60_000.0, 1.0), (30_000.0, 60_000.0), (1.0, 60_000.0)])
def test_no_smaller_set_of_modules_will_do(sizes, dtype):
    found = searched(Model(sizes), dtype=dtype).answer()
    every = leaves(Model(sizes))
    smaller = (names for size in range(len(found)) for names in itertools.combinations(every, size))
    assert is_sound(lambda: Model(sizes), found, dtype)
    assert not any(is_sound(lambda: Model(sizes), names, dtype) for names in smaller)


def test_nothing_has_to_be_kept_where_the_run_is_sound():
    search = searched(Model())
    assert (search.answer(), len(search.trials)) == ((), 1)


def test_a_product_beyond_the_dtype_keeps_the_module_that_makes_it():
    def make():
        return Model(attention=2_000.0)

    search = searched(make())
    assert not is_sound(make, ())
    assert search.answer() == ("layers.0.part",)
    assert is_sound(make, ["layers.0.part"])


def test_each_member_is_left_out_once_and_the_trials_stay_few():
    search = searched(Model((60_000.0, 1.0)))
    found = search.answer()
    sound = dict(search.trials)
    assert all(sound[frozenset(found) - {name}] is False for name in found)
    assert len(search.trials) <= 2 * 3 + 2 * len(found)  # 3: the logarithm of 8 modules


def test_there_is_nothing_to_keep_to_where_float32_is_bad_too():
    model = Model()
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    with pytest.raises(NotSound, match="float32 is bad too"):
        searched(model)


class Raising(nn.Module):
    """Runs in float16 when its tensors hold float32 numbers only."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x):
        y = self.layer(x)
        if type(y) is torch.Tensor and y.dtype == torch.float16:
            raise RuntimeError("not implemented for 'Half'")
        return y


def test_a_dtype_without_kernels_is_no_number_beyond_it():
    with pytest.raises(NotSound, match="not implemented for 'Half'"):
        searched(Raising()).answer()


def test_the_model_is_as_it_was():
    model = Model((60_000.0, 1.0)).half()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    searched(model).answer()
    after = model.state_dict()
    assert all(after[name].dtype == torch.float16 and torch.equal(after[name], before[name]) for name in before)
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_code_needs_nothing_but_torch_and_does_it(dtype):
    names = searched(Model((60_000.0, 1.0)), dtype=dtype).answer()
    place = {"__name__": "pasted"}
    exec(compile(code_of(names, dtype), "keep.py", "exec"), place)
    model = Model((60_000.0, 1.0)).half()
    with torch.no_grad():
        assert not torch.isfinite(model(numbers().half())["logits"]).all()
        place["keep_in"](model, place["KEEP"], place["DTYPE"])
        assert torch.isfinite(model(numbers().half())["logits"]).all()


def test_the_cost_counts_a_weight_that_two_modules_share_once():
    model = Model().half()
    model.layers[1].out.weight = model.layers[0].out.weight
    more, whole = cost(model, ("layers.0.out", "layers.1.out", "norm"))
    assert more == 2 * (CHANNELS * CHANNELS + CHANNELS)
    assert cost(model, ("layers.0.out",), torch.bfloat16)[0] == 0
    assert whole == 2 * sum(parameter.numel() for parameter in model.parameters())


def test_a_kept_module_takes_and_gives_float32_and_the_others_their_own():
    model, seen = Model().half(), {}
    for name in ("layers.0.out", "layers.1.norm", "head"):
        model.get_submodule(name).register_forward_hook(
            lambda part, args, output, name=name: seen.update({name: (args[0].dtype, output.dtype)})
        )
    handles = keep_in(model, ["layers.0.out"], torch.float32)
    with torch.no_grad():
        model(numbers().half())
    wide, narrow = torch.float32, torch.float16
    assert seen == {"layers.0.out": (wide, wide), "layers.1.norm": (narrow, narrow), "head": (narrow, narrow)}
    for handle in handles:
        handle.remove()


@pytest.fixture(scope="module")
def judged():
    """A judge of outputs, and the output of a plain run in float16."""
    with torch.no_grad():
        loaded, given = ready(Model(), (numbers(),))
        telling, seen = Telling(loaded, given, torch.float16, torch.float32), look(loaded.model, given)
        noise = noise_of(telling, seen.output_name, seen.output)
        return noise, Model().half()(numbers().half())["logits"]


def test_a_plain_run_in_float16_is_within_its_rounding(judged):
    noise, actual = judged
    assert noise.judged(actual).sound
    assert 0 < noise.judged(actual).rmse < TIMES * noise.rmse


@pytest.mark.parametrize(
    "wrong",
    [lambda x: x * 1.05, lambda x: x + 0.02, lambda x: x.flip(-1), lambda x: x.float() * torch.nan, lambda x: x[:, 1:]],
    ids=["a wrong scale", "a wrong bias", "a wrong order", "NaN", "another shape"],
)
def test_what_rounding_does_not_explain_is_not_sound(judged, wrong):
    noise, actual = judged
    assert not noise.judged(wrong(actual)).sound


def test_numbers_of_layers_stand_together():
    names = ("a.0.norm", "a.2.norm", "a.3.norm", "a.4.norm", "a.4.out", "head")
    assert in_short(names) == "a.0,2-4.norm, a.4.out, head"


class Known(Search):
    """Asks nothing: a set is sound where it holds all of ``needed``."""

    def __init__(self, needed):
        super().__init__(loaded=SimpleNamespace(model=None), wide=None)
        self.needed = frozenset(needed)

    def is_sound(self, names):
        return self.needed <= frozenset(names)


@pytest.mark.parametrize("needed", [set(some) for size in range(4) for some in itertools.combinations("abc", size)])
@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_leaving_out_ends_with_what_is_needed_in_whatever_order(monkeypatch, needed, order):
    monkeypatch.setattr("repro.probes.narrow.keep._size", lambda model, name: -order.index(name))
    assert set(Known(needed)._without_what_is_not_needed(tuple(order))) == needed
