"""Programs made small. The faults are injected by arithmetic, or in operators of our own that need a layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.reducing import alone, fault_in, number, result_of, trials
from torch import Tensor

from repro.probes.protocol.wire import jsonable
from repro.probes.reduce.layout import ALIGNED, laid_out, layout_of
from repro.probes.reduce.program import Program
from repro.probes.reduce.shrink import shrink

aten = torch.ops.aten


def shrunk(program: Program) -> dict[str, Any]:
    """The small program as it travels; it must show again what it says, in a run that shares nothing with the kit."""
    asked, _ = trials()
    found = shrink(program, fault_in(program), asked)
    assert found is not None
    travelled: dict[str, Any] = jsonable(found)
    seen = result_of(travelled)
    expected = number(travelled["seen"])
    assert seen == expected or (seen != seen and expected != expected)
    return travelled


def shapes(found: dict[str, Any]) -> list[list[int]]:
    return [leaf["shape"] for leaf in found["leaves"]]


def values(found: dict[str, Any]) -> list[Any]:
    return [leaf["values"] for leaf in found["leaves"]]


BLOCK = 64


def in_blocks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention with a running maximum over blocks of keys; 0 for a row without keys."""
    scores = (q @ k.transpose(-1, -2)).masked_fill(~mask, -float("inf"))
    if q.dtype == torch.float64:
        return scores.softmax(-1).nan_to_num() @ v
    most, total, out = torch.full(scores.shape[:-1], -float("inf")), torch.zeros(scores.shape[:-1]), torch.zeros_like(q)
    for begin in range(0, scores.shape[-1], BLOCK):
        block = scores[..., begin : begin + BLOCK]
        now = torch.maximum(most, block.amax(-1))
        weights, before = (block - now[..., None]).exp(), (most - now).exp()
        total = total * before + weights.sum(-1)
        out = out * before[..., None] + weights @ v[..., begin : begin + BLOCK, :]
        most = now
    return torch.where(mask.any(-1, keepdim=True), out / total[..., None], torch.zeros(()))


@pytest.fixture(scope="module")
def injected() -> Iterator[Any]:
    """Operators that give NaN for finite inputs in memory of one kind, and copy them otherwise."""
    library = torch.library.Library("injected", "DEF")

    def define(name: str, is_wrong: Any) -> None:
        library.define(f"{name}(Tensor x) -> Tensor")
        library.impl(name, lambda x: torch.full_like(x, float("nan")) if is_wrong(x) else x.clone(), "CPU")

    define("strided", lambda x: x.dtype == torch.float32 and not x.is_contiguous())
    define("misaligned", lambda x: x.dtype == torch.float32 and x.data_ptr() % 4 != 0)
    define("half_line", lambda x: x.dtype == torch.float32 and x.data_ptr() % 16 == 8)
    define("always", lambda x: x.dtype == torch.float32)
    library.define("scaled_dot_product(Tensor query, Tensor key, Tensor value, Tensor attn_mask) -> Tensor")
    library.impl("scaled_dot_product", lambda q, k, v, mask: q + mask.amax(-1, keepdim=True) * 0, "CPU")
    library.define("in_blocks(Tensor query, Tensor key, Tensor value, Tensor attn_mask) -> Tensor")
    library.impl("in_blocks", in_blocks, "CPU")
    yield torch.ops.injected
    library._destroy() if hasattr(library, "_destroy") else None


def test_a_product_of_matrices_becomes_one_of_single_numbers() -> None:
    """300 * 300 = 90000 is one product, and beyond float16; 300 * 1 * 8 = 2400 is not."""
    x, y = torch.ones(4, 12, 8).half(), torch.ones(4, 8, 12).half()
    x[2, 7], y[2, :, 3] = 300.0, 300.0
    found = shrunk(alone(aten.bmm.default, x, y))
    assert shapes(found) == [[1, 1, 1], [1, 1, 1]]
    assert {rule["kind"] for rule in values(found)} == {"constant"}
    a, b = (rule["value"] for rule in values(found))
    assert abs(a * b) > 65504
    assert found["expected"]["value"] == a * b


