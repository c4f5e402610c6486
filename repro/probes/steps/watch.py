"""The step ``watch``: what arrived in anything that the user's code keeps, while it was watched in its own process."""

from typing import Any

from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    """Only the process in which the code runs can watch it: this one never does."""
    return "skip", "code is watched in its own process, with repro.watch", None
