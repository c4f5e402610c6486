"""Faults that need several operators together, with and without PyTorch's minifier."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from support.handmade import INF
from support.reducing import alone, fault_in, taken_from, trials
from torch import Tensor

from repro.probes.reduce.operators import bypassed, fewer_calls, from_graph, minified, to_graph, used
from repro.probes.reduce.program import Program

SOFTMAX = "aten._softmax.default"


def masked(x: Tensor) -> Tensor:
    """A row of -inf by way of an add, a copy and a view that the fault does not need."""
    mask = torch.full((3,), torch.finfo(torch.float32).min)
    scores = (x + mask + mask).clone()
    return torch.softmax(scores.view(2, 3), -1)


def program_of_masked() -> Program:
    program = taken_from(masked, torch.full((2, 3), -1.0), SOFTMAX)
    assert program is not None
    return program


def names(program: Program) -> list[str]:
    return [str(call.func) for call in program.calls]


def without_minifier(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refused(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("functorch"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refused)


def test_the_fault_needs_more_operators_than_it_has_to() -> None:
    program = program_of_masked()
    assert names(program)[0] == "aten.add.Tensor"
    assert names(program)[-1] == SOFTMAX
    assert len(program.calls) > 2


@pytest.mark.parametrize("with_minifier", [True, False])
def test_what_only_passes_values_on_is_left_out(monkeypatch: pytest.MonkeyPatch, with_minifier: bool) -> None:
    program = program_of_masked()
    if not with_minifier:
        without_minifier(monkeypatch)
    asked, events = trials()
    small = fewer_calls(program, fault_in(program), asked)
    assert names(small) == ["aten.add.Tensor", SOFTMAX]
    assert fault_in(small) == fault_in(program)
    assert asked.asked == len(events) // 2 > 0


def test_a_mask_that_is_given_is_read_by_the_softmax_itself() -> None:
    mask = torch.full((2, 3), -INF)
    program = taken_from(lambda x: torch.softmax(x + mask, -1), torch.ones(2, 3), SOFTMAX)
    assert program is not None
    asked, _ = trials()
    small = bypassed(program, fault_in(program), asked)
    assert names(small) == [SOFTMAX]
    assert small.leaves[0].tolist() == mask.tolist()


def test_one_operator_is_left_alone() -> None:
    x = torch.tensor([60000.0]).half()
    program = alone(torch.ops.aten.add.Tensor, x, x)
    asked, events = trials()
    assert fewer_calls(program, fault_in(program), asked) is program
    assert events == []


def test_a_graph_is_the_same_program_again() -> None:
    program = program_of_masked()
    graph = to_graph(program)
    again = from_graph(graph.graph, list(program.leaves))
    assert again is not None
    assert names(again) == names(program)
    assert fault_in(again) == fault_in(program)


def test_the_result_of_an_operator_with_several_is_taken_by_its_number() -> None:
    def function(x: Tensor) -> Tensor:
        values = (x * INF).sort().values
        return values - values

    program = taken_from(function, torch.ones(3), "aten.sub.Tensor")
    assert program is not None
    again = from_graph(to_graph(program).graph, list(program.leaves))
    assert again is not None
    assert names(again) == names(program) == ["aten.mul.Tensor", "aten.sort.default", "aten.sub.Tensor"]


def test_the_minifier_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    program = program_of_masked()
    asked, _ = trials()
    minified(program, fault_in(program), asked)
    assert capfd.readouterr() == ("", "")


def test_leaves_that_nobody_reads_are_dropped() -> None:
    program = alone(torch.ops.aten.add.Tensor, torch.ones(2), torch.zeros(2))
    more = Program((torch.ones(1), *program.leaves), program.calls)
    kept = used(Program(more.leaves, more.calls))
    assert len(kept.leaves) == 2
