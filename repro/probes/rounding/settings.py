"""Settings of PyTorch by which its own kernels may compute with fewer digits than their dtype has.

What somebody has allowed is no fault. On CUDA some of it is allowed by default: TensorFloat-32 in convolutions, and
sums of 16 bits in products of 16 bits.
Source: https://docs.pytorch.org/docs/stable/notes/cuda.html (TensorFloat-32; reduced precision reduction).
"""

from typing import Callable

import torch

from .part import PRODUCTS, Part

TF32 = 2.0**-10
BF16 = 2.0**-7
MULTIPLIES = frozenset((*PRODUCTS, "linear", "matmul", "dot", "mv", "addmv"))


def permitted(part: Part, dtype: torch.dtype) -> float:
    """The epsilon in which a kernel may compute by the settings; 0 where these leave its dtype as it is."""
    convolves = "convolution" in part.name
    if not (part.formula or convolves or part.name in MULTIPLIES):
        return 0.0
    if dtype == torch.float32:
        return _of_float32(part.device, convolves)
    narrow = {torch.float16: "allow_fp16_reduced_precision_reduction"}
    narrow[torch.bfloat16] = "allow_bf16_reduced_precision_reduction"
    if part.device == "cuda" and dtype in narrow and is_set(lambda: getattr(torch.backends.cuda.matmul, narrow[dtype])):
        return float(torch.finfo(dtype).eps)
    return 0.0


def _of_float32(device: str, convolves: bool) -> float:
    precision = torch.get_float32_matmul_precision()
    found = [{"highest": 0.0, "high": TF32}.get(precision, BF16)]
    if device == "cuda" and convolves and is_set(lambda: torch.backends.cudnn.allow_tf32):
        found.append(TF32)
    if device == "cuda" and not convolves and is_set(lambda: torch.backends.cuda.matmul.allow_tf32):
        found.append(TF32)
    return max(found)


def is_set(read: Callable[[], object]) -> bool:
    """Whether a setting is on; one that this release cannot tell counts as on, for it may be."""
    try:
        return bool(read())
    except (AttributeError, RuntimeError):  # releases rename them, and refuse the old name beside the new one
        return True
