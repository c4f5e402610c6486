"""One run of a script put down: which of its lines run, which of its variables hold a NaN or Inf, what it writes.

What is recorded orders the questions that are asked later; it answers none of them.
"""

import argparse
import ast
import contextlib
import dataclasses
import os
import sys
import sysconfig
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ...script.child import LIBRARIES
from ...values.figures import is_bad
from .alike import Alike, told
from .conduct import Conduct, Seen, observed
from .confined import Access, heard
from .literals import literals

RECORD = "listing.runs.recorded:record"
COMPILER = "torch._inductor"  # it starts processes of its own when it is imported
PLAIN = (bool, int, float, str, type(None))
LOOKS = 200  # times that a variable is looked at on one line: a loop may run for ever so long


@dataclass
class Recorded:
    """What was seen.

    lines: those that ran. bad: (line, expression, "NaN", "Inf" or both) of what was bound there and is not finite, in
    the order in which it was seen first. tensors: (line, name) of each tensor that was bound and follows no gradient,
    with its shape and dtype. modules: names of what is a module. options: by name, the plain values of the attributes
    of parsed arguments and other records. access: what the script wrote, started and connected to. imported: the
    modules of large libraries that it needed. alike: arguments of a module that are of one shape. conduct: what a
    smaller one is held to. own: where the modules lie that the script imports and that no package has brought.
    packages: which of them are packages. reading: the lines that read a file and make no module of it. files: what they
    read, as a path below the script's folder or the current one, else as a name. written: of what these lines bind, and
    those in a block that begins with one of them, statements that bind the same without a file. rounds: for the first
    line of each loop, how many rounds had begun when the first value was bad, and when the last was that ever is.
    """

    lines: set[int] = field(default_factory=set)
    bad: list[tuple[int, str, str]] = field(default_factory=list)
    tensors: dict[tuple[int, str], tuple[tuple[int, ...], str]] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    access: set[Access] = field(default_factory=set)
    alike: Alike = field(default_factory=Alike)
    imported: frozenset[str] = frozenset()
    conduct: Conduct = field(default_factory=Conduct)
    own: dict[str, str] = field(default_factory=dict)
    reading: set[int] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    written: dict[tuple[int, str], tuple[str, ...]] = field(default_factory=dict)
    packages: frozenset[str] = frozenset()
    rounds: dict[int, tuple[int, ...]] = field(default_factory=dict)


def record(bound: Mapping[int, tuple[str, ...]]) -> tuple[Any, Callable[[], Recorded]]:
    """(context around the script, function that gives what was recorded). bound: the names that each line binds."""
    made = Recorded()
    return _around(made, bound), lambda: made


@contextlib.contextmanager
def _around(made: Recorded, bound: Mapping[int, tuple[str, ...]]) -> Iterator[None]:
    path = sys.modules["__main__"].__file__
    within, loops = _blocks(path)
    begun: Counter[int] = Counter()
    seen: Counter[tuple[int, str]] = Counter()
    met: set[tuple[int, str]] = set()
    last: dict[int, int] = {}  # the line that each frame ran before

    def look(frame: FrameType) -> None:
        line = last.get(id(frame), 0)
        for name in bound.get(line, ()):
            seen[line, name] += 1
            if seen[line, name] <= LOOKS:
                value = (frame.f_locals if name in frame.f_locals else frame.f_globals).get(name)
                if made.reading.intersection((line, *within.get(line, ()))) and (line, name) not in made.written:
                    made.written[line, name] = _without_files(name, value, frame.f_globals)
                _look(made, line, name, value)
                for shown, kind in _bad_in(name, value):
                    if (line, shown) not in met:
                        met.add((line, shown))
                        made.bad.append((line, shown, kind))
                        for loop, first in loops.items():
                            made.rounds[loop] = (*made.rounds.get(loop, ())[:1], begun[first])

    def inside(frame: FrameType, event: str, given: Any) -> Any:
        look(frame)
        if event == "line":
            made.lines.add(frame.f_lineno)
            begun[frame.f_lineno] += 1
            last[id(frame)] = frame.f_lineno
        else:
            last.pop(id(frame), None)
        return inside

    def outside(frame: FrameType, event: str, given: Any) -> Optional[Callable[..., Any]]:
        return inside if frame.f_code.co_filename == path else None

    _hear_of_reading(path, made)
    heard(made.access.add)
    told(made.alike.look)
    doing = Seen()
    before = set(sys.modules)
    try:
        with observed(doing):
            sys.settrace(outside)
            yield
    finally:
        sys.settrace(None)
        made.conduct = doing.conduct
        made.own = dict(_own_modules(set(sys.modules) - before))
        made.packages = frozenset(name for name in made.own if hasattr(sys.modules[name], "__path__"))
        names = {name for name in list(sys.modules) if name.split(".")[0] in LIBRARIES}
        made.imported = frozenset(name for name in names if not name.startswith(COMPILER))


