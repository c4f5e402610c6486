"""Which script a run is offered: the smallest that shows the same fault, and what stands beside it."""

import hashlib
import sys

import pytest
from support.reduced import ADD, MODULE, SOUND, reduced
from support.running import in_process

from repro.core.answer import ModelInfo
from repro.core.encoding import replace
from repro.core.payloads import Reduction
from repro.core.records import Case, Outcome
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.reproducer.code.calls import INFIX
from repro.reproducer.offer import offer
from repro.reproducer.verify import Verification


class Listener:
    """Keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def offered(folder, *args, **changed):
    return offer(reduced(*args, **changed), sys.executable, folder, Mask(Private()), run=in_process)


def test_a_script_is_run_three_times_in_a_clean_interpreter(tmp_path):
    listener = Listener()
    found = offer(reduced(ADD), sys.executable, tmp_path, Mask(Private()), listener)
    assert (found.verified, found.runs, found.exit_statuses) == (True, 3, (1, 1, 1))
    assert found.output == "seen inf in float16, right is 68384.0 (float64 of the same inputs)"
    assert found.reason.startswith("It runs a + b without the model. Run 3 times")
    assert listener.notes == ["verifying the reproducer that runs a + b without the model"]


def test_the_smallest_script_is_offered_with_the_module_beside_it(tmp_path):
    found = offered(tmp_path, ADD, MODULE)
    assert (found.path, found.level, found.verified) == ("reproducer.py", "operator", True)
    assert [item.path for item in found.others] == ["reproducer_module.py"]
    for item in (found, *found.others):
        assert item.sha256 == hashlib.sha256((tmp_path / item.path).read_bytes()).hexdigest()


def test_a_script_that_does_not_show_it_is_written_and_not_verified(tmp_path):
    found = offered(tmp_path, SOUND)
    assert (found.verified, found.exit_statuses) == (False, (0,))
    assert (tmp_path / "reproducer.py").exists()


def test_where_the_smallest_does_not_show_it_the_next_is_offered_and_that_is_said(tmp_path):
    found = offered(tmp_path, SOUND, MODULE)
    assert (found.level, found.verified, found.path) == ("module", True, "reproducer.py")
    assert "A smaller script, which runs a + b without the model, does not show the fault." in found.reason
    assert [item.path for item in found.others] == [None, None]


def test_a_public_function_that_does_not_show_it_is_tried_by_the_operators_own_name(tmp_path, monkeypatch):
    # a + b is spelled with a sign that is made wrong here, as if the public function took another path.
    monkeypatch.setitem(INFIX, "add", "-")
    assert offered(tmp_path, ADD).verified
    assert "torch.ops.aten.add.Tensor(a, b)" in (tmp_path / "reproducer.py").read_text()


def test_another_bad_value_is_another_fault(tmp_path):
    found = offered(tmp_path, replace(ADD, seen="nan"))
    assert not found.verified
    assert "another fault" in found.reason
    assert found.reason.endswith("seen inf in float16, right is 68384.0 (float64 of the same inputs)")


def test_scripts_of_an_earlier_run_do_not_stay(tmp_path):
    (tmp_path / "reproducer_module.py").write_text("old")
    offered(tmp_path, ADD)
    assert [path.name for path in tmp_path.iterdir()] == ["reproducer.py"]


@pytest.mark.parametrize("changed", [{"verdict": Outcome.GOOD}, {"reduction": None}, {"reduction": Reduction()}])
def test_nothing_is_offered_where_there_is_nothing_to_show(tmp_path, changed):
    assert offered(tmp_path, ADD, **changed) is None
    assert not list(tmp_path.iterdir())


SHOWS = Verification(
    (1, 1, 1), "seen inf in float16, right is 68384.0 (float64 of the same inputs)", True, "Run 3 times."
)
FAILS = Verification((125,), "", False, "It could not tell: no such file.")


def local(name):
    """The run of a local model whose folder has a name."""
    case = Case(f"/srv/{name}", dtype="float16")
    return reduced(ADD, model=ModelInfo(id=f"/srv/{name}", class_="GPT2LMHeadModel"), case=case)


def test_what_is_run_and_recorded_is_what_is_handed_on(tmp_path):
    ran = []

    def run(python, text, argv, *, together):
        ran.append(text)
        return SHOWS

    found = offer(local("m-bob@mail.corp.example"), "python", tmp_path, Mask(Private()), run=run)
    text = (tmp_path / "reproducer.py").read_text("utf-8")
    assert ran == [text]
    assert "bob@" not in text
    assert "m-bob" not in text
    assert "MAIL" in text
    assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert not found.masked


def test_a_script_that_needs_what_is_masked_is_run_with_it_and_handed_on_without(tmp_path):
    def run(python, text, argv, *, together):
        return SHOWS if "bob@" in text else FAILS

    found = offer(local("bob@mail.corp.example"), "python", tmp_path, Mask(Private()), run=run)
    assert (found.verified, found.masked) == (True, True)
    assert found.reason.endswith("It was run with them, and does not show the fault without.")
    assert "bob@" not in (tmp_path / "reproducer.py").read_text("utf-8")


def test_a_script_that_fails_with_what_is_masked_too_is_not_verified(tmp_path):
    found = offer(local("bob@mail.corp.example"), "python", tmp_path, Mask(Private()), run=lambda *_, together: FAILS)
    assert (found.verified, found.masked) == (False, False)
