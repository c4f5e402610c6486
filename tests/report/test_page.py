"""What the page has beside the report's sections: its numbers are the answer's, nothing is said without evidence."""

import html
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hosting import BISECT, ORIGIN, observation
from support.injected_run import LOGITS
from support.reports import (
    FOLLOWS,
    OVERFLOW,
    TWO,
    answer,
    bad_tokens,
    bisect,
    bisected,
    both,
    cell,
    good,
    magnitudes,
    matrix,
    probe,
)

from repro.core.encoding import replace
from repro.core.records import Outcome, Owner
from repro.core.sweep_answers import Boundary
from repro.report.page.glance import glance
from repro.report.page.grid import by_ablations, by_versions
from repro.report.page.highlight import python, python_lines
from repro.report.page.marks import ablations, versions
from repro.report.page.network import network
from repro.report.page.way import way

# In short


def said(found):
    """The lines of each question."""
    return {question.asked: [line.plain() for line in question.lines] for question in glance(found)}


def test_an_origin_answers_what_where_why_and_what_to_do():
    found = replace(
        bisect(OVERFLOW, operands=[68000.0, 12.5], value="inf", excerpt=None),
        owner=Owner("transformers", "the residual grows", advice="use bfloat16"),
        workarounds=("dtype=float32", "dtype=bfloat16"),
    )
    answers = said(found)
    assert list(answers) == ["What", "Where", "Why", "What to do"]
    assert answers["What"][0] == (
        "float16 overflow: the value is Inf, float32 has 68394.9, the largest float16 is 65504."
    )
    assert answers["Where"][0].startswith("model.layers.7 (")
    assert answers["Why"] == ["Its inputs there: 68000 and 12.5.", "The residual grows."]
    assert answers["What to do"][:2] == ["Good with dtype=float32 and dtype=bfloat16 (each was run).", "Use bfloat16."]
    assert answers["What to do"][-1] == "Report it to Transformers: repro report RUN"


def test_what_is_not_known_is_not_said():
    bare = {**BISECT, "origin": {**ORIGIN, "value": None, "reference_value": None, "limit": None, "operands": [None]}}
    found = replace(answer(observation("bisect", "bad", payload=bare)), workarounds=(), owner=None, reproducer=None)
    answers = said(found)
    assert answers["What"][0] == "float16 overflow."
    assert "Why" not in answers
    assert "What to do" not in answers


def test_a_bad_pass_without_an_origin_says_why_it_is_not_known():
    found = answer(observation("bisect", "skip", "no operator makes it", payload={}))
    assert said(found)["Where"] == ["Not known. No operator makes it."]


def test_a_sound_run_has_nothing_to_do():
    assert list(said(good())) == ["What"]


def test_a_skipped_run_says_which_step_gave_none():
    answers = said(answer(observation("load", "skip", "no cuda device"), observation("forward", "skip", "not run")))
    assert answers["Where"] == ["No verdict from step load"]
    assert answers["What to do"][0].startswith("When that is mended, run again: repro ")


def test_bad_weights_are_named_with_their_counts():
    finding = {"tensor": "h.0.w", "file": "m.safetensors", "nan": 2, "posinf": 1, "neginf": 0, "first_index": [3, 4]}
    found = answer(
        observation("weights", "bad", payload={"tensors": 1, "findings": [finding]}),
        observation("forward", payload={"logits": {}, "prompts": []}),
        observation("bisect", payload={"origin": None}),
    )
    assert said(found)["Where"] == ["h.0.w 2 NaN, 1 +Inf, first at [3, 4], in m.safetensors"]


def test_where_the_weights_are_the_fault_they_come_first():
    finding = {"tensor": "h.0.w", "nan": 2}
    found = answer(observation("weights", "bad", "1 tensor is not finite", {"tensors": 1, "findings": [finding]}))
    answers = said(found)
    assert found.kind.value == "weights"
    assert answers["What"] == ["1 tensor is not finite."]
    assert [line.split(" ")[0] for line in answers["Where"][:2]] == ["h.0.w", "model.layers.7"]


def test_a_matrix_says_what_is_good_in_each_bad_cell():
    rows = [
        cell("a", "bad", ablations={"x=1": "good", "x=2": "good"}),
        cell("b", "bad", ablations={"x=1": "good", "x=2": "bad"}),
        cell("c", "good", ablations={"x=1": "bad"}),
    ]
    answers = said(matrix(*rows, statements=[FOLLOWS]))
    assert answers["Where"] == ["Bad in 2 of 3 cells: a and b"]
    assert answers["Why"] == [FOLLOWS.text]
    assert answers["What to do"] == ["Good in each bad cell with x=1"]


def test_of_many_runs_it_is_said_which_one_the_origin_is_of():
    found = replace(bisect(OVERFLOW), cells=TWO, shown_cell="torch-2.4.1")
    where = said(found)["Where"]
    assert where[:2] == ["Bad in 1 of 2 cells: torch-2.4.1", "In the run of torch-2.4.1"]
    assert where[2].startswith("model.layers.7")


