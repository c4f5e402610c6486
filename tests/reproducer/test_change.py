"""What the caller changes: the script that shows it, and what is kept of it."""

import sys

import pytest
from support.reduced import ADD, reduced
from support.running import in_process

from repro.core.encoding import replace
from repro.core.payloads import Listing, Reduction, ScriptChange
from repro.core.records import Owner
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.report.render import render
from repro.reproducer.offer import offer

BAD = "import torch\nx = torch.zeros(1).log()\nassert x.isfinite(), 'x'\n"
GOOD = BAD.replace(".log", ".clamp(min=1e-06).log")


def offered(folder, project, text):
    change = ScriptChange(before=("x = a",), after=("x = b",), text=text, script_before=("c",), script_after=("d",))
    listing = Listing(text=BAD, lines_before=40, lines=3, trials=9, change=change)
    answer = reduced(reduction=Reduction(program=ADD, listing=listing))
    return offer(answer, sys.executable, folder, Mask(Private()), run=in_process, project_of=lambda answer: project)


def test_the_caller_gets_the_script_and_the_changed_one_beside_it(tmp_path):
    found = offered(tmp_path, "caller", GOOD)
    assert (found.level, found.verified) == ("script", True)
    assert (found.change.path, found.change.verified) == ("reproducer_changed.py", True)
    assert (found.change.before, found.change.after) == (("x = a",), ("x = b",))
    assert (found.change.script_before, found.change.script_after) == (("c",), ("d",))
    assert (tmp_path / "reproducer_changed.py").read_text().endswith(GOOD)


def test_a_change_that_does_not_help_is_not_told(tmp_path):
    found = offered(tmp_path, "caller", BAD)
    assert (found.verified, found.change) == (True, None)
    assert not (tmp_path / "reproducer_changed.py").exists()


@pytest.mark.parametrize(("project", "title"), [("pytorch", "What gets around it"), ("caller", "What to change")])
def test_whose_fault_is_another_ones_is_told_what_gets_around_it(tmp_path, project, title):
    found = offered(tmp_path, project, GOOD)
    assert (found.change.path, found.change.verified) == ("reproducer_changed.py", True)
    report = render(replace(reduced(), reproducer=found, owner=Owner(project, "why")))
    assert title in report
    assert "- x = a\n+ x = b" in report
