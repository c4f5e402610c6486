"""``repro.Guard``: a training loop at nearly its own speed, stopped and explained at the first bad value."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from torch import nn

from repro.core import paths
from repro.core.errors import ReproError
from repro.core.folders import unused
from repro.inprocess.finding import Finding
from repro.inprocess.watching import check_is_module, of_operators, optimizers_of
from repro.probes.live.again import Bad
from repro.probes.live.answers import of_all
from repro.probes.live.guarding import Guarding
from repro.probes.live.saved import save
from repro.probes.live.sharded import Together
from repro.probes.observe.watch import inside
from repro.probes.protocol.failures import in_words

Then = Literal["raise", "skip", "note"]
STEP = "step"
"""The folder of the saved step, in that of the report."""
THEN = ("raise", "skip", "note")


class FaultFound(RuntimeError):
    """A guarded step went bad. ``finding`` is what is known of it, ``folder`` where the report is, if one was asked."""

    def __init__(self, finding: Finding, folder: Path | None) -> None:
        where = "" if folder is None else f" Report: {folder / 'report.md'}"
        super().__init__(f"{finding.text}{where}")
        self.finding = finding
        self.folder = folder


class Guard:
    """Screens every step of a training loop: the model's output, the gradients before the optimiser steps, the
    parameters behind it. At the first NaN or Inf it makes that step again, finds the origin, saves the step, writes the
    report, and does as it was told.

    Gradients that a GradScaler throws away never come to the optimiser's step, and are no fault. The closure of an
    optimiser that takes one (LBFGS) is screened each time, and the bad one is called once more.

    Example:
        with repro.Guard(model, optimizer, out="nan-report") as guard:
            for batch in loader:
                loss = model(**batch).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    Args:
        model: The module that is called in the loop; where DistributedDataParallel or torch.compile wraps it, the
            wrapped one may be given.
        optimizer: One or several; without one, outputs alone are screened.
        out: The folder for the report and the saved step; nothing is written where it is None. Where it holds something
            already, such as the report of an earlier run, a numbered one beside it is taken, and that is said.
        then: "raise" FaultFound; "skip" the step, by leaving the optimiser no gradients and putting the model's
            buffers back (a fault of the optimiser's own
            step has changed the weights already, and raises); or only "note" it, in ``findings``.
        by_hand: The loop calls ``before_step(optimizer)`` when the gradients are there. For loops whose forward and
            backward pass run inside of the optimiser's step.

    Attributes:
        steps: How many steps of the optimiser have been made.
        aside: Gives a context for what is made again, such as one that logs nothing.
        out: The folder of the report.
        findings: What was found, in order. Where steps are skipped or noted, only the first is looked into.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any = None,
        *,
        out: str | Path | None = None,
        then: Then = "raise",
        by_hand: bool = False,
    ) -> None:
        if then not in THEN:
            raise ValueError(f"then={then!r}: expected one of {', '.join(map(repr, THEN))}.")
        check_is_module(model, "repro.Guard(module, optimizer)")
        self._model = inside(model)
        self._optimizers = optimizers_of(optimizer)
        self.out = None if out is None else _free(Path(out))
        self._then = then
        self.steps = 0
        self.findings: list[Finding] = []
        self.skipped = 0
        self._by_hand = by_hand
        self.aside: Callable[[], AbstractContextManager[None]] = nullcontext
        self._guarding: Guarding | None = None
        self._counting: list[Any] = []

    @property
    def finding(self) -> Finding | None:
        """The first finding; None as long as all is well."""
        return self.findings[0] if self.findings else None

    @property
    def step(self) -> int | None:
        """The number of the step that is being made, from 1; None without an optimiser."""
        return self.steps + 1 if self._optimizers else None

    def start(self) -> Self:
        """Begin to screen; the same as entering the block."""
        if self._guarding is None:
            self._guarding = Guarding(self._model, self._optimizers, self._bad, self._by_hand)
            # Behind the screen's own: a step that goes bad is not counted before it is told.
            self._counting = [optimizer.register_step_post_hook(self._count) for optimizer in self._optimizers[:1]]
        return self

    def before_step(self, optimizer: Any) -> None:
        """The gradients are there; see ``by_hand``."""
        if self._guarding is not None:
            self._guarding.before_step(optimizer)

    def close(self) -> None:
        """Take all hooks off."""
        if self._guarding is not None:
            self._guarding.close()
            self._guarding = None
        for handle in self._counting:
            handle.remove()
        self._counting = []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        untold = None if self._guarding is None else self._guarding.untold
        if untold is not None and error is None:
            self._bad(untold)
        elif untold is not None and not self.findings:
            self.findings.append(self._looked_into(untold, None)[0])
        self.close()

    def _count(self, *_: Any) -> None:
        if self._guarding is not None and not self._guarding.is_deaf:  # a step that is made again is none
            self.steps += 1

    def _bad(self, bad: Bad) -> None:
        """The screen has seen something."""
        assert self._guarding is not None  # its hooks are on
        if not self.findings:
            with self._guarding.whole(bad) as together:
                finding, is_own = self._looked_into(bad, together)
                self.findings.append(finding)
                out, self.out = self.out, None
                if out is not None and is_own:  # of several processes one writes
                    self._write(finding, bad, out)
        if self._then == "raise" or (self._then == "skip" and bad.is_too_late):
            self.close()
            raise FaultFound(self.findings[0], self.out)
        if self._then == "skip":
            self._skip(bad)

    def _write(self, finding: Finding, bad: Bad, out: Path) -> None:
        """The step first: it is what cannot be had again. What cannot be written is said, and ends no training."""
        assert self._guarding is not None
        try:
            folder = paths.make(_free(out))  # another process of the same training may have taken it since
            optimizer = next(iter(self._optimizers), None)
            save(str(paths.make(folder / STEP)), self._model, self._guarding.calls, bad, self.step, optimizer)
            self.out = folder
            finding.report(folder)
        except Exception as error:  # noqa: BLE001 - the finding is there all the same, and so is the training
            said = str(error) if isinstance(error, ReproError) else f"could not write all of {out}: {in_words(error)}"
            _say(said)

    def _skip(self, bad: Bad) -> None:
        """The step is left out, once its gradients are there."""
        assert self._guarding is not None
        self.skipped += 1
        if bad.phase == "forward" and bad.call is not None and not bad.agreed:
            bad.call.spoilt = True  # its gradients come later
            return
        for optimizer in self._optimizers:
            self._guarding.leave_out(optimizer)

    def _looked_into(self, bad: Bad, together: Together | None) -> tuple[Finding, bool]:
        """The finding, and whether this process has made it."""
        assert self._guarding is not None
        with self.aside():
            told = self._guarding.look_into(bad)
        watched, bisected, is_own = of_all(told, self.step, together)
        return of_operators(self._model, watched, bisected, told.program if is_own else None), is_own


def _free(out: Path) -> Path:
    found = unused(out)
    if found != out:
        _say(f"{out} is used already: a report goes to {found}.")
    return found


def _say(text: str) -> None:
    """On standard error, where there is one: no warning, which a program may have made an error."""
    if sys.stderr is not None:
        print(f"repro: {text}", file=sys.stderr)
