"""Small modules with a known answer: the line that ends in `born` is where the bad value is made.

Each goes through screen, recording, walk and confirmation, as in a run, and must come back with that line, its operator
and the mechanism that IEEE 754 has for it.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.handmade import INF, NAN, Function, Small, bisected, born, origin_of, tape_of
from torch import nn
from torch.nn import functional as F

from repro.probes.origin.arithmetic import limit_of
from repro.probes.origin.walk import End, trace

HALF = torch.float16
ONES = torch.ones(1, 4)
BIG = torch.tensor([[1.0, 2.0, 3e38, 4.0]])
"""Finite in float32, and infinite when doubled: token 2."""


def check(model, tensor, op, mechanism, dtype=torch.float32, **more):
    origin = origin_of(model, tensor, dtype, **more)
    assert (origin["op"], origin["mechanism"], origin["source"]) == (op, mechanism, born(model))
    assert origin["confirmed"] is True
    assert marked(origin["excerpt"]).endswith("# born")
    return origin


def marked(excerpt):
    """The line that an excerpt is about."""
    return excerpt["lines"][int(excerpt["source"].rpartition(":")[2]) - excerpt["first"]]


def is_good(model, tensor):
    verdict, payload = bisected(model, tensor)
    assert (verdict, payload["origin"]) == ("good", None)


# --- one operator ------------------------------------------------------------------------------------------------


class Overflows(Small):
    def forward(self, input_ids):
        x = input_ids + 0
        y = x * 2  # born
        return y - 1


def test_an_overflow():
    origin = check(Overflows(), BIG, "aten.mul.Tensor", "overflow")
    assert (origin["element"], origin["value"]) == ([0, 2], INF)
    assert origin["reference_value"] == pytest.approx(6e38)
    assert origin["limit"] == limit_of(torch.float32) == (2 - 2**-23) * 2.0**127


def test_the_elements_token():
    assert origin_of(Overflows(), BIG)["token_index"] == 2


class InfMinusInf(Small):
    def forward(self, input_ids):
        x = torch.exp(input_ids * 1000)  # born
        return x - x


def test_inf_minus_inf_is_the_overflows_fault():
    check(InfMinusInf(), ONES, "aten.exp.default", "overflow")


class ZeroTimesInf(Small):
    def forward(self, input_ids):
        x = torch.exp(input_ids * 1000)  # born
        return x * (input_ids - input_ids)


def test_zero_times_inf_is_the_overflows_fault():
    check(ZeroTimesInf(), ONES, "aten.exp.default", "overflow")


class ZeroByZero(Small):
    def forward(self, input_ids):
        nothing = input_ids - input_ids
        return (nothing / nothing) + 1  # born


def test_zero_by_zero():
    check(ZeroByZero(), ONES, "aten.div.Tensor", "invalid")


class OneByZero(Small):
    def forward(self, input_ids):
        return input_ids / (input_ids - 1)  # born


def test_one_by_zero():
    check(OneByZero(), ONES, "aten.div.Tensor", "divide_by_zero")


class InverseRoot(Small):
    def forward(self, input_ids):
        scale = (input_ids - 1).pow(2).mean(-1, keepdim=True).rsqrt()  # born
        return (input_ids - 1) * scale


def test_the_inverse_root_of_zero():
    check(InverseRoot(), ONES, "aten.rsqrt.default", "divide_by_zero")


class Root(Small):
    def forward(self, input_ids):
        return torch.sqrt(-input_ids) * 2  # born


def test_the_root_of_a_negative_number():
    check(Root(), ONES, "aten.sqrt.default", "invalid")


class LogOfZero(Small):
    def forward(self, input_ids):
        return torch.log(input_ids - 1) + 1  # born


def test_the_log_of_zero():
    check(LogOfZero(), ONES, "aten.log.default", "divide_by_zero")


class Cast(Small):
    def forward(self, input_ids):
        return input_ids.to(HALF) * 0.5  # born


def test_a_cast():
    origin = check(Cast(), torch.tensor([[1.0, 1e5]]), "aten._to_copy.default", "overflow", HALF)
    assert origin["limit"] == 65504.0


class HalfSum(Small):
    def forward(self, input_ids):
        return input_ids.sum(-1, keepdim=True) - 1  # born


def test_a_sum_in_float16():
    origin = check(HalfSum(), torch.full((1, 2), 60000.0, dtype=HALF), "aten.sum.dim_IntList", "overflow")
    assert origin["reference_value"] == 120000.0


class Product(Small):
    def __init__(self):
        super().__init__()
        self.keys = nn.Parameter(torch.full((1, 4, 3), -1e38))

    def forward(self, input_ids):
        scores = torch.bmm(input_ids.reshape(1, 1, 4), self.keys)  # born
        return torch.softmax(scores, -1)


def test_a_product_that_overflows_to_a_whole_row_of_minus_inf_is_no_masked_row():
    check(Product(), torch.full((1, 4), 4.0), "aten.bmm.default", "overflow")


# --- masks -------------------------------------------------------------------------------------------------------


class Masked(Small):
    """-inf above the diagonal, which softmax absorbs."""

    def scores(self, x):
        scores = x.unsqueeze(-1) * x.unsqueeze(-2)
        mask = torch.full(scores.shape[-2:], -INF).triu(1)
        return torch.softmax(scores + mask, -1) @ x.unsqueeze(-1)

    def forward(self, input_ids):
        return self.scores(input_ids).squeeze(-1)


class MaskedThenOverflow(Masked):
    def forward(self, input_ids):
        x = self.scores(input_ids).squeeze(-1)
        return x * 3e38 * 2  # born


def test_a_mask_that_softmax_absorbs_is_no_fault():
    is_good(Masked(), ONES)


def test_an_overflow_behind_a_mask():
    check(MaskedThenOverflow(), ONES, "aten.mul.Tensor", "overflow")


class MaskedFill(Small):
    def forward(self, input_ids):
        scores = input_ids.masked_fill(input_ids > 0, -INF)
        return torch.softmax(scores, -1) + 1  # born


def test_a_row_that_masked_fill_masks_whole():
    origin = check(MaskedFill(), ONES, "aten._softmax.default", "masked_row")
    assert origin["reference"] is None


def test_a_row_that_masked_fill_masks_in_part():
    is_good(MaskedFill(), torch.tensor([[1.0, -1.0, 1.0]]))


class MaskedWhere(Small):
    def forward(self, input_ids):
        scores = torch.where(input_ids > 0, torch.full_like(input_ids, -INF), input_ids)
        return torch.softmax(scores, -1)  # born


def test_a_row_that_where_masks_whole():
    check(MaskedWhere(), ONES, "aten._softmax.default", "masked_row")


class MaskedAdd(Small):
    def forward(self, input_ids):
        mask = torch.zeros_like(input_ids).masked_fill(input_ids > 0, -INF)
        return torch.softmax(input_ids + mask, -1)  # born


def test_a_row_that_an_added_mask_masks_whole():
    check(MaskedAdd(), ONES, "aten._softmax.default", "masked_row")


class MaskedBuffer(Small):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.full((1, 4), -INF))

    def forward(self, input_ids):
        return torch.softmax(input_ids + self.mask, -1)  # born


def test_a_row_that_a_buffer_masks_whole():
    check(MaskedBuffer(), ONES, "aten._softmax.default", "masked_row")


class LowestMask(Small):
    """The lowest finite number, added to negative scores in float16: the sum overflows to -inf, which is meant."""

    def forward(self, input_ids):
        mask = torch.full_like(input_ids, torch.finfo(HALF).min)
        return torch.softmax(input_ids + mask, -1)  # born


def test_a_row_that_the_lowest_number_masks_whole():
    check(LowestMask(), torch.full((1, 4), -100.0, dtype=HALF), "aten._softmax.default", "masked_row", HALF)


class LogSoftmax(Small):
    def forward(self, input_ids):
        return torch.log_softmax(torch.full_like(input_ids, -INF), -1)  # born


def test_the_logarithm_of_a_masked_softmax():
    check(LogSoftmax(), ONES, "aten._log_softmax.default", "masked_row")


class MeantNaN(Small):
    """inf - inf of two numbers that were written on purpose: the subtraction is the fault."""

    def forward(self, input_ids):
        mask = torch.full_like(input_ids, -INF)
        return (mask - mask) + input_ids  # born


def test_a_nan_made_of_a_mask():
    assert check(MeantNaN(), ONES, "aten.sub.Tensor", "invalid")["op"] == "aten.sub.Tensor"


class MaskedSum(Small):
    """logsumexp of a masked row is -inf, which is right; -inf less -inf is not a number."""

    def forward(self, input_ids):
        scores = input_ids.masked_fill(input_ids > 0, -INF)
        return scores.logsumexp(-1, keepdim=True) - scores  # born


def test_minus_infinity_that_a_masked_row_adds_up_to_is_passed_on():
    check(MaskedSum(), ONES, "aten.sub.Tensor", "invalid")


class MaskTimesZero(Small):
    def forward(self, input_ids):
        mask = torch.full_like(input_ids, -INF)
        return mask * (input_ids - 1)  # born


def test_a_mask_times_zero():
    check(MaskTimesZero(), ONES, "aten.mul.Tensor", "invalid")


# --- bad values that do no harm ----------------------------------------------------------------------------------


class Dropped(Small):
    def forward(self, input_ids):
        gate = torch.log(input_ids - 1)
        return torch.where(input_ids > 0, input_ids, gate)


class DroppedThenOverflow(Dropped):
    def forward(self, input_ids):
        return super().forward(input_ids) * 3e38 * 2  # born


def test_a_log_that_where_drops_is_no_fault():
    is_good(Dropped(), ONES)


def test_an_overflow_behind_a_log_that_where_drops():
    check(DroppedThenOverflow(), ONES, "aten.mul.Tensor", "overflow")


class Kept(Small):
    def forward(self, input_ids):
        gate = torch.log(input_ids - 1)  # born
        return torch.where(input_ids > 2, input_ids, gate)


def test_a_log_that_where_keeps():
    check(Kept(), ONES, "aten.log.default", "divide_by_zero")


class WhereScalar(Small):
    """`where` keeps one branch's overflow and drops another's."""

    def forward(self, input_ids):
        dropped = input_ids * 3e38 * 10
        kept = torch.exp(input_ids * 100)  # born
        return torch.where(input_ids > 0, kept, dropped)


def test_where_with_two_bad_branches():
    check(WhereScalar(), ONES, "aten.exp.default", "overflow")


class Hidden(Small):
    def forward(self, input_ids):
        x = torch.nan_to_num(input_ids / 0 - input_ids / 0)
        return (x + 1) * 3e38 * 2  # born


def test_an_overflow_behind_a_nan_that_nan_to_num_hides():
    check(Hidden(), ONES, "aten.mul.Tensor", "overflow")


class Clamped(Small):
    def forward(self, input_ids):
        return (input_ids * 3e38 * 10).clamp(max=1.0)


def test_an_overflow_that_is_clamped_is_no_fault():
    is_good(Clamped(), ONES)


# --- memory ------------------------------------------------------------------------------------------------------


def unset(shape, dtype=torch.float32):
    """Memory as `torch.empty` may hand it out: nobody wrote to it, and it holds NaN."""
    from repro.probes.model.loadcheck import poisoned_memory

    with poisoned_memory():
        return torch.empty(shape, dtype=dtype)


class Overwritten(Small):
    def forward(self, input_ids):
        memory = unset(input_ids.shape)
        memory[:, :2] = input_ids[:, :2]
        memory[:, 2:] = 1.0
        return memory + 1


class OverwrittenThenOverflow(Overwritten):
    def forward(self, input_ids):
        return super().forward(input_ids) * 3e38  # born


def test_unset_memory_that_is_overwritten_is_no_fault():
    is_good(Overwritten(), ONES)


def test_an_overflow_in_memory_that_was_unset():
    check(OverwrittenThenOverflow(), ONES, "aten.mul.Tensor", "overflow")


class ReadUnset(Small):
    def forward(self, input_ids):
        memory = unset(input_ids.shape)
        memory[:, :3] = input_ids[:, :3]
        return memory + 1


def test_unset_memory_that_is_read():
    origin = origin_of(ReadUnset(), ONES)
    assert origin["mechanism"] == "unset_memory"
    assert origin["op"].startswith("aten.empty")
    assert origin["element"] == [0, 3]


class Cache(Small):
    """A buffer that is written slice by slice, as keys are; the second slice overflows."""

    def forward(self, input_ids):
        memory = torch.zeros(3, *input_ids.shape)
        memory[0] = input_ids
        memory[1] = input_ids * 1e38 * 4  # born
        memory[2] = input_ids + 1
        return memory.sum(0)


def test_a_cache_that_is_written_slice_by_slice():
    check(Cache(), ONES, "aten.mul.Tensor", "overflow")


class Residual(Small):
    def forward(self, input_ids):
        hidden = input_ids * 1
        hidden += input_ids * 0.5
        hidden += input_ids  # born
        return hidden - 1


def test_a_residual_add_in_place():
    given = torch.tensor([[1.0, 1.5e38, 1.0]])
    origin = check(Residual(), given, "aten.add_.Tensor", "overflow")
    assert origin["element"] == [0, 1]


class InPlaceChain(Small):
    def forward(self, input_ids):
        x = input_ids * 1
        x.mul_(3e38)
        x.mul_(10)  # born
        x.sub_(x.clone())
        return x.add_(1)


def test_a_chain_in_place():
    check(InPlaceChain(), ONES, "aten.mul_.Tensor", "overflow")


# --- the first of several ----------------------------------------------------------------------------------------


class Block(Small):
    def __init__(self, channel):
        super().__init__()
        self.channel = channel

    def forward(self, input_ids):
        push = torch.zeros_like(input_ids)
        push[:, :, self.channel] = 3e38
        return input_ids + push  # born


class Stream(Small):
    """A residual stream. Blocks 1 and 3 push channel 0, blocks 2 and 4 channel 1: two births, in blocks 3 and 4."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Block(c) for c in (2, 0, 1, 0, 1)])

    def forward(self, input_ids):
        hidden = input_ids.unsqueeze(-1).expand(1, -1, 3)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def test_of_two_independent_births_the_first():
    origin = origin_of(Stream(), ONES)
    assert (origin["module"], origin["op"], origin["channel_index"]) == ("layers.3", "aten.add.Tensor", 0)
    assert origin["source"] == born(Stream().layers[0])


