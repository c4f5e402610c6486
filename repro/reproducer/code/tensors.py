"""Tensors of a reduced case as lines of Python that make them again, value for value."""

import base64
import json
import math
import struct
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from repro.core.payloads import Leaf

WIDTH = 120
"""Columns of a script, as in PyTorch's own code."""

Rule = Mapping[str, Any]
"""How a tensor's values are written down: a kind, and what that kind needs."""
FLOATING = ("float", "bfloat", "complex")
COMPLEX = {"torch.complex64": "f", "torch.complex128": "d"}
"""The parts of a complex number, as the module struct names them."""
FEW = 8
"""How many complex numbers are written down."""


def literal(value: object) -> str:
    """A JSON value as Python, in ASCII whatever it holds; "nan", "inf" and "-inf" are numbers."""
    if value in ("nan", "inf", "-inf"):
        return f'float("{value}")'
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quoted(str(key))}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def quoted(text: str) -> str:
    """A string in double quotes where it has none of them."""
    shown = ascii(text)
    return f'"{shown[1:-1]}"' if shown.startswith("'") and '"' not in shown else shown


def inside(text: str) -> str:
    """A text as it stands inside of an f-string in double quotes, in ASCII whatever it holds."""
    return json.dumps(text)[1:-1].replace("{", "{{").replace("}", "}}")


def sizes(numbers: Sequence[int]) -> str:
    """``(1, 4)``, ``(4,)``, ``()``: a shape or an index."""
    return repr(tuple(int(number) for number in numbers))


def call_lines(head: str, arguments: Sequence[str]) -> list[str]:
    """A call on one line if it fits, else with its arguments wrapped below."""
    inner = ", ".join(arguments)
    if len(head) + len(inner) < WIDTH:
        return [f"{head}{inner})"]
    indent = " " * (len(head) - len(head.lstrip()))
    lines: list[str] = []
    for argument in arguments:
        if lines and len(lines[-1]) + len(argument) + 2 <= WIDTH:
            lines[-1] += f" {argument},"
        else:
            lines.append(f"{indent}    {argument},")
    return [head, *lines, f"{indent})"]


def is_floating(dtype: str) -> bool:
    """Whether a dtype has a wider one to be compared with."""
    return dtype.startswith(FLOATING)


def tensor_lines(leaves: Sequence[Leaf], device: str = "cpu") -> list[str]:
    """The assignments that make all leaves. Equal ones are made once: ``query = key = torch.ones(...)``."""
    groups: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(repr([leaf.dtype, leaf.shape, leaf.values, leaf.layout]), []).append(leaf)
    lines: list[str] = []
    for same in groups.values():
        names = [leaf.name for leaf in same]
        made, more = expression(same[0])
        made += "" if device == "cpu" else f".to({quoted(device)})"
        lines += _wrapped(" = ".join([*names, made]))
        lines += [f"{names[0]}{line}" for line in more]
        if same[0].layout:
            laid = _laid_out(same[0], same[0].layout, device)
            lines += [*laid[:-1], " = ".join([*names, laid[-1]])]
    return lines


def expression(leaf: Leaf) -> tuple[str, list[str]]:
    """A leaf as an expression, and the assignments to single elements that follow it, as in ``[0, 1] = 5.0``."""
    return KINDS[leaf.values["kind"]](leaf.values, leaf.shape, f"torch.{leaf.dtype}")


def _full(shape: Sequence[int], value: Any, dtype: str) -> str:
    if value in (0, 1) and (not isinstance(value, bool) or dtype == "torch.bool") and repr(value) != "-0.0":
        return f"torch.{'ones' if value else 'zeros'}({sizes(shape)}, dtype={dtype})"
    return f"torch.full({sizes(shape)}, {literal(value)}, dtype={dtype})"


def _constant(rule: Rule, shape: Sequence[int], dtype: str) -> tuple[str, list[str]]:
    return _full(shape, rule["value"], dtype), []


def _linspace(rule: Rule, shape: Sequence[int], dtype: str) -> tuple[str, list[str]]:
    count = math.prod(shape)
    reshaped = "" if len(shape) == 1 else f".reshape{_call(shape)}"
    return f"torch.linspace({literal(rule['start'])}, {literal(rule['end'])}, {count}){reshaped}.to({dtype})", []


def _normal(rule: Rule, shape: Sequence[int], dtype: str) -> tuple[str, list[str]]:
    drawn = f"torch.randn({sizes(shape)}, generator=torch.Generator().manual_seed({int(rule['seed'])}))"
    mean = f"{literal(rule['mean'])} + " if rule["mean"] else ""
    return f"({mean}{literal(rule['std'])} * {drawn}).to({dtype})", []


def _elements(rule: Rule, shape: Sequence[int], dtype: str) -> tuple[str, list[str]]:
    places = [
        f"[{', '.join(map(str, index)) if index else '()'}] = {literal(value)}" for index, value in rule["elements"]
    ]
    return _full(shape, rule["base"], dtype), places


def _steps(rule: Rule, shape: Sequence[int], dtype: str) -> tuple[str, list[str]]:
    count, start, step = math.prod(shape), rule["start"], rule["step"]
    reshaped = "" if len(shape) == 1 else f".reshape{_call(shape)}"
    if isinstance(start, int) and isinstance(step, int):
        ends = f"{count}" if (start, step) == (0, 1) else f"{start}, {start + step * count}, {step}"
        return f"torch.arange({ends}, dtype={dtype}){reshaped}", []
    first = "" if start == 0 else f"{literal(start)} + "
    return f"({first}{literal(step)} * torch.arange({count}, dtype=torch.float64)){reshaped}.to({dtype})", []


