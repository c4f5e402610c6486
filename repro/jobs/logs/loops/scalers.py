"""Whether a loss scaler found its scale. Skipped steps are how it looks for one; that it never finds one is a fault.

A scale of 1 or less is none at all: what overflows then is the gradient itself.
"""

from collections.abc import Mapping

from repro.core.sentences import many

LEAST_STEPS = 10
"""Below so many steps, most of them may well be skipped: a scale of 2**32 needs 17 halvings to reach 2**15."""
MOST_SKIPPED = 0.5
SAME_SCALE = 10
"""Skipped steps, one directly behind the other, at a scale that does not fall."""


class Scaler:
    """What a log says of its loss scaler, while it is read."""

    def __init__(self) -> None:
        self._lowest: tuple[float, int] | None = None
        self._unscaled = 0
        self._unscaled_line = 0
        self._kept_line = 0
        self._scale: float | None = None
        self._step: int | None = None
        self._in_a_row = 1
        self._longest = 1
        self._numbered = 0
        self._first_step: int | None = None
        self._last_step: int | None = None
        self._counted: tuple[int, int] | None = None
        self._sum = 0
        self._reports: list[int] = []

    def skipped(self, line: int, fields: Mapping[str, str]) -> None:
        """Take a step that was skipped."""
        scale, attempted = _number(fields.get("scale")), _number(fields.get("attempted"))
        if scale is not None and (self._lowest is None or scale < self._lowest[0]):
            self._lowest = scale, line
        unscaled = (attempted is not None and attempted <= 1) or (attempted is None and scale is not None and scale < 1)
        again = scale is not None and scale <= 1 and self._scale is not None and self._scale <= scale
        if unscaled or (again and attempted is None):
            self._unscaled += 1
            self._unscaled_line = self._unscaled_line or line
        step = int(fields["step"]) if "step" in fields else None
        follows = step is not None and self._step is not None and step == self._step + 1
        stays = attempted == scale if attempted is not None and scale is not None else scale == self._scale
        same = scale is not None and stays and (follows or (attempted is not None and attempted == scale))
        self._in_a_row = self._in_a_row + 1 if same else 1
        self._longest = max(self._longest, self._in_a_row)
        self._numbered += step is not None and step != self._step
        self._scale, self._step = scale, step
        self.at(step)

    def at(self, step: int | None) -> None:
        """Take the number of a step that the log has."""
        if step is not None:
            self._first_step = step if self._first_step is None else min(self._first_step, step)
            self._last_step = step if self._last_step is None else max(self._last_step, step)

    def counted(self, fields: Mapping[str, str]) -> None:
        """Take what the log itself counts: steps skipped of all so far, or since its last report."""
        skipped = int(fields["skipped"])
        if "steps" in fields:
            self._counted = skipped, int(fields["steps"])
        else:
            self._sum += skipped
            self._reports = [*self._reports[:2], int(fields["step"])]

    def trouble(self) -> str | None:
        """Why it is a fault, or None."""
        if self._lowest is not None and self._lowest[0] == 0:
            return f"the loss scale went down to 0 (line {self._lowest[1]:,}): nothing can be trained with it"
        if self._unscaled:
            times = "a step" if self._unscaled == 1 else f"{self._unscaled:,} steps"
            return (
                f"{times} overflowed at a loss scale of 1 or less (line {self._unscaled_line:,}): "
                "the gradient itself does, not the scaled one"
            )
        if self._longest >= SAME_SCALE:
            return f"{self._longest:,} steps in a row were skipped at a loss scale that does not fall"
        skipped, steps = self._share()
        if steps >= LEAST_STEPS and skipped > MOST_SKIPPED * steps:
            return f"the loss scaler skipped {skipped:,} of {many(steps, 'step')}"
        return None

    def _share(self) -> tuple[int, int]:
        if self._counted is not None:
            return self._counted
        if len(self._reports) > 1:
            return self._sum, self._reports[-1] - self._reports[0] + self._reports[1] - self._reports[0]
        if self._numbered and self._first_step is not None and self._last_step is not None:
            return self._numbered, self._last_step - self._first_step + 1
        return 0, 0


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text.rstrip("."))
    except ValueError:
        return None
