"""Which line of the model's, or the script's, own code is running an operator."""

import os
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Optional

import torch

_TORCH = os.path.join(os.path.dirname(os.path.abspath(torch.__file__)), "")  # not torchvision, which is beside it


@dataclass(frozen=True)
class Place:
    """A line of code: its file, its number, and the top-level package; "__main__" for a script."""

    path: str
    line: int
    package: str


def short(place: Optional[Place]) -> Optional[str]:
    """ "file.py:line"."""
    return None if place is None else f"{os.path.basename(place.path)}:{place.line}"


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
    """The innermost frame that is neither PyTorch's nor this kit's; of a model that is PyTorch's own from top to
    bottom, the innermost one of its layers.
    """
    frame: Optional[FrameType] = sys._getframe(1)
    inner: Optional[FrameType] = None
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OWN):
            if not name.startswith(_TORCH):
                return frame
            if f"{os.sep}nn{os.sep}modules{os.sep}" in name and not name.endswith("module.py"):
                inner = inner or frame
        elif inner is not None:
            return inner  # back at the kit's own call: the model is PyTorch's own from top to bottom
        frame = frame.f_back
    return inner


def is_inner(path: str) -> bool:
    """Whether a file is PyTorch's or this kit's: none of the program's own code."""
    return path.startswith((_TORCH, _KIT))


# Read from a code object as frames are: a kit that was started by a relative path has relative names in its frames.
_KIT = os.path.join(os.path.dirname(os.path.dirname(source_line.__code__.co_filename)), "")
# In the user's own process, the host's code that repeats a step stands beside the kit.
_OWN = (_KIT, os.path.join(os.path.dirname(os.path.dirname(_KIT)), "inprocess", ""))
