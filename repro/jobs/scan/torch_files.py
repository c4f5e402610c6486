"""PyTorch's .pt, .pth and .bin files, read without PyTorch and without executing their pickle.

The pickle says which tensor lies where in which storage; the storages are plain bytes. Sources: torch/serialization.py
(``_save`` for the zip form, ``_legacy_save`` for the one before torch 1.6) and torch/_utils.py (``_rebuild_*``).
"""

import io
import math
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from repro.jobs.scan.findings import Tally, Unreadable, of_number
from repro.jobs.scan.floats import steps_of
from repro.jobs.scan.numpy_pickles import array_in, raw_bytes
from repro.jobs.scan.pickles import Call, NotPlain, Persistent, Symbol, Table, load
from repro.jobs.scan.tensors import look, size_of

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""``MAGIC_NUMBER`` of torch/serialization.py."""
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64", "BoolStorage": "bool",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8",
}  # fmt: skip
LONGEST_PICKLE = 512 * 1024 * 1024
MOST_READ = 64
"""Times the size of the file: tensors may share a storage, and a hostile file has a million views of one."""
TENSORS = frozenset(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3"))
PARAMETER = "torch._utils._rebuild_parameter"
HOW = "save it again with torch.save(torch.load(FILE, weights_only=True), FILE)"


@dataclass(frozen=True, slots=True)
class Storage:
    """Where in the file a storage's bytes lie."""

    begin: int
    bytes: int
    big_endian: bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the pickle describes it; ``offset`` and ``stride`` are in elements."""

    name: str
    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch(path: Path, tally: Tally) -> None:
    """Every tensor, and every float beside them, by its keys.

    Raises:
        Unreadable: it is no file of torch.save, or one that cannot be read safely.
    """
    with path.open("rb") as file:
        try:
            if zipfile.is_zipfile(file):
                root, storages = _zip(file)
            else:
                file.seek(0)
                root, storages = _legacy(file)
        except NotPlain as error:
            raise Unreadable(f"its pickle is not one of plain tensors ({error}), and is not executed") from None
        except (zipfile.BadZipFile, ValueError, IndexError, RuntimeError, EOFError, struct.error) as error:
            raise Unreadable(f"it is no whole file of torch.save ({error})") from None
        left = MOST_READ * path.stat().st_size
        for tensor in _contents(root, tally):
            left -= size_of(tensor.dtype, math.prod(tensor.shape)) or 0
            if left < 0:
                raise Unreadable("its tensors lie over each other many times: the rest was not read")
            _tensor(file, tensor, storages, tally)


def _zip(file: IO[bytes]) -> tuple[Any, dict[str, Storage]]:
    """The pickle and the storages of the zip form, in which nothing is packed."""
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        main = next((name for name in infos if name.count("/") == 1 and name.endswith("/data.pkl")), None)
        if main is None:
            raise Unreadable("it is a zip archive without data.pkl, and no file of torch.save")
        if infos[main].file_size > LONGEST_PICKLE:
            raise Unreadable(f"its pickle has {infos[main].file_size:,} bytes, and {LONGEST_PICKLE:,} are the most")
        root = load(io.BytesIO(archive.read(main)))
        prefix = main.removesuffix("data.pkl")
        order = f"{prefix}byteorder"
        big_endian = order in infos and infos[order].file_size < 8 and archive.read(order) == b"big"
    storages = {}
    for name, info in infos.items():
        if name.startswith(f"{prefix}data/") and info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            file.seek(info.header_offset + 26)  # the lengths of name and extra field, in the local header
            names, extra = struct.unpack("<HH", file.read(4))
            begin = info.header_offset + 30 + names + extra
            storages[name.removeprefix(f"{prefix}data/")] = Storage(begin, info.file_size, big_endian)
    return root, storages


def _legacy(file: IO[bytes]) -> tuple[Any, dict[str, Storage]]:
    """The pickles and storages of the form before torch 1.6: all in one stream."""
    if load(file) != LEGACY_MAGIC:
        raise Unreadable("it is a pickle, but none of torch.save, and pickles are not executed")
    load(file)  # the version of the form
    system = load(file)
    root, keys = load(file), load(file)
    said = dict(system.pairs) if isinstance(system, Table) else {}
    if not isinstance(keys, list):
        raise NotPlain("no list of storages")
    sizes = {str(item.id[2]): STORAGES.get(str(item.id[1]).rpartition(".")[2]) for item in _persistent(root)}
    storages = {}
    for key in map(str, keys):
        count = int.from_bytes(file.read(8), "little")
        size = size_of(sizes.get(key) or "", count)
        if size is None:
            raise Unreadable(f"the type of its storage {key!r} is not known: {HOW}")
        storages[key] = Storage(file.tell(), size, said.get("little_endian") is False)
        file.seek(size, 1)
    return root, storages


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Everything in the pickle with the keys that lead to it, in order. Links make it a graph, maybe a circle: what
    holds other things is entered once. A tensor is given wherever it stands.
    """
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        place, item = stack.pop()
        if isinstance(item, Call) and str(item.function).startswith(PARAMETER) and item.args:
            item = item.args[0]
        yield place, item
        if isinstance(item, (list, tuple, Table, Call)) and not _is_tensor(item) and id(item) not in seen:
            seen.add(id(item))
            stack.extend(reversed(_inside(place, item)))


