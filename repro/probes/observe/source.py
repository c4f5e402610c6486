"""Which line of the model's, or the script's, own code is running an operator."""

import os
import sys
from types import FrameType
from typing import Optional

import torch

_TORCH = os.path.join(os.path.dirname(os.path.abspath(torch.__file__)), "")  # not torchvision, which is beside it


def source_line() -> Optional[str]:
    """ "file.py:line" of the innermost frame that is neither PyTorch's nor this kit's: the model's own code."""
    place = source_place()
    return None if place is None else in_short(place)


def source_place() -> Optional[tuple[str, int]]:
    """The file and the line of that frame."""
    frame = _own_frame()
    return None if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def in_short(place: tuple[str, int]) -> str:
    """ "file.py:line"."""
    return f"{os.path.basename(place[0])}:{place[1]}"


def source_package() -> Optional[str]:
    """The top-level package that this frame's code belongs to; "__main__" for a script."""
    frame = _own_frame()
    return None if frame is None else str(frame.f_globals.get("__name__", "")).split(".")[0]


def _own_frame() -> Optional[FrameType]:
    frame: Optional[FrameType] = sys._getframe(1)
    inner: Optional[FrameType] = None
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_KIT):
            if not name.startswith(_TORCH):
                return frame
            if f"{os.sep}nn{os.sep}modules{os.sep}" in name and not name.endswith("module.py"):
                inner = inner or frame
        elif inner is not None:
            return inner  # back at the kit's own call: the model is PyTorch's own from top to bottom
        frame = frame.f_back
    return inner


# Read from a code object as frames are: a kit that was started by a relative path has relative names in its frames.
_KIT = os.path.join(os.path.dirname(os.path.dirname(source_line.__code__.co_filename)), "")
