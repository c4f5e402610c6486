"""Settings of the whole suite: no network, no cache but its own, and device markers that skip with a reason."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import forked
from support.verdicts import verdicts_fit_the_schema  # noqa: F401 - a fixture of every test

# Set before anything imports huggingface_hub, which reads them once. Child processes inherit them.
_HOME = tempfile.mkdtemp(prefix="repro-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["HF_HOME"] = str(Path(_HOME, "huggingface"))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["REPRO_CONFIG_DIR"] = str(Path(_HOME, "config"))  # known faults of whoever runs the suite are none of its
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# One thread for torch, here and in children: the models are tiny, the suite itself runs on every core, and threads that
# wait for each other on a busy machine made it several times slower (36 tests: 15 s with one, 179 s with two).
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
for _inherited in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_MODULES_CACHE", "HF_TOKEN"):
    os.environ.pop(_inherited, None)

_ROOT = Path(__file__).parents[1]
_VARIABLES = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONIOENCODING": "utf-8"}
"""What tests start interpreters with, but for what a test adds."""


@pytest.fixture(scope="module")
def forked_interpreters() -> Iterator[None]:
    """In the tests of a file, ``repro`` and its kit are forked off a process that has imported everything: for tests
    that are about what the real kit answers, and not about its start.
    """
    forked.start(_VARIABLES)
    with forked.allowed(True):
        yield


def _missing_device(name: str) -> str | None:
    """Why tests with the marker `name` cannot run here; None where they can."""
    import torch

    if name == "cuda":
        return None if torch.cuda.is_available() else "no CUDA device on this machine"
    return None if torch.backends.mps.is_available() else "no Apple GPU (MPS) on this machine"


LONG = (
    "test_listing.py", "test_score.py", "test_phases.py", "test_change.py", "test_compiled.py", "test_prompting.py",
    "test_crash.py", "test_reduce.py", "test_forms.py", "test_merging.py", "test_compare_command.py",
    "test_delivery.py", "test_privacy.py", "test_examples.py", "test_scan.py",
)  # fmt: skip
"""Files whose tests take longest: they start first, so that no worker is left with one of them alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; tests of devices that this machine lacks are skipped, and only they import torch here."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    for name in ("cuda", "mps"):
        marked = [item for item in items if item.get_closest_marker(name)]
        if marked and (reason := _missing_device(name)):
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))
