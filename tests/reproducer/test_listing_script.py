"""The script of a user, made smaller or as it is: what is around it, and when it is offered."""

import sys

import pytest
from support.reduced import ADD, SOUND, reduced
from support.running import in_process

from repro.core.encoding import replace
from repro.core.payloads import Environment, Listing, Reduction
from repro.core.records import Case
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.reproducer.offer import UNSEEDED_RUNS, offer
from repro.reproducer.script import LEVELS
from repro.reproducer.scripts.listing import listing_script, needs_of
from repro.reproducer.verify import Verification

SMALL = "import torch\nx = torch.zeros(1).log()\nassert x.isfinite(), 'x'\n"
LONG = "import torch\n" + "x = torch.zeros(1)\n" * 30 + "assert x.log().isfinite(), 'x'\n"
GOOD = "import torch\n"


def listing(text, whole=False):
    lines = len(text.splitlines())
    return Listing(text=text, lines_before=40, lines=lines, trials=9, whole=whole)


def offered(folder, program, found):
    answer = reduced(reduction=Reduction(program=program, listing=found))
    return offer(answer, sys.executable, folder, Mask(Private()), run=in_process)


def test_a_smaller_script_has_the_header_of_all_scripts_and_nothing_else_of_ours():
    script = listing_script(reduced(), listing(SMALL))
    head, _, code = script.text.partition('"""\n')
    assert code == SMALL
    assert head.startswith("# /// script\n")
    assert '"torch==2.13.0"' in head
    assert "Made smaller from a script of 40 lines, with the same fault." in head
    assert (script.level, script.needs, script.lines, script.last) == ("script", ("torch",), 3, False)
    assert script.level in LEVELS


def test_a_script_as_it_is_is_not_touched():
    script = listing_script(reduced(), listing(LONG, whole=True))
    assert (script.text, script.last) == (LONG, True)


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("import torch.nn as nn, os", ("torch",)),
        ("from transformers import A\nimport torch", ("torch", "transformers")),
        ("import numpy as np\nfrom PIL import Image\nimport torch", ("torch", "numpy", "pillow")),
        ("from . import beside\nimport sys", ()),
        ("def f():\n    import yaml", ("pyyaml",)),
    ],
)
def test_what_it_needs_is_read_from_its_imports(text, needs):
    assert needs_of(text, None) == needs


def test_a_package_is_named_as_it_is_installed_and_pinned():
    known = Environment(distributions={"pyro-ppl": "1.9.1", "torch-geometric": "2.8.0"}, modules={"pyro": "pyro-ppl"})
    text = "import pyro\nimport torch_geometric.nn\nfrom cv2 import imread\n"
    script = listing_script(replace(reduced(), environment=known), listing(text))
    assert script.needs == ("opencv-python", "pyro-ppl", "torch-geometric")
    assert '# dependencies = ["opencv-python", "pyro-ppl==1.9.1", "torch-geometric==2.8.0"]' in script.text


def test_of_an_operator_and_a_smaller_script_the_shorter_is_the_reproducer(tmp_path):
    found = offered(tmp_path, ADD, listing(SMALL))
    assert (found.level, found.verified) == ("script", True)
    assert [(item.path, item.level, item.verified) for item in found.others] == [
        ("reproducer_operator.py", "operator", True)
    ]
    assert SMALL in (tmp_path / "reproducer.py").read_text("utf-8")


def test_a_longer_one_is_kept_beside_the_operator(tmp_path):
    found = offered(tmp_path, ADD, listing(LONG))
    assert (found.level, [item.path for item in found.others]) == ("operator", ["reproducer_script.py"])


def test_an_operator_that_does_not_show_it_leaves_the_place_to_the_script(tmp_path):
    found = offered(tmp_path, SOUND, listing(LONG))
    assert (found.level, found.verified, found.path) == ("script", True, "reproducer.py")
    assert {item.path for item in found.others} == {None}


def test_a_script_that_does_not_show_it_is_not_kept(tmp_path):
    found = offered(tmp_path, ADD, listing(GOOD))
    assert (found.level, [item.path for item in found.others]) == ("operator", [None])


def test_the_script_as_it_is_is_offered_where_nothing_smaller_shows_the_fault(tmp_path):
    found = offered(tmp_path, SOUND, listing(LONG, whole=True))
    assert (found.level, found.verified) == ("script", True)
    assert (tmp_path / "reproducer.py").read_text("utf-8") == LONG


def test_the_script_as_it_is_is_not_run_where_the_operator_shows_the_fault(tmp_path):
    found = offered(tmp_path, ADD, listing(LONG, whole=True))
    assert (found.level, found.others) == ("operator", ())


def asked_how_often(folder, found, ended):
    """The numbers of runs that were asked for, and the reason."""
    asked = []

    def run(python, text, argv, *, together, runs=3):
        asked.append(runs)
        return Verification((ended,) * runs, "", ended == 1, "Said.")

    answer = reduced(reduction=Reduction(listing=found))
    made = offer(answer, sys.executable, folder, Mask(Private()), run=run)
    return asked, made.reason


def test_a_script_that_draws_without_a_seed_is_run_more_often_and_that_is_said(tmp_path):
    asked, reason = asked_how_often(tmp_path, replace(listing(SMALL), unseeded=("torch",)), 1)
    assert asked == [UNSEEDED_RUNS]
    assert "without a seed (torch)" in reason
    asked, reason = asked_how_often(tmp_path, listing(SMALL), 1)
    assert asked == [3]
    assert "seed" not in reason


def test_a_file_that_is_not_handed_on_is_named_where_the_script_fails_without_it(tmp_path):
    _, reason = asked_how_often(tmp_path, replace(listing(SMALL), reads=("people.csv",)), 70)
    assert "It reads people.csv, not handed on with it." in reason
    _, reason = asked_how_often(tmp_path, replace(listing(SMALL), reads=("people.csv",)), 1)
    assert "people.csv" not in reason


READS = "import pathlib\nassert pathlib.Path('data/x.txt').read_text() != 'bad', 'x'\n"


def test_a_script_that_reads_a_file_is_run_beside_it_and_that_is_said(tmp_path):
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "x.txt").write_text("bad")
    out = tmp_path / "out"
    out.mkdir()
    found = replace(listing(READS), reads=("data/x.txt",))
    answer = replace(reduced(reduction=Reduction(listing=found)), case=Case(str(tmp_path / "own" / "asks.py")))
    made = offer(answer, sys.executable, out, Mask(Private()))
    assert (made.verified, made.reads) == (True, ("data/x.txt",)), made.reason
    assert made.reason.endswith("It reads data/x.txt, not handed on with it.")
    (tmp_path / "own" / "data" / "x.txt").write_text("good")
    assert not offer(answer, sys.executable, out, Mask(Private())).verified
