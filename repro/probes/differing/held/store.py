"""Tensors of one way, kept until the other way is held against them: in memory up to a bound, behind it on disk."""

import json
import os
import shutil
import tempfile
import weakref
from typing import Any, Optional

import torch
from torch import Tensor

from ...model.before.room import free_memory
from ...values.figures import dtype_name

MOST = 4 << 30  # bytes in memory
SHARE = 4  # and no more than one in so many of those that are free
VALUES = "values.bin"


class Store:
    """Tensors by number. What is given twice, unchanged, is kept once.

    folder: where another process will read them; then all of them are on disk.
    """

    def __init__(self, folder: Optional[str] = None) -> None:
        self._folder = folder
        free = free_memory()
        self._room = MOST if free is None else min(MOST, free // SHARE)
        self._held: dict[int, Tensor] = {}
        self._rows: list[tuple[str, tuple[int, ...], int, int]] = []  # dtype, shape, begin, bytes; of those on disk
        self._places: dict[int, int] = {}  # number -> row
        self._count = 0
        self._file: Any = None
        self._end = 0
        self._known: dict[int, tuple[Any, int, int]] = {}

    def put(self, tensor: Tensor) -> int:
        """The number under which a copy of it is kept."""
        version = 0 if tensor.is_inference() else tensor._version
        before = self._known.get(id(tensor))
        if before is not None and before[0]() is tensor and before[1] == version:
            return before[2]
        plain = tensor.detach()
        size = plain.numel() * plain.element_size()
        number = self._count
        self._count += 1
        if self._folder is None and size <= self._room:
            self._room -= size
            self._held[number] = plain.to("cpu", copy=True)
        else:
            self._places[number] = self._write(plain.cpu().contiguous())
        self._known[id(tensor)] = (weakref.ref(tensor), version, number)
        return number

    def get(self, number: int) -> Tensor:
        """The tensor of this number, on the CPU. Not to be written to."""
        held = self._held.get(number)
        if held is not None:
            return held
        name, shape, begin, size = self._rows[self._places[number]]
        dtype = getattr(torch, name)
        if not size:
            return torch.empty(shape, dtype=dtype)
        self._file.seek(begin)
        read = bytearray(self._file.read(size))
        return torch.frombuffer(read, dtype=torch.uint8).view(dtype).reshape(shape)

    def _write(self, plain: Tensor) -> int:
        if self._file is None:
            folder = self._folder or tempfile.mkdtemp(prefix="repro-")
            file = open(os.path.join(folder, VALUES), "w+b")  # noqa: SIM115 - closed with the store
            self._hold(file, None if self._folder else folder)
        flat = plain.reshape(-1).view(torch.uint8) if plain.numel() else torch.empty(0, dtype=torch.uint8)
        taken = bytearray(flat.numel())
        if taken:
            torch.frombuffer(taken, dtype=torch.uint8).copy_(flat)
        self._file.seek(self._end)
        self._file.write(taken)
        self._rows.append((dtype_name(plain.dtype), tuple(plain.shape), self._end, len(taken)))
        self._end += len(taken)
        return len(self._rows) - 1

    def save(self) -> list[Any]:
        """What another process needs beside the file, as JSON data."""
        if self._file is not None:
            self._file.flush()
        return [self._rows[place] for _, place in sorted(self._places.items())]

    @classmethod
    def opened(cls, folder: str, rows: list[Any]) -> "Store":
        """What another process has saved there."""
        store = cls(folder)
        store._rows = [(str(name), tuple(shape), int(begin), int(size)) for name, shape, begin, size in rows]
        store._places = {number: number for number in range(len(rows))}
        store._count = len(rows)
        if rows:
            file = open(os.path.join(folder, VALUES), "rb")  # noqa: SIM115 - closed with the store
            store._hold(file, None)
        return store

    def _hold(self, file: Any, own: Optional[str]) -> None:
        """The file is closed, and a folder of the store's own removed, when nobody has the store any more."""
        self._file = file
        weakref.finalize(self, _end, file, own)


def _end(file: Any, own: Optional[str]) -> None:
    file.close()
    if own is not None:
        shutil.rmtree(own, ignore_errors=True)


def read_json(path: str) -> Any:
    with open(path, encoding="utf-8") as opened:
        return json.load(opened)
