"""NaN and Inf in a file of tensors. Files are untrusted: nothing in them runs, and they are read in pieces."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..values.figures import dtype_name, is_float, unravel
from . import pickled
from .arrays import read_npy, read_npz
from .contents import Contents, Unreadable
from .header import BadHeader, read_header
from .resolve import first_line
from .weights import DTYPES, scan_file, scan_tensor

MOST_READ = 64  # times the size of the file: tensors may share a storage, and a hostile file has a million views of one
MOST_SAID = 400  # characters of one reason: a library may quote what it found
FLOATS = {**DTYPES, "F8_E8M0": getattr(torch, "float8_e8m0fnu", None)}
WHOLE = frozenset({"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"})
PLAIN = (int, str, bytes, type(None), torch.dtype, torch.device)  # what a file may hold beside tensors and floats


def look(path: str) -> Contents:
    """What a file holds. Whatever is wrong with it becomes part of the answer."""
    found = Contents()
    kind = os.path.splitext(path)[1].lower()
    try:
        if kind not in READERS:
            raise Unreadable("its kind is not known: {} are read".format(" ".join(READERS)))
        READERS[kind](path, found)
    except (Unreadable, BadHeader) as error:
        found.unread.append(str(error))
    except OSError as error:
        found.unread.append(f"it cannot be read: {error.strerror or error}")
    except MemoryError:
        found.unread.append("there is not enough memory to read it")
    except Exception as error:  # noqa: BLE001 - what a damaged file makes torch raise is no fixed set
        found.unread.append(first_line(error))
    found.unread = [why if len(why) <= MOST_SAID else f"{why[:MOST_SAID]}..." for why in found.unread]
    return found


def _safetensors(path: str, found: Contents) -> None:
    entries = {}
    for entry in read_header(path).entries:
        if FLOATS.get(entry.dtype) is not None:
            entries[entry.name] = entry
        elif entry.dtype in WHOLE:
            found.numbers += entry.numel
        else:
            found.unread.append(f"{entry.name!r}: torch {torch.__version__} does not know its type {entry.dtype}")
    for tally in scan_file(path, list(entries.values()), FLOATS):
        shape = entries[tally.name].shape
        dtype = "complex64" if entries[tally.name].dtype == "C64" else dtype_name(tally.dtype)
        first = None if tally.first_bad is None else unravel(tally.first_bad, tally.shape)[: len(shape)]
        found.add(tally.name, dtype, shape, tally.seen, (tally.nan, tally.posinf, tally.neginf), first)


def _torch(path: str, found: Contents) -> None:
    try:
        held = pickled.load(path)
    except (OSError, MemoryError, Unreadable):
        raise
    except Exception as error:  # noqa: BLE001 - of any kind: it was not loaded
        why = pickled.why_refused(error)
        remedy = ". Save its tensors alone, in a dict" if why.endswith("no plain tensor") else ""
        raise Unreadable(f"torch.load(weights_only=True) refuses it: {why}{remedy}") from None
    sizes, left = pickled.sizes_of_records(path), MOST_READ * os.path.getsize(path)
    odd: Counter[str] = Counter()
    for place, item in _walk(held):
        if isinstance(item, Tensor):
            place = place or "tensor"
            try:
                tensor = _stored(item, sizes)
                left -= tensor.numel() * tensor.element_size()
                if left < 0:
                    found.unread.append("its tensors lie over each other many times: the rest was not read")
                    return
                strided = item.layout == torch.strided
                _count(place if strided else f"{place}.values()", (item if strided else tensor).shape, tensor, found)
            except (Unreadable, RuntimeError, TypeError, ValueError) as error:
                found.unread.append(f"{place!r}: {first_line(error)}")
        elif isinstance(item, float):
            bad = (math.isnan(item), item == math.inf, item == -math.inf)
            found.add(place or "number", None, None, 1, tuple(map(int, bad)), None)
        elif not isinstance(item, PLAIN):
            odd[f"{type(item).__module__}.{type(item).__qualname__}"] += 1
    found.unread += [f"{count} object(s) of {name} are not looked into" for name, count in odd.items()]


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Everything that is no container, with the keys that lead to it, in order. A container is entered once: links make
    a graph, maybe a circle.
    """
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        place, item = stack.pop()
        if not isinstance(item, (dict, list, tuple, set)):
            yield place, item
        elif id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, dict):
                names = (key if isinstance(key, str) else repr(key)[:80] for key in item)
                inside = [(f"{place}.{name}" if place else name, value) for name, value in zip(names, item.values())]
            else:
                inside = [(f"{place}[{index}]", value) for index, value in enumerate(item)]
            stack.extend(reversed(inside))


def _stored(tensor: Tensor, sizes: Optional[set[int]]) -> Tensor:
    """The numbers of a tensor that stand in the file, each once. ``sizes``: of the file's storages, where known.

    Raises:
        Unreadable: they are not whole in the file.
    """
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor._values() if tensor.is_sparse else tensor.values()
    if tensor.device.type != "cpu":
        raise Unreadable(f"it was saved without its numbers, on the {tensor.device.type} device")
    if sizes is not None and tensor.numel() and tensor.untyped_storage().nbytes() not in sizes:
        raise Unreadable("its bytes are not whole in the file: it was cut, or damaged")
    for dim, step in enumerate(tensor.stride()):
        if step == 0 and tensor.shape[dim] > 1:  # the same numbers again and again
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def _count(place: str, shape: Sequence[int], stored: Tensor, found: Contents) -> None:
    if not is_float(stored):
        found.numbers += stored.numel()
        return
    dtype, dims = dtype_name(stored.dtype), stored.dim()
    if stored.is_complex():
        stored = torch.view_as_real(stored.resolve_conj())
    tally = scan_tensor(place, "", stored.resolve_neg())
    first = None if tally.first_bad is None else unravel(tally.first_bad, tuple(stored.shape))[:dims]
    found.add(place, dtype, shape, tally.seen, (tally.nan, tally.posinf, tally.neginf), first)


READERS: dict[str, Callable[[str, Contents], None]] = {
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".bin": _torch,
    ".npy": read_npy,
    ".npz": read_npz,
}
