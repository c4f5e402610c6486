"""The module in which the fault is born, built small from the model's own configuration and called alone.

The model's own layers stand for everything in front of them by what they were given: the captured hidden states. Its
weights are replaced, one tensor after the other, by values that a script can write down.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from .blame import UNWRITTEN
from .forward import run
from .inputs import Inputs
from .load import Loaded
from .mechanism import limit_of
from .nest import rebuild
from .program import Leaf, argument
from .screen import blocks
from .summary import dtype_name, first_bad_index, is_bad, is_float, scalar, tensors_in
from .tokens import Place
from .trials import Trials
from .values import Rule, described, make, simplest
from .watch import StopPass, Watch, watched

# Of a configuration: what is no setting of the architecture, or is set here.
NOT_SETTINGS = frozenset((
    "_name_or_path", "transformers_version", "architectures", "model_type", "dtype", "torch_dtype", "auto_map",
    "_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "task_specific_params", "id2label",
    "label2id", "unk_token_id", "use_cache",
))  # fmt: skip
VOCABULARY = 8  # a fault in one layer needs no words
ROUNDS = 2
TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class Small:
    """A model of few layers, and the place of the module in it. ``settings``: what its configuration is built with.
    ``channel``: the one in which the fault is, if it is in one.
    """

    model: nn.Module
    settings: dict[str, Any]
    path: str
    place: Place
    channel: Optional[int]

    @property
    def block(self) -> nn.Module:
        return self.model.get_submodule(self.path)


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
    given = captured(loaded, inputs, path, origin["call_index"] if path == origin["module"] else 0)
    if given is None:
        return None, f"the arguments of {path} are not all tensors and plain values"
    for small in small_models(loaded, path, origin):
        if trials.ask(f"{small.path} alone", functools.partial(shows, small, given)):
            return by_rules(small, given, trials)
    return None, f"{path} does not show the fault by itself"


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
        if isinstance(nest, (list, tuple)):
            return type(nest)([keep(item, f"{name}_{at}") for at, item in enumerate(nest)])
        return nest if isinstance(nest, PLAIN) else None

    args = tuple(keep(item, "hidden_states" if at == 0 else f"argument{at}") for at, item in enumerate(found[0][0]))
    kwargs = {name: keep(item, name) for name, item in found[0][1].items()}
    kwargs = {name: item for name, item in kwargs.items() if item is not None}
    return Given(tuple(leaves), tuple(names), args, kwargs)


def small_models(loaded: Loaded, path: str, origin: dict[str, Any]) -> Iterator[Small]:
    """Models of the nearest class of Transformers around the module that a configuration alone builds: of one layer,
    else of as many as there are up to this one. The module has its own weights.
    """
    import transformers

    rest = origin["module"][len(path) :]
    for name in _ancestors(path):
        outer = loaded.model.get_submodule(name) if name else loaded.model
        kind, config = type(outer), getattr(outer, "config", None)
        if (
            not isinstance(outer, transformers.PreTrainedModel)
            or getattr(transformers, kind.__name__, None) is not kind
        ):
            continue
        inner = path[len(name) + 1 :] if name else path
        for settings, place in _settings(config, inner):
            with contextlib.suppress(Exception):  # a class that wants more than a configuration, or other sizes
                model = build(kind, type(config), settings, loaded)
                block = model.get_submodule(place)
                own = dict(loaded.model.get_submodule(path).named_parameters())
                with torch.no_grad():
                    for key, parameter in block.named_parameters():
                        parameter.copy_(own[key])
                there = replace(Place.of(origin), module=place + rest)
                yield Small(model, settings, place, there, origin["channel_index"])


def _ancestors(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, -1, -1)]


def _settings(config: Any, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """(settings, path of the module) of smaller models: one layer, then all up to this one; small sizes first."""
    default = type(config)()
    plain = {
        key: value for key, value in config.to_dict().items()
        if _is_setting(key, value) and getattr(default, key, None) != value and key != "layer_types"
    }  # fmt: skip
    layers_key = getattr(config, "attribute_map", {}).get("num_hidden_layers", "num_hidden_layers")
    count = getattr(config, layers_key, None)
    number = next((int(part) for part in path.split(".") if part.isdigit()), None)
    per_layer = {
        key: value for key, value in config.to_dict().items()
        if isinstance(value, list) and len(value) == count and _is_setting(key, value)
    }  # fmt: skip
    ids = {key: 0 for key in TOKEN_IDS if isinstance(getattr(config, key, None), int) and getattr(config, key) > 0}
    for sizes in ({"vocab_size": VOCABULARY, **ids}, {}):
        if number is None or count is None:
            yield {**plain, **sizes}, path
            continue
        one = {key: value[number : number + 1] for key, value in per_layer.items()}
        first = ".".join("0" if part == str(number) else part for part in path.split("."))
        yield {**plain, **sizes, layers_key: 1, **one}, first
        up_to = {key: value[: number + 1] for key, value in per_layer.items()}
        yield {**plain, **sizes, layers_key: number + 1, **up_to}, path


def _is_setting(key: str, value: Any) -> bool:
    if key in NOT_SETTINGS or key.startswith("_"):
        return False
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def build(kind: Any, config: Any, settings: dict[str, Any], loaded: Loaded) -> nn.Module:
    """A model of this class from settings, in the loaded model's dtype, on its device."""
    attn = {} if loaded.attn is None else {"attn_implementation": loaded.attn}
    with torch.random.fork_rng(devices=[]):
        model = kind(config(**settings, **attn))
    return model.to(dtype=loaded.dtype, device=loaded.device).eval()


