"""A row holds what a cell answered, or why it did not."""

import pytest
from support.hosting import ORIGIN

from repro.core.answer import Ablation, Answer, CellInfo, ModelInfo
from repro.core.encoding import decode, encode, replace
from repro.core.finite.sketch import Group, Sketch
from repro.core.payloads import Environment, Figures, Forward, Origin, Pass
from repro.core.records import Case, Kind, Outcome, Recipe
from repro.core.sweep_answers import CellAblation
from repro.report.cells import same_outputs
from repro.sweeps.matrix.rows import answered, unanswered

RECIPE = Recipe(id="a", python="3.11", device="cpu", why="a test", pins={"torch": "2.4.1", "transformers": "4.57.3"})
ANSWER = Answer(
    verdict=Outcome.BAD,
    reason="every logit is NaN",
    kind=Kind.NONFINITE,
    origin=decode(Origin, ORIGIN),
    model=ModelInfo(id="model"),
    case=Case("model"),
    cell=CellInfo(
        python="3.11.7",
        torch="2.4.1+cu121",
        transformers="4.57.3",
        platform="Linux-6.1",
        dtype="float16",
        attn="sdpa",
        device="cpu",
        executable="/home/me/python",
    ),
    ablations=(Ablation(name="dtype=float32", verdict=Outcome.GOOD, reason="finite", logits=Figures(nan=0)),),
    workarounds=("dtype=float32",),
    environment=Environment(machine="x86_64", torch="2.4.1+cu121"),
)


def test_a_row_has_what_the_cell_found_and_what_was_asked():
    row = answered(RECIPE, ANSWER, 3.5, "repro matrix m --cell a")
    assert (row.id, row.why, row.seconds, row.folder) == ("a", "a test", 3.5, "a")
    assert (row.verdict, row.kind, row.origin) == (Outcome.BAD, Kind.NONFINITE, ANSWER.origin)
    assert (row.python, row.torch, row.machine) == ("3.11.7", "2.4.1+cu121", "x86_64")
    assert row.asked == {"python": "3.11", "torch": "2.4.1", "transformers": "4.57.3"}
    assert row.ablations == (CellAblation(name="dtype=float32", verdict=Outcome.GOOD, reason="finite"),)
    assert row.command == "repro matrix m --cell a"


def test_a_row_of_a_good_cell_has_what_its_passes_gave_and_that_of_a_bad_one_has_not():
    forward = Forward(prompts=(Pass(digest="1a"), Pass(digest="2b")))
    good = replace(ANSWER, verdict=Outcome.GOOD, forward=forward)
    assert answered(RECIPE, good, 1.0, "").outputs == ("1a", "2b")
    assert answered(RECIPE, replace(good, verdict=Outcome.BAD), 1.0, "").outputs == ()
    unknown = replace(good, forward=Forward(prompts=(Pass(digest="1a"), Pass())))
    assert answered(RECIPE, unknown, 1.0, "").outputs == ()


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ("", None),
        ("1", None),
        ("11", "The same output, bit for bit: a and b."),
        ("12", "No two good cells give the same bits. Not compared: a and b (what they end with was not kept). Which"),
        ("1-1", "The same output, bit for bit: a and c."),
        ("1212", "The same output, bit for bit: a and c; b and d. Not compared: a and b ("),
        ("1121", "The same output, bit for bit: a, b and d. Of no other cell's: c. Not compared: a and c ("),
    ],
)
def test_cells_of_the_same_bits_are_named_together(outputs, said):
    rows = [
        replace(answered(RECIPE, ANSWER, 1.0, ""), id=name, outputs=() if letter == "-" else (letter,))
        for name, letter in zip("abcd", outputs, strict=False)
    ]
    found = same_outputs(rows)
    assert found == said or (found is not None and "Not compared" in str(said) and found.startswith(said))


def sketched(value, **more):
    """Of 16 elements, each ``value``; rounding moves each by 0.01."""
    group = Group(elements=16, on=(4.0 * value,) * 16, size=1.0, drift=0.01)
    kept = {"output": "logits", "shape": (16,), "groups": (group,), "limits": (5.0, 13.6), "likeliest": (3, 4)}
    return (Sketch(**{**kept, "unit": 1e-3, **more}),)


@pytest.mark.parametrize(
    ("sketches", "said"),
    [
        ([sketched(1.0), sketched(1.01)], "Within rounding of one another: a and b, at most 0.14 of what it allows."),
        (
            [sketched(1.0), sketched(1.01), sketched(1.5)],
            (
                "Within rounding of one another: a and b, at most 0.14 of what it allows. Not within rounding: a and "
                "c, 7.07 times what rounding allows,"
            ),
        ),
        (
            [sketched(1.0), sketched(2.0, likeliest=(3, 5))],
            "Not within rounding: a and b, 14.1 times what rounding allows, 1 of 2 likeliest tokens differ. Which",
        ),
        ([sketched(1.0), sketched(1.0, given="x")], "Not compared: a and b (the token ids are others). Which"),
        ([sketched(1.0), sketched(2.0, weights="x")], "Not compared: a and b (the random weights are others). Which"),
        (
            [sketched(1.0), sketched(1.05), sketched(1.1)],  # each with its neighbour, and the first not with the last
            (
                "Within rounding of one another: a and b, at most 0.71 of what it allows. Not "
                "within rounding: a and c, 1.41 times"
            ),
        ),
    ],
)
def test_cells_that_agree_within_rounding_are_named_and_how_far_the_others_are(sketches, said):
    row = answered(RECIPE, ANSWER, 1.0, "")
    rows = [replace(row, id=name, outputs=(name,), sketches=kept) for name, kept in zip("abc", sketches, strict=False)]
    found = same_outputs(rows)
    assert found.startswith(f"No two good cells give the same bits. {said}")


def test_a_row_does_not_name_the_interpreters_path():
    assert "/home/me" not in encode(answered(RECIPE, ANSWER, 3.5, ""))


def test_a_cell_without_an_answer_is_a_skip_with_its_reason_on_this_platform():
    row = unanswered(RECIPE, "not built: no Python 3.11", "again")
    assert (row.verdict, row.reason) == (Outcome.SKIP, "not built: no Python 3.11")
    assert (row.environment, row.torch, row.folder, row.device) == (None, None, None, "cpu")
    assert row.platform
