"""The step ``script``: what a user's script ends with is the answer."""

from typing import Any

from ..protocol.wire import Outcome
from ..script.run import run_script


def run(session: Any, step: str) -> Outcome:
    return run_script(session.case["model"]).outcome
