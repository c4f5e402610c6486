"""A script of operators alone, from a reduction's program: torch, a few tensors, the operator, its reference."""

import math
import re
from collections.abc import Callable, Mapping

from repro.core.encoding import number
from repro.core.sentences import plain
from repro.reproducer.attention import formula, is_attention
from repro.reproducer.calls import INFIX, arguments_in, base_name, index_of, renderer, spell
from repro.reproducer.frame import STATUSES, Document, frame
from repro.reproducer.names import CPU, renamed
from repro.reproducer.script import Script
from repro.reproducer.values import Json, is_floating, literal, tensor_lines
from repro.reproducer.words import Shown, found_in, generated, happened, value_of, whose


def program_scripts(document: Document, program: Json) -> tuple[Script, ...]:
    """The script with public functions, and where that differs the one with every operator by its own name."""
    program = renamed(program)
    pretty, plain_one = _script(document, program, own_name=False), _script(document, program, own_name=True)
    return (pretty,) if pretty.text == plain_one.text else (pretty, plain_one)


def _script(document: Document, program: Json, own_name: bool) -> Script:
    single = len(program["calls"]) == 1
    code = _single(program, own_name) if single else _several(program, own_name)
    text = "\n".join(code)
    imports = ["import torch"]
    imports += ["import base64"] if "base64." in text else []
    shown = _shown(program, own_name)
    about = [happened(shown), whose(shown, document), found_in(document), generated(document)]
    level = "operator" if single else "operators"
    reason = f"{shown.what} alone" if single else f"{len(program['calls'])} operators together"
    needs = ("torch",)
    return Script(
        level, frame(document, needs, about, [*imports, *code]), needs, f"{reason}, without the model",
        seen=str(program["seen"]),
    )  # fmt: skip


def _single(program: Json, own_name: bool) -> list[str]:
    """Inputs, the call on them, the same call on their float64 copies."""
    call = program["calls"][0]
    output = program["output"]
    seen = spell(call, renderer(_leaf), output["result"], own_name).taken(output["result"], output["index"])
    lines = [*_inputs(program), f"seen = {seen}"]
    if _has_reference(program):
        lines += _reference(program, call, own_name)
    return [*lines, *_end(program)]


def _reference(program: Json, call: Json, own_name: bool) -> list[str]:
    """The call on the float64 copies; of a whole attention, whose kernel would be its own judge, the formula."""
    output, wide = program["output"], _wide(program)
    written_out = formula(program, call, renderer(wide))
    if written_out is not None:
        return written_out
    nest = [call["args"], call["kwargs"]]
    types = dict.fromkeys(filter(is_floating, arguments_in(nest, "dtype")), "torch.float64")
    render = renderer(wide, types, dict.fromkeys(arguments_in(nest, "device"), literal("cpu")))
    return [f"expected = {spell(call, render, output['result'], own_name).taken(output['result'], output['index'])}"]


def _several(program: Json, own_name: bool) -> list[str]:
    """A function of the inputs, called with them and with their float64 copies."""
    names = [leaf["name"] for leaf in program["leaves"]]
    nest = [[call["args"], call["kwargs"]] for call in program["calls"]]
    types = {
        dtype: f"dtype{number or ''}" for number, dtype in enumerate(filter(is_floating, arguments_in(nest, "dtype")))
    }
    devices = {device: f"device{number or ''}" for number, device in enumerate(
        device for device in arguments_in(nest, "device") if device not in CPU)}  # fmt: skip
    tuples: dict[str, bool] = {}

    def reference(arg: Json) -> str:
        return f"{arg['ref']}[{arg.get('result', 0)}]" if tuples.get(arg["ref"]) else str(arg["ref"])

    render = renderer(reference, types, devices)
    output, body = program["output"], []
    for number_, call in enumerate(program["calls"]):
        wanted = {arg["result"] for arg in _references(program["calls"][number_ + 1 :], call["name"])}
        if number_ == output["call"]:
            wanted.add(output["result"])
        spelled = spell(call, render, max(wanted, default=0), own_name or len(wanted) > 1)
        tuples[call["name"]] = spelled.several
        body.append(f"    {call['name']} = {spelled.text}")
    result = reference({"ref": program["calls"][output["call"]]["name"], "result": output["result"]})
    given = [*names, *types.values(), *devices.values()]
    narrow = [*names, *(f"torch.{dtype}" for dtype in types), *map(literal, devices)]
    wide = [_wide(program)({"ref": name}) for name in names]
    wide += ["torch.float64"] * len(types) + [literal("cpu")] * len(devices)
    lines = [f"def run({', '.join(given)}):", *body, f"    return {result}{index_of(output['index'])}", ""]
    lines += [*_inputs(program), f"seen = run({', '.join(narrow)})"]
    lines += [f"expected = run({', '.join(wide)})"] if _has_reference(program) else []
    return [*lines, *_end(program)]


