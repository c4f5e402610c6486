"""A script that is bad and whose watched run is not: what differs, by running it unwatched with one thing changed.

A dispatch mode turns compilation off, so a fault that only compiled code has is not there while it is watched. The
layers between the script and the machine are put in one by one: plain Python, the captured graph, the graph of
operators, the generated code. The first that is bad names the layer; then the graph itself is taken apart: each of its
nodes is compiled alone and held against the same node run eagerly, from the same inputs.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

import torch
from torch import Tensor, fx

from ..observe.source import source_here
from ..observe.watch import OUTSIDE
from ..program.answer import what_hides_it
from ..program.capture import blank
from ..program.settings import BACKENDS, compiled_with
from ..values.figures import describe, finite_mask, is_float, scalar, tensors_in, widen
from .runs import Runs

NODES = "script.compiled:nodes"
SECONDS = 90.0  # compiling nodes one by one: C++ or Triton code takes seconds each
APART = 64.0  # units of the dtype's epsilon, times the largest magnitude, beyond which two results differ


def why(runs: Runs) -> tuple[Optional[str], Optional[dict[str, Any]], str]:
    """(what differs, the origin where it is known, one sentence) for a script that is not bad while it is watched."""
    again = runs.unwatched()
    if not runs.same(again):
        return "chance", None, f"the script does not end the same way twice: then {again.verdict}: {again.reason}"
    if runs.well(runs.unwatched("compile=off")):
        return _compiled(runs)
    return what_hides_it(runs)


def _compiled(runs: Runs) -> tuple[str, Optional[dict[str, Any]], str]:
    early = next((name for name in BACKENDS if runs.same(runs.unwatched(f"compile={name}"))), None)
    layer, found = runs.run(watch=NODES, given=early).found or (early, None)
    layer = layer or "the script's own backend"
    words = f"the script is good without torch.compile, and bad from the layer {layer} on"
    origin = {
        **blank(), "op": "torch.compile", "mechanism": "compiler", "layer": layer, "code": "torch",
        "call_index": OUTSIDE[1], "occurrence": None, "source": None,
        "note": f"good without torch.compile; the first layer that is bad is {layer}",
        "confirmed": True, "confirmed_by": "layers",
    }  # fmt: skip
    if found is not None:
        origin.update(found)
        words += f"; the compiled {origin['op']} differs from the eager one on the same inputs"
    return layer, origin, words


class Nodes:
    """A backend of torch.compile that runs the graph eagerly, and looks for its first node that compiles wrongly.

    layer: the backend that the nodes are compiled by; None for the one that the script asks for.
    """

    def __init__(self, layer: Optional[str]) -> None:
        self.layer: Any = layer
        self._compile = torch.compile  # before the script's calls of it are led here
        self.found: Optional[dict[str, Any]] = None
        self._end = time.monotonic() + SECONDS

    @property
    def name(self) -> str:
        """The layer in words."""
        return self.layer if isinstance(self.layer, str) else getattr(self.layer, "__name__", None) or "inductor"

    def backend(self, graph: fx.GraphModule, example: list[Any], **_: Any) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            result = graph(*given)
            if self.found is None:
                with contextlib.suppress(Exception), torch.no_grad():  # a search: what cannot be taken apart is not
                    self._look(graph, list(map(_copied, given)))
            return result

        return call

    def _look(self, graph: fx.GraphModule, given: list[Any]) -> None:
        values = dict(_interpreted(graph, given))
        calls = [node for node in graph.graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
        for node in calls:
            alone = _alone(graph, node)
            inputs = [values[item] for item in node.all_input_nodes]
            if self._differs(node, alone, inputs, values[node], "alone"):
                return
        low, high = 0, len(calls)  # nodes that are wrong only when they are compiled together
        while high - low > 1:
            middle = (low + high) // 2
            part = _beginning(graph, calls[middle - 1])
            if self._differs(calls[middle - 1], part, given, values[calls[middle - 1]], None):
                high = middle
            else:
                low = middle
        last = calls[high - 1]
        self._differs(last, _beginning(graph, last), given, values[last], "together with what is before it")

    def _differs(self, node: Any, part: Any, inputs: list[Any], eager: Any, how: Optional[str]) -> bool:
        if time.monotonic() > self._end or not any(isinstance(item, Tensor) for item in tensors_in(eager)):
            return False
        torch._dynamo.reset()
        compiled = self._compile(part, backend=self.layer or "inductor")(*map(_copied, inputs))
        for actual, expected in zip(tensors_in(compiled), tensors_in(eager)):
            at = apart(actual, expected)
            if at is None:
                continue
            if how is not None:
                self.found = self._origin(node, actual, expected, at, how, inputs)
            return True
        return False

    def _origin(
        self, node: Any, actual: Tensor, expected: Tensor, at: list[int], how: str, inputs: list[Any]
    ) -> dict[str, Any]:
        place = _line_of(node)
        value, wanted = scalar(actual, at), scalar(expected, at)
        return {
            "op": _operator(node), "source": place or source_here()[0], "element": at, "value": value,
            "reference_value": wanted, "reference": {"value": wanted, "dtype": "eager", "scope": "operator"},
            "inputs": [describe(item) for item in tensors_in(inputs)], "output": describe(actual),
            "note": f"compiled by {self.name} {how} it gives {value:.6g}, eagerly {wanted:.6g}, from the same inputs",
        }  # fmt: skip


def nodes(layer: Optional[str]) -> tuple[Any, Any]:
    """(context around the script, function that gives the layer's name and what was found)."""
    made = Nodes(layer)

    def backend_for(given: dict[str, Any]) -> Any:
        if layer is None:
            made.layer = given.get("backend", made.layer)
        return made.backend

    return compiled_with(backend_for), lambda: (made.name, made.found)


def apart(actual: Tensor, expected: Tensor) -> Optional[list[int]]:
    """The first place where two results are not the same but for rounding: a NaN or infinity in one of them alone, or
    numbers that are far apart; None where there is none.
    """
    if actual.shape != expected.shape or not is_float(actual) or actual.is_complex() or actual.numel() == 0:
        return None
    one, two = widen(actual.detach()), widen(expected.detach())
    both = finite_mask(actual) & finite_mask(expected)
    same = (one == two) | (torch.isnan(one) & torch.isnan(two))
    scale = float(two[both].abs().max()) if bool(both.any()) else 0.0
    near = both & ((one - two).abs() <= APART * torch.finfo(expected.dtype).eps * scale)
    wrong = (~(same | near)).nonzero()
    return None if wrong.numel() == 0 else [int(item) for item in wrong[0]]


def _interpreted(graph: fx.GraphModule, given: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each node's own result, run eagerly."""
    values: dict[Any, Any] = {}

    class Keep(fx.Interpreter):
        def run_node(self, node: Any) -> Any:
            result = super().run_node(node)
            values[node] = _copied(result)
            return result

    Keep(graph).run(*given)
    yield from values.items()


def _copied(result: Any) -> Any:
    return result.detach().clone() if isinstance(result, Tensor) else result


def _alone(graph: fx.GraphModule, node: Any) -> fx.GraphModule:
    """The node as a graph of its own."""
    made = fx.Graph()
    places = {item: made.placeholder(f"given{number}") for number, item in enumerate(node.all_input_nodes)}
    made.output(made.node_copy(node, places.__getitem__))
    return fx.GraphModule(graph, made)


def _beginning(graph: fx.GraphModule, last: Any) -> fx.GraphModule:
    """The graph up to a node, whose result it returns."""
    made = fx.Graph()
    places: dict[Any, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "output":
            continue
        places[node] = made.node_copy(node, places.__getitem__)
        if node is last:
            break
    made.output(places[last])
    made.eliminate_dead_code()
    return fx.GraphModule(graph, made)


def _operator(node: Any) -> str:
    """The name of what a node calls."""
    target = node.target
    if isinstance(target, str):
        return f"torch.Tensor.{target}" if node.op == "call_method" else target
    module = getattr(target, "__module__", None) or "torch"
    name = getattr(target, "__name__", str(target))
    return str(target) if "OpOverload" in type(target).__name__ else f"{module.split('.')[0].lstrip('_')}.{name}"


def _line_of(node: Any) -> Optional[str]:
    """ "file.py:line" of the code that a node came from, which the compiler keeps as text."""
    found = re.findall(r'File "([^"]+)", line (\d+)', str(node.meta.get("stack_trace") or node.stack_trace or ""))
    return f"{os.path.basename(found[-1][0])}:{found[-1][1]}" if found else None