def _blocks(path: Optional[str]) -> tuple[dict[int, tuple[int, ...]], dict[int, int]]:
    """Of a script: for each line in a ``with`` statement, the lines in which such statements around it begin; for the
    line of each loop, that of the first statement in it.
    """
    within: dict[int, tuple[int, ...]] = {}
    loops: dict[int, int] = {}
    with contextlib.suppress(OSError, SyntaxError, ValueError), open(str(path), "rb") as opened:
        for node in ast.walk(ast.parse(opened.read())):
            if isinstance(node, (ast.With, ast.AsyncWith)):
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                    within[line] = (*within.get(line, ()), node.lineno)
            elif isinstance(node, ast.For) and node.body[0].lineno > node.lineno:
                loops[node.lineno] = node.body[0].lineno
    return within, loops


def _without_files(name: str, value: Any, names: Mapping[str, Any]) -> tuple[str, ...]:
    """Statements that bind a name to what was read, without the file."""
    return tuple(f"{name} = {text}" for text in literals(value, names))


def _look(made: Recorded, line: int, name: str, value: Any) -> None:
    """At what a line binds to a name."""
    if isinstance(value, torch.nn.Module):
        made.modules.add(name)
        made.reading.discard(line)
    elif isinstance(value, Tensor) and not value.requires_grad:
        made.tensors.setdefault((line, name), (tuple(value.shape), str(value.dtype)))
    elif isinstance(value, (argparse.Namespace, types.SimpleNamespace)) or _is_record(value):
        plain = {key: item for key, item in vars(value).items() if isinstance(item, PLAIN)}
        made.options.setdefault(name, plain)


def _hear_of_reading(script: Optional[str], made: Recorded) -> None:
    """The lines of the script that open a file of data, whichever code opens it for them."""
    folders = tuple(os.path.join(path, "") for path in {sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev"})
    own = [os.path.join(path, "") for path in (os.path.dirname(os.path.abspath(script or "")), os.getcwd())]

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(given[0], (str, bytes)) or (given[1] or "r").strip("bt") not in ("r", ""):
            return
        path = os.path.abspath(os.fsdecode(given[0]))
        if path.startswith(folders) or path.endswith((".py", ".pyc", ".so")) or "site-packages" in path:
            return
        frame: Optional[FrameType] = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename != script:
            frame = frame.f_back
        if frame is not None:
            made.reading.add(frame.f_lineno)
            base = next((base for base in own if path.startswith(base)), os.path.join(os.path.dirname(path), ""))
            made.files.append(path[len(base) :].replace(os.sep, "/"))

    sys.addaudithook(hook)


def _own_modules(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those of these modules that are Python files outside of the interpreter's folders and of this kit."""
    kit = __name__.partition(".")[0]
    folders = [os.path.realpath(path) for path in {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix}]
    for name in sorted(names):
        path = getattr(sys.modules.get(name), "__file__", None)
        if not isinstance(path, str) or not path.endswith(".py") or name.partition(".")[0] == kit:
            continue
        path = os.path.realpath(path)
        if not any(path.startswith(os.path.join(folder, "")) for folder in folders) and "site-packages" not in path:
            yield name, path


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, (type, dict)) and hasattr(value, "__dict__")


def _bad_in(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Expressions that give a bad tensor, and what it holds: the name itself, or an attribute of a model's output."""
    held = {name: value} if isinstance(value, Tensor) else {}
    if isinstance(value, dict) and hasattr(value, "to_tuple"):
        held = {f"{name}.{key}": item for key, item in value.items() if isinstance(item, Tensor)}
    for shown, tensor in held.items():
        kind = _kind(tensor)
        if kind is not None:
            yield shown, kind


def _kind(tensor: Tensor) -> Optional[str]:
    """What it holds that is not finite; None where there is nothing."""
    try:
        plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout == torch.strided and not tensor.is_nested
        if not (plain and tensor.is_floating_point() and tensor.numel() > 0 and is_bad(tensor.detach())):
            return None
        found = [("NaN", tensor.isnan()), ("Inf", tensor.isinf())]
        return " or ".join(name for name, there in found if bool(there.any()))
    except Exception:  # noqa: BLE001 - a tensor without numbers (meta, of a transform) is not bad
        return None
