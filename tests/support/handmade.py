"""What several test files need: files by hand, small modules as the kit's `Loaded`, and one operator's record.

Nothing here judges anything: the expected answers stand in the tests.
"""

from __future__ import annotations

import inspect
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from repro.probes.checkpoint.resolve import Source, resolve
from repro.probes.model.forward import look
from repro.probes.model.inputs import Inputs
from repro.probes.model.load import Loaded, load
from repro.probes.model.loadcheck import check
from repro.probes.observe.tape import Op, Ref, Tape, record
from repro.probes.observe.watch import Address
from repro.probes.origin.search import bisect
from repro.probes.origin.walk import End, Origin, Step
from repro.probes.protocol.wire import Emitter
from repro.probes.values.nest import rebuild

NAN, INF = float("nan"), float("inf")
ROOT = ("", 0)


# --- files -------------------------------------------------------------------------------------------------------


def raw_safetensors(header: object, data: bytes = b"") -> bytes:
    """A safetensors file from a header (JSON data, or bytes as they are) and the bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write_floats(path: Path, **tensors: list[float]) -> None:
    """One-dimensional float32 tensors, packed by `struct`, the header padded to a multiple of 8."""
    header, data = {}, b""
    for name, values in tensors.items():
        packed = struct.pack(f"<{len(values)}f", *values)
        header[name] = entry("F32", [len(values)], len(data), len(data) + len(packed))
        data += packed
    text = json.dumps(header).encode()
    path.write_bytes(raw_safetensors(text + b" " * (-len(text) % 8), data))


def silent(done: int, total: int, unit: str) -> None:
    """A progress callback that nobody reads."""


def emitter() -> tuple[Emitter, io.StringIO]:
    stream = io.StringIO()
    return Emitter(stream), stream


# --- models ------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """A base for modules of a few operators: `forward(input_ids)` takes any tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace()


class Function(Small):
    """A module that runs one function of its input."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, input_ids: Tensor) -> Any:
        return self.function(input_ids)


class Angle(nn.Module):
    """The angle between nearly parallel vectors, by an arccosine: a rounding of a cosine of 1 is all of the angle. From
    the back, the same sums are added up in another order.
    """

    back = False

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.begin, self.end = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.begin(x)
        at = x.flip(-1) if self.back else x
        cosine = torch.cosine_similarity(at, at * 1.0001 + 1e-4, -1)[..., None]
        return self.end(x * cosine.clamp(max=1).acos())  # type: ignore[no-any-return]


def inputs_of(tensor: Tensor) -> Inputs:
    return Inputs(None, "seeded", tensor, None)


def as_loaded(model: nn.Module, dtype: torch.dtype = torch.float32, **more: Any) -> Loaded:
    return Loaded(model, type(model).__name__, Source("random", None), dtype, torch.device("cpu"), None, {}, **more)


def bisected(model: nn.Module, tensor: Tensor, dtype: torch.dtype = torch.float32, **more: Any) -> tuple[str, Any]:
    """The verdict and the payload of the bisect step for a hand-made module."""
    verdict, _, payload = bisect(as_loaded(model, dtype, **more), [look(model, inputs_of(tensor))])
    return verdict, payload


def origin_of(model: nn.Module, tensor: Tensor, dtype: torch.dtype = torch.float32, **more: Any) -> dict[str, Any]:
    verdict, payload = bisected(model, tensor, dtype, **more)
    assert verdict == "bad"
    origin: dict[str, Any] = payload["origin"]
    return origin


def born(model: nn.Module) -> str:
    """ "file.py:line" of the one line of the module's class that ends in the comment `born`."""
    lines, first = inspect.getsourcelines(type(model))
    (number,) = (i for i, line in enumerate(lines) if line.rstrip().endswith("# born"))
    return f"{Path(inspect.getsourcefile(type(model)) or '').name}:{first + number}"


def tape_of(model: nn.Module, tensor: Tensor) -> Tape:
    """The whole pass of a module, recorded."""

    def run() -> Any:
        with torch.no_grad():
            return model(tensor)

    return record(model, run, ROOT, ROOT)


def born_at(func: Any, *args: Any, output: Tensor, index: tuple[int, ...]) -> Origin:
    """The record of one operator that gave `output`, bad at `index`, of inputs that were not to blame."""
    tape = Tape()
    kept = rebuild(args, Tensor, tape.ref)
    out: Ref = tape.ref(output)
    op = Op(0, Address("", 0, str(func), 0), func, kept, {}, (out,), (), None)
    return Origin(End.BORN, Step(op, out, index, float(output[index])))


# --- checkpoints -------------------------------------------------------------------------------------------------


def case_of(folder: Path, dtype: str | None = None, **more: Any) -> dict[str, Any]:
    return {"model": str(folder), "device": "cpu", "dtype": dtype, "prompts": [], **more}


def load_folder(folder: Path, dtype: str | None = None, **more: Any) -> Loaded:
    """The model of a folder as the kit's load step leaves it."""
    case = case_of(folder, dtype, **more)
    loaded = load(case, resolve(case))
    check(loaded)
    return loaded


def state_of(model: nn.Module) -> dict[str, tuple[int, torch.dtype, bytes]]:
    """Every parameter and buffer: address, dtype and bytes."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: (t.data_ptr(), t.dtype, bytes_of(t)) for name, t in tensors}


def bytes_of(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return (flat.to(torch.uint8) if flat.dtype == torch.bool else flat.view(torch.uint8)).numpy().tobytes()


def hooks_of(model: nn.Module) -> list[int]:
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
