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
"""

__version__ = "0.1.0"