def test_an_add_becomes_one_of_two_numbers_that_the_model_had() -> None:
    x = torch.randn(1, 15, 640, generator=torch.Generator().manual_seed(0)).half()
    y = x.clone()
    x[0, 0, 163], y[0, 0, 163] = 55008.0, 13376.0
    found = shrunk(alone(aten.add.Tensor, x, y))
    assert (shapes(found), [rule["value"] for rule in values(found)]) == ([[1], [1]], [55008.0, 13376.0])
    assert (found["seen"], found["expected"]) == ("inf", {"value": 68384.0, "dtype": "float64"})
    assert (found["output"], found["limit"]) == ({"call": 0, "result": 0, "index": [0]}, 65504.0)
    assert [leaf["name"] for leaf in found["leaves"]] == ["x", "y"]


def test_the_sizes_that_an_operator_is_told_follow_the_tensors() -> None:
    """A norm over the last dimension: weight, bias and normalized_shape are of its size."""
    x = torch.zeros(2, 5, 16)
    x[1, 3] = torch.linspace(-1.0, 1.0, 16)
    found = shrunk(alone(aten.native_layer_norm.default, x, [16], torch.ones(16), torch.ones(16), 0.0))
    assert found["mechanism"] in ("invalid", "divide_by_zero")
    sizes = shapes(found)
    assert sizes[0][-1] == sizes[1][0] == sizes[2][0] == 1
    assert found["calls"][0]["args"][1] == {"list": [{"const": 1}]}


def test_as_many_positions_stay_as_the_fault_needs() -> None:
    """Each product is 20000: four of them are needed to pass 65504, and then 2 ** 16 in float16 is infinite."""
    row = torch.full((1, 64), 200.0).half()
    column = torch.full((64, 1), 100.0).half()
    found = shrunk(alone(aten.mm.default, row, column))
    count = shapes(found)[0][1]
    a, b = (rule["value"] for rule in values(found))
    assert count * a * b > 65504
    assert count == 1 or (count - 1) * a * b < 65520
    assert shapes(found) == [[1, count], [count, 1]]


def test_shapes_that_do_not_go_together_never_survive(injected: Any) -> None:
    """Fused attention for the CPU takes keys and values of two lengths and reads what lies behind; so does this one."""
    q, mask = torch.ones(1, 2, 6, 8), torch.zeros(1, 1, 6, 6)
    mask[0, 0, 4] = -float("inf")
    found = shrunk(alone(injected.scaled_dot_product.default, q, q, q, mask))
    query, key, value, rows = shapes(found)
    assert found["mechanism"] == "masked_row"
    assert key == value == [1, 1, 1, 1]
    assert (query, rows) == ([1, 1, 1, 1], [1, 1, 1, 1])


def test_plain_memory_is_taken_where_the_fault_survives_it(injected: Any) -> None:
    found = shrunk(alone(injected.always.default, torch.randn(6, 8).t()[1:]))
    assert [leaf["layout"] for leaf in found["leaves"]] == [None]
    assert values(found) == [{"kind": "constant", "value": 0.0}]
    assert shapes(found) == [[1]]


def test_strides_stay_where_the_fault_needs_them_and_shapes_shrink_all_the_same(injected: Any) -> None:
    found = shrunk(alone(injected.strided.default, torch.randn(6, 8).t()))
    (leaf,) = found["leaves"]
    assert leaf["layout"] == {"stride": [8], "misaligned_bytes": 0}
    assert leaf["values"] == {"kind": "constant", "value": 0.0}
    assert leaf["shape"] == [2]  # one element is contiguous whatever its stride


@pytest.mark.parametrize(("op", "off"), [("misaligned", 2), ("half_line", 8)])
def test_a_misalignment_stays_where_the_fault_needs_it(injected: Any, op: str, off: int) -> None:
    values_ = laid_out(torch.randn(3, 4), {"stride": [4, 1], "misaligned_bytes": off})
    found = shrunk(alone(getattr(injected, op).default, values_))
    (leaf,) = found["leaves"]
    assert leaf["layout"]["misaligned_bytes"] == off
    assert leaf["values"] == {"kind": "constant", "value": 0.0}


