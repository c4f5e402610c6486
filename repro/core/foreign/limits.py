"""The factor by which all limits on what a file may ask for are multiplied; the kit has the limits themselves."""

import math
import os

VARIABLE = "REPRO_LIMITS"
NONE = "none"


def wanted() -> str | None:
    """What the environment says; None where it says nothing."""
    return os.environ.get(VARIABLE) or None


def raise_to(factor: str) -> None:
    """Set it for this process and all that it starts.

    Raises:
        ValueError: it is neither a factor nor ``none``.
    """
    if factor != NONE and not 0 < float(factor) < math.inf:
        raise ValueError(factor)
    os.environ[VARIABLE] = factor
