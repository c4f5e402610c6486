"""A saved step, made again: ``repro.replay``, and what the command ``repro replay STEP`` runs in its own process."""

import sys
from pathlib import Path

from torch import nn

from repro.core.errors import ReproError, UsageError
from repro.inprocess.finding import Finding
from repro.inprocess.watching import of_operators
from repro.probes.checkpoint.resolve import CannotResolve
from repro.probes.live.again import Again
from repro.probes.live.answers import bisect_of_step, guard_outcome
from repro.probes.live.saved import NoStep, read
from repro.probes.model.compat import CannotLoad
from repro.probes.model.given.factory import module_of
from repro.probes.observe.watch import inside

STATUS = {"good": 0, "bad": 1, "skip": 125}


def replay(step: str | Path, model: nn.Module) -> Finding:
    """Make a step again that a guard has saved, or a call that ``Finding.save_step`` has.

    Args:
        step: The folder ``step`` of a guard's report, or that of ``save_step``.
        model: A model of the same class. It gets the step's weights and mode, and for a step of the optimizer's own
            its gradients.

    Returns:
        The finding; "good" where the step is good here.

    Raises:
        repro.core.errors.UsageError: the folder holds no such step, or one of another model.
    """
    module = inside(model)
    try:
        said, calls, bad, optimizer = read(str(step), module)
    except NoStep as error:
        raise UsageError(str(error)) from error
    told = Again(module, calls, optimizer).look_into(bad)
    number = said.get("step")
    bisected = bisect_of_step(told)
    watched = guard_outcome(told, number if isinstance(number, int) else None)
    if told.is_good:
        watched = ("good", f"{told.why}: {bad.what} holds no NaN or Inf", watched[2])
    elif bisected[0] != "bad":
        watched = ("skip", told.why, watched[2])
    return of_operators(module, watched, bisected, told.program)


def main(arguments: list[str]) -> int:
    """``STEP FACTORY [OUT]``: print the finding, write its report where OUT is given, and give the verdict's status."""
    step, factory, *out = arguments
    try:
        module = module_of(factory)
        finding = replay(step, module)
        print(finding.text)
        if out:
            print(f"report: {finding.report(out[0])}")
    except (CannotLoad, CannotResolve, ReproError) as error:
        print(f"repro: {error}", file=sys.stderr)
        return 2
    return STATUS[finding.verdict]