def _inside(place: str, item: Any) -> list[tuple[str, Any]]:
    if isinstance(item, Table):
        return [(_joined(place, key), value) for key, value in item.pairs]
    if isinstance(item, Call):
        return [(place, item.args), (place, item.state), (place, item.table), *_inside(place, item.items)]
    return [(f"{place}[{index}]", value) for index, value in enumerate(item)]


def _joined(place: str, key: Any) -> str:
    word = key if isinstance(key, str) else repr(key)[:80]
    return f"{place}.{word}" if place else word


def _is_tensor(item: Any) -> bool:
    return (
        isinstance(item, Call)
        and str(item.function) in TENSORS
        and isinstance(item.args, tuple)
        and len(item.args) >= 4
    )


def _persistent(root: Any) -> Iterator[Persistent]:
    for _, item in _walk(root):
        found = item.args[0] if _is_tensor(item) else item
        if isinstance(found, Persistent) and isinstance(found.id, tuple) and len(found.id) >= 5:
            yield found


def _contents(root: Any, tally: Tally) -> Iterator[Tensor]:
    """The tensors; floats go to the tally at once, and so does what cannot be looked into."""
    odd: dict[str, int] = {}
    for place, item in _walk(root):
        if _is_tensor(item):
            try:
                yield _described(place or "tensor", item)
            except (NotPlain, TypeError, ValueError, IndexError) as error:
                tally.unread.append(f"{place!r}: {error}")
        elif isinstance(item, float):
            tally.numbers(place or "number", 1)
            if (found := of_number(item)) is not None:
                tally.hit(place or "number", place or "number", found)
        elif isinstance(item, Call) and (array := array_in(item)) is not None:
            steps = steps_of(array.shape, fortran=array.fortran)
            read = io.BytesIO(array.raw).read
            look(tally, place or "array", array.dtype, array.shape, read, big_endian=array.big_endian, steps=steps)
        elif isinstance(item, Call) and any(raw_bytes(value) for value in _given(item)):
            odd[str(item.function)] = odd.get(str(item.function), 0) + 1
    tally.unread += [f"{count} object(s) of {name} hold raw bytes, which may be numbers" for name, count in odd.items()]


def _given(call: Call) -> list[Any]:
    """What a call is given, and what its result is given afterwards."""
    return [value for part in (call.args, call.state) for value in (part if isinstance(part, tuple) else (part,))]


def _described(name: str, call: Call) -> Tensor:
    storage, offset, shape, stride = call.args[:4]
    if not isinstance(storage, Persistent) or not isinstance(storage.id, tuple) or storage.id[0] != "storage":
        raise NotPlain("its storage is not in the file")
    kind = storage.id[1].name if isinstance(storage.id[1], Symbol) else str(storage.id[1])
    dtype = STORAGES.get(kind)
    if dtype is None and str(call.function).endswith("_v3"):
        dtype = call.args[6].name if isinstance(call.args[6], Symbol) else None
    if size_of(dtype or "", 1) is None:
        raise NotPlain(f"its type {dtype or kind} is not looked into")
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
        raise NotPlain("its shape or stride is none")
    return Tensor(name, str(storage.id[2]), dtype or "", offset, tuple(shape), tuple(stride))


def _tensor(file: IO[bytes], tensor: Tensor, storages: dict[str, Storage], tally: Tally) -> None:
    """One tensor. A view with holes is read with them: where that finds something, it may lie in a hole."""
    storage = storages.get(tensor.key)
    dims = [(size, step) for size, step in zip(tensor.shape, tensor.stride, strict=True) if step and size != 1]
    span = 0 if 0 in tensor.shape else sum((size - 1) * step for size, step in dims) + 1
    item = size_of(tensor.dtype, 1) or 1
    if storage is None or (tensor.offset + span) * item > storage.bytes:
        tally.unread.append(f"{tensor.name!r}: its bytes are not whole in the file: it was cut, or packed")
        return
    file.seek(storage.begin + tensor.offset * item)
    dense, expected = True, 1
    for size, step in sorted(dims, key=lambda dim: dim[1]):
        dense, expected = dense and step == expected, expected * size
    # Along a step of 0 the same numbers are repeated: they count once.
    shape = tuple(size if step else min(size, 1) for size, step in zip(tensor.shape, tensor.stride, strict=True))
    steps: tuple[int, ...] = tensor.stride
    if not dense:
        shape, steps = (span,), (1,)
    apart = Tally()
    try:
        look(apart, tensor.name, tensor.dtype, shape, file.read, big_endian=storage.big_endian, steps=steps)
    except EOFError:
        tally.unread.append(f"{tensor.name!r}: the file ends before its last number: it was cut")
        return
    if apart.clean or dense:
        tally.add(apart)
    else:
        tally.unread.append(
            f"{tensor.name!r} is a view with holes, and a NaN or Inf lies in it or in a hole:"
            " save it again with .contiguous()"
        )
