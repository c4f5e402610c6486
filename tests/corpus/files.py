"""Safetensors files by hand: chosen header padding, cut files, lost tensors, shards.

The format: 8 bytes with the header's length (little endian), the header (JSON, padded with spaces), then the data.
Source: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.bool: "BOOL",
}  # fmt: skip
DTYPES = {name: dtype for dtype, name in NAMES.items()}


def write(path: Path, tensors: dict[str, torch.Tensor], data_start_mod_8: int = 0) -> None:
    """Write the tensors, with the header padded so that the data starts at the wanted offset modulo 8."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        header[name] = {
            "dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + len(data)],
        }  # fmt: skip
        blobs.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * ((data_start_mod_8 - len(text)) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def read(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of the file, copied."""
    content = path.read_bytes()
    start = data_start(path)
    tensors = {}
    for name, entry in json.loads(content[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        buffer = bytearray(content[start + begin : start + end])
        tensors[name] = torch.frombuffer(buffer, dtype=dtype).reshape(shape) if math.prod(shape) else torch.empty(shape)
    return tensors


def data_start(path: Path) -> int:
    """The offset of the first data byte."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def truncate(folder: Path, keep: float = 0.6) -> None:
    """Cut the weights file inside its data, as a broken download does."""
    path = folder / WEIGHTS
    start, size = data_start(path), path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(start + int((size - start) * keep))


def change(folder: Path, drop: tuple[str, ...] = (), rename: dict[str, str] | None = None,
           replace: dict[str, torch.Tensor] | None = None) -> None:  # fmt: skip
    """Write the weights file again without some tensors, with others under another name or with another content."""
    tensors = read(folder / WEIGHTS)
    for name in (*drop, *(rename or {}), *(replace or {})):
        if name not in tensors:
            raise KeyError(f"{name} is not in {folder / WEIGHTS}; there are {sorted(tensors)}")
    tensors.update(replace or {})
    write(folder / WEIGHTS, {(rename or {}).get(k, k): v for k, v in tensors.items() if k not in drop})


def misalign(folder: Path) -> None:
    """Write the weights file again, with the same values and data that starts at 2 modulo 4."""
    write(folder / WEIGHTS, read(folder / WEIGHTS), data_start_mod_8=2)


def shard(folder: Path) -> tuple[str, str]:
    """Split the weights file into two shards with an index. Returns the shards' names."""
    tensors = read(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = list(tensors)
    half = len(names) // 2
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for shard_name, part in zip(shards, (names[:half], names[half:]), strict=True):
        write(folder / shard_name, {name: tensors[name] for name in part})
    index = {
        "metadata": {"total_size": sum(t.numel() * t.element_size() for t in tensors.values())},
        "weight_map": {name: shards[0] if i < half else shards[1] for i, name in enumerate(names)},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return shards


def to_pickle(folder: Path) -> None:
    """Replace the weights file by the same tensors as `pytorch_model.bin`."""
    torch.save(read(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
