"""A model's files, and others, that are not what their names say, or ask for more work than there can be."""

from __future__ import annotations

import json
import os
import socket as sockets
import struct
from pathlib import Path
from typing import Any

from . import file, of_model

EXPONENT = {"1e9": 10**9, "1e12": 10**12}


@file
def socket(path: Path) -> None:
    """A socket that nobody listens at; its path may be longer than a socket's name."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with sockets.socket(sockets.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@file
def folder(path: Path) -> None:
    """A folder where a file is expected, in place of what a model has there."""
    path.mkdir()


@file
def gone(path: Path) -> None:
    """Nothing: what was there is removed before this."""


@file
def hole(path: Path, size: int) -> None:
    """A file of zeros of any size, which takes no room on the disk."""
    with path.open("wb") as stream:
        stream.truncate(size)


@file
def settings(path: Path, drop: str = "", **change: Any) -> None:
    """A JSON object of the sound model, such as its config.json, with other values."""
    data = json.loads(_sound(path).read_text("utf-8"))
    data.update({key: EXPONENT.get(value, value) if isinstance(value, str) else value for key, value in change.items()})
    data.pop(drop, None)
    path.write_text(json.dumps(data), encoding="utf-8")


@file
def nested(path: Path, depth: int, start: str = "[", end: str = "") -> None:
    """JSON that is nested deeply, cut off where ``end`` is empty."""
    path.write_text(start * depth + end * depth, encoding="utf-8")


@file
def header(path: Path, text: str = "", data: int = 0, length: int = -1, tensors: int = 0, **entry: Any) -> None:
    """A safetensors file by hand.

    Args:
        path: The file.
        text: The header as it is; else one tensor ``a`` of what ``entry`` says, and ``tensors`` empty ones.
        data: Zeros behind it.
        length: What the file says of its header's length; by default what it is.
        tensors: How many more tensors without a number there are.
        entry: Keys of the tensor ``a`` that are other than sound.
    """
    sound = {"dtype": "F32", "shape": [data // 4], "data_offsets": [0, data]}
    more = {f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(tensors)}
    whole = (text or json.dumps({"a": {**sound, **entry}, **more})).encode()
    path.write_bytes(struct.pack("<Q", len(whole) if length < 0 else length) + whole + bytes(data))


@file
def index(path: Path, shard: str = "a.safetensors", entries: int = 1, long: int = 0) -> None:
    """An index of safetensors, in which every tensor lies in one shard."""
    mapping = {f"t{number}": shard + "x" * long for number in range(entries)}
    path.write_text(json.dumps({"metadata": {}, "weight_map": mapping}), encoding="utf-8")


@file
def gguf(path: Path, tensors: int = 0, keys: int = 0, body: str = "", version: int = 3) -> None:
    """A .gguf file that says how much there is of each; ``body`` is what follows, in hexadecimal digits."""
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + bytes.fromhex(body))


@file
def gguf_array(path: Path, count: int, kind: int = 0, inner: int = 0) -> None:
    """A .gguf file whose one key has an array of so many elements, or of arrays in arrays."""
    value = struct.pack("<IIQ", 9, kind, count) + struct.pack("<IQ", kind, 1) * inner
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + value)


@file
def gguf_tensor(path: Path, dimensions: int, size: int, offset: int = 0, kind: int = 0) -> None:
    """A .gguf file with one tensor that has so many sizes."""
    about = struct.pack("<Q", 1) + b"t" + struct.pack("<I", dimensions) + struct.pack("<Q", size) * min(dimensions, 99)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + about + struct.pack("<IQ", kind, offset) + bytes(64))


@file
def growing_tokenizer(path: Path, times: int, pattern: str = "String") -> None:
    """A tokenizer whose rules double a text so many times."""
    data = json.loads(_sound(path).read_text("utf-8"))
    double = {"type": "Replace", "pattern": {pattern: "a"}, "content": "aa"}
    data["normalizer"] = {"type": "Sequence", "normalizers": [double] * times}
    path.write_text(json.dumps(data), encoding="utf-8")


@file
def doubling_template(path: Path, times: int) -> None:
    """A tokenizer that puts its tokens behind themselves, so many times."""
    data = json.loads(_sound(path).read_text("utf-8"))
    twice = [{"Sequence": {"id": "A", "type_id": 0}}] * 2
    one = {"type": "TemplateProcessing", "single": twice, "pair": [*twice, {"Sequence": {"id": "B", "type_id": 0}}],
           "special_tokens": {}}  # fmt: skip
    data["post_processor"] = {"type": "Sequence", "processors": [one] * times}
    path.write_text(json.dumps(data), encoding="utf-8")


@file
def beyond(path: Path, token: str, number: int) -> None:
    """A tokenizer that gives one token an id of its own choice."""
    data = json.loads(_sound(path).read_text("utf-8"))
    data["model"]["vocab"][token] = number
    path.write_text(json.dumps(data), encoding="utf-8")


def _sound(path: Path) -> Path:
    """The sound model's file of the same name."""
    return of_model("sound") / path.name
