"""A part of a call: computed in float64 it has the numbers of the whole in float64, at the places that it names."""

import random

import pytest
import torch
import torch.nn.functional as F

from repro.probes.rounding.part import SMALL, _chosen, part_of
from repro.probes.rounding.reference import in_float64, wide

ATEN = torch.ops.aten
FLASH = ATEN._scaled_dot_product_flash_attention_for_cpu.default
CONVOLUTION = ATEN.convolution.default
ONE = ([1], [1], [1], False, [0], 1)
"""Stride, padding, dilation, transposed, output padding, groups."""


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def ids(*shape, count=200):
    return torch.randint(0, count, shape, generator=torch.Generator().manual_seed(3))


def masked(*shape):
    """A float mask with at least one open place in each row."""
    mask = torch.zeros(shape).masked_fill(drawn(*shape, seed=5) > 0.5, float("-inf"))
    mask[..., 0] = 0.0
    return mask


def linear(*tensors):
    """What attention is: plain torch, by the formula, in float64."""
    query, key, value, mask, causal, scale = tensors
    share = query.shape[1] // key.shape[1]
    key, value = (tensor.double().repeat_interleave(share, 1) for tensor in (key, value))
    return F.scaled_dot_product_attention(
        query.double(), key, value, None if mask is None else mask.double(), 0.0, causal, scale=scale
    )


CALLS = {
    "mm": (ATEN.mm.default, (drawn(100, 300), drawn(300, 2000, seed=1)), {}),
    "mm of a transposed weight": (ATEN.mm.default, (drawn(100, 300), drawn(2000, 300, seed=1).t()), {}),
    "mm of one row": (ATEN.mm.default, (drawn(1, 300), drawn(300, 2000, seed=1)), {}),
    "bmm": (ATEN.bmm.default, (drawn(24, 50, 64), drawn(24, 64, 90, seed=1)), {}),
    "bmm of one": (ATEN.bmm.default, (drawn(1, 200, 64), drawn(1, 64, 900, seed=1)), {}),
    "addmm": (ATEN.addmm.default, (drawn(2000), drawn(100, 300), drawn(300, 2000, seed=1)), {}),
    "addmm with factors": (
        ATEN.addmm.default, (drawn(2000), drawn(100, 300), drawn(300, 2000, seed=1)), {"beta": 2, "alpha": 0.5},
    ),
    "addmm with a matrix": (ATEN.addmm.default, (drawn(100, 2000), drawn(100, 300), drawn(300, 2000, seed=1)), {}),
    "addmm with a column": (ATEN.addmm.default, (drawn(100, 1), drawn(100, 300), drawn(300, 2000, seed=1)), {}),
    "baddbmm": (ATEN.baddbmm.default, (drawn(24, 50, 90), drawn(24, 50, 64), drawn(24, 64, 90, seed=1)), {}),
    "baddbmm with a row": (
        ATEN.baddbmm.default, (drawn(1, 1, 90), drawn(24, 50, 64), drawn(24, 64, 90, seed=1)), {"beta": 3},
    ),
    "conv1d": (CONVOLUTION, (drawn(2, 64, 100), drawn(128, 64, 3), drawn(128), *ONE), {}),
    "conv2d without a bias": (
        CONVOLUTION,
        (drawn(2, 16, 40, 40), drawn(96, 16, 3, 3), None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1), {},
    ),
    "embedding": (ATEN.embedding.default, (drawn(200, 512), ids(2, 90)), {}),
    "embedding of one dimension": (ATEN.embedding.default, (drawn(200, 512), ids(300)), {}),
    "add": (ATEN.add.Tensor, (drawn(40, 30, 50), drawn(40, 30, 50, seed=1)), {}),
    "add with alpha": (ATEN.add.Tensor, (drawn(40, 30, 50), drawn(40, 30, 50, seed=1)), {"alpha": 3}),
    "mul that broadcasts": (ATEN.mul.Tensor, (drawn(40, 1, 50), drawn(30, 1, seed=1)), {}),
    "mul by a number": (ATEN.mul.Tensor, (drawn(40, 30, 50), 0.3), {}),
    "mul by a tensor of no dimension": (ATEN.mul.Tensor, (drawn(40, 30, 50), torch.tensor(0.3)), {}),
    "gelu": (ATEN.gelu.default, (drawn(70, 900),), {"approximate": "tanh"}),
    "silu of a transposed": (ATEN.silu.default, (drawn(900, 70).t(),), {}),
    "where": (ATEN.where.self, (drawn(40, 1, 50) > 0, drawn(40, 30, 50), drawn(50, seed=1)), {}),
    "masked_fill": (ATEN.masked_fill.Scalar, (drawn(40, 30, 50), drawn(40, 1, 50) > 0, -3.0), {}),
    "pow": (ATEN.pow.Tensor_Scalar, (drawn(40, 30, 50), 3), {}),
    "softmax": (ATEN._softmax.default, (drawn(6, 80, 500), -1, False), {}),
    "softmax by its number": (ATEN._softmax.default, (drawn(6, 80, 500), 2, False), {}),
    "log softmax": (ATEN._log_softmax.default, (drawn(80, 2000), 1, False), {}),
    "mean of rows": (ATEN.mean.dim, (drawn(6, 80, 500), [-1]), {}),
    "mean of rows that are kept": (ATEN.mean.dim, (drawn(6, 80, 500), [-1], True), {}),
    "sum of rows": (ATEN.sum.dim_IntList, (drawn(6, 80, 500), [2], True), {}),
    "sum of a middle dimension": (ATEN.sum.dim_IntList, (drawn(6, 80, 500), [1]), {}),
    "sum of everything": (ATEN.sum.default, (drawn(6, 80, 500),), {}),
    "layer norm": (
        ATEN.native_layer_norm.default, (drawn(6, 80, 500), [500], drawn(500, seed=1), drawn(500, seed=2), 1e-5), {},
    ),
    "layer norm of two dimensions": (
        ATEN.native_layer_norm.default, (drawn(6, 80, 50, 10), [50, 10], None, None, 1e-5), {},
    ),
    "norm": (ATEN.linalg_vector_norm.default, (drawn(6, 80, 500), 2, [-1], True), {}),
    "cat": (ATEN.cat.default, ([drawn(60, 300), drawn(60, 300, seed=1)], 1), {}),
}  # fmt: skip
ATTENTION = {
    "plain": ((2, 8, 70, 64), 8, None, False, None),
    "many heads": ((4, 24, 70, 64), 24, None, False, None),
    "causal": ((2, 8, 70, 64), 8, None, True, None),
    "a mask for all": ((2, 8, 70, 64), 8, (1, 1, 70, 70), False, None),
    "a mask for each head": ((2, 8, 70, 64), 8, (2, 8, 70, 70), False, None),
    "a mask for each example": ((3, 8, 70, 64), 8, (3, 1, 1, 70), False, None),
    "a scale": ((2, 8, 70, 64), 8, None, False, 0.7),
    "fewer key heads": ((2, 8, 70, 64), 2, None, False, None),
    "one key head, masked, with a scale": ((3, 12, 70, 64), 1, (3, 1, 70, 70), False, 0.3),
}


