"""The step ``prompts``: a file of prompts, in batches."""

from typing import Any

from ..prompts.run import run as run_prompts
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    if not session.examples:
        return "skip", "the plan names no file of prompts", None
    return run_prompts(session.loaded(), session.examples, session.emitter, session.trials or {}, session.trusted)
