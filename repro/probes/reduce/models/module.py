"""The module in which the fault is born, built small from the model's own configuration and called alone.

The model's own layers stand for everything in front of them by what they were given: the captured hidden states. Its
weights are replaced, one tensor after the other, by values that a script can write down.
"""

import contextlib
import functools
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ...model.forward import run
from ...model.inputs import Inputs
from ...model.load import Loaded
from ...observe.screen import blocks
from ...observe.watch import Address, OpCall, StopPass, Watch, watched
from ...origin.mechanism import limit_of
from ...origin.walk import UNWRITTEN
from ...values.figures import dtype_name, first_bad_index, is_bad, is_float, scalar, tensors_in
from ...values.nest import rebuild
from ..patterns import Rule
from ..program import Leaf, argument
from ..seen import kinds_in
from ..trials import Trials
from ..values import described, make, simplest
from .tiny import Small, built, is_built, plans

ROUNDS = 2
PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class Given:
    """What a module is called with: ``leaves``, and the arguments with Leaf in the place of tensors."""

    leaves: tuple[Tensor, ...]
    names: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def call(self, block: nn.Module, dtype: Optional[torch.dtype] = None) -> Any:
        """The block's output; in another dtype if one is given."""

        def give(item: Leaf) -> Tensor:
            tensor = self.leaves[item.number]
            return tensor.to(dtype) if dtype is not None and is_float(tensor) else tensor

        with torch.no_grad():
            return block(*rebuild(self.args, Leaf, give), **rebuild(self.kwargs, Leaf, give))


def reduced(
    loaded: Loaded, inputs: Inputs, origin: dict[str, Any], trials: Trials
) -> tuple[Optional[dict[str, Any]], str]:
    """The module as it travels to the host, or None; and what is to be said of it."""
    path = block_of(loaded.model, origin["module"])
    if not path:
        return None, "the fault is born in the model itself, not in a layer of it"
    if type(loaded.model).__module__.split(".")[0] != "transformers":
        return None, "the model's code comes with the model, so no class of Transformers can be called alone"
    if type(loaded.model.get_submodule(path)).__module__.startswith("torch."):
        return None, f"{path} is a layer of PyTorch itself, which its operator shows"
    if not is_built(loaded, path, 1):
        return None, f"{path} is too large for a second one to be built"
    call = origin["call_index"] if path == origin["module"] else 0
    given = trials.attempt(f"what {path} is given", lambda: captured(loaded, inputs, path, call))
    if given is None:
        return None, f"{path} cannot be called alone with what it is given"
    for plan in plans(loaded, path):
        build = functools.partial(built, loaded, path, plan, origin)
        small = trials.attempt(f"a small model around {path}", build, may_raise=True)
        if small is not None and trials.ask(f"{small.path} alone", functools.partial(shows, small, given)):
            return by_rules(small, given, trials)
    return None, f"{path} could not be shown to have the fault by itself"


def block_of(model: nn.Module, module: str) -> str:
    """The repeated layer that holds ``module``, else that module."""
    return next((name for name in blocks(model) if f"{module}.".startswith(f"{name}.")), module)


def captured(loaded: Loaded, inputs: Inputs, path: str, call: int) -> Optional[Given]:
    """What the ``call``-th call of the module is given in this pass; None where that is more than tensors and plain
    values. Caches are left out: on a first pass they are empty.
    """
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    seen: list[int] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(1)
        if len(seen) == call + 1:
            found.append((args, kwargs))
            raise StopPass

    handle = loaded.model.get_submodule(path).register_forward_pre_hook(before, with_kwargs=True)
    try:
        with contextlib.suppress(StopPass):
            run(loaded.model, inputs)
    finally:
        handle.remove()
    if not found:
        return None
    leaves: list[Tensor] = []
    names: list[str] = []

    def keep(nest: Any, name: str) -> Any:
        if isinstance(nest, Tensor):
            leaves.append(nest.detach().clone())
            names.append(name if name not in names else f"{name}{len(names)}")
            return Leaf(len(leaves) - 1)
        if type(nest) in (list, tuple):
            return type(nest)([keep(item, f"{name}_{at}") for at, item in enumerate(nest)])
        return nest if isinstance(nest, PLAIN) else None

    args = tuple(keep(item, "hidden_states" if at == 0 else f"argument{at}") for at, item in enumerate(found[0][0]))
    kwargs = {name: keep(item, name) for name, item in found[0][1].items()}
    kwargs = {name: item for name, item in kwargs.items() if item is not None}
    return Given(tuple(leaves), tuple(names), args, kwargs)


def shows(small: Small, given: Given) -> bool:
    """Whether the module alone shows the fault: the same operator, given nothing worse, the same mechanism, and a bad
    output.
    """
    met: list[bool] = []

    def visit(call: OpCall) -> Any:
        sound = kinds_in((call.args, call.kwargs)) <= small.place.kinds
        result, shown = small.place.visit(call)
        if shown:
            met.append(True)
        elif sound and not met and func_name(call.address) not in UNWRITTEN and "nan" in kinds_in(result):
            raise StopPass  # another operator is the first to make a NaN: another fault
        return result

    outputs: list[Any] = []
    with watched(small.model, Watch(visit)):
        outputs.append(given.call(small.block))
    return bool(met) and bool(outputs) and any(is_bad(tensor) for tensor in tensors_in(outputs[0]))