def compared(part, whole, result=0):
    """Each element of the part against the element of the whole that its index is mapped to."""
    (mine, *more) = in_float64(part)
    for number, values in enumerate((mine, *more)):
        for flat in range(0, values.numel(), max(1, values.numel() // 500)):
            index = tuple(int(at) for at in torch.unravel_index(torch.tensor(flat), values.shape))
            there = whole[number][part.place(number, index)]
            assert float(values[index]) == pytest.approx(float(there), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("small", [float(SMALL), float(1 << 26)], ids=["in part", "whole"])
@pytest.mark.parametrize("name", CALLS)
def test_a_part_has_the_numbers_of_the_whole(name, small):
    func, args, kwargs = CALLS[name]
    made = func(*args, **kwargs)
    results = list(made) if isinstance(made, tuple) else [made]
    part = part_of(func, args, kwargs, name, results, small)
    exact = func(*[[wide(each) for each in arg] if name == "cat" and isinstance(arg, list) else
                   wide(arg) if isinstance(arg, torch.Tensor) else arg for arg in args], **kwargs)  # fmt: skip
    whole = list(exact) if isinstance(exact, tuple) else [exact]
    assert part.is_whole or small == SMALL
    if "layer norm" in name:  # the mean and the reciprocal of the deviation have one number for each row
        compared(part, whole)
        taken, mine = part.take(whole), in_float64(part)
        assert all(one.numel() == other.numel() for one, other in zip(taken, mine, strict=True))
        assert all(torch.allclose(one.reshape(-1), other.reshape(-1)) for one, other in zip(taken, mine, strict=True))
        return
    compared(part, whole)
    for one, other in zip(part.take(whole), in_float64(part), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    for one, other in zip(part.take(results), in_float64(part), strict=True):
        assert torch.allclose(one.double(), other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["mm", "bmm", "addmm", "baddbmm", "embedding", "add", "softmax", "mean of rows", "conv1d"]
)
def test_what_is_large_is_not_taken_whole(name):
    func, args, kwargs = CALLS[name]
    made = func(*args, **kwargs)
    part = part_of(func, args, kwargs, name, [made], float(SMALL))
    assert not part.is_whole
    assert sum(tensor.numel() for tensor in in_float64(part)) < made.numel()


@pytest.mark.parametrize("name", ATTENTION)
def test_a_part_of_attention_has_the_numbers_of_the_whole(name):
    shape, heads, mask, causal, scale = ATTENTION[name]
    query, key, value = (drawn(*shape, seed=at) for at in range(3))
    key, value = key[:, :heads], value[:, :heads]
    mask = None if mask is None else masked(*mask)
    kwargs = {"attn_mask": mask, "scale": scale}
    part = part_of(FLASH, (query, key, value, 0.0, causal), kwargs, name, [query], float(SMALL))
    assert part.formula
    (mine,) = in_float64(part)
    assert mine.numel() < query.numel()
    compared(part, [linear(query, key, value, mask, causal, scale)])


def test_rows_of_which_every_place_is_masked_are_left_out():
    query, key, value = (drawn(1, 2, 5, 8, seed=at) for at in range(3))
    mask = torch.zeros(1, 1, 5, 5)
    mask[:, :, 2] = float("-inf")
    part = part_of(FLASH, (query, key, value), {"attn_mask": mask}, "seed", [query], float(SMALL))
    assert part.undefined[0, 0, :, 0].tolist() == [False, False, True, False, False]


def test_the_lowest_number_of_a_mask_stands_for_minus_infinity():
    query, key, value = (drawn(1, 2, 5, 8, seed=at) for at in range(3))
    mask = torch.zeros(1, 1, 5, 5)
    mask[:, :, :, 3] = torch.finfo(torch.float32).min
    part = part_of(FLASH, (query, key, value), {"attn_mask": mask}, "seed", [query], float(SMALL))
    without = mask.masked_fill(mask < 0, float("-inf"))
    compared(part, [linear(query, key, value, without, False, None)])


@pytest.mark.parametrize(("args", "kwargs"), [
    ((drawn(1, 2, 5, 8), drawn(1, 2, 5, 8), drawn(1, 2, 5, 8), 0.5), {}),  # dropout
    ((drawn(2, 5, 8), drawn(2, 5, 8), drawn(2, 5, 8)), {}),
    ((drawn(1, 3, 5, 8), drawn(1, 2, 5, 8), drawn(1, 2, 5, 8)), {}),
    ((drawn(1, 2, 5, 8), drawn(1, 2, 6, 8), drawn(1, 2, 6, 8), 0.0, True), {}),
])  # fmt: skip
def test_attention_that_is_not_known_is_not_judged(args, kwargs):
    assert part_of(FLASH, args, kwargs, "seed", [args[0]], float(SMALL)) is None


def test_an_operator_that_writes_is_held_by_what_it_was_given():
    given, other = drawn(40, 30, 50), drawn(30, 50, seed=1)
    part = part_of(ATEN.add_.Tensor, (given.clone(), other), {}, "seed", None, float(SMALL))
    compared(part, [given.double() + other.double()])
    result = given.clone().add_(other)
    (taken,), (mine,) = part.take([result]), in_float64(part)
    assert torch.allclose(taken.double(), mine, rtol=1e-5, atol=1e-6)


def test_a_second_run_draws_the_same():
    func, args, kwargs = CALLS["mm"]
    one, other = (part_of(func, args, kwargs, "layer.0 0 aten.mm 0", [func(*args)], float(SMALL)) for _ in range(2))
    assert torch.equal(in_float64(one)[0], in_float64(other)[0])
    assert one.place(0, (5, 9)) == other.place(0, (5, 9))


def test_the_first_and_the_last_place_are_always_among_them():
    func, args, kwargs = CALLS["mm"]
    part = part_of(func, args, kwargs, "any", [func(*args)], float(SMALL))
    rows, columns = in_float64(part)[0].shape
    assert part.place(0, (0, 0)) == (0, 0)
    assert part.place(0, (rows - 1, columns - 1)) == (99, 1999)


def test_the_largest_number_of_a_row_is_among_them():
    func, args, kwargs = CALLS["mm of one row"]
    made = func(*args)
    part = part_of(func, args, kwargs, "any", [made], float(SMALL))
    columns = [part.place(0, (0, at))[1] for at in range(in_float64(part)[0].shape[1])]
    assert int(made.argmax()) in columns


def test_what_is_too_large_and_of_no_known_kind_has_no_part():
    given = drawn(1100, 1000)
    assert part_of(ATEN.cumsum.default, (given, 0), {}, "seed", [given], float(SMALL)) is None


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("wanted", range(1, 9))
def test_places_are_chosen_from_few(count, wanted):
    found = _chosen(random.Random(0), count, wanted)
    assert found == sorted(set(found))
    assert set(found) <= set(range(count))
    assert min(count, wanted) <= len(found) <= max(3, wanted)
    if wanted > 1:
        assert {0, count - 1} <= set(found)