def _span(rule: Rule, shape: Sequence[int], dtype: str) -> tuple[str, list[str]]:
    dim, begin, end = rule["dim"], rule["begin"], rule["end"]
    span = f"{begin or ''}:{'' if end == shape[dim] else end}"
    before = "..., " if dim == len(shape) - 1 and dim else ":, " * dim
    return _full(shape, rule["outside"], dtype), [f"[{before}{span}] = {literal(rule['inside'])}"]


def _band(rule: Rule, shape: Sequence[int], dtype: str) -> tuple[str, list[str]]:
    cuts = "" if rule["upper"] is None else f".tril({rule['upper'] or ''})"
    cuts += "" if rule["lower"] is None else f".triu({rule['lower'] or ''})"
    inside, outside = rule["inside"], rule["outside"]
    if outside is False or outside == 0:  # what tril and triu leave elsewhere
        return f"{_full(shape, inside, dtype)}{cuts}", []
    where = f"torch.ones({sizes(shape)}, dtype=torch.bool){cuts}"
    if dtype == "torch.bool":
        return f"~{where}", []
    return f"{_full(shape, outside, dtype)}.masked_fill({where}, {literal(inside)})", []


def _list(rule: Rule, shape: Sequence[int], dtype: str) -> tuple[str, list[str]]:
    reshaped = "" if len(shape) == 1 else f".reshape{_call(shape)}"
    return f"torch.tensor({literal(rule['values'])}, dtype={dtype}){reshaped}", []


def _bytes(rule: Rule, shape: Sequence[int], dtype: str) -> tuple[str, list[str]]:
    values = _numbers(rule["base64"], dtype)
    if values is not None:
        return _list({"values": values}, shape, dtype)
    packed = f"bytearray(base64.b64decode({quoted(rule['base64'])}))"
    return f"torch.frombuffer({packed}, dtype={dtype}).reshape{_call(shape)}", []


def _numbers(packed: str, dtype: str) -> list[complex] | None:
    """A few complex numbers as they are written; None for more of them, and for other dtypes, which are written so
    already where they are few.
    """
    form = COMPLEX.get(dtype)
    content = base64.b64decode(packed)
    if form is None or len(content) > FEW * 2 * struct.calcsize(form):
        return None
    parts = struct.unpack(f"<{len(content) // struct.calcsize(form)}{form}", content)
    if not all(map(math.isfinite, parts)) or any(part == 0 and math.copysign(1, part) < 0 for part in parts):
        return None  # Python writes -0 in a complex number so that it is read as 0
    return [complex(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]


KINDS: Mapping[str, Callable[[Rule, Sequence[int], str], tuple[str, list[str]]]] = {
    "constant": _constant,
    "linspace": _linspace,
    "normal": _normal,
    "elements": _elements,
    "steps": _steps,
    "span": _span,
    "band": _band,
    "list": _list,
    "bytes": _bytes,
}
"""How each kind of rule is written."""


def _call(shape: Sequence[int]) -> str:
    """The arguments of ``reshape``: ``(1, 4)``, and ``(())`` for an empty shape."""
    return f"({', '.join(map(str, shape))})" if shape else "(())"


def _laid_out(leaf: Leaf, layout: Rule, device: str) -> list[str]:
    """The same values with the original's strides, and at its distance from an aligned address."""
    name, shape, stride = leaf.name, list(leaf.shape), list(layout["stride"])
    off = int(layout.get("misaligned_bytes") or 0)
    last = sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) + 1
    dtype = f"torch.{leaf.dtype}"
    if not off or device != "cpu":
        memory = f"torch.empty({last}, dtype={dtype}{'' if device == 'cpu' else f', device={quoted(device)}'})"
    else:
        width = f"torch.empty(0, dtype={dtype}).element_size()"
        memory = f"torch.frombuffer(bytearray({last} * {width} + {off}), dtype={dtype}, offset={off})"
    own = [1 if step == 0 else size for size, step in zip(shape, stride, strict=True)]
    if own == shape:
        return [f"memory = {memory}", f"memory.as_strided({sizes(shape)}, {sizes(stride)}).copy_({name})"]
    # Elements that share memory cannot be written one by one: one is written, and expanded.
    first = ", ".join(":1" if step == 0 else ":" for step in stride)
    written = f"memory.as_strided({sizes(own)}, {sizes(stride)}).copy_({name}[{first}])"
    return [f"memory = {memory}", f"{written}.expand({sizes(shape)})"]


def _wrapped(line: str) -> list[str]:
    """An assignment whose long list or string is wrapped over several lines."""
    if len(line) <= WIDTH:
        return [line]
    if "b64decode" in line:
        head, _, tail = line.partition('b64decode("')
        packed, _, rest = tail.partition('"')
        parts = [f'    "{packed[at : at + WIDTH - 6]}"' for at in range(0, len(packed), WIDTH - 6)]
        return [f"{head}b64decode(", *parts, rest]
    head, bracket, tail = line.partition("[")
    inner, _, rest = tail.partition("]")
    if not bracket:
        return [line]
    return [f"{head}[", *textwrap.wrap(inner, WIDTH, initial_indent="    ", subsequent_indent="    "), f"]{rest}"]