def shows(small: Small, given: Given) -> bool:
    """Whether the module alone shows the fault: the same operator, from inputs as sound, and a bad output."""
    met: list[bool] = []
    place = small.place

    def visit(here: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        floats = [tensor for tensor in tensors_in((args, kwargs)) if is_float(tensor)]
        sound = not place.finite or not any(map(is_bad, floats))
        result = func(*args, **kwargs)
        if sound and (here.module, here.op) == (place.module, place.op):
            if place.shown_in(list(tensors_in(result))):
                met.append(True)
        elif sound and not met and is_born_bad(here.op, list(tensors_in(result))):
            raise StopPass  # another operator is the first: another fault
        return result

    outputs: list[Any] = []
    with watched(small.model, Watch(visit)):
        outputs.append(given.call(small.block))
    return bool(met) and bool(outputs) and any(is_bad(tensor) for tensor in tensors_in(outputs[0]))


def is_born_bad(op: str, results: list[Tensor]) -> bool:
    """Whether an operator gave a NaN, or a +inf, that nobody chose and that is not memory as it was handed out."""
    if op.split(".")[1] in UNWRITTEN:
        return False
    return any(is_float(tensor) and bool(torch.isnan(tensor).any()) for tensor in results)


def by_rules(small: Small, given: Given, trials: Trials) -> tuple[Optional[dict[str, Any]], str]:
    """Every parameter and every input by the simplest rule that keeps the fault.

    Twice: what needed values of its own beside the model's other weights may be plain beside plain ones.
    """
    parameters = dict(small.block.named_parameters())
    slots = sorted(parameters, key=lambda name: (parameters[name].numel(), name))
    rows = () if small.channel is None else (small.channel,)
    rules: dict[str, Rule] = {}
    leaf_rules: list[Rule] = [{}] * len(given.leaves)
    for _ in range(ROUNDS):
        for name in slots:
            if rules.get(name, {}).get("kind") == "constant":
                continue
            found = _parameter_rule(small, given, name, trials, rows)
            if found is None:
                return None, _too_many(f"{name} of {small.path}", parameters[name])
            rules[name] = found
        for number, tensor in enumerate(given.leaves):
            if leaf_rules[number].get("kind") == "constant":
                continue
            rule, given = _leaf_rule(small, given, number, trials)
            if rule is None:
                return None, _too_many(given.names[number], tensor)
            leaf_rules[number] = rule
    return payload(small, given, rules, leaf_rules), ""


def _too_many(name: str, tensor: Tensor) -> str:
    return f"{name} needs {tensor.numel():,} values of its own, too many for a script"


def _parameter_rule(small: Small, given: Given, name: str, trials: Trials, rows: tuple[int, ...]) -> Optional[Rule]:
    """The rule of a parameter, which then has its values; None where there is none, and it has its own."""
    parameter = dict(small.block.named_parameters())[name]
    before = parameter.detach().clone()

    def fill(values: Tensor) -> None:
        with torch.no_grad():
            parameter.copy_(values)

    def holds(rule: Rule) -> bool:
        fill(make(rule, tuple(parameter.shape), parameter.dtype))
        return shows(small, given)

    rule: Optional[Rule] = simplest(before, holds, trials, name, rows)
    fill(before if rule is None else make(rule, tuple(parameter.shape), parameter.dtype))
    return rule


def _leaf_rule(small: Small, given: Given, number: int, trials: Trials) -> tuple[Optional[Rule], Given]:
    """The rule of an input, and what is given with it."""
    tensor = given.leaves[number]

    def changed(rule: Rule) -> Given:
        made = make(rule, tuple(tensor.shape), tensor.dtype).to(tensor.device)
        return replace(given, leaves=(*given.leaves[:number], made, *given.leaves[number + 1 :]))

    rule: Optional[Rule] = simplest(tensor, lambda rule: shows(small, changed(rule)), trials, given.names[number])
    return rule, given if rule is None else changed(rule)


def payload(small: Small, given: Given, rules: dict[str, Rule], leaf_rules: list[Rule]) -> dict[str, Any]:
    """The module as it travels to the host."""
    outputs = list(tensors_in(given.call(small.block)))
    number = next(at for at, tensor in enumerate(outputs) if is_bad(tensor))
    index = first_bad_index(outputs[number])
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
        "dtype": dtype_name(outputs[number].dtype),
        "attn": getattr(config, "_attn_implementation", None),
        "path": small.path,
        "class": type(small.block).__name__,
        "parameters": [own[name] for name in sorted(own)],
        "leaves": [described(name, tensor, rule) for name, tensor, rule in zip(names, given.leaves, leaf_rules)],
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