def test_which_layers_have_headroom():
    _, payload = bisected(Stream(), ONES)
    ratios = [row["ratio"] for row in payload["headroom"]]
    assert ratios[0] == pytest.approx(limit_of(torch.float32) / 3e38, rel=1e-6)
    assert [ratio is None for ratio in ratios] == [False, False, False, True, True]
    assert [row["bad_tokens"] for row in payload["spread"]] == [[], [], [], [0, 1, 2, 3], [0, 1, 2, 3]]


class Shared(Small):
    """One child, called three times; the third call overflows."""

    def __init__(self):
        super().__init__()
        self.child = Overflows()

    def forward(self, input_ids):
        for _ in range(3):
            input_ids = self.child(input_ids) + 1
        return input_ids


def test_the_call_of_a_shared_child():
    origin = origin_of(Shared(), torch.tensor([[6e37]]))
    assert (origin["module"], origin["call_index"]) == ("child", 2)


class Consumer(Small):
    """The child that ends first with a bad value only got it: the parent made it."""

    def __init__(self):
        super().__init__()
        self.child = Function(lambda x: x + 1)

    def forward(self, input_ids):
        product = input_ids * 3e38 * 2  # born
        return self.child(product)


def test_a_child_that_only_got_the_value_is_not_blamed():
    assert check(Consumer(), ONES, "aten.mul.Tensor", "overflow")["module"] == ""


