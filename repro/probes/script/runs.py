"""A script as something that can be run again: each run is a process of its own."""

import dataclasses
import io
import time
from dataclasses import dataclass, field
from typing import Any, Optional

import torch

from ..program import capture as capturing
from ..program.capture import Found, Wanted
from ..program.makers import Rule
from ..reduce.program import Call, Program
from .child import Around, Job
from .run import Ran, run_script

SECONDS = 300.0  # all runs of the script together, beyond the first two
LOOK, CAPTURE = "program.makers:look", "script.runs:capture"


@dataclass
class Runs:
    """Runs of one script. ``plain``: the one that nothing watched. ``settings``: what is changed in all others.
    ``around``: what is around each of them.
    """

    path: str
    plain: Ran
    settings: tuple[str, ...] = ()
    around: Around = field(default_factory=Around)
    end: float = field(default_factory=lambda: time.monotonic() + SECONDS)
    changed: dict[tuple[str, ...], Ran] = field(default_factory=dict)
    noun: str = "the script"
    seconds: float = SECONDS

    def look(self, rule: Rule) -> Ran:
        return self.run(self.settings, LOOK, rule)

    def capture(self, wanted: Wanted) -> Optional[Found]:
        return received(self.run(self.settings, CAPTURE, wanted).found)

    def run(self, settings: tuple[str, ...] = (), watch: Optional[str] = None, given: Any = None) -> Ran:
        """One run of it."""
        return run_script(Job(self.path, settings, watch, given, self.around))

    def unwatched(self, *settings: str) -> Ran:
        """The script unwatched with these settings; an ablation asks again what the search has asked."""
        if settings not in self.changed:
            self.changed[settings] = self.run(settings)
        return self.changed[settings]

    def with_settings(self, *settings: str) -> "Runs":
        return dataclasses.replace(self, settings=settings, changed={})

    def same(self, ended: Ran) -> bool:
        """Whether it failed as the plain run did."""
        return ended.verdict == self.plain.verdict and ended.key == self.plain.key

    def well(self, ended: Ran) -> bool:
        """Whether the failure is gone: the script is good, or does not raise what it raised, but something else or an
        assertion of its own.
        """
        return ended.verdict == "good" or (self.plain.raised and not self.same(ended))

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.end


def capture(wanted: Wanted) -> tuple[Any, Any]:
    """(context around the script, function that gives what travels to the process that asked)."""
    around, found = capturing.capture(wanted)
    return around, lambda: portable(found())


def portable(found: Optional[Found]) -> Any:
    """As it travels to another process: operators by name, tensors through PyTorch's own format."""
    if found is None or found.program is None:
        return found, None
    try:
        content = io.BytesIO()
        torch.save(list(found.program.leaves), content)
        calls = [(str(call.func), call.args, call.kwargs) for call in found.program.calls]
        return dataclasses.replace(found, program=None), (content.getvalue(), calls)
    except Exception:  # noqa: BLE001 - a tensor of a kind that cannot be written: the origin is known all the same
        return dataclasses.replace(found, program=None), None


def received(travelled: Any) -> Optional[Found]:
    """What ``portable`` gave, in this process; without the program where an operator is not known here."""
    if travelled is None or travelled[0] is None:
        return None
    found: Found
    found, parts = travelled
    if parts is None:
        return found
    leaves = torch.load(io.BytesIO(parts[0]), weights_only=True)
    calls = []
    for name, args, kwargs in parts[1]:
        space, packet, overload = name.split(".")
        func = getattr(getattr(getattr(torch.ops, space), packet, None), overload, None)
        if func is None:
            return found
        calls.append(Call(func, args, kwargs))
    return dataclasses.replace(found, program=Program(tuple(leaves), tuple(calls)))
