"""What a script has read of a file, written down as Python, where that is little."""

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import torch
from torch import Tensor

MOST = 64  # numbers that a script may hold
ROWS = (1, 2, 4)  # that are tried before all of them


def literals(value: Any, names: Mapping[str, Any]) -> tuple[str, ...]:
    """A tensor, an array or lists of numbers as expressions: first the rows from a bad value on, then all
    of it; none where it is too large. names: of the script, for what it calls NumPy.
    """
    return tuple(dict.fromkeys(_texts(value, names)))


def _texts(value: Any, names: Mapping[str, Any]) -> Iterator[str]:
    numpy = sys.modules.get("numpy")
    form: Optional[str] = None
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.requires_grad:
        plain = value.dtype in (torch.float32, torch.int64, torch.bool)
        form = "torch.tensor({})" if plain else f"torch.tensor({{}}, dtype={value.dtype})"
        if next((name for name, held in names.items() if held is torch), None) != "torch":
            return
    elif numpy is not None and type(value) is numpy.ndarray and value.dtype.kind in "fiub":
        name = next((name for name, held in names.items() if held is numpy), None)
        if name is None:
            return
        plain = str(value.dtype) in ("float64", "int64", "bool")
        form = f"{name}.array({{}})" if plain else f"{name}.array({{}}, dtype={str(value.dtype)!r})"
    elif isinstance(value, list):
        form = "{}"
    if form is None:
        return
    for rows in _rows(value):
        text = _text(rows if isinstance(rows, list) else rows.tolist())
        if text is not None and text.count(",") < MOST:
            yield form.format(text)


def _rows(value: Any) -> Iterator[Any]:
    """Parts of it along its first dimension, then the whole."""
    count = len(value) if isinstance(value, list) or value.ndim > 0 else 0
    if count > 1:
        first = next((at for at in range(min(count, 100_000)) if _is_bad(value[at])), 0)
        for size in ROWS:
            if size < count:
                begin = min(first, count - size)
                yield value[begin : begin + size]
    if isinstance(value, list) or (value.numel() if isinstance(value, Tensor) else value.size) <= MOST:
        yield value


def _is_bad(row: Any) -> bool:
    """Whether a row holds a number that is not finite."""
    if isinstance(row, (Tensor, float)):
        return bool((~torch.isfinite(torch.as_tensor(row))).any())
    if isinstance(row, list):
        return any(map(_is_bad, row))
    return not isinstance(row, (int, str)) and bool((row - row != 0).any())


def _text(value: Any) -> Optional[str]:
    """Numbers and lists of them; None for anything else."""
    if isinstance(value, list):
        texts = [_text(item) for item in value[: MOST + 1]]
        return None if len(value) > MOST or None in texts else f"[{', '.join(map(str, texts))}]"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    return repr(value) if isinstance(value, (bool, int)) else None