# --- what stands between birth and output ------------------------------------------------------------------------


def between(x, transport):
    """4e38 at token 2 of five, then the transport."""
    y = x * 1e38
    return transport(y) + 0


IDS = torch.tensor([0, 2, 1])


def index_add(y):
    return torch.zeros_like(y).index_add_(1, torch.arange(5), y)


def index_copy(y):
    return torch.zeros(1, 8).index_copy_(1, torch.tensor([1, 3, 5, 7, 0]), y)


def scatter(y):
    return torch.zeros_like(y).scatter_(1, torch.tensor([[4, 3, 2, 1, 0]]), y)


def index_put(y):
    out = torch.zeros_like(y)
    out[:, torch.tensor([4, 3, 2, 1, 0])] = y
    return out


TRANSPORTS = {
    "index_add": index_add,
    "index_copy": index_copy,
    "scatter": scatter,
    "index_put": index_put,
    "cat": lambda y: torch.cat([torch.ones(1, 2), y, y[:, :1]], 1),
    "stack": lambda y: torch.stack([torch.ones_like(y), y]),
    "einsum": lambda y: torch.einsum("bi,ij->bj", y, torch.eye(5)),
    "gather": lambda y: torch.gather(y, 1, torch.tensor([[2, 0]])),
    "index_select": lambda y: y.index_select(1, IDS),
    "advanced index": lambda y: y[:, IDS],
    "embedding": lambda y: F.embedding(torch.tensor([[2, 0]]), y.reshape(5, 1)),
    "expand": lambda y: y.unsqueeze(0).expand(3, 1, 5),
    "broadcast": lambda y: torch.ones(4, 1, 1) * y,
    "where": lambda y: torch.where(torch.tensor([True, False, True, False, True]), y, torch.zeros(1, 5)),
    "transpose": lambda y: y.T.contiguous().T,
    "split": lambda y: torch.cat(y.split(2, 1)[::-1], 1),
    "chunk": lambda y: y.chunk(3, 1)[1],
    "roll": lambda y: y.roll(1, 1),
    "flip": lambda y: y.flip(1),
    "pad": lambda y: F.pad(y, (1, 1)),
    "repeat": lambda y: y.repeat(2, 2),
    "repeat_interleave": lambda y: y.repeat_interleave(2, 1),
    "half": lambda y: y.to(HALF),
    "double": lambda y: y.double(),
    "max": lambda y: y.max(1, keepdim=True).values,
    "sort": lambda y: y.sort(1).values,
    "topk": lambda y: y.topk(2, 1).values,
    "cumsum": lambda y: y.cumsum(1),
    "mean": lambda y: y.mean(1),
    "softmax": lambda y: y.softmax(1),
    "layer_norm": lambda y: F.layer_norm(y, (5,)),
    "gelu": F.gelu,
    "silu": F.silu,
    "linear": lambda y: F.linear(y, torch.ones(3, 5), torch.ones(3)),
    "addmm": lambda y: torch.addmm(torch.ones(1, 2), y, torch.ones(5, 2)),
    "bmm": lambda y: torch.bmm(torch.ones(1, 2, 5), y.reshape(1, 5, 1)),
    "baddbmm": lambda y: torch.baddbmm(torch.ones(1, 2, 1), torch.ones(1, 2, 5), y.reshape(1, 5, 1), beta=0),
    "conv1d": lambda y: F.conv1d(y.reshape(1, 1, 5), torch.ones(1, 1, 3)),
    "sdpa": lambda y: F.scaled_dot_product_attention(
        *[torch.ones(1, 1, 5, 4)] * 2, y.reshape(1, 1, 5, 1).expand(1, 1, 5, 4)
    ),
    "complex": lambda y: torch.view_as_real(torch.complex(y, torch.ones_like(y)) * torch.tensor(1j)),
    "masked_fill": lambda y: y.masked_fill(torch.tensor([True, True, False, False, False]), 0.0),
    "tril": lambda y: y.expand(5, 5).tril(),
    "unbind": lambda y: torch.stack(y.unbind(1)[1:], 1),
    "copy_": lambda y: torch.empty(1, 5).copy_(y),
    "lerp": lambda y: torch.ones_like(y).lerp(y, 0.5),
    "addcmul": lambda y: torch.ones_like(y).addcmul(y, y),
    "foreach": lambda y: torch._foreach_add([y, y], 1.0)[0],
    "dtype view": lambda y: y.view(torch.int32).view(torch.float32),
}


