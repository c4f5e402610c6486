"""The kinds of an operator's inputs tell a fault of rounding from a plain one, and one dtype from another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from repro.probes.observe.tape import Tape
from repro.probes.observe.watch import Address, OpCall
from repro.probes.origin.walk import Step
from repro.probes.program.kinds import Kinds, kinds_of

aten = torch.ops.aten


def kinds(func: Any, *args: Any, index: tuple[int, ...] = (0,)) -> Kinds | None:
    """Of one operator on these inputs, at an element of its result."""
    tape = Tape()
    with torch.no_grad():
        tape.visit(OpCall(Address("", 0, str(func), 0), func, args, {}))
    op = tape.ops[-1]
    return kinds_of(Step(op, op.outputs[0], index, float(op.outputs[0].tensor()[index])))


def t(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (lambda: kinds(aten.acos.default, t(1.0000001)), lambda: kinds(aten.acos.default, t(1.8))),
        (lambda: kinds(aten.asin.default, t(-1.0000001)), lambda: kinds(aten.asin.default, t(-30.0))),
        (lambda: kinds(aten.sqrt.default, t(-1e-7)), lambda: kinds(aten.sqrt.default, t(-2.0))),
        (lambda: kinds(aten.log.default, t(0.0)), lambda: kinds(aten.log.default, t(-2.0))),
        (lambda: kinds(aten.exp.default, t(88.7229)), lambda: kinds(aten.exp.default, t(5000.0))),
        (
            lambda: kinds(aten.div.Tensor, t(0.0), t(0.0)),
            lambda: kinds(aten.div.Tensor, t(0, dtype=torch.int64), t(0, dtype=torch.int64)),
        ),
        (lambda: kinds(aten.div.Tensor, t(0.0), t(0.0)), lambda: kinds(aten.div.Tensor, *2 * (t(0.0),))),
        (lambda: kinds(aten.div.Tensor, t(0.0), t(0.0)), lambda: kinds(aten.div.Tensor, t(1.0), t(0.0))),
        (lambda: kinds(aten.mul.Tensor, t(3e38), t(3e38)), lambda: kinds(aten.mul.Tensor, t(3e38), t(2.0))),
    ],
)
def test_two_kinds_are_told_apart(one: Any, two: Any) -> None:
    assert one() != two()
    assert one() is not None


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (lambda: kinds(aten.acos.default, t(1.0000001)), lambda: kinds(aten.acos.default, t(-1.0000002))),
        (lambda: kinds(aten.log.default, t(-5.0)), lambda: kinds(aten.log.default, t(-2.0, 1.0))),
        (
            lambda: kinds(aten.div.Tensor, torch.zeros(2, 3), torch.zeros(2, 1), index=(1, 2)),
            lambda: kinds(aten.div.Tensor, t(0.0), t(0.0)),
        ),
        (
            lambda: kinds(aten.mm.default, torch.full((2, 3), 1e38), torch.full((3, 1), 1e38), index=(0, 0)),
            lambda: kinds(aten.mm.default, torch.full((1, 1), 3e38), torch.full((1, 1), 2e37), index=(0, 0)),
        ),
    ],
)
def test_one_kind_stays_one_in_a_smaller_case(one: Any, two: Any) -> None:
    assert one() == two()


def test_an_operator_on_a_list_of_parameters_has_none() -> None:
    many = [torch.ones(1) for _ in range(9)]
    assert kinds(aten.cat.default, many) is None
