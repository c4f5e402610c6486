"""``repro.lightning.Callback``: a guard on Lightning's Trainer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback as LightningCallback
from torch import nn

from repro.inprocess.finding import Finding
from repro.inprocess.guard import Guard, Then


class TrainingStep(nn.Module):
    """``training_step`` of a LightningModule as a module of its own, whose calls can be seen and made again."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self._step = module.training_step

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._step(*args, **kwargs)


class Callback(LightningCallback):
    """Screens each training step of a Lightning Trainer. At the first NaN or Inf in the loss, a gradient or a weight,
    the step is made again, its origin found, the step saved and the report written.

    Example:
        from repro.lightning import Callback
        Trainer(max_epochs=1, callbacks=[Callback(out="nan-report")]).fit(module, loader)

    Args:
        out: The folder for the report and the saved step, or a numbered one beside it where it is used; None for none.
        then: "raise" repro.FaultFound, "skip" such steps, or "note" only the first.
    """

    def __init__(self, out: str | Path | None = "repro-report", then: Then = "raise") -> None:
        self._out, self._then = out, then
        self._put_back = ExitStack()
        self.guard: Guard | None = None

    @property
    def finding(self) -> Finding | None:
        """The first finding; None as long as all is well."""
        return None if self.guard is None else self.guard.finding

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The guard is put on; a run that goes on from a checkpoint counts on from there."""
        step = TrainingStep(pl_module)
        # Not as an attribute: PyTorch would take it for a part of the module, which is a part of it.
        vars(pl_module)["training_step"] = lambda *args, **kwargs: step(*args, **kwargs)
        self._put_back.callback(vars(pl_module).pop, "training_step", None)
        self.guard = Guard(step, trainer.optimizers, out=self._out, then=self._then, by_hand=True)
        self.guard.aside = lambda: _silent(pl_module)
        self.guard.steps = int(trainer.global_step)
        self.guard.start()
        self._put_back.callback(self.guard.close)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Lightning makes the step inside of the optimiser's, so its gradients are there only now."""
        if self.guard is not None:
            self.guard.before_step(optimizer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The guard is taken off."""
        self._put_back.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The guard is taken off."""
        self._put_back.close()


@contextmanager
def _silent(module: Any) -> Iterator[None]:
    """What a step logs is logged once, not again where it is made again."""
    named = ("log", "log_dict")
    vars(module).update(dict.fromkeys(named, lambda *args, **kwargs: None))
    try:
        yield
    finally:
        for name in named:
            vars(module).pop(name, None)
