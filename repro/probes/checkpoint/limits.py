"""How much work a file may ask for before anybody is asked, and how that is raised.

A file of a few bytes can claim a billion layers. Each limit is far above what models have; ``REPRO_LIMITS`` in the
environment (``--limits`` on the command line) multiplies all of them, and ``none`` takes them away.
"""

import os
from typing import Optional

VARIABLE = "REPRO_LIMITS"
TENSORS = 1_000_000  # of one file, and of one index; the index of DeepSeek-V3 (671B parameters) names 91,991
DIMENSIONS = 64  # of one tensor; TensorIterator of PyTorch takes no more
INDEX_BYTES = 200_000_000  # some 200 bytes for each of TENSORS
CONFIG_BYTES = 20_000_000  # those of 20,000 labels have some 2 MB
NESTED = 100  # levels of a JSON document
TOKENIZER_BYTES = 500_000_000  # Gemma 3, with 262,144 tokens, has 33 MB
PROMPT_CHARACTERS = 4_000_000  # about a million tokens
TOKENIZER_GROWTH = 300_000_000  # characters or tokens that a tokenizer's rules may make of a prompt
GGUF_KEYS = 100_000
GGUF_ELEMENTS = 10_000_000  # of all arrays together; a vocabulary of 262,144 tokens has three arrays of that length
BUILD_SECONDS = 60  # for building a model without memory for its weights
TRIAL_SECONDS = 20  # for building it without each entry of its configuration


class OverLimit(Exception):
    """A file asks for more than is done without being asked. The message says what, and how the limit is raised."""


def factor() -> Optional[float]:
    """By which every limit is multiplied; None where there is to be none.

    Raises:
        OverLimit: the variable holds neither a number nor ``none``.
    """
    said = os.environ.get(VARIABLE, "").strip()
    if said == "none":
        return None
    try:
        value = float(said or 1)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise OverLimit(f"{VARIABLE} is {said[:80]!r}: expected a factor above 0 for all limits, such as 10, or none.")
    return value


def allowed(most: float) -> float:
    """A limit as it holds now."""
    times = factor()
    return float("inf") if times is None else most * times


def check(what: str, found: float, most: float, unit: str) -> None:
    """Refuse more than ``most``.

    Raises:
        OverLimit: ``what`` has more.
    """
    if found > allowed(most):
        raise OverLimit(f"{what} has {found:,} {unit}, and the limit is {allowed(most):,.0f}. {remedy()}")


def remedy() -> str:
    """What a person can do who means it."""
    return f"If that is meant, raise all limits tenfold with --limits 10 ({VARIABLE}=10), or take --limits none."