@pytest.mark.parametrize("name", sorted(TRANSPORTS))
def test_the_walk_goes_back_through(name):
    model = Function(lambda x: between(x, TRANSPORTS[name]))
    given = torch.tensor([[1e-37, 2e-37, 4.0, 3e-37, 4e-37]])
    origin = origin_of(model, given)
    assert (origin["op"], origin["occurrence"], origin["mechanism"]) == ("aten.mul.Tensor", 0, "overflow")
    assert origin["element"] == [0, 2]


# --- values that were there before -------------------------------------------------------------------------------


class Table(Small):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(8, 3)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.table.weight[5, 1] = NAN

    def forward(self, input_ids):
        return self.head(self.table(input_ids))


def test_a_nan_row_of_an_embedding():
    origin = origin_of(Table(), torch.tensor([[1, 5, 2]]))
    assert (origin["mechanism"], origin["tensor"], origin["tensor_index"]) == ("bad_weights", "table.weight", [5, 1])
    assert (origin["module"], origin["op"], origin["token_index"]) == ("table", "aten.embedding.default", 1)


def test_a_nan_row_that_no_token_takes_is_no_fault():
    is_good(Table(), torch.tensor([[1, 2, 3]]))


class Buffer(Small):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([1.0, NAN, 1.0]))

    def forward(self, input_ids):
        return input_ids.unsqueeze(-1) * self.scale