def test_text_from_elsewhere_moves_nothing():
    found = replace(bisect(OVERFLOW, token="\x1b[31m\u202e"), owner=Owner(None, "a\nb\x00"))
    assert not [line for lines in said(found).values() for line in lines if not line.isprintable()]


# The network


def test_each_layer_has_its_magnitude_and_the_origin_is_marked():
    column = network(bisect(OVERFLOW, bad_tokens([], [0], [0, 1, 2], tokens=3)))
    layers = [row for row in column.rows if not row.is_output]
    assert [row.size for row in layers] == [
        "2984",
        "5088",
        "6236",
        "10424",
        "24704",
        "41952",
        "54688",
        "Inf",
        "NaN",
        "NaN",
    ]
    assert [row.name for row in layers if row.is_origin] == ["7"]
    assert [row.bad_tokens for row in layers[:3]] == ["0 of 3", "1 of 3", "3 of 3"]
    assert [row.strip for row in layers[:3]] == ["", "M0 0h1v1h-1z", "M0 0h3v1h-3z"]
    assert "Dashed: 65504, the largest float16." in column.notes


def test_larger_is_farther_to_the_right_and_inf_is_beyond_all():
    column = network(bisect(OVERFLOW))
    places = [row.at for row in column.rows if not row.is_output]
    assert places[:7] == sorted(places[:7])
    assert places[6] < column.limit < places[7] == places[8]


def test_the_line_is_whole_where_every_place_is_known():
    rows = network(bisect(OVERFLOW)).rows
    ends = [(row.above, row.below) for row in rows]
    for (_, below), (above, _) in pairwise(ends):
        assert below.split("L")[1].split()[0] == above.split("L")[1].split()[0]  # they meet at the border
    assert (rows[0].above, rows[-1].below) == ("", "")


def test_behind_a_bad_layer_the_line_does_not_lead_to_a_finite_one():
    rows = network(bisect(magnitudes(1.0, "nan", 2.0))).rows
    assert (rows[1].below, rows[2].above) == ("", "")
    assert rows[1].above


def test_the_output_is_that_of_the_pass_in_which_the_origin_lies():
    passes = [{"logits": {**LOGITS, "nan": 0, "posinf": 0, "neginf": 0, "min": -2.0, "max": 1.0}}, {"logits": LOGITS}]
    found = {**BISECT, "headroom": OVERFLOW, "prompt": 0}
    forward = observation("forward", "bad", payload={"logits": LOGITS, "prompts": passes})
    column = network(answer(forward, observation("bisect", "bad", payload=found)))
    assert [row.size for row in column.rows if row.is_output] == ["2"]


def test_many_layers_are_thinned_around_the_origin():
    column = network(bisect(magnitudes(*map(float, range(1, 1001))), module="model.layers.517"))
    names = [row.name for row in column.rows if not row.is_output]
    assert len(names) == 32
    assert {"0", "515", "516", "517", "518", "519", "999"} <= set(names)
    assert "32 of 1,000 layers are drawn; verdict.json has all." in column.notes


def test_without_magnitudes_the_tokens_are_still_there():
    column = network(bisect(spread=bad_tokens([], [0], tokens=2)))
    assert (column.has_sizes, column.has_tokens) == (True, True)  # the output's magnitude is known
    assert [row.size for row in column.rows if not row.is_output] == ["-", "-"]


@pytest.mark.parametrize("values", [("nan", "nan"), (0.0, 0.0), ("inf",), (5e-324, 1.7e308), (1.0,), (65504.0,)])
def test_any_magnitudes_have_a_place(values):
    column = network(bisect(magnitudes(*values)))
    assert all(0 <= row.at <= 100 for row in column.rows if row.at is not None)


def test_no_network_where_no_layer_was_measured():
    assert network(answer(observation("bisect", "bad", payload={**BISECT, "headroom": [], "spread": []}))) is None


# The way


def test_the_way_goes_from_the_inputs_to_the_output():
    spread = bad_tokens([], [0], [0, 1], [0, 1], tokens=2)
    found = bisect(
        OVERFLOW, spread, module="model.layers.1", operands=[40000.0, 30000.0], value="inf", op="aten.add.Tensor"
    )
    steps = way(found)
    assert [(step.name, step.is_bad, step.is_origin) for step in steps] == [
        ("40000, 30000", False, False),
        ("aten.add.Tensor", True, True),
        ("model.layers.1", True, False),
        ("model.layers.2 to 3", True, False),
        (steps[-1].name, True, False),
    ]
    assert steps[1].said[0] == "float16 overflow: Inf"
    assert steps[2].said == ["1 of 2 tokens bad (0)"]
    assert steps[3].said == ["all 2 tokens bad"]


def test_a_value_that_was_there_before_is_only_read_by_the_operator():
    found = bisect(OVERFLOW, mechanism="bad_input", tensor="feats", tensor_index=[0, 1])
    tensor, operator = way(found)[:2]
    assert (tensor.name, tensor.is_origin, tensor.said) == ("feats", True, ["holds it at [0, 1]"])
    assert (operator.is_origin, operator.said[0]) == (False, "reads it first")


