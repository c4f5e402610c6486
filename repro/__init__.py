"""Find where a model's NaN is born, and say so with evidence.

How it hangs together::

    repro/core/case ----> Case -+                                 the interpreter under examination, its own torch
    repro/environments -> Cell -+--> repro/engine --- plan --->   probes.pyz (repro/probes, packed by repro/engine/kit)
    repro/cli -> repro/run -----+        ^----------- events ---  one process: load once, run every step
                                +--> evidence.jsonl               append only; a run resumes from it
                                +--> repro/diagnosis -> verdict.json
                                +--> repro/report <- REPORT_TEMPLATE.md -> report.md, report.html

Two worlds, one wire. The host (every room here except ``repro/probes``) plans, judges and reports, and never imports
torch. The probe kit is the only code that imports torch, and imports nothing of the host. ``docs/architecture.md`` has
one row for each room; ``tests/project`` holds the imports against it.

In a notebook or a training script, the same is a call: ``repro.find``, ``repro.watch``, ``repro.Guard``. They are
imported when they are first used, and so is torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro.inprocess.guard import FaultFound, Guard
    from repro.inprocess.stepping import replay
    from repro.inprocess.watching import find, watch

__version__ = "0.1.0"

CALLS = {
    "FaultFound": "repro.inprocess.guard",
    "Guard": "repro.inprocess.guard",
    "find": "repro.inprocess.watching",
    "replay": "repro.inprocess.stepping",
    "watch": "repro.inprocess.watching",
}
"""What the user's own process calls, and the module that has it."""
__all__ = ["FaultFound", "Guard", "__version__", "find", "replay", "watch"]


def __getattr__(name: str) -> Any:
    if name not in CALLS:
        raise AttributeError(f"module 'repro' has no attribute {name!r}; it has {', '.join(CALLS)}")
    import importlib

    return getattr(importlib.import_module(CALLS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *CALLS])
