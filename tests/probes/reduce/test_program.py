"""Operators taken out of a recording, and whether what they show is the same fault."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from support.handmade import INF, NAN, Function, tape_of
from support.reducing import alone, fault_in, taken_from
from torch import Tensor

from repro.probes.reduce.program import Fault, Leaf, Program, Result, argument, fault_of, functional, look, program_of

aten = torch.ops.aten
HALF = torch.tensor([1.0, 40000.0], dtype=torch.float16)
ADD = "aten.add.Tensor"


def names(program: Program | None) -> list[str]:
    assert program is not None
    return [str(call.func) for call in program.calls]


def test_an_operator_of_finite_inputs_is_one_call() -> None:
    program = taken_from(lambda x: torch.relu(x) + x.neg().neg(), HALF, ADD)
    assert names(program) == [ADD]
    assert program is not None
    assert [leaf.tolist() for leaf in program.leaves] == [[1.0, 40000.0]] * 2


def test_it_shows_the_first_bad_element_with_the_value_of_float64() -> None:
    seen = look(alone(aten.add.Tensor, HALF, HALF))
    assert seen is not None
    assert (seen.mechanism, seen.index, seen.value, seen.expected, seen.limit, seen.sound) == (
        "overflow", (1,), INF, 80000.0, 65504.0, True,
    )  # fmt: skip


def test_a_sound_operator_shows_nothing() -> None:
    assert look(alone(aten.add.Tensor, HALF, torch.ones(2, dtype=torch.float16))) is None


def test_an_own_bad_value_is_seen_behind_one_that_came_in() -> None:
    """The -inf of a mask stands first; the overflow of the operator itself is another element."""
    seen = look(alone(aten.add.Tensor, torch.tensor([-INF, 40000.0]).half(), HALF))
    assert seen is not None
    assert (seen.mechanism, seen.index, seen.sound) == ("overflow", (1,), False)


def test_a_mask_that_an_add_brings_in_is_taken_along() -> None:
    """-inf + finite is -inf: softmax needs the add, which needs the mask."""
    mask = torch.full((3,), -INF)
    program = taken_from(lambda x: torch.softmax(x + mask, -1), torch.ones(2, 3), "aten._softmax.default")
    assert names(program) == [ADD, "aten._softmax.default"]
    assert program is not None
    assert isinstance(program.calls[1].args[0], Result)
    seen = look(program)
    assert seen is not None
    assert (seen.mechanism, seen.sound) == ("masked_row", True)


def test_a_mask_of_lowest_numbers_has_finite_leaves() -> None:
    lowest = torch.full((3,), torch.finfo(torch.float32).min)
    program = taken_from(lambda x: torch.softmax(x + lowest + lowest, -1), torch.ones(2, 3), "aten._softmax.default")
    assert names(program) == [ADD, "aten._softmax.default"]
    assert fault_in(program or alone(aten.neg.default, HALF)).finite


@pytest.mark.parametrize(
    ("op", "twin"),
    [
        (aten.add_.Tensor, aten.add.Tensor),
        (aten.relu_.default, aten.relu.default),
        (aten.add.Tensor, aten.add.Tensor),
        (aten.add.out, None),
    ],
)
def test_an_operator_that_writes_in_place_has_a_twin(op: object, twin: object) -> None:
    assert functional(op) is twin


def test_an_add_in_place_is_taken_out_as_its_twin_with_what_it_read() -> None:
    def function(x: Tensor) -> Tensor:
        y = x.clone()
        y.add_(x)
        return y

    program = taken_from(function, HALF, "aten.add_.Tensor")
    assert names(program) == [ADD]
    assert program is not None
    assert program.leaves[0].tolist() == [1.0, 40000.0]
    assert fault_of(program, "aten.add_.Tensor", "overflow") is not None


def test_bad_memory_that_was_written_in_pieces_shows_no_fault_of_the_reader() -> None:
    def function(x: Tensor) -> Tensor:
        y = torch.zeros(4)
        y[1:] = INF
        return y - y

    program = taken_from(function, HALF, "aten.sub.Tensor")
    assert program is None or fault_of(program, "aten.sub.Tensor", "invalid") is None


def test_an_argument_that_no_script_can_write_is_no_program() -> None:
    generator = torch.Generator()
    assert (
        taken_from(lambda x: torch.bernoulli(x * 0, generator=generator), HALF.float(), "aten.bernoulli.default")
        is None
    )


def test_too_many_operators_are_no_program() -> None:
    def function(x: Tensor) -> Tensor:
        y = x * INF
        for _ in range(40):
            y = y + 1.0
        return y - y

    tape = tape_of(Function(function), torch.ones(2))
    assert program_of(tape, tape.ops[-1]) is None


def test_a_candidate_that_is_given_nan_is_refused() -> None:
    program = alone(aten.add.Tensor, HALF, HALF)
    fault = fault_in(program)
    assert fault.shown_by(program)
    assert not fault.shown_by(program.given((torch.tensor([NAN, 40000.0]).half(), HALF)))
    assert not fault.shown_by(program.given((torch.tensor([INF, 1.0]).half(), HALF)))


def test_a_candidate_with_another_operator_is_refused() -> None:
    fault = fault_in(alone(aten.add.Tensor, HALF, HALF))
    other = alone(aten.mul.Tensor, HALF, HALF)
    assert fault_in(other).mechanism == fault.mechanism == "overflow"
    assert not fault.shown_by(other)


def test_a_candidate_with_another_mechanism_is_refused() -> None:
    overflow = alone(aten.div.Tensor, torch.tensor([60000.0]).half(), torch.tensor([0.5]).half())
    pole = alone(aten.div.Tensor, torch.tensor([60000.0]).half(), torch.tensor([0.0]).half())
    fault = fault_in(overflow)
    assert (fault.mechanism, fault_in(pole).mechanism) == ("overflow", "divide_by_zero")
    assert not fault.shown_by(pole)


def test_a_nan_and_an_infinity_are_two_faults() -> None:
    """Both overflow on the way: a sum of products of one sign, and of both."""
    big = torch.full((1, 2), 60000.0).half()
    infinite = alone(aten.mm.default, big, big.t().contiguous())
    fault = fault_in(infinite)
    assert not dataclasses.replace(fault, nan=True).shown_by(infinite)


def test_minus_infinity_is_sound_in_the_mask_of_a_fused_attention_alone() -> None:
    q = torch.ones(1, 1, 2, 4)
    mask = torch.full((1, 1, 2, 2), -INF)
    fused = aten._scaled_dot_product_flash_attention_for_cpu.default
    if "attn_mask" not in {argument.name for argument in fused._schema.arguments}:
        pytest.skip("this PyTorch's fused attention for the CPU takes no mask")
    program = alone(fused, q, q, q, attn_mask=mask)
    seen = look(program)
    assert seen is None or seen.sound  # some releases give 0 for a row without keys
    bad = alone(fused, q * -INF, q, q, attn_mask=mask)
    seen = look(bad)
    assert seen is None or not seen.sound


def test_the_origin_has_to_be_the_same_to_be_a_fault() -> None:
    program = alone(aten.add.Tensor, HALF, HALF)
    assert fault_of(program, ADD, "overflow") == Fault(ADD, "overflow", nan=False, finite=True)
    assert fault_of(program, ADD, "invalid") is None
    assert fault_of(program, "aten.mul.Tensor", "overflow") is None


def test_a_softmax_row_that_is_masked_throughout_is_sound_with_minus_infinity_only() -> None:
    masked = alone(aten._softmax.default, torch.full((1, 2), -INF), -1, False)
    fault = fault_in(masked)
    assert (fault.mechanism, fault.nan, fault.finite) == ("masked_row", True, False)
    assert not fault.shown_by(masked.given((torch.tensor([[-INF, INF]]),)))
    assert not fault.shown_by(masked.given((torch.tensor([[-INF, NAN]]),)))
    assert not fault.shown_by(masked.given((torch.tensor([[-INF, -INF], [NAN, 1.0]]),)))  # masked first, and a NaN


@pytest.mark.parametrize(
    ("item", "travels"),
    [
        (Leaf(0), {"ref": "x"}),
        (Result(1, 2), {"ref": "out1", "result": 2}),
        ([Leaf(0), 3], {"list": [{"ref": "x"}, {"const": 3}]}),
        (torch.float16, {"dtype": "float16"}),
        (torch.device("cpu"), {"device": "cpu"}),
        (torch.strided, {"layout": "strided"}),
        (torch.contiguous_format, {"memory_format": "contiguous_format"}),
        (None, {"const": None}),
        (True, {"const": True}),
        (-math.inf, {"const": -math.inf}),
    ],
)
def test_an_argument_travels_as_the_wire_says(item: object, travels: object) -> None:
    assert argument(item, ["x"], ["out0", "out1"]) == travels
