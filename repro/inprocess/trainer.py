"""``repro.transformers.Callback``: a guard on ``transformers.Trainer``."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from repro.inprocess.finding import Finding
from repro.inprocess.guard import Guard, Then


class Callback(TrainerCallback):
    """Screens each step of a Trainer. At the first NaN or Inf in the loss, a gradient or a weight, the step is made
    again, its origin found, the step saved and the report written.

    Example:
        from repro.transformers import Callback
        Trainer(model, args, train_dataset=data, callbacks=[Callback(out="nan-report")]).train()

    Args:
        out: The folder for the report and the saved step, or a numbered one beside it where it is used; None for none.
        then: "raise" repro.FaultFound, "skip" such steps, or "note" only the first.
    """

    def __init__(self, out: str | Path | None = "repro-report", then: Then = "raise") -> None:
        self._out, self._then = out, then
        self.guard: Guard | None = None

    @property
    def finding(self) -> Finding | None:
        """The first finding; None as long as all is well."""
        return None if self.guard is None else self.guard.finding

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The guard is put on; a run that goes on from a checkpoint counts on from there."""
        self.guard = Guard(kwargs["model"], kwargs["optimizer"], out=self._out, then=self._then)
        self.guard.steps = int(state.global_step)
        self.guard.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The guard is taken off."""
        if self.guard is not None:
            self.guard.close()