def test_a_nan_in_a_buffer():
    origin = origin_of(Buffer(), ONES)
    assert (origin["mechanism"], origin["tensor"], origin["tensor_index"]) == ("bad_input", "scale", [1])
    assert origin["came_in"] == {
        "kind": "buffer", "shape": [3], "bad": 1, "total": 3, "examples": [1], "features": []
    }  # fmt: skip


def test_a_nan_in_a_buffer_that_two_loads_gave_other_values():
    origin = origin_of(Buffer(), ONES, unset_buffers=("scale",))
    assert (origin["mechanism"], origin["tensor"]) == ("unset_memory", "scale")


class Attribute(Small):
    def __init__(self):
        super().__init__()
        self.child = Function(lambda x: x)
        self.child.table = torch.tensor([1.0, 1.0, INF, 1.0])

    def forward(self, input_ids):
        return input_ids * self.child.table


def test_an_inf_in_a_plain_attribute():
    origin = origin_of(Attribute(), ONES)
    assert (origin["tensor"], origin["tensor_index"]) == ("child.table", [2])
    assert (origin["mechanism"], origin["came_in"]["kind"]) == ("bad_input", "attribute")
    assert "neither parameter nor buffer" in origin["note"]


class Tied(Small):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(2, 2, bias=False)
        self.two = nn.Linear(2, 2, bias=False)
        self.two.weight = self.one.weight
        with torch.no_grad():
            self.one.weight[1, 0] = INF

    def forward(self, input_ids):
        return self.two(input_ids)


def test_a_shared_parameter_has_its_first_name():
    origin = origin_of(Tied(), torch.ones(1, 2))
    assert (origin["tensor"], origin["tensor_index"]) == ("one.weight", [1, 0])


def test_a_nan_that_came_with_the_inputs():
    given = torch.ones(2, 3)
    given[1, 2] = NAN
    origin = origin_of(Function(lambda x: (x + 0) * 2), given)
    assert (origin["mechanism"], origin["tensor"], origin["tensor_index"]) == ("bad_input", "input_ids", [1, 2])
    assert origin["came_in"] == {
        "kind": "data", "shape": [2, 3], "bad": 1, "total": 6, "examples": [1], "features": [2]
    }  # fmt: skip
    assert (origin["op"], origin["reference"]) == ("aten.add.Tensor", None)


