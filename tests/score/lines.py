"""The oracle for scripts: which line turns sound numbers into a bad one first, by a plain dispatch mode.

A script and its twin are run; what happens in both is harmless. In a backward pass the line is that of the forward
pass, as autograd's own anomaly mode remembers it. Nothing here uses the code under test.
"""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from corpus.plain import finite, tensors
from torch.utils._python_dispatch import TorchDispatchMode

from .records import Place, Truth

VIEWS = ("aten.t.", "aten.view.", "aten.detach.", "aten.transpose.", "aten.unsqueeze.", "aten.slice.", "aten.alias.",
         "aten.lift_fresh.")  # fmt: skip
UNSET = ("aten.empty", "aten.new_empty")
"""What hands out memory that nobody wrote; whether it holds a bad number is chance."""


@dataclass(frozen=True)
class Made:
    """An operator that made something bad: its name, its line, which of its outputs, and autograd's node behind it."""

    op: str
    line: int | None
    node: str | None = None
    outputs: tuple[int, ...] = ()


@dataclass
class Seen:
    """A run: its status (None: an exception), what made bad numbers of sound ones, and what read a bad one first."""

    status: int | None = None
    made: list[Made] = field(default_factory=list)
    read: Made | None = None


class Lines(TorchDispatchMode):
    """Keeps what makes bad numbers. A mask of -inf is a sound input."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.seen = Seen()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = list(tensors((args, kwargs or {})))
        if torch._C._current_autograd_node() is not None:
            inputs = inputs[:1]  # the gradient; what the forward pass kept may be infinite
        clean = str(func).startswith(UNSET) or not any(bool(t.isnan().any() or t.isposinf().any()) for t in inputs)
        output = func(*args, **(kwargs or {}))
        bad = tuple(i for i, one in enumerate(output if isinstance(output, tuple) else (output,)) if not finite(one))
        if bad and clean:
            self.seen.made.append(self.here(str(func), bad))
        in_place = str(func).split(".")[1].endswith("_")  # an initialiser may meet anything in memory
        if not clean and self.seen.read is None and not in_place and not str(func).startswith((*VIEWS, *UNSET)):
            self.seen.read = self.here(str(func))
        return output

    def here(self, op: str, outputs: tuple[int, ...] = ()) -> Made:
        """Where the operator runs."""
        node = torch._C._current_autograd_node()
        if node is not None:
            found = re.findall(
                rf'File "{re.escape(self.path)}", line (\d+)', "".join(node.metadata.get("traceback_", ()))
            )
            return Made(op, int(found[-1]) if found else None, node.name(), outputs)
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename == self.path:
                return Made(op, frame.f_lineno, None, outputs)
            frame = frame.f_back
        return Made(op, None, None, outputs)


def watched(text: str, backward: bool) -> Seen:
    """One run of a script."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder, "script.py"))
        Path(path).write_text(text, encoding="utf-8")
        mode = Lines(path)
        try:
            with mode, torch.autograd.set_detect_anomaly(backward, check_nan=False):
                exec(compile(text, path, "exec"), {"__name__": "__main__", "__file__": path})
            mode.seen.status = 0
        except SystemExit as ended:
            mode.seen.status = ended.code if isinstance(ended.code, int) else 0
        except RuntimeError:
            mode.seen.status = None
        finally:
            torch.use_deterministic_algorithms(False)
    return mode.seen


def checked(text: str, sound: str, truth: Truth) -> str | None:
    """What plain torch has against the table's word; None where it agrees."""
    if "compiler" in truth.mechanisms or "torch.compile" in text:
        return _ends(text, sound)
    place = truth.places[0]
    backward = place.forward
    seen, twin = watched(text, backward), watched(sound, backward)
    if seen.status not in (1, None) or twin.status != 0:
        return f"the script ends with {seen.status}, its twin with {twin.status}"
    if "unset_memory" in truth.mechanisms:
        handed = any(one.op.startswith(place.ops) and place.line in (None, one.line) for one in seen.made)
        return None if handed else f"no {place.ops} at {place.line}"
    made = [one for one in seen.made if one not in twin.made and not one.op.startswith((*VIEWS, *UNSET))]
    if backward:
        return _behind([one for one in made if one.node is not None], place)
    first = seen.read if truth.mechanisms == ("bad_input",) else next(iter(made), None)
    if first is None or not first.op.startswith(place.ops) or place.line not in (None, first.line):
        return f"{first} is the first, and the table says {place}"
    return None


def _behind(made: list[Made], place: Place) -> str | None:
    """Whether the first operator of the backward pass belongs to the place's forward operator and line."""
    if not made:
        return "the backward pass makes no bad number"
    named = str(made[0].node).lower().startswith(place.ops[0].removeprefix("aten."))
    return None if named and made[0].line == place.line else f"{made[0]} is the first, and the table says {place}"


def _ends(text: str, sound: str) -> str | None:
    """Only how the two end: compiled code is not seen by a dispatch mode."""
    ends = []
    for script in (text, sound):
        try:
            exec(compile(script, "script.py", "exec"), {"__name__": "__main__", "__file__": "script.py"})
            ends.append(0)
        except SystemExit as ended:
            ends.append(ended.code)
    return None if ends == [1, 0] else f"the script and its twin end with {ends}"
