"""What these tests share."""

import dataclasses

import pytest

from repro.probes.script import child


@pytest.fixture(autouse=True)
def the_plain_run_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter of its own for each script's plain run takes two seconds; tests/probes/script has that."""
    monkeypatch.setattr(child, "plain", lambda path: dataclasses.replace(child.run(child.Job(path)), how=None))