@pytest.mark.parametrize("shape", [(4,), (2, 3), (3, 1, 2), ()])
@pytest.mark.parametrize("off", [0, 1, 2, 8, ALIGNED - 1])
def test_values_are_the_same_in_every_layout(shape: tuple[int, ...], off: int) -> None:
    values_ = torch.randn(shape)
    steps = [step * 3 + 1 for step in values_.stride()]
    made = laid_out(values_, {"stride": steps, "misaligned_bytes": off})
    assert torch.equal(made, values_)
    assert (list(made.stride()), made.data_ptr() % ALIGNED) == (steps, off)


def test_shared_elements_lie_on_one_place() -> None:
    wide = torch.tensor([[2.0], [3.0]]).expand(2, 4)
    made = laid_out(wide.contiguous(), layout_of(wide))
    assert torch.equal(made, wide)
    assert made.stride() == wide.stride()


@pytest.mark.parametrize("tensor", [torch.zeros(3, 4), torch.zeros(()), torch.zeros(0, 2), torch.zeros(1, 5)[:, :1]])
def test_contiguous_aligned_memory_has_no_layout(tensor: Tensor) -> None:
    assert layout_of(tensor) is None


def for_these_alone(library: Any, name: str, wanted: Tensor) -> None:
    """An operator that is wrong for one set of values."""

    def is_wrong(x: Tensor) -> Tensor:
        return x * float("nan") if x.dtype == torch.float32 and torch.equal(x, wanted) else x.clone()

    library.define(f"{name}(Tensor x) -> Tensor")
    library.impl(name, is_wrong, "CPU")


def test_values_that_the_fault_needs_and_no_rule_gives_are_packed(injected: Any) -> None:
    wanted = torch.randn(10, 10, generator=torch.Generator().manual_seed(7))
    library = torch.library.Library("injected", "FRAGMENT")
    for_these_alone(library, "exact", wanted)
    found = shrunk(alone(injected.exact.default, wanted))
    assert (shapes(found), values(found)[0]["kind"]) == ([[10, 10]], "bytes")


def test_more_values_than_a_script_should_have_are_no_program(injected: Any) -> None:
    wanted = torch.randn(100, 100, generator=torch.Generator().manual_seed(7))
    library = torch.library.Library("injected", "FRAGMENT")
    for_these_alone(library, "large", wanted)
    program = alone(injected.large.default, wanted)
    asked, _ = trials()
    assert shrink(program, fault_in(program), asked) is None


def test_the_leaves_that_are_given_are_never_written_to() -> None:
    x = torch.full((3, 4), 60000.0).half()
    before = x.clone()
    shrunk(alone(aten.add.Tensor, x, x))
    assert torch.equal(x, before)


def test_when_the_time_is_up_the_program_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from repro.probes.reduce import trials as module

    monkeypatch.setattr(module, "SECONDS", -1.0)
    x = torch.arange(6).half() * 10000.0
    found = shrunk(alone(aten.add.Tensor, x, x))
    assert shapes(found) == [[6], [6]]
    assert {rule["kind"] for rule in values(found)} == {"steps"}


def test_a_band_mask_of_an_attention_in_blocks_takes_few_trials(injected: Any) -> None:
    """A row whose first block of keys is masked whole, and which has keys behind it: 0 / 0, as in an attention that
    never sees such a block.
    """
    size = 296
    q = torch.randn(1, 2, size, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(size, size, dtype=torch.bool).tril().triu(-20)[None, None]
    program = alone(injected.in_blocks.default, q, q.clone(), q.clone(), mask)
    asked, _ = trials()
    found = shrink(program, fault_in(program), asked)
    assert found is not None
    assert [leaf["shape"][-1] for leaf in found["leaves"]] == [1, 1, 1, BLOCK + 1]
    assert asked.asked < 200  # one position at a time, with each set of dimensions, took 727
