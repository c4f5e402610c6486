"""Which line of the model's, or the script's, own code is running an operator."""

import os
import sys
from types import FrameType
from typing import Optional

import torch

_TORCH = os.path.join(os.path.dirname(os.path.abspath(torch.__file__)), "")  # not torchvision, which is beside it


def source_line() -> Optional[str]:
    """ "file.py:line" of the innermost frame that is neither PyTorch's nor this kit's: the model's own code."""
    return source_here()[0]


def source_package() -> Optional[str]:
    """The top-level package that this frame's code belongs to; "__main__" for a script."""
    return source_here()[1]


def source_here() -> tuple[Optional[str], Optional[str]]:
    """Line and package of that frame."""
    frame = own_frame()
    if frame is None:
        return None, None
    package = str(frame.f_globals.get("__name__", "")).split(".")[0]
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}", package


def own_frame() -> Optional[FrameType]:
    """The innermost frame that is neither PyTorch's nor this kit's; of a model that is PyTorch's own from top to
    bottom, the innermost one of its layers.
    """
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