class Listed(Small):
    def __init__(self):
        super().__init__()
        self.tables = {"one": [torch.ones(4), torch.tensor([1.0, 1.0, 1.0, NAN])]}

    def forward(self, input_ids):
        return input_ids * self.tables["one"][1]


def test_a_nan_in_a_list_that_a_module_holds():
    origin = origin_of(Listed(), ONES)
    assert (origin["mechanism"], origin["tensor"], origin["tensor_index"]) == ("bad_input", "tables", [3])


KEPT = torch.tensor([1.0, NAN, 1.0, 1.0])


def test_a_nan_in_a_tensor_that_belongs_to_no_module():
    origin = origin_of(Function(lambda x: x * KEPT), ONES)
    assert (origin["mechanism"], origin["tensor"], origin["came_in"]["kind"]) == ("bad_input", None, "data")


class Constant(Small):
    def forward(self, input_ids):
        return input_ids * torch.tensor(NAN)  # born


def test_a_nan_that_the_code_writes_itself_did_not_come_with_the_inputs():
    origin = origin_of(Constant(), ONES)
    assert (origin["mechanism"], origin["source"], origin["came_in"]) == ("literal", born(Constant()), None)


class Written(Small):
    """Memory of `empty` that NumPy fills, as Triton, ctypes and C++ do."""

    def forward(self, input_ids):
        memory = torch.empty_like(input_ids)
        memory.numpy()[:] = NAN
        return input_ids + memory  # born


def test_memory_that_numpy_wrote_is_not_unset():
    origin = origin_of(Written(), ONES)
    assert (origin["mechanism"], origin["op"], origin["source"]) == (
        "written_outside",
        "aten.add.Tensor",
        born(Written()),
    )
    assert "aten.empty_like" in origin["note"]


class OverwrittenByNumPy(Small):
    def forward(self, input_ids):
        product = input_ids * 2
        product.numpy()[0, 1] = INF
        return product.exp() * 0  # born


def test_a_result_that_numpy_wrote_over_is_not_the_operators():
    origin = origin_of(OverwrittenByNumPy(), ONES)
    assert (origin["mechanism"], origin["source"]) == ("written_outside", born(OverwrittenByNumPy()))
    assert "aten.mul.Tensor" in origin["note"]


class Grown(Small):
    def forward(self, input_ids):
        memory = input_ids.reshape(-1)[:1].clone()
        with self.poison():
            memory.resize_(3)
        return memory * 2

    @staticmethod
    def poison():
        from repro.probes.model.loadcheck import poisoned_memory

        return poisoned_memory()


def test_memory_that_resize_added_is_unset():
    origin = origin_of(Grown(), ONES)
    assert (origin["mechanism"], origin["op"]) == ("unset_memory", "aten.resize_.default")


class NowAndThen(Small):
    """Unset memory that holds NaN in the first passes and harmless bytes in the later ones, as it comes."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, input_ids):
        self.passes += 1
        memory = unset(input_ids.shape) if self.passes <= 2 else torch.empty(input_ids.shape)
        if self.passes > 2 and not torch.are_deterministic_algorithms_enabled():
            torch._foreach_zero_([memory])  # what the allocator happens to give, without a trace
        return memory + input_ids


def test_unset_memory_that_is_bad_only_now_and_then(monkeypatch):
    """The operator that stands for the allocator's luck must not be seen as a write."""
    from repro.probes.observe import tape
    from repro.probes.origin import counterfactual

    written = tape.written_by

    def without_luck(func, args, kwargs):
        return iter(()) if "_foreach_zero_" in str(func) else written(func, args, kwargs)

    monkeypatch.setattr(tape, "written_by", without_luck)
    monkeypatch.setattr(counterfactual, "filled", lambda call, fill: lucky(call, fill))
    origin = origin_of(NowAndThen(), ONES)
    assert (origin["mechanism"], origin["confirmed_by"]) == ("unset_memory", "walked")


def lucky(call, fill):
    """As `filled`, with the bytes that are there by luck left alone."""
    if "_foreach_zero_" in call.address.op:
        return None
    result = call.run()
    return result.fill_(fill) if ".empty." in call.address.op else result


class Maker(Small):
    def forward(self, input_ids):
        return unset(input_ids.shape)


class ReadElsewhere(Small):
    """One module hands the memory out, another one reads it."""

    def __init__(self):
        super().__init__()
        self.maker = Maker()

    def forward(self, input_ids):
        return self.maker(input_ids) + input_ids