def _references(nest: object, name: str) -> list[Json]:
    """Every argument that is a result of the call of this name."""
    if isinstance(nest, Mapping):
        own = [{"result": 0, **nest}] if nest.get("ref") == name else []
        return own + [item for value in nest.values() for item in _references(value, name)]
    return [item for value in nest for item in _references(value, name)] if isinstance(nest, list | tuple) else []


def _inputs(program: Json) -> list[str]:
    device = str(program.get("device") or "cpu")
    return tensor_lines(program["leaves"], "cpu" if device in CPU else device)


def _end(program: Json) -> list[str]:
    dtype = _dtype(program)
    expected = "{expected} (float64)" if _has_reference(program) else "a finite number"
    if _has_reference(program) and _no_finite_reference(program):
        expected = "a finite number (float64 gives {expected} too)"
    return [
        f'print(f"expected {expected}, seen {{seen}} ({dtype})")',
        f"sys.exit(0 if seen.isfinite() else 1)  {STATUSES}",
    ]


def _has_reference(program: Json) -> bool:
    """Not where the operator cannot be run in float64 on the CPU; a whole attention can always be written out."""
    whole_attention = len(program["calls"]) == 1 and is_attention(program["calls"][0])
    return isinstance(program.get("expected"), Mapping) or program["mechanism"] == "masked_row" or whole_attention


def _no_finite_reference(program: Json) -> bool:
    """Whether wider arithmetic gives no number either."""
    value, _ = value_of(program.get("expected"))
    if value is None:
        return program["mechanism"] == "masked_row" and not is_attention(program["calls"][-1])
    return not math.isfinite(value)


def _wide(program: Json) -> Callable[[Json], str]:
    """Writes a leaf as its float64 copy on the CPU, where it has one."""
    types = {leaf["name"]: leaf["dtype"] for leaf in program["leaves"]}
    there = "" if str(program.get("device") or "cpu") in CPU else ".cpu()"

    def reference(arg: Json) -> str:
        dtype = types.get(arg["ref"], "")
        wider = ".to(torch.complex128)" if dtype.startswith("complex") else ".double()"
        return f"{arg['ref']}{there}{wider if is_floating(dtype) and dtype != 'float64' else ''}"

    return reference


def _leaf(arg: Json) -> str:
    return str(arg["ref"])


def _shown(program: Json, own_name: bool) -> Shown:
    call = program["calls"][-1]
    expected, wide = value_of(program.get("expected"))
    return Shown(
        what=_called(call, own_name),
        mechanism=str(program["mechanism"]),
        seen=str(program["seen"]),
        dtype=_dtype(program),
        expected=expected,
        wide=wide,
        limit=number(program.get("limit")),
        attention=is_attention(call),
        sum_of=_sum_of(program),
    )


def _called(call: Json, own_name: bool) -> str:
    """The operator as the script calls it: ``a + b``, or the function without its arguments."""
    text = spell(call, renderer(_leaf), own_name=own_name).text
    function = re.match(r"[A-Za-z_][\w.]*(?=\()", text)
    return text if function is None else function[0]


def _sum_of(program: Json) -> str | None:
    """The two numbers that an operator with a sign of its own works on, where each input is one number throughout."""
    call = program["calls"][-1]
    sign = INFIX.get(base_name(call["op"]))
    constants = {leaf["name"]: leaf["values"].get("value") for leaf in program["leaves"]}
    if len(program["calls"]) > 1 or sign is None or len(call["args"]) != 2 or call["kwargs"]:
        return None
    values = [number(constants.get(arg["ref"]) if "ref" in arg else arg.get("const")) for arg in call["args"]]
    if any(value is None for value in values):
        return None
    return f" {sign} ".join(plain(value, 12) for value in values if value is not None)


def _dtype(program: Json) -> str:
    """The dtype of the bad value: what the last operator was told, else the widest of its floating inputs."""
    call = program["calls"][-1]
    told = [dtype for dtype in arguments_in([call["args"], call["kwargs"]], "dtype") if is_floating(dtype)]
    own = [leaf["dtype"] for leaf in program["leaves"] if is_floating(leaf["dtype"])]
    return str((told or own or ["float32"])[0])
