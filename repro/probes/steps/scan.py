"""The step ``scan``: NaN and Inf in files of tensors, an answer for each as soon as it is read."""

from typing import Any

from ..checkpoint.look import look
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    files = session.files or [session.case["model"]]
    counts = {"good": 0, "bad": 0, "skip": 0}
    for number, path in enumerate(files):
        found = look(path)
        counts[found.verdict] += 1
        session.emitter.event("example", step=step, record={"file": number, **found.record()})
        session.emitter.progress(number + 1, len(files), "files")
    verdict = "bad" if counts["bad"] else "good" if counts["good"] else "skip"
    reason = "of {} files {good} are good, {bad} bad, and {skip} could not be read".format(len(files), **counts)
    return verdict, reason, {"files": len(files), **counts}
