"""How a tensor lies in memory, for a fault that needs it so: strides, and an address that is not aligned."""

from typing import Any, Optional

import torch
from torch import Tensor

# Bytes; memory that Python gives out begins at a multiple of it, so that a script can lay a tensor the same way.
ALIGNED = 16


def layout_of(tensor: Tensor) -> Optional[dict[str, Any]]:
    """Strides, and bytes beyond a multiple of ALIGNED; None for contiguous memory that is aligned.

    An accelerator's addresses are not looked at: a script could not choose them.
    """
    off = tensor.data_ptr() % ALIGNED if tensor.numel() and tensor.device.type == "cpu" else 0
    return None if tensor.is_contiguous() and not off else {"stride": list(tensor.stride()), "misaligned_bytes": off}


def laid_out(values: Tensor, layout: Optional[dict[str, Any]]) -> Tensor:
    """The same values in memory with given strides and misalignment; ``layout`` None: as they are.

    Elements that share their memory (a stride of 0) have one value: the first.
    """
    if layout is None:
        return values
    stride, width = layout["stride"], values.element_size()
    last = sum((size - 1) * step for size, step in zip(values.shape, stride)) + 1
    if values.device.type != "cpu":
        flat = torch.empty(last, dtype=values.dtype, device=values.device)
    else:
        memory = bytearray(last * width + ALIGNED)
        begin = (layout["misaligned_bytes"] - torch.frombuffer(memory, dtype=torch.uint8).data_ptr()) % ALIGNED
        flat = torch.frombuffer(memory, dtype=values.dtype, offset=begin, count=last)
    own = tuple(slice(0, 1) if step == 0 else slice(None) for step in stride)
    written = values[own]
    flat.as_strided(written.shape, stride).copy_(written)
    return flat.as_strided(values.shape, stride)
