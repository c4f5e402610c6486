"""A script of one module of Transformers: built from its configuration, with values that fit into the text."""

import math
from collections import Counter

from repro.core.answer import Answer
from repro.core.encoding import number
from repro.core.payloads import Leaf, Module
from repro.reproducer.code.calls import arguments_in, index_of, renderer
from repro.reproducer.code.names import CPU, renamed_module
from repro.reproducer.code.tensors import call_lines, expression, is_floating, literal, tensor_lines
from repro.reproducer.frame import ending, frame
from repro.reproducer.script import Script
from repro.reproducer.words import Shown, found_in, generated, happened, seen_and_right, value_of

NEEDS = ("torch", "transformers")


def module_script(answer: Answer, module: Module) -> Script:
    """The module with its parameters and inputs, and the same in wider arithmetic."""
    module = renamed_module(module)
    device = answer.cell.device or "cpu"
    own = _dtype(module)
    value, wide = value_of(module.expected)
    wide = wide if wide in ("float32", "float64") else "float64"
    names = [leaf.name for leaf in module.leaves]
    floats = {leaf.name for leaf in module.leaves if is_floating(leaf.dtype)}
    types = {dtype: "dtype" for dtype in arguments_in([module.args, module.kwargs], "dtype") if is_floating(dtype)}
    given = [*names, *(["dtype"] if types else [])]
    widen = ".float()" if wide == "float32" else ".double()"
    narrow = [*names, *([f"torch.{own}"] if types else [])]
    wider = [f"{name}{widen if name in floats else ''}" for name in names] + ([f"torch.{wide}"] if types else [])
    render = renderer(lambda arg: str(arg["ref"]), types, sequence="()")
    call = [*map(render, module.args), *(f"{name}={render(arg)}" for name, arg in module.kwargs.items())]
    index = index_of(module.output.index)
    printed, message = seen_and_right(_shown(answer, module), value is None or math.isfinite(value))
    code = [
        "import torch",
        f"from transformers import {', '.join(sorted({module.config_class, module.model_class}))}",
        *_model(module, device),
        "",
        *_parameters(module),
        *tensor_lines(module.leaves, "cpu" if device in CPU else device),
        "",
        f"def run({', '.join(['layer', *given])}):",
        *call_lines("    output = layer(", call),
        f"    return (output if torch.is_tensor(output) else output[{module.output.result}]){index}",
        "",
        *call_lines("seen = run(", ["layer", *narrow]),
        *call_lines("expected = run(", [f"layer{widen}", *wider]),
        *ending(printed, "seen.isfinite()", message),
    ]
    code = ["import base64", *code] if "base64." in "\n".join(code) else code
    about = [_happened(answer, module), found_in(answer), generated(answer)]
    return Script(
        level="module",
        text=frame(answer, NEEDS, about, code),
        needs=NEEDS,
        does=f"runs {module.class_} of {module.model_class} alone, with its values in the script",
        seen=str(module.seen),
    )


def _model(module: Module, device: str) -> list[str]:
    """The model of the configuration, as small as that says, in the case's dtype."""
    config = [f"{name}={literal(value)}" for name, value in module.config.items()]
    config += [f"attn_implementation={literal(module.attn)}"] if module.attn else []
    where = "" if device in CPU else f"{literal(device)}, "
    return [
        "torch.set_grad_enabled(False)",
        *call_lines(f"config = {module.config_class}(", config),
        f"model = {module.model_class}(config).to({where}torch.{_dtype(module)}).eval()",
        f"layer = model.get_submodule({literal(module.path)})",
    ]


def _parameters(module: Module) -> list[str]:
    """Every parameter's value: the most common constant for all, then those that differ from it."""
    if not module.parameters:
        return []
    own = [item for item in module.parameters if item.dtype == _dtype(module)]
    constants = Counter(literal(item.values["value"]) for item in own if item.values["kind"] == "constant")
    common = constants.most_common(1)[0][0] if constants else None
    lines = ["parameters = dict(layer.named_parameters())"]
    if common is not None:
        lines += ["for parameter in parameters.values():", f"    parameter.fill_({common})"]
    for item in module.parameters:
        lines += _parameter(item, f"parameters[{literal(item.name)}]", common, item in own)
    return lines


def _dtype(module: Module) -> str:
    """The dtype of the module's own parameters. Its output is wider where its input is."""
    own = Counter(item.dtype for item in module.parameters)
    return own.most_common(1)[0][0] if own else str(module.dtype)


def _parameter(item: Leaf, place: str, common: str | None, same_dtype: bool) -> list[str]:
    """The lines for one parameter, which holds the most common constant already."""
    rule = item.values
    made, places = expression(item)
    if not same_dtype:
        return [f"{place}.data = {made}", *(f"{place}.data{line}" for line in places)]
    if rule["kind"] not in ("constant", "elements"):
        return call_lines(f"{place}.copy_(", [made])
    base = literal(rule["value" if rule["kind"] == "constant" else "base"])
    return [*([] if base == common else [f"{place}.fill_({base})"]), *(f"{place}{line}" for line in places)]


def _happened(answer: Answer, module: Module) -> str:
    """What the module shows, and where in it."""
    said = happened(_shown(answer, module))
    where = ", ".join(part for part in (module.op, module.source) if part)
    return f"{said.rstrip('.')} ({where})." if where else said


def _shown(answer: Answer, module: Module) -> Shown:
    """What the module shows, against the limit of its operator's dtype."""
    origin = answer.origin
    expected, wide = value_of(module.expected)
    limit = origin.limit if origin is not None and origin.op == module.op else module.limit
    return Shown(
        what=module.class_,
        mechanism=module.mechanism or "unknown",
        seen=str(module.seen),
        dtype=_dtype(module),
        expected=expected,
        wide=wide,
        limit=number(limit),
    )