def func_name(here: Address) -> str:
    """ "empty" of "aten.empty.memory_format"."""
    return here.op.split(".")[1]


def by_rules(small: Small, given: Given, trials: Trials) -> tuple[Optional[dict[str, Any]], str]:
    """Every parameter and every input by the simplest rule that keeps the fault.

    Twice: what needed values of its own beside the model's other weights may be plain beside plain ones.
    """
    parameters = dict(small.block.named_parameters())
    slots = sorted(parameters, key=lambda name: (parameters[name].numel(), name))
    rows = () if small.channel is None else (small.channel,)
    rules: dict[str, Rule] = {}
    leaf_rules: dict[int, Rule] = {}
    for _ in range(ROUNDS):
        for name in slots:
            found = _parameter_rule(small, given, name, trials, rows, rules.get(name))
            if found is None:
                return None, _not_written(f"{name} of {small.path}", parameters[name], trials)
            rules[name] = found
        for number, tensor in enumerate(given.leaves):
            rule, given = _leaf_rule(small, given, number, trials, leaf_rules.get(number))
            if rule is None:
                return None, _not_written(given.names[number], tensor, trials)
            leaf_rules[number] = rule
    made = trials.attempt("the module's record", lambda: payload(small, given, rules, leaf_rules))
    return made, "" if made is not None else f"{small.path} alone does not show the fault each time"


def _not_written(name: str, tensor: Tensor, trials: Trials) -> str:
    if trials.over:
        return f"there was no time to find plain values for {name}"
    return f"{name} needs {tensor.numel():,} values of its own, too many for a script"


def _parameter_rule(
    small: Small, given: Given, name: str, trials: Trials, rows: tuple[int, ...], made_by: Optional[Rule]
) -> Optional[Rule]:
    """The rule of a parameter, which then has its values; None where there is none, and it has its own."""
    parameter = dict(small.block.named_parameters())[name]
    before = parameter.detach().clone()

    def fill(values: Tensor) -> None:
        with torch.no_grad():
            parameter.copy_(values)

    def holds(rule: Rule) -> bool:
        fill(make(rule, tuple(parameter.shape), parameter.dtype))
        return shows(small, given)

    rule = simplest(before, holds, trials, name, rows, made_by)
    keep = rule is None or rule is made_by
    fill(before if keep else make(rule or {}, tuple(parameter.shape), parameter.dtype))
    return rule


def _leaf_rule(
    small: Small, given: Given, number: int, trials: Trials, made_by: Optional[Rule]
) -> tuple[Optional[Rule], Given]:
    """The rule of an input, and what is given with it."""
    tensor = given.leaves[number]

    def changed(rule: Rule) -> Given:
        made = make(rule, tuple(tensor.shape), tensor.dtype).to(tensor.device)
        return replace(given, leaves=(*given.leaves[:number], made, *given.leaves[number + 1 :]))

    def holds(rule: Rule) -> bool:
        return shows(small, changed(rule))

    rule = simplest(tensor, holds, trials, given.names[number], made_by=made_by)
    return rule, given if rule is None or rule is made_by else changed(rule)


def payload(small: Small, given: Given, rules: dict[str, Rule], leaf_rules: dict[int, Rule]) -> dict[str, Any]:
    """The module as it travels to the host."""
    outputs = list(tensors_in(given.call(small.block)))
    number = next(at for at, tensor in enumerate(outputs) if is_bad(tensor))
    index = first_bad_index(outputs[number])
    dtype = next((p.dtype for p in small.model.parameters() if p.is_floating_point()), outputs[number].dtype)
    parameters = small.block.named_parameters()
    own = {name: described(name, parameter, rules[name]) for name, parameter in parameters}
    wide = list(tensors_in(given.call(small.block.float(), torch.float32)))
    expected = scalar(wide[number], index)
    names = list(given.names)
    config: Any = small.model.config
    return {
        "model_class": type(small.model).__name__,
        "config_class": type(config).__name__,
        "config": small.settings,
        "dtype": dtype_name(dtype),
        "attn": getattr(config, "_attn_implementation", None),
        "path": small.path,
        "class": type(small.block).__name__,
        "parameters": [own[name] for name in sorted(own)],
        "leaves": [
            described(name, tensor, leaf_rules[at]) for at, (name, tensor) in enumerate(zip(names, given.leaves))
        ],
        "args": [argument(item, names, []) for item in given.args],
        "kwargs": {name: argument(item, names, []) for name, item in given.kwargs.items()},
        "output": {"result": number, "index": list(index)},
        "seen": scalar(outputs[number], index),
        "expected": {"value": expected, "dtype": "float32"},
        "op": small.place.op,
        "source": small.place.source,
        "mechanism": small.place.mechanism,
        "limit": limit_of(outputs[number].dtype),
    }
