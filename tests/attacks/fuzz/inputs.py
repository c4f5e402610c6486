"""What the fuzzers are given: JSON of any shape, and sound files that are damaged."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from(["nan", "inf", "bad", "..", "\x1b[31m", "\ud800", 2**70, -1, 10**400, "a" * 300])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
"""Any JSON value, and some that JSON's readers stumble over."""


def text_of(value: Any) -> bytes:
    """JSON as a careless program writes it."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def encoded(text: str) -> bytes:
    """Text as bytes, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """A sound file with some bytes of it changed, put in, taken away, or cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        piece = draw(
            st.binary(max_size=6) | st.sampled_from([b"\0", b"\xff\xfe", b"[" * 1100, b'"', b"\n", b"9" * 5000])
        )
        data[at : at + draw(st.integers(0, 6))] = piece
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@st.composite
def damaged_json(draw: st.DrawFn, whole: Any) -> bytes:
    """A sound document with another value at some places of it."""
    data = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        inner, path = data, []
        while isinstance(inner, dict | list) and inner and (not path or draw(st.integers(0, 3))):
            key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
            path.append((inner, key))
            inner = inner[key]
        if not path:
            break
        holder, key = path[-1]
        if draw(st.booleans()):
            holder[key] = draw(VALUES)
        elif isinstance(holder, dict):
            del holder[key]
    return text_of(data)
