"""Every step by name, and the call that runs one. The list is ``registry.json``; the host reads the same file.

A step is one module beside this one with ``run(session, step) -> (verdict, reason, payload)``, and one line of the
list: its name, the question that it answers, what it needs, which commands ask for it, and of what subject (a model, a
script, or a module that a factory gives). ``judges`` names the kind of fault that a bad answer shows. ``phases``: those
in which it is asked ("forward", "generate", "train"), all where it names none. ``option``: the field of the case that
must be set for it to be asked. An ablation is the step
``ablation:NAME``.
"""

import importlib
import json
import pkgutil
from typing import Any

from ..protocol.wire import Outcome

BEFORE: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "script": (),
    "files": ("files",),
    "model": ("files", "load"),
    "passes": ("files", "load", "forward"),
    "origin": ("files", "load", "forward", "bisect"),
}
"""What a single step runs first, by what it needs, so that its answer stands on checked ground."""


def every() -> list[dict[str, Any]]:
    """The list, in order of running."""
    data = pkgutil.get_data(__package__, "registry.json")
    assert data is not None  # it is packed with this module
    rows: list[dict[str, Any]] = json.loads(data)
    return rows


def announced(names: list[str]) -> list[dict[str, str]]:
    """What the kit says of the steps that it was asked for: name, question and needs."""
    return [{key: row[key] for key in ("name", "question", "needs")} for row in every() if row["name"] in names]


def single(step: str, scripted: bool, made: bool = False) -> list[str]:
    """A step and what it stands on, in order. made: for a module that a factory gives."""
    if scripted:
        return [step]
    (needs,) = (row["needs"] for row in every() if row["name"] == step)
    known = {row["name"] for row in every() if not made or "module" in row["subjects"]}
    return [*(name for name in BEFORE[needs] if name != step and name in known), step]


def run(session: Any, step: str, scripted: bool) -> Outcome:
    """One step by its name.

    Raises:
        CannotResolve, CannotLoad: with a message for the user. Anything else is a fault of the model's code or of
            this kit.
    """
    subjects = {row["name"]: row["subjects"] for row in every()}
    if step not in subjects:
        return "skip", "there is no step {!r}; known: {}".format(step, ", ".join(subjects)), None
    if "script" not in subjects[step] and scripted:
        return "skip", f"a script has no {step} step: what it ends with is the answer", None
    if not scripted and session.case.get("factory") is not None and "module" not in subjects[step]:
        return "skip", f"a module that a factory gives has no {step} step", None
    if subjects[step] == ["script"] and not scripted:
        return "skip", "{} is no script: a script is a .py file".format(session.case.get("model")), None
    module = importlib.import_module("." + step.partition(":")[0], __package__)
    found: Outcome = module.run(session, step)
    return found
