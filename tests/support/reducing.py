"""What the tests of the reduction share: trials that are kept, programs by hand, and the wire's own words run again.

`values_of` and `result_of` follow docs and schema alone, expression by expression; they share no code with the kit.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import torch
from support.handmade import Function, tape_of
from torch import Tensor

from repro.probes.observe.tape import Tape
from repro.probes.observe.watch import Address, OpCall
from repro.probes.reduce.program import Fault, Program, fault_of, look, program_of
from repro.probes.reduce.trials import Trials
from repro.probes.values.figures import tensors_in

Events = list[tuple[str, "bool | None"]]


def trials(known: dict[str, bool | None] | None = None) -> tuple[Trials, Events]:
    """Trials, and what they announce and answer."""
    events: Events = []

    def event(name: str, trial: str, holds: bool | None) -> None:
        assert name == "trial"
        events.append((trial, holds))

    return Trials(event, known), events


def alone(func: Any, *args: Any, **kwargs: Any) -> Program:
    """One operator as a program."""
    tape = Tape()
    tape.visit(OpCall(Address("", 0, str(func), 0), func, args, kwargs))
    program = program_of(tape, tape.ops[-1])
    assert program is not None
    return program


def taken_from(function: Callable[[Tensor], Any], tensor: Tensor, op: str) -> Program | None:
    """The last `op` that a function runs, as a program."""
    tape = tape_of(Function(function), tensor)
    return program_of(tape, [one for one in tape.ops if one.address.op == op][-1])


def fault_in(program: Program) -> Fault:
    """The fault that a program shows, taken to be the origin's."""
    seen = look(program)
    assert seen is not None
    fault = fault_of(program, str(program.calls[-1].func), seen.mechanism)
    assert fault is not None
    return fault


def dtype_of(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def number(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value


def values_of(leaf: dict[str, Any]) -> Tensor:
    """A tensor from its rule, by the expression that the schema gives for it."""
    rule, shape, dtype = leaf["values"], tuple(leaf["shape"]), dtype_of(leaf["dtype"])
    count = torch.Size(shape).numel()
    if rule["kind"] == "constant":
        return torch.full(shape, number(rule["value"]), dtype=dtype)
    if rule["kind"] == "linspace":
        return torch.linspace(rule["start"], rule["end"], count).reshape(shape).to(dtype)
    if rule["kind"] == "normal":
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(rule["seed"]))
        return (rule["mean"] + rule["std"] * drawn).to(dtype)
    if rule["kind"] == "elements":
        made = torch.full(shape, number(rule["base"]), dtype=dtype)
        for index, value in rule["elements"]:
            made[tuple(index)] = number(value)
        return made
    if rule["kind"] == "steps":
        return (
            torch.tensor([number(rule["start"]) + number(rule["step"]) * at for at in range(count)])
            .reshape(shape)
            .to(dtype)
        )
    if rule["kind"] == "span":
        made = torch.full(shape, number(rule["outside"]), dtype=dtype)
        made[(slice(None),) * rule["dim"] + (slice(rule["begin"], rule["end"]),)] = number(rule["inside"])
        return made
    if rule["kind"] == "list":
        return torch.tensor([number(value) for value in rule["values"]], dtype=dtype).reshape(shape)
    assert rule["kind"] == "bytes"
    return torch.frombuffer(bytearray(base64.b64decode(rule["base64"])), dtype=dtype).reshape(shape)


def laid(leaf: dict[str, Any]) -> Tensor:
    """The same tensor as its layout says."""
    values, layout = values_of(leaf), leaf["layout"]
    if layout is None:
        return values
    steps, off = layout["stride"], layout["misaligned_bytes"]
    last = sum((size - 1) * step for size, step in zip(values.shape, steps, strict=True)) + 1
    memory = bytearray(last * values.element_size() + off)
    flat = torch.frombuffer(memory, dtype=values.dtype, offset=off) if off else torch.zeros(last, dtype=values.dtype)
    return flat.as_strided(values.shape, steps).copy_(values)


def result_of(program: dict[str, Any]) -> float:
    """What a program that travelled gives at the element that it names."""
    known: dict[str, list[Any]] = {leaf["name"]: [laid(leaf)] for leaf in program["leaves"]}

    def argument(item: dict[str, Any]) -> Any:
        if "ref" in item:
            return known[item["ref"]][item.get("result", 0)]
        if "list" in item:
            return [argument(inner) for inner in item["list"]]
        if "dtype" in item:
            return dtype_of(item["dtype"])
        return number(item["const"]) if "const" in item else torch.device(item["device"])

    for call in program["calls"]:
        func: Any = torch.ops
        for part in call["op"].split("."):
            func = getattr(func, part)
        given = {name: argument(item) for name, item in call["kwargs"].items()}
        made = func(*map(argument, call["args"]), **given)
        known[call["name"]] = [made] if isinstance(made, Tensor) else list(made)
    place = program["output"]
    result: Tensor = known[program["calls"][place["call"]]["name"]][place["result"]]
    return float(result[tuple(place["index"])])


def module_result(module: dict[str, Any]) -> float:
    """What a module that travelled gives at the element that it names, built by Transformers from its settings."""
    import transformers

    config = getattr(transformers, module["config_class"])(**module["config"])
    config._attn_implementation = module["attn"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)  # whatever the constructor draws must not matter
        model = getattr(transformers, module["model_class"])(config).to(dtype_of(module["dtype"])).eval()
    block = model.get_submodule(module["path"])
    assert type(block).__name__ == module["class"]
    given = {parameter["name"]: values_of(parameter) for parameter in module["parameters"]}
    assert given.keys() == dict(block.named_parameters()).keys()
    leaves = {leaf["name"]: values_of(leaf) for leaf in module["leaves"]}

    def argument(item: dict[str, Any]) -> Any:
        if "ref" in item:
            return leaves[item["ref"]]
        return tuple(argument(inner) for inner in item["list"]) if "list" in item else number(item["const"])

    kwargs = {name: argument(item) for name, item in module["kwargs"].items()}
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.copy_(given[name])
        output = block(*map(argument, module["args"]), **kwargs)
    tensors = list(tensors_in(output))
    return float(tensors[module["output"]["result"]][tuple(module["output"]["index"])])
