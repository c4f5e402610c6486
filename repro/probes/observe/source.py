"""Which line of the model's, or the script's, own code is running an operator."""

import linecache
import os
import re
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any, Optional

import torch

_LAYERS = f"{os.sep}nn{os.sep}modules{os.sep}"
# Code that decides what a step of a training computes beside the layers: clipping, loss scaling, optimizers.
_STEPS = tuple(name.replace("/", os.sep) for name in ("/nn/utils/clip_grad.py", "/amp/grad_scaler.py", "/optim/"))
_NUMBERED = re.compile(r"<ipython-input-(\d+)")  # as older releases of IPython name a cell
AROUND = 3  # lines of code before and behind the one that runs an operator
WIDEST = 200  # characters of such a line
_TORCH = os.path.join(os.path.dirname(os.path.abspath(torch.__file__)), "")  # not torchvision, which is beside it


@dataclass(frozen=True)
class Place:
    """A line of code: its file, its number, and the top-level package; "__main__" for a script."""

    path: str
    line: int
    package: str


def short(place: Optional[Place]) -> Optional[str]:
    """ "file.py:line"; of a notebook's cell, "In [3]:line"."""
    return None if place is None else f"{_cell(place.path) or os.path.basename(place.path)}:{place.line}"


def _cell(path: str) -> Optional[str]:
    """The cell of a notebook, or the line of a session of IPython, by the number that stands beside it; None for any
    other file. IPython knows under which name it compiled which cell last.
    """
    numbered = _NUMBERED.match(path)
    if numbered:
        return f"In [{numbered[1]}]"
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    told = getattr(getattr(shell, "compile", None), "format_code_name", lambda name: None)(path)
    return None if not told else str(told[1]).replace("In[", "In [")


def excerpt(place: Optional[Place]) -> Optional[dict[str, Any]]:
    """The lines around a line of code, for those who read the answer elsewhere; None where its file cannot be read."""
    if place is None or not (os.path.isfile(place.path) or place.path in linecache.cache):  # a FIFO would not end
        return None
    lines = linecache.getlines(place.path)
    if not 0 < place.line <= len(lines):
        return None
    first = max(place.line - AROUND, 1)
    kept = [line.rstrip()[:WIDEST] for line in lines[first - 1 : place.line + AROUND]]
    return {"source": short(place), "package": place.package, "first": first, "lines": kept}


def source_line() -> Optional[str]:
    """ "file.py:line" of the innermost frame that is neither PyTorch's nor this kit's: the model's own code."""
    return short(source_place())


def source_place() -> Optional[Place]:
    """Where that frame is."""
    frame = own_frame()
    if frame is None:
        return None
    package = str(frame.f_globals.get("__name__", "")).split(".")[0]
    return Place(frame.f_code.co_filename, frame.f_lineno, package)


def source_here() -> tuple[Optional[str], Optional[str]]:
    """ "file.py:line" of that frame, and the package that it belongs to; "__main__" for a script."""
    place = source_place()
    return short(place), None if place is None else place.package


def own_frame() -> Optional[FrameType]:
    """The innermost frame that is neither PyTorch's nor this kit's; of a program that is PyTorch's own from top to
    bottom, the innermost one of its layers or of its steps of a training.
    """
    frame: Optional[FrameType] = sys._getframe(1)
    inner: Optional[FrameType] = None
    outside = False  # of the kit's frames around the operator
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OWN):
            outside = True
            if not name.startswith(_TORCH):
                return frame
            if any(part in name for part in _STEPS) or (_LAYERS in name and not name.endswith("module.py")):
                inner = inner or frame
        elif name == _WATCH and frame.f_code.co_name == "run":
            outside = False  # an operator of the program's, as a watch inside of this one runs it
        elif outside:
            return inner  # back at the kit's own call: none of the frames between is the program's
        frame = frame.f_back
    return inner


def is_inner(path: str) -> bool:
    """Whether a file is PyTorch's or this kit's: none of the program's own code."""
    return path.startswith((_TORCH, KIT))


# Read from a code object as frames are: a kit that was started by a relative path has relative names in its frames.
KIT = os.path.join(os.path.dirname(os.path.dirname(source_line.__code__.co_filename)), "")
_WATCH = os.path.join(os.path.dirname(source_line.__code__.co_filename), "watch.py")
# In the user's own process, the host's code that repeats a step stands beside the kit.
_OWN = (KIT, os.path.join(os.path.dirname(os.path.dirname(KIT)), "inprocess", ""))
