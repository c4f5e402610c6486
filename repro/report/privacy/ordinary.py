"""Words that identify nobody, because programs are full of them."""

import functools
from pathlib import Path

FILE = Path(__file__).with_name("data") / "words.txt"


@functools.cache
def words_of_programs() -> frozenset[str]:
    """Words in names of Python, PyTorch and Transformers, in lower case."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))
