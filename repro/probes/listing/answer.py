"""The reduce step of a script: the operator at fault by itself, and the script made smaller."""

from typing import Any

from ..protocol.wire import Outcome
from ..reduce.trials import Trials
from ..script.answer import Script
from ..script.answer import reduce as operator_alone
from .listing import smaller
from .runs.pool import pool


def reduce(script: Script, bisected: Outcome, trials: Trials) -> Outcome:
    """Both, as far as there are any. The workers are made first: they are copies of a process that computed nothing.

    bisected: the answer of the bisect step.
    """
    verdict, reason, payload = bisected
    if script.verdict != "bad":
        return verdict, reason, None
    told: dict[str, Any] = {"program": None, "notes": []}
    with pool() as workers:
        if verdict == "bad":
            verdict, reason, of_operator = operator_alone(script, trials)
            told.update(of_operator or {})
        told["listing"] = smaller(script, (payload or {}).get("origin"), trials, workers)
    told.update(notes=list(dict.fromkeys([*told["notes"], *trials.notes])))
    told.update(trials=trials.asked, crashed_trials=trials.crashed)
    if told["listing"]["whole"]:
        return verdict, reason, told
    words = "{lines} of {lines_before} lines of the script are enough".format(**told["listing"])
    return "bad", f"{reason}; {words}" if verdict == "bad" else words, told