def test_behind_a_backward_operator_stands_that_of_the_forward_pass():
    found = bisect(phase="backward", forward_op="aten.sqrt.default", forward_source="a.py:13", gradient="w")
    steps = way(found)
    assert (steps[0].name, steps[0].said) == ("aten.sqrt.default", ["at a.py:13", "its backward pass follows"])
    assert "w" in [step.name for step in steps]


def test_what_goes_in_has_a_range_only_where_it_is_finite():
    figures = {"dtype": "float32", "shape": [4], "min": "nan", "max": "nan"}
    assert way(bisect(OVERFLOW, inputs=[figures]))[0].is_origin
    assert way(bisect(OVERFLOW, inputs=[{**figures, "min": -1.0, "max": 2.5}]))[0].name == "-1 to 2.5"


@pytest.mark.parametrize("found", [good(), both(), answer(observation("bisect", "skip", payload={}))])
def test_no_way_without_an_origin(found):
    assert way(found) == []


# Marks


def test_ablations_are_marks_good_ones_first():
    crashed = observation("ablation:c", "skip", "it died", ending="crashed")
    silent = observation("ablation:d", "skip", "the case has this setting itself")
    found = answer(observation("ablation:a", "bad"), observation("ablation:b", "good"), crashed, silent)
    row = ablations(replace(found, ablations=tuple(item for item in found.ablations if item.name in "abcd")))
    assert [(mark.name, mark.verdict.value) for mark in row.marks] == [
        ("as asked", "bad"), ("b", "good"), ("a", "bad"), ("c", "skip"),
    ]  # fmt: skip
    assert row.note == "1 other does not apply to this case."


def test_releases_are_in_order_and_the_border_is_where_the_verdict_changes():
    words = {"2.10.0": "bad", "2.9.0": "skip", "2.2.0": "good", "2.4.1": "good"}
    probes = tuple(probe(version, word) for version, word in words.items())
    ends = Boundary(direction="regression", last_good="2.4.1", first_bad="2.10.0", skipped=("2.9.0",))
    row = versions(bisected(probes=probes, boundaries=(ends,)))
    assert [(mark.name, mark.behind_border) for mark in row.marks] == [
        ("2.2.0", False), ("2.4.1", False), ("2.9.0", True), ("2.10.0", True),
    ]  # fmt: skip


def test_no_marks_where_nothing_was_run():
    assert ablations(replace(good(), ablations=())) is None
    assert versions(good()) is None


# Grids


def test_cells_are_a_grid_by_version():
    rows = [cell(f"{t}+{f}", "bad" if (t, f) == ("2.10.0", "5.0.0") else "good", torch=t, transformers=f)
            for t in ("2.10.0", "2.4.1") for f in ("5.0.0", "4.48.3")]  # fmt: skip
    grid = by_versions(matrix(*rows[:3]))
    assert grid.columns == ["2.4.1", "2.10.0"]
    assert [name for name, _ in grid.rows] == ["4.48.3", "5.0.0"]
    assert grid.corner == "Transformers ↓ torch →"
    places = [[[one.verdict.value for one in place] for place in row] for _, row in grid.rows]
    assert places == [[[], ["good"]], [["good"], ["bad"]]]


def test_cells_whose_torch_is_not_known_are_counted():
    grid = by_versions(matrix(*TWO, cell("c", "skip", torch=None)))
    assert "not known: 1" in grid.note


def test_each_cell_has_its_ablations():
    grid = by_ablations(both())
    assert (grid.columns, grid.corner) == (["as asked", "dtype=float32"], "cell")
    (first, marks), (second, others) = grid.rows
    assert (first, [[one.verdict for one in place] for place in marks]) == (
        "torch-2.4.1",
        [[Outcome.BAD], [Outcome.GOOD]],
    )
    assert (second, [[one.verdict for one in place] for place in others]) == ("torch-2.5.1", [[Outcome.GOOD], []])


def test_no_grid_without_cells():
    assert by_versions(good()) is None
    assert by_ablations(good()) is None


# Code in colours

CODE = st.lists(
    st.one_of(
        st.text(max_size=6), st.sampled_from(["'", '"', '"""', "'''", "\\", "\n", "#", "f'", "def ", "1e-5", "<b>"])
    ),
    max_size=30,
).map("".join)


@given(CODE)
def test_no_character_is_lost_and_none_becomes_a_tag(text):
    shown = python(text)
    assert html.unescape(re.sub(r'<span class="[a-z]">|</span>', "", shown)) == text
    lines = python_lines(text)
    assert [html.unescape(re.sub(r'<span class="[a-z]">|</span>', "", line)) for line in lines] == text.split("\n")


def test_keywords_strings_numbers_and_comments_are_told_apart():
    shown = python('return f"a {b}" + 1e-5  # def')
    assert shown == (
        '<span class="k">return</span> <span class="s">f&quot;a {b}&quot;</span> + <span class="n">1e-5</span>  '
        '<span class="c"># def</span>'
    )
    assert python("x1 = define") == "x1 = define"


def test_a_string_over_lines_is_a_span_in_each():
    assert python_lines('"""a\nb"""') == [
        '<span class="s">&quot;&quot;&quot;a</span>',
        '<span class="s">b&quot;&quot;&quot;</span>',
    ]
