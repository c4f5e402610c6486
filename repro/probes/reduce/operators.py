"""A program of several operators with as few of them as the fault needs, by PyTorch's own minifier of FX graphs.

Its question is ours: the same operator, the same mechanism, finite inputs. Asked whether "it still fails" it would end
at an input that is NaN already, for it may turn any result into an input.
"""

import contextlib
import functools
import operator
import os
from collections.abc import Iterator
from typing import Any, Optional

import torch
from torch import Tensor, fx

from ..values.nest import items_in, rebuild
from .program import Call, Fault, Leaf, Program, Result
from .trials import Trials


def fewer_calls(program: Program, fault: Fault, trials: Trials) -> Program:
    """The smaller program; the same one where there is nothing to leave out."""
    if len(program.calls) == 1:
        return program
    with contextlib.suppress(Exception):  # no public interface: it may be missing, moved, or refuse a graph
        program = minified(program, fault, trials)
    return bypassed(program, fault, trials)


def minified(program: Program, fault: Fault, trials: Trials) -> Program:
    """Through functorch's minifier."""
    from functorch.compile import minifier

    best = program

    def fails(module: fx.GraphModule, inputs: list[Tensor]) -> bool:
        nonlocal best
        candidate = from_graph(module.graph, inputs)
        if candidate is None:
            return False
        holds = trials.ask(f"{len(candidate.calls)} operators", functools.partial(fault.shown_by, candidate))
        if holds and len(candidate.calls) < len(best.calls):
            best = candidate
        return holds

    graph = to_graph(program)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        minifier(graph, list(program.leaves), fails, dump_state=lambda *_, **__: None)
    return best


def to_graph(program: Program) -> fx.GraphModule:
    """The program as a graph: a placeholder for each leaf, a call_function for each call."""
    graph = fx.Graph()
    leaves = [graph.placeholder(f"leaf{number}") for number in range(len(program.leaves))]
    results: list[fx.Node] = []

    def give(item: Any) -> fx.Node:
        if isinstance(item, Leaf):
            return leaves[item.number]
        node = results[item.call]
        several = len(program.calls[item.call].func._schema.returns) > 1
        return graph.call_function(operator.getitem, (node, item.output)) if several else node

    for call in program.calls:
        args = rebuild(call.args, (Leaf, Result), give)
        results.append(graph.call_function(call.func, args, rebuild(call.kwargs, (Leaf, Result), give)))
    graph.output((results[-1],))
    return fx.GraphModule(torch.nn.Module(), graph)


def from_graph(graph: fx.Graph, inputs: list[Tensor]) -> Optional[Program]:
    """The graph as a program that ends with the call whose result is the output; None where it is none."""
    places: dict[fx.Node, Any] = {}
    calls: list[Call] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            places[node] = Leaf(sum(isinstance(place, Leaf) for place in places.values()))
        elif node.op == "call_function" and node.target is operator.getitem:
            places[node] = Result(places[node.args[0]].call, node.args[1])
        elif node.op == "call_function":
            give = functools.partial(rebuild, kind=fx.Node, make=places.__getitem__)
            calls.append(Call(node.target, tuple(give(node.args)), dict(give(node.kwargs))))
            places[node] = Result(len(calls) - 1, 0)
        elif node.op == "output":
            ends = [places[item] for item in items_in(node.args, fx.Node)]
            last = len(calls) - 1
            alone = [getattr(end, "call", -1) for end in ends] == [last]
            return used(Program(tuple(inputs), tuple(calls))) if alone else None
    return None


def bypassed(program: Program, fault: Fault, trials: Trials) -> Program:
    """Each operator but the last is tried without, one of its tensors put in the place of its result.

    The minifier does not try that: an operator that only passes values on (a cast, a copy) stays there. And where
    there is no minifier, this is what is left.
    """
    for number in range(len(program.calls) - 2, -1, -1):
        for candidate in _without(program, number):
            if trials.ask(f"without {program.calls[number].func}", functools.partial(fault.shown_by, candidate)):
                program = candidate
                break
    return program


def _without(program: Program, number: int) -> Iterator[Program]:
    """The programs without a call: for each tensor that it is given, the one that has that tensor in its place."""
    gone = program.calls[number]
    for given in dict.fromkeys(items_in((gone.args, gone.kwargs), (Leaf, Result))):
        move = functools.partial(_moved, number, given)
        calls = [
            Call(call.func, rebuild(call.args, (Leaf, Result), move), rebuild(call.kwargs, (Leaf, Result), move))
            for at, call in enumerate(program.calls)
            if at != number
        ]
        yield used(Program(program.leaves, tuple(calls)))


def _moved(number: int, given: Any, item: Any) -> Any:
    """What stands for ``item`` once call ``number`` is gone, and ``given`` is in its place."""
    if isinstance(item, Leaf) or item.call < number:
        return item
    return given if item.call == number else Result(item.call - 1, item.output)


def used(program: Program) -> Program:
    """Without the leaves that no call reads."""
    read = sorted({item.number for call in program.calls for item in items_in((call.args, call.kwargs), Leaf)})
    numbers = {number: at for at, number in enumerate(read)}

    def moved(leaf: Leaf) -> Leaf:
        return Leaf(numbers[leaf.number])

    calls = tuple(
        Call(call.func, rebuild(call.args, Leaf, moved), rebuild(call.kwargs, Leaf, moved)) for call in program.calls
    )
    return Program(tuple(program.leaves[number] for number in read), calls)
