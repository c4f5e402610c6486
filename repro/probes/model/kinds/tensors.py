"""The tensors of one file, whole and by name: safetensors, .npz, or a dict of torch.save. Nothing in it runs."""

import os
import zipfile

import torch
from torch import Tensor

from ...checkpoint import limits, pickled
from ...checkpoint.arrays import npz_arrays
from ...checkpoint.contents import Unreadable
from ...checkpoint.header import BadHeader, read_header
from ...checkpoint.resolve import first_line

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin")
MOST_TENSORS = 1_000  # inputs of one call


def read_tensors(path: str) -> dict[str, Tensor]:
    """Tensors by name.

    Raises:
        Unreadable: the file is of no such kind, or damaged, or holds anything else. The message says what to do.
    """
    kind = os.path.splitext(path)[1].lower()
    try:
        if kind == ".safetensors":
            return _safetensors(path)
        if kind == ".npz":
            return {name: torch.from_numpy(array) for name, array in npz_arrays(path).items()}
        if kind in SUFFIXES:
            return _torch(path)
    except BadHeader as error:
        raise Unreadable(str(error)) from None
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror or first_line(error)}") from None
    except (TypeError, zipfile.BadZipFile) as error:
        raise Unreadable(first_line(error)) from None
    raise Unreadable(f"its kind is not known: {' '.join(SUFFIXES)} are read")


def _safetensors(path: str) -> dict[str, Tensor]:
    from safetensors import safe_open

    limits.check(os.path.basename(path), len(read_header(path).entries), MOST_TENSORS, "tensors")
    with safe_open(path, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - not a dict


def _torch(path: str) -> dict[str, Tensor]:
    try:
        held = pickled.load(path)
    except (OSError, MemoryError, Unreadable):
        raise
    except Exception as error:  # noqa: BLE001 - of any kind: it was not loaded
        raise Unreadable(f"torch.load(weights_only=True) refuses it: {pickled.why_refused(error)}") from None
    if not isinstance(held, dict):
        raise Unreadable(f"it holds a {type(held).__name__}: save a dict of tensors by the names of the arguments")
    odd = [name for name, value in held.items() if not isinstance(value, Tensor)]
    if odd:
        kind = type(held[odd[0]]).__name__
        raise Unreadable(f"its {str(odd[0])[:80]!r} is a {kind}, and no tensor: save a dict of tensors")
    return {str(name): value for name, value in held.items()}
