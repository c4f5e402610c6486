"""What a script has read of a file, written down as Python, where that is little."""

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import torch
from torch import Tensor

MOST = 64  # numbers that a script may hold
LONGEST = 60  # characters of a text that it may hold
ROWS = (1, 2, 4)  # that are tried before all of them


def literals(value: Any, names: Mapping[str, Any]) -> tuple[str, ...]:
    """A tensor, an array or lists of numbers as expressions: first the rows from a bad value on, then all
    of it; a record of such by name as a whole; none where it is too large. names: of the script, for what it calls
    NumPy.
    """
    if isinstance(value, (dict, Mapping)):
        text = _whole(dict(value), names)
        return () if text is None or text.count(",") >= MOST else (text,)
    return tuple(dict.fromkeys(_texts(value, names)))


def _whole(value: Any, names: Mapping[str, Any]) -> Optional[str]:
    """All of what was read as one expression; None where a part of it cannot be written down."""
    if isinstance(value, dict):
        parts = [(key, _whole(item, names)) for key, item in list(value.items())[: MOST + 1]]
        known = [f"{key!r}: {text}" for key, text in parts if text is not None and isinstance(key, (str, int))]
        return f"{{{', '.join(known)}}}" if len(known) == len(value) else None
    if isinstance(value, (list, tuple)):
        items = [_whole(item, names) for item in value[: MOST + 1]]
        if len(items) != len(value) or None in items:
            return None
        inside = ", ".join(map(str, items))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(items) == 1 else ''})"
    if value is None or isinstance(value, (bool, int, float)):
        return "None" if value is None else _text(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= LONGEST else None
    form = _form(value, names)
    if form is None or _count(value) > MOST:
        return None
    return form.format(_text(value.tolist()))


def _form(value: Any, names: Mapping[str, Any]) -> Optional[str]:
    """What stands around the numbers of a value; None for what this does not write down."""
    numpy = sys.modules.get("numpy")
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.requires_grad:
        if names.get("torch") is not torch:
            return None
        plain = value.dtype in (torch.float32, torch.int64, torch.bool)
        return "torch.tensor({})" if plain else f"torch.tensor({{}}, dtype={value.dtype})"
    if numpy is not None and type(value) is numpy.ndarray and value.dtype.kind in "fiub":
        name = next((name for name, held in names.items() if held is numpy), None)
        if name is None:
            return None
        plain = str(value.dtype) in ("float64", "int64", "bool")
        return f"{name}.array({{}})" if plain else f"{name}.array({{}}, dtype={str(value.dtype)!r})"
    return "{}" if isinstance(value, list) else None


def _count(value: Any) -> int:
    """How many numbers a tensor or an array has."""
    return int(value.numel() if isinstance(value, Tensor) else value.size)


def _texts(value: Any, names: Mapping[str, Any]) -> Iterator[str]:
    form = _form(value, names)
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
    if isinstance(value, list) or _count(value) <= MOST:
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
