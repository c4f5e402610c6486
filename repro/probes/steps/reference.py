"""The step ``reference``: each operator of the case's passes held against float64 of its own inputs."""

from typing import Any

from ..protocol.wire import Outcome
from ..rounding.run import hold


def run(session: Any, step: str) -> Outcome:
    """The first departure is kept in the session, for the reduction starts from it."""
    found, session.departure = hold(session.loaded(), session.passes())
    return found
