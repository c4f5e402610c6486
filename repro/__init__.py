"""Find where a model's NaN is born, and say so with evidence.

How it hangs together::

    arguments -> cases, cells --+                                the cell's own Python and torch
                                +--> runner --- plan.json --->   probes.pyz (repro/probes, packed by kit)
    cli -> run -----------------+      ^------- events, JSON lines --  one process: load once, run every step
                                +--> evidence.jsonl (append only, a run resumes from it)
                                +--> judge -> Judgement -> verdict.json
                                +--> report <- REPORT_TEMPLATE.md -> report.md

Two worlds, one wire. The host (every module here except ``repro.probes``) plans, judges and reports, and never
imports torch. The probe kit is the only code that imports torch, and imports nothing of the host. ``records`` and
``errors`` are the words that all parts share; ``tests/test_architecture.py`` holds the imports against this picture.
"""

__version__ = "0.1.0"