def test_unset_memory_that_another_module_reads():
    assert origin_of(ReadElsewhere(), ONES)["mechanism"] == "unset_memory"


class LogitsMask(Small):
    """-inf that is in the output itself: nothing else is to blame."""

    def forward(self, input_ids):
        return input_ids.masked_fill(input_ids > 0, -INF)  # born


def test_a_mask_that_is_in_the_output_itself():
    check(LogitsMask(), ONES, "aten.masked_fill.Scalar", "literal")


class Encoder(Small):
    """PyTorch's own encoder: of padded tokens it makes a nested tensor. Its second layer overflows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3).eval()
        with torch.no_grad():
            for late in self.encoder.layers[1:]:
                late.linear1.weight.fill_(3e38)

    def forward(self, input_ids):
        padding = torch.zeros(input_ids.shape[:2], dtype=torch.bool)
        padding[1:, 3:] = True
        return self.encoder(input_ids, src_key_padding_mask=padding)


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype.*:UserWarning")
@pytest.mark.parametrize("examples", [1, 2], ids=["plain", "nested"])
def test_an_encoder_of_pytorch_with_two_bad_layers(examples):
    torch.manual_seed(1)
    origin = origin_of(Encoder(), torch.randn(examples, 5, 8))
    assert (origin["module"], origin["mechanism"]) == ("encoder.layers.1.linear1", "overflow")


class TwoWays(Small):
    """Two faults that have nothing to do with each other; each spoils all of the output."""

    def forward(self, input_ids):
        one = (input_ids * 3e38 * 2).sum()  # born
        two = torch.log(input_ids - 1).sum()
        return input_ids + one - two.exp() + two


def test_of_two_independent_faults_the_first():
    check(TwoWays(), ONES, "aten.mul.Tensor", "overflow")


class TwoFar(Small):
    """The walk back from the output meets the root first; the exponential ran before it and suffices, too."""

    def forward(self, input_ids):
        harmless = torch.log(input_ids - 1)
        one = torch.exp(input_ids.sum() * 1000)  # born
        two = torch.sqrt(-1 - input_ids * input_ids)
        return two + torch.where(input_ids > 0, input_ids, harmless) + (one - one)


def test_of_two_independent_faults_the_first_that_suffices():
    origin = check(TwoFar(), ONES, "aten.exp.default", "overflow")
    assert origin["confirmed_by"] == "suffices"


class ThroughSparse(Small):
    def forward(self, input_ids):
        huge = input_ids * 3e38 * 2  # born
        return torch.sparse.mm(huge.to_sparse(), torch.ones(4, 4)) + torch.log(input_ids).exp()


def test_a_walk_that_ends_at_a_sparse_tensor():
    origin = check(ThroughSparse(), ONES, "aten.mul.Tensor", "overflow")
    assert origin["confirmed_by"] == "repaired"


class ThreeBad(Small):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(4)])
        with torch.no_grad():
            for layer in self.layers[1:]:
                layer.weight.fill_(3e38)

    def forward(self, input_ids):
        for layer in self.layers:
            input_ids = torch.relu(layer(input_ids)) + 1
        return input_ids


def test_of_three_bad_layers_the_first():
    origin = origin_of(ThreeBad(), ONES)
    assert (origin["module"], origin["mechanism"]) == ("layers.1", "overflow")


# --- operators that spoil what is put in place of a bad value -----------------------------------------------------


@pytest.mark.parametrize("function", [torch.atanh, torch.special.erfinv, torch.logit], ids=lambda f: f.__name__)
def test_a_pole_at_one_is_not_blamed_for_a_nan_that_it_was_given(function):
    """A bad input is put out of the way by 1, and these are infinite at 1."""

    def forward(x):
        huge = x * 3e38 * 2
        return function(huge - huge)

    origin = origin_of(Function(forward), ONES)
    assert (origin["op"], origin["occurrence"]) == ("aten.mul.Tensor", 1)


class InfByZero(Small):
    def forward(self, input_ids):
        huge = input_ids * 1e38  # born
        return huge / (input_ids - 4)


def test_an_infinity_divided_by_zero_was_infinite_before():
    """Two faults at once: the overflow came first, and the quotient is infinite with it or without it."""
    model = InfByZero()
    origin = origin_of(model, ONES * 4)
    assert (origin["source"], origin["mechanism"]) == (born(model), "overflow")


class Rotary(Small):
    """Rotary embedding by complex numbers; the query overflowed before it is turned."""

    def forward(self, input_ids):
        query = input_ids.reshape(1, -1, 2) * 1e38  # born
        turn = torch.polar(torch.ones(query.shape[1]), torch.arange(float(query.shape[1])))
        return torch.view_as_real(torch.view_as_complex(query) * turn).flatten(1)


def test_rotary_embedding_by_complex_numbers():
    check(Rotary(), ONES * 4, "aten.mul.Tensor", "overflow")


class ComplexOverflow(Small):
    def forward(self, input_ids):
        number = torch.view_as_complex(input_ids.reshape(1, -1, 2) + 0)
        return torch.view_as_real(number * torch.tensor(3e38 + 3e38j))  # born


def test_a_complex_product_that_overflows():
    check(ComplexOverflow(), ONES, "aten.mul.Tensor", "overflow")


# --- what is told about the walk ---------------------------------------------------------------------------------


def test_the_path_leads_from_the_output_to_the_origin():
    tape = tape_of(InPlaceChain(), ONES)
    (ref,) = tape.exit_refs
    origin = trace(tape, ref, [0, 1])
    assert origin.end is End.BORN
    assert [step.op.base_name for step in origin.path] == ["add", "sub", "mul"]


def test_a_walk_from_a_literal_ends_there():
    tape = tape_of(Function(lambda x: torch.full_like(x, -INF) + 1), ONES)
    assert trace(tape, tape.exit_refs[0], [0, 0]).end is End.LITERAL


def test_a_module_that_gives_a_mask_is_excused():
    class WithMask(Small):
        def __init__(self):
            super().__init__()
            self.mask = Function(lambda x: torch.full_like(x, -INF))

        def forward(self, input_ids):
            mask = self.mask(input_ids)
            x = torch.exp(mask) + input_ids
            return x * 3e38 * 2

    verdict, payload = bisected(WithMask(), ONES)
    assert verdict == "bad"
    assert (payload["origin"]["op"], payload["origin"]["module"]) == ("aten.mul.Tensor", "")
    assert [row["module"] for row in payload["ruled_out"]] == ["mask"]


# --- random graphs -----------------------------------------------------------------------------------------------

UNARY = {
    "neg": torch.neg,
    "tanh": torch.tanh,
    "abs": torch.abs,
    "relu": torch.relu,
    "view": lambda x: x.reshape(2, 2).reshape(4),
    "flip": lambda x: x.flip(0),
    "clone in place": lambda x: x.clone().mul_(0.5),
    "sigmoid": torch.sigmoid,
    "slice": lambda x: torch.cat([x[2:], x[:2]]),
    "sin": torch.sin,
}
BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": lambda x, y: torch.tanh(x) * y,
    "max": torch.maximum,
    "min": torch.minimum,
    "where": lambda x, y: torch.where(x > y, x, y),
    "write": lambda x, y: x.clone().add_(y),
    "buffer": lambda x, y: torch.zeros(4).copy_(x).index_add_(0, torch.tensor([3, 1]), y[:2]),
    "hypot": torch.hypot,
}
NODES = st.lists(
    st.tuples(st.sampled_from(sorted(UNARY) + sorted(BINARY)), st.integers(0, 99), st.integers(0, 99)),
    min_size=2,
    max_size=12,
)


def graph(nodes, injected, place, x):
    """Each node takes earlier ones; the injected one is the only exponential, of 100 at one place."""
    values = [x * 1]
    for position, (name, one, two) in enumerate(nodes):
        first, second = values[one % len(values)], values[two % len(values)]
        made = UNARY[name](first) if name in UNARY else BINARY[name](first, second)
        if position == injected % len(nodes):
            push = torch.zeros(4)
            push[place] = 100.0
            made = torch.exp(torch.tanh(made) + push)
        values.append(made)
    return values[-1].reshape(1, 4)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(nodes=NODES, injected=st.integers(0, 99), place=st.integers(0, 3))
def test_in_a_random_graph_the_injected_operator_is_blamed(nodes, injected, place):
    model = Function(lambda x: graph(nodes, injected, place, x.reshape(4)))
    verdict, payload = bisected(model, torch.tensor([[0.5, -1.0, 2.0, 0.25]]))
    with torch.no_grad():
        finite = bool(torch.isfinite(model(torch.tensor([[0.5, -1.0, 2.0, 0.25]]))).all())
    assert verdict == ("good" if finite else "bad")
    if not finite:
        origin = payload["origin"]
        assert (origin["op"], origin["element"], origin["mechanism"]) == ("aten.exp.default", [place], "overflow")


class AbsorbsBeforeALiteral(Small):
    """A -inf that is absorbed runs before a NaN that the code writes: it has nothing to do with it."""

    def forward(self, input_ids):
        far = torch.log(input_ids - 1)
        y = torch.where(input_ids > 1, far, torch.zeros_like(far)) + input_ids
        y = y.clone()
        y[0, 2] = float("nan")  # born
        return y * 2


def test_an_absorbed_value_is_not_blamed_for_a_nan_that_the_code_writes():
    model = AbsorbsBeforeALiteral()
    origin = origin_of(model, ONES)
    assert (origin["mechanism"], origin["source"]) == ("literal", born(model))
