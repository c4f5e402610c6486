"""A loss of exactly 0: no NaN by itself, but what a NaN looks like once a trainer has left it out of its mean.

Transformers' Trainer does so by default (``logging_nan_inf_filter``), and a loss over no label is 0 in some loops.
Whether a zero is one of these cannot be told from a log, so it is never called good and never bad.
"""

LEAST = 2
LEAST_AT_END = 3
CONVERGED = 0.01
"""A loss that was below this before it became 0 may have been rounded."""


class Losses:
    """The losses of the lines that were looked at, in order."""

    def __init__(self) -> None:
        self._count = 0
        self._zeros_at_end = 0
        self._first_zero = 0
        self._before: float | None = None

    def take(self, line: int, value: float) -> None:
        """Take a loss that is a number."""
        self._count += 1
        if value:
            self._before, self._zeros_at_end = value, 0
        else:
            self._zeros_at_end += 1
            self._first_zero = line if self._zeros_at_end == 1 else self._first_zero

    def suspicion(self) -> str | None:
        """What is odd about them, or None."""
        if self._count >= LEAST and self._zeros_at_end == self._count:
            return f"the loss is exactly 0 on all of the {self._count:,} lines with one that were looked at"
        if self._zeros_at_end >= LEAST_AT_END and self._before is not None and self._before >= CONVERGED:
            return f"the loss falls from {self._before:g} to exactly 0 on line {self._first_zero:,} and stays there"
        return None
