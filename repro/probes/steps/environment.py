"""The step ``environment``: versions, processor, libraries, threads, settings that change numbers."""

from typing import Any

from ..machine.environment import measure
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    found = measure()
    known = [("Python", "python"), ("torch", "torch"), ("transformers", "transformers")]
    return "good", ", ".join(f"{name} {found[key]}" for name, key in known if found[key]), found
