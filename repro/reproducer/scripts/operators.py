"""A script of operators alone: torch, a few tensors, one or more operators, and the same in float64."""

import math
import re
from collections.abc import Callable, Mapping

from repro.core.answer import Answer
from repro.core.encoding import number
from repro.core.mechanisms import BY_DEFINITION, mechanism
from repro.core.payloads import Call, Program
from repro.core.sentences import plain
from repro.reproducer.code.attention import formula, is_attention
from repro.reproducer.code.calls import INFIX, Arg, arguments_in, base_name, index_of, renderer, spell
from repro.reproducer.code.names import CPU, renamed_program
from repro.reproducer.code.tensors import is_floating, literal, tensor_lines
from repro.reproducer.frame import ending, frame
from repro.reproducer.script import Script
from repro.reproducer.words import Shown, correctness, found_in, generated, happened, seen_and_right, value_of

NEEDS = ("torch",)
SWALLOWED = "swallowed_nan"


def operator_scripts(answer: Answer, program: Program) -> tuple[Script, ...]:
    """The script with public functions, and where that differs the one with every operator by its own name."""
    program = renamed_program(program)
    public, by_name = _script(answer, program, own_name=False), _script(answer, program, own_name=True)
    return (public,) if public.text == by_name.text else (public, by_name)


def _script(answer: Answer, program: Program, own_name: bool) -> Script:
    single = len(program.calls) == 1
    code = ["import torch", *(_single(program, own_name) if single else _several(program, own_name))]
    code = ["import base64", *code] if "base64." in "\n".join(code) else code
    shown = _shown(program, own_name)
    about = [happened(shown), correctness(shown), found_in(answer), generated(answer)]
    what = shown.what if single else f"{len(program.calls)} operators"
    return Script(
        level="operator" if single else "operators",
        text=frame(answer, NEEDS, about, code),
        needs=NEEDS,
        does=f"runs {what} without the {'rest of the script' if answer.script else 'model'}",
        seen=str(program.seen)
        if program.allowed is None
        else None,  # the assertion says which finite numbers are wrong
    )


def _single(program: Program, own_name: bool) -> list[str]:
    """Inputs, the call on them, the same call on their float64 copies."""
    call, output = program.calls[0], program.output
    seen = spell(call, renderer(_name), output.result, own_name).taken(output.result, output.index)
    reference = _reference(program, call, own_name) if _has_reference(program) else []
    return [*_inputs(program), f"seen = {seen}", *reference, *_end(program, own_name)]


def _reference(program: Program, call: Call, own_name: bool) -> list[str]:
    """The call on the float64 copies; the formula for a whole attention, whose kernel would be its own judge."""
    output, wide = program.output, _wide(program)
    written_out = formula(program, call, renderer(wide))
    if written_out is not None:
        return written_out
    nest = [call.args, call.kwargs]
    types = dict.fromkeys(filter(is_floating, arguments_in(nest, "dtype")), "torch.float64")
    render = renderer(wide, types, dict.fromkeys(arguments_in(nest, "device"), literal("cpu")))
    return [f"expected = {spell(call, render, output.result, own_name).taken(output.result, output.index)}"]


def _several(program: Program, own_name: bool) -> list[str]:
    """A function of the inputs, called with them and with their float64 copies."""
    names = [leaf.name for leaf in program.leaves]
    nest = [[call.args, call.kwargs] for call in program.calls]
    types = {dtype: f"dtype{at or ''}" for at, dtype in enumerate(filter(is_floating, arguments_in(nest, "dtype")))}
    accelerators = [device for device in arguments_in(nest, "device") if device not in CPU]
    devices = {device: f"device{at or ''}" for at, device in enumerate(accelerators)}
    tuples: dict[str, bool] = {}

    def reference(arg: Arg) -> str:
        return f"{arg['ref']}[{arg.get('result', 0)}]" if tuples.get(arg["ref"]) else str(arg["ref"])

    render = renderer(reference, types, devices)
    output, body = program.output, []
    last = len(program.calls) - 1 if output.call is None else output.call
    for at, call in enumerate(program.calls):
        name = str(call.name)
        wanted = set(_results_used(nest[at + 1 :], name))
        if at == last:
            wanted.add(output.result)
        spelled = spell(call, render, max(wanted, default=0), own_name or len(wanted) > 1)
        tuples[name] = spelled.several
        body.append(f"    {name} = {spelled.text}")
    result = reference({"ref": program.calls[last].name, "result": output.result})
    given = [*names, *types.values(), *devices.values()]
    narrow = [*names, *(f"torch.{dtype}" for dtype in types), *map(literal, devices)]
    wide = [_wide(program)({"ref": name}) for name in names]
    wide += ["torch.float64"] * len(types) + [literal("cpu")] * len(devices)
    lines = [f"def run({', '.join(given)}):", *body, f"    return {result}{index_of(output.index)}", ""]
    lines += [*_inputs(program), f"seen = run({', '.join(narrow)})"]
    lines += [f"expected = run({', '.join(wide)})"] if _has_reference(program) else []
    return [*lines, *_end(program, own_name)]


