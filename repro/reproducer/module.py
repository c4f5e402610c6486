"""A script with one layer of Transformers: built from its configuration, with values that fit into the text."""

import math
from collections import Counter

from repro.core.encoding import number
from repro.reproducer.calls import arguments_in, renderer
from repro.reproducer.frame import STATUSES, Document, frame
from repro.reproducer.names import CPU, renamed
from repro.reproducer.script import Script
from repro.reproducer.values import Json, call_lines, expression, is_floating, literal, tensor_lines
from repro.reproducer.words import Shown, cause_of, found_in, generated, happened, value_of, whose

NEEDS = ("torch", "transformers")


def module_script(document: Document, module: Json) -> Script:
    """The layer with its parameters and inputs, the same in wider arithmetic beside it."""
    module = renamed(module)
    device = str(document["cell"].get("device") or "cpu")
    own = _dtype(module)
    _, wide = value_of(module.get("expected"))
    wide = wide if wide in ("float32", "float64") else "float64"
    names = [leaf["name"] for leaf in module["leaves"]]
    floats = {leaf["name"] for leaf in module["leaves"] if is_floating(leaf["dtype"])}
    nest = [module["args"], module["kwargs"]]
    types = {dtype: "dtype" for dtype in arguments_in(nest, "dtype") if is_floating(dtype)}
    given = [*names, *(["dtype"] if types else [])]
    widen = ".float()" if wide == "float32" else ".double()"
    narrow = [*names, *([f"torch.{own}"] if types else [])]
    wider = [f"{name}{widen if name in floats else ''}" for name in names] + ([f"torch.{wide}"] if types else [])
    render = renderer(lambda arg: str(arg["ref"]), types, sequence="()")
    call = [*map(render, module["args"]), *(f"{name}={render(value)}" for name, value in module["kwargs"].items())]
    result = int(module["output"].get("result") or 0)
    index = f"[{', '.join(map(str, module['output']['index']))}]" if module["output"]["index"] else ""
    code = [
        "import torch",
        f"from transformers import {', '.join(sorted({module['config_class'], module['model_class']}))}",
        *_model(module, device),
        "",
        *_parameters(module),
        *tensor_lines(module["leaves"], "cpu" if device in CPU else device),
        "",
        f"def run({', '.join(['layer', *given])}):",
        *call_lines("    output = layer(", call),
        f"    return (output if torch.is_tensor(output) else output[{result}]){index}",
        "",
        *call_lines("seen = run(", ["layer", *narrow]),
        *call_lines("expected = run(", [f"layer{widen}", *wider]),
        f'print(f"expected {_expected(module, wide)}, seen {{seen}} ({module["dtype"]})")',
        f"sys.exit(0 if seen.isfinite() else 1)  {STATUSES}",
    ]
    text = "\n".join(code)
    code = ["import base64", *code] if "base64." in text else code
    about = [_happened(document, module), _whose(document, module), found_in(document), generated(document)]
    return Script(
        "module",
        frame(document, NEEDS, about, code),
        NEEDS,
        f"{module['class']} of {module['model_class']} alone, with values that fit into the script",
        seen=str(module["seen"]),
    )


def _expected(module: Json, wide: str) -> str:
    value, _ = value_of(module.get("expected"))
    found = value is not None and math.isfinite(value)
    return f"{{expected}} ({wide})" if found or value is None else f"a finite number ({wide} gives {{expected}} too)"


def _model(module: Json, device: str) -> list[str]:
    """The model of the configuration, as small as that says, in the case's dtype."""
    config = [f"{name}={literal(value)}" for name, value in module["config"].items()]
    config += [f"attn_implementation={literal(module['attn'])}"] if module.get("attn") else []
    where = "" if device in CPU else f"{literal(device)}, "
    return [
        "torch.set_grad_enabled(False)",
        *call_lines(f"config = {module['config_class']}(", config),
        f"model = {module['model_class']}(config).to({where}torch.{_dtype(module)}).eval()",
        f"layer = model.get_submodule({literal(module['path'])})",
    ]


def _parameters(module: Json) -> list[str]:
    """Every parameter's value: the commonest constant for all, then those that differ from it."""
    parameters: list[Json] = list(module["parameters"])
    if not parameters:
        return []
    own = [item for item in parameters if item["dtype"] == _dtype(module)]
    constants = Counter(literal(item["values"]["value"]) for item in own if item["values"]["kind"] == "constant")
    common = constants.most_common(1)[0][0] if constants else None
    lines = ["parameters = dict(layer.named_parameters())"]
    if common is not None:
        lines += ["for parameter in parameters.values():", f"    parameter.fill_({common})"]
    for item in parameters:
        lines += _parameter(item, f"parameters[{literal(item['name'])}]", common, item in own)
    return lines


def _dtype(module: Json) -> str:
    """The dtype of the module's own parameters. Its output may be wider, where what it is given is."""
    own = Counter(str(item["dtype"]) for item in module["parameters"])
    return own.most_common(1)[0][0] if own else str(module["dtype"])


def _parameter(item: Json, place: str, common: str | None, same_dtype: bool) -> list[str]:
    """The lines for one parameter, which has the commonest constant already."""
    rule = item["values"]
    made, places = expression(item)
    if not same_dtype:
        return [f"{place}.data = {made}", *(f"{place}.data{line}" for line in places)]
    if rule["kind"] not in ("constant", "elements"):
        return call_lines(f"{place}.copy_(", [made])
    base = literal(rule["value" if rule["kind"] == "constant" else "base"])
    return [*([] if base == common else [f"{place}.fill_({base})"]), *(f"{place}{line}" for line in places)]


def _shown(document: Document, module: Json) -> Shown:
    """What the layer shows, against the limit of the dtype that its operator had."""
    origin = document.get("origin") or {}
    expected, wide = value_of(module.get("expected"))
    return Shown(
        what=str(module["class"]),
        mechanism=str(module["mechanism"]),
        seen=str(module["seen"]),
        dtype=_dtype(module),
        expected=expected,
        wide=wide,
        limit=number(origin.get("limit") if origin.get("op") == module.get("op") else module.get("limit")),
    )


def _happened(document: Document, module: Json) -> str:
    where = ", ".join(str(module[key]) for key in ("op", "source") if module.get(key))
    return (
        f"{happened(_shown(document, module)).rstrip('.')} ({where})." if where else happened(_shown(document, module))
    )


def _whose(document: Document, module: Json) -> str:
    """In a module the operator is right or wrong as it is alone; the words are of the module."""
    owner, shown = (document.get("owner") or {}).get("project"), _shown(document, module)
    if owner == "transformers":
        return f"This is not a PyTorch bug: in {module['class']} the operator is right, and {cause_of(shown)}."
    return "" if owner in (None, "pytorch") else whose(shown, document)
