"""The first lines of a filled form: regression, loudness, place, and what makes it go away."""

import pytest
from support.injected_run import verdict

from repro.core.encoding import replace
from repro.core.records import Kind, Outcome
from repro.sharing.forms.first import first_lines
from repro.sharing.tried import Tried

BAD_NOW = "The newest release, 2.99.0, is bad: a test. No nightly build was tried."
GOOD, BAD = frozenset({Outcome.GOOD}), frozenset({Outcome.BAD})


def lines(releases=None, latest=None, **changed):
    said = first_lines(replace(verdict(), **changed), "torch", releases or {}, latest)
    return {line.partition(":**")[0].lstrip("- *"): line.partition(":** ")[2] for line in said.split("\n")}


def newest(outcome):
    return Tried(package="torch", version="2.99.0", verdict=outcome, reason="a test")


@pytest.mark.parametrize(
    ("releases", "latest", "said"),
    [
        ({"2.4.0": GOOD, "2.5.0": BAD}, newest(Outcome.BAD),
         "good in torch 2.4.0, bad in 2.5.0. " + BAD_NOW),
        ({"2.0.1": BAD, "2.5.0": GOOD}, newest(Outcome.GOOD),
         "no: bad in torch 2.0.1, good in 2.5.0. " + BAD_NOW.replace("bad", "good")),
        ({"2.5.0": BAD}, None,
         "not known. Bad in torch 2.5.0; no older release was tried. No newer release of torch was tried"),
        ({"2.3.0": GOOD, "2.4.0": GOOD, "2.5.0": BAD, "2.6.0": BAD, "2.7.0": GOOD}, newest(Outcome.SKIP),
         "good in torch 2.4.0, bad in 2.5.0 and 2.6.0. " + BAD_NOW.replace("is bad", "could not be tested")),
        ({"2.4.0": GOOD | BAD}, None, "not known: no release of torch was tried"),
        ({f"2.{minor}.0": BAD for minor in range(9)}, newest(Outcome.BAD),
         "not known. Bad in torch 9 releases from 2.0.0 to 2.8.0; no older release was tried. " + BAD_NOW),
    ],
)  # fmt: skip
def test_the_first_line_says_whether_it_is_a_regression(releases, latest, said):
    found = lines(releases, latest)
    assert next(iter(found)) == "Regression"
    assert found["Regression"] == said


def test_where_it_is_born_and_what_makes_it_go_away():
    found = lines()
    assert found["Where"].startswith("float16 overflow in `aten.add.Tensor`, called by `model.layers.")
    assert found["Goes away with"] == "`dtype=float32`"
    assert "Goes away with" not in lines(workarounds=())
    assert "Where" not in lines(origin=None)
    behind = replace(verdict().origin, op="aten.div.Tensor", forward_op="aten.hypot.default", forward_source="a.py:8")
    where = lines(origin=behind)["Where"]
    assert "in `aten.div.Tensor`, in the backward of `aten.hypot.default`" in where


@pytest.mark.parametrize(
    ("kind", "word"), [(Kind.NONFINITE, "silent"), (Kind.LOAD, "silent"), (Kind.CRASH, "loud"), (Kind.FILES, None)]
)
def test_whether_anything_says_that_it_went_wrong(kind, word):
    said = lines(kind=kind).get("Silent or loud")
    assert said is None if word is None else said.startswith(word)