def _results_used(nest: object, name: str) -> list[int]:
    """Which results of the call of this name stand among arguments."""
    if isinstance(nest, Mapping):
        own = [int(nest.get("result", 0))] if nest.get("ref") == name else []
        return own + [item for value in nest.values() for item in _results_used(value, name)]
    return [item for value in nest for item in _results_used(value, name)] if isinstance(nest, list | tuple) else []


def _inputs(program: Program) -> list[str]:
    return tensor_lines(program.leaves, _device(program))


def _device(program: Program) -> str:
    return "cpu" if program.device is None or program.device in CPU else program.device


def _end(program: Program, own_name: bool) -> list[str]:
    if program.mechanism == SWALLOWED:
        return ending(*_of_nan(_shown(program, own_name)))
    if program.allowed is not None:
        return ending(*_within(_shown(program, own_name), number(program.allowed) or 0.0))
    reference = _is_finite(program) if _has_reference(program) else None
    printed, message = seen_and_right(_shown(program, own_name), reference)
    return ending(printed, "seen.isfinite()", message)


def _of_nan(shown: Shown) -> tuple[str, str, str]:
    """What is printed, what must hold and the message, where float64 of the same inputs is NaN."""
    message = f"{shown.what} gives {{seen}} for an input that is NaN"
    return f"seen {{seen}} in {shown.dtype}, right is nan (float64 of the same inputs)", "seen.isnan()", message


def _within(shown: Shown, allowed: float) -> tuple[str, str, str]:
    """The same for a finite number. The tolerance is what rounding allows at this element."""
    bound = f"{allowed:.2g}"
    printed = f"seen {{seen}}, right is {{expected}} (float64 of the same inputs); rounding allows {bound}"
    message = f"{shown.what} is {{abs(seen - expected)}} from float64, rounding allows {bound}"
    return printed, f"abs(seen - expected) <= {bound}", message


def _has_reference(program: Program) -> bool:
    """Not where the operator cannot run in float64 on the CPU. A whole attention can always be written out."""
    whole_attention = len(program.calls) == 1 and is_attention(program.calls[0])
    return program.expected is not None or _is_bad_by_definition(program) or whole_attention


def _is_bad_by_definition(program: Program) -> bool:
    """Whether float64 gives no number either, so that the kit left it out."""
    return mechanism(program.mechanism).correct == BY_DEFINITION


def _is_finite(program: Program) -> bool:
    """Whether the reference is a number; where the kit left it out, a whole attention has one."""
    value, _ = value_of(program.expected)
    if value is None:
        return is_attention(program.calls[-1]) or not _is_bad_by_definition(program)
    return math.isfinite(value)


def _wide(program: Program) -> Callable[[Arg], str]:
    """Writes a leaf as its float64 copy on the CPU, where it has one."""
    types = {leaf.name: leaf.dtype for leaf in program.leaves}
    there = "" if _device(program) == "cpu" else ".cpu()"

    def reference(arg: Arg) -> str:
        dtype = types.get(arg["ref"], "")
        wider = ".to(torch.complex128)" if dtype.startswith("complex") else ".double()"
        return f"{arg['ref']}{there}{wider if is_floating(dtype) and dtype != 'float64' else ''}"

    return reference


def _name(arg: Arg) -> str:
    return str(arg["ref"])


def _shown(program: Program, own_name: bool) -> Shown:
    call = program.calls[-1]
    expected, wide = value_of(program.expected)
    return Shown(
        what="this formula" if program.swallows else _called(call, own_name),
        mechanism=program.mechanism or "unknown",
        seen=str(program.seen),
        dtype=_dtype(program),
        expected=expected,
        wide=wide,
        limit=number(program.limit),
        attention=is_attention(call),
        sum_of=_sum_of(program),
        swallows=program.swallows,
    )


def _called(call: Call, own_name: bool) -> str:
    """The operator as the script calls it: ``a + b``, or the function without its arguments."""
    text = spell(call, renderer(_name), own_name=own_name).text
    function = re.match(r"[A-Za-z_][\w.]*(?=\()", text)
    return text if function is None else function[0]


def _sum_of(program: Program) -> str | None:
    """``55008 + 13376``, for an operator that has a sign in Python and two inputs that are one number throughout."""
    call = program.calls[-1]
    sign = INFIX.get(base_name(call.op))
    constants = {leaf.name: leaf.values.get("value") for leaf in program.leaves}
    if len(program.calls) > 1 or sign is None or len(call.args) != 2 or call.kwargs:
        return None
    values = [number(constants.get(arg["ref"]) if "ref" in arg else arg.get("const")) for arg in call.args]
    known = [plain(value, 12) for value in values if value is not None]
    return f" {sign} ".join(known) if len(known) == len(values) else None


def _dtype(program: Program) -> str:
    """The dtype of the bad value: what the last operator was given, else that of its first floating input."""
    call = program.calls[-1]
    told = [dtype for dtype in arguments_in([call.args, call.kwargs], "dtype") if is_floating(dtype)]
    own = [leaf.dtype for leaf in program.leaves if is_floating(leaf.dtype)]
    return (told or own or ["float32"])[0]
