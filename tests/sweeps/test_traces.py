"""Two injected traces compared: each test changes one thing and knows what it changed."""

import json
import random

import pytest

from repro.core.encoding import decode, encode, replace
from repro.core.errors import RecordError
from repro.core.payloads import Trace
from repro.core.trace_answers import Changes, ModuleChange
from repro.sweeps.traces import alignment, compare
from repro.sweeps.traces.alignment import align, rows_of

COLUMNS = [
    "module", "call_index", "op", "occurrence", "source", "dtype", "shape", "min", "max", "nan", "inf", "digest",
]  # fmt: skip
CLASSES = {"": "Net", "attn": "Attention", "mlp": "MLP"}


def op(name, digest, module="attn", call=0, source=None, shape=(2, 4), dtype="float32", figures=(-1.0, 1.0, 0, 0)):
    """A row without its occurrence, which `trace` counts. The digest stands for the values."""
    return [module, call, f"aten.{name}", None, source, dtype, list(shape), *figures, digest]


def trace(*rows, classes=CLASSES, left_out=0):
    """A trace: occurrences are counted, and a row without a line gets one by its place."""
    seen, made = {}, []
    for number, row in enumerate(rows, 1):
        key = tuple(row[:3])
        seen[key] = seen.get(key, -1) + 1
        made.append([*row[:3], seen[key], row[4] or f"net.py:{number}", *row[5:]])
    return decode(Trace, {"columns": COLUMNS, "rows": made, "rows_left_out": left_out, "classes": classes})


MM, MASK, SOFTMAX, OUT = op("mm", "a"), op("add.Tensor", "b"), op("_softmax", "c"), op("mm", "d", module="mlp")
BASE = (MM, MASK, SOFTMAX, OUT)
BAD = (0.0, 1.0, 4, 0)


def changed(row, **more):
    named = dict(zip(COLUMNS, row, strict=True)) | more
    return [named[name] for name in COLUMNS]


def nan(row):
    return changed(row, min=0.0, nan=4, digest=row[-1] + "-nan")


def what(change):
    return None if change is None else (change.kind, change.what, change.module, change.op)


# --- nothing -----------------------------------------------------------------------------------------------------


def test_a_trace_against_itself_has_no_change():
    found = compare(trace(*BASE), trace(*BASE))
    assert (found.aligned, found.only_good, found.only_bad, found.without_effect) == (4, 0, 0, 0)
    assert [getattr(found, name) for name in ("first", "first_structural", "first_nonfinite", "nearest")] == [None] * 4
    assert (found.first_preparing, found.first_numeric, found.modules) == (None, None, ())


def test_lines_that_moved_are_no_change():
    moved = trace(*(changed(row, source=f"other.py:{n}") for n, row in enumerate(BASE)))
    assert compare(trace(*BASE), moved).first is None


def test_rounding_is_no_change_and_is_told_apart():
    noisy = [changed(row, digest=row[-1] + "'", max=1.0 + 1e-6 * n) for n, row in enumerate(BASE)]
    found = compare(trace(*BASE), trace(*noisy))
    assert (found.first, found.first_numeric.op, found.first_numeric.position) == (None, "aten.mm", 0)
    assert found.first_numeric.largest_relative_difference == 0.0
    assert not found.first_numeric.exact


def test_the_size_of_other_digits_is_told():
    found = compare(trace(*BASE), trace(MM, changed(MASK, digest="b'", min=-1.0, max=0.5), SOFTMAX, OUT))
    assert (found.first_numeric.op, found.first_numeric.largest_relative_difference) == ("aten.add.Tensor", 0.5)


def test_whole_numbers_that_differ_are_not_rounding():
    ids = op("argmax", "i", dtype="int64", figures=(None, None, None, None))
    found = compare(trace(ids, *BASE), trace(changed(ids, digest="j"), *BASE))
    assert found.first_numeric.exact
    assert "whole numbers or truth values, which no rounding explains" in found.sentence


def test_rounding_before_the_change_does_not_hide_it():
    noisy = [changed(row, digest=row[-1] + "'") for row in BASE]
    noisy[2] = nan(noisy[2])
    found = compare(trace(*BASE), trace(*noisy))
    assert what(found.first) == ("different", ("finite",), "attn", "aten._softmax")
    assert found.first_numeric.op == "aten.mm"


# --- new, gone, different ------------------------------------------------------------------------------------------


def test_a_new_operator_has_its_line_and_the_nearest_one_of_the_good_trace():
    found = compare(trace(*BASE), trace(MM, op("clamp", "x"), MASK, nan(SOFTMAX), OUT)).first
    assert what(found) == ("new", (), "attn", "aten.clamp")
    assert (found.good_source, found.bad_source, found.position) == ("net.py:1", "net.py:2", 1)
    assert (found.good, found.bad.max, found.module_class) == (None, 1.0, "Attention")


def test_a_gone_operator_has_its_line_and_the_nearest_one_of_the_bad_trace():
    found = compare(trace(MM, MASK, op("maximum", "x"), SOFTMAX, OUT), trace(MM, MASK, nan(SOFTMAX), OUT)).first
    assert what(found) == ("gone", (), "attn", "aten.maximum")
    assert (found.good_source, found.bad_source, found.bad) == ("net.py:3", "net.py:2", None)


def test_what_stands_in_the_place_of_another_is_named():
    found = compare(trace(MM, op("_safe_softmax", "s"), OUT), trace(MM, nan(SOFTMAX), OUT))
    assert (found.first.op, found.first.instead) == ("aten._safe_softmax", "aten._softmax")
    assert (found.nearest.op, found.nearest.instead) == ("aten._softmax", "aten._safe_softmax")
    assert found.first_nonfinite == found.nearest


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shape": [2, 1]}, ("shape",)),
        ({"dtype": "float16"}, ("dtype",)),
        ({"shape": [1], "dtype": "x"}, ("shape", "dtype")),
    ],
)
def test_another_form_is_a_change(change, expected):
    found = compare(trace(*BASE), trace(MM, changed(MASK, digest="e", **change), SOFTMAX, OUT))
    assert what(found.first) == ("different", expected, "attn", "aten.add.Tensor")
    assert found.first_numeric is None


def test_the_earlier_of_form_and_finiteness_is_first():
    odd = changed(OUT, dtype="float16", digest="e")
    early, late = (
        trace(nan(MM), MASK, SOFTMAX, odd),
        trace(changed(MM, dtype="float16", digest="e"), MASK, SOFTMAX, nan(OUT)),
    )
    assert compare(trace(*BASE), early).first.what == ("finite",)
    assert compare(trace(*BASE), late).first.what == ("dtype",)


def test_the_change_nearest_to_the_first_nan_is_told_beside_the_first():
    bad = trace(op("relu", "x"), MM, op("clamp", "y"), MASK, nan(SOFTMAX), op("tanh", "z", module="mlp"), OUT)
    found = compare(trace(*BASE), bad)
    assert (found.first.op, found.nearest.op) == ("aten.relu", "aten.clamp")
    assert found.first_nonfinite.op == "aten._softmax"


def test_what_was_not_finite_before_is_no_change():
    found = compare(trace(MM, nan(SOFTMAX), OUT), trace(MM, nan(SOFTMAX), OUT))
    assert (found.first, found.first_nonfinite) == (None, None)


def test_more_inf_than_nan_is_seen_as_well():
    found = compare(trace(*BASE), trace(changed(MM, inf=1, digest="e"), MASK, SOFTMAX, OUT))
    assert what(found.first_nonfinite) == ("different", ("finite",), "attn", "aten.mm")


def test_a_mask_filled_anew_is_not_where_values_go_bad():
    """A module that has Inf when it is good has it on purpose; the NaN behind it is what counts."""
    fill = op("masked_fill.Scalar", "m", figures=(0.0, 0.0, 0, 6))
    new = op("where.self", "w", figures=(0.0, 0.0, 0, 6))
    found = compare(trace(fill, *BASE), trace(new, MM, MASK, nan(SOFTMAX), OUT))
    assert found.first_nonfinite.op == "aten._softmax"
    assert compare(trace(*BASE), trace(new, *BASE[:3], nan(OUT))).first_nonfinite.op == "aten.where.self"


# --- operators that make no number -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["view", "detach", "_unsafe_view", "clone", "transpose.int", "detach_", "full"])
def test_a_preparing_operator_is_beside_the_answer(name):
    found = compare(trace(*BASE), trace(op(name, "v"), MM, MASK, nan(SOFTMAX), OUT))
    assert found.first.op == "aten._softmax"
    assert what(found.first_preparing) == ("new", (), "attn", f"aten.{name}")
    assert (found.only_bad, found.without_effect) == (1, 0)


def test_a_preparing_change_alone_is_said_to_make_no_number():
    found = compare(trace(op("view", "v"), *BASE), trace(*BASE))
    assert found.first is None
    assert "Of those that make no number, the first: aten.view" in found.sentence


def test_the_same_bytes_made_in_another_way_are_counted_and_not_named():
    """addmm for mm and add: the sum's bytes are in both traces, the product's are the good one's own."""
    good = trace(op("linear", "y"), op("_softmax", "p"))
    bad = trace(op("addmm", "y"), op("_softmax", "p-nan", figures=BAD))
    found = compare(good, bad)
    assert (found.without_effect, found.only_good, found.only_bad) == (2, 1, 1)
    assert (found.first.op, found.first_structural) == ("aten._softmax", None)


def test_equal_bytes_of_another_module_do_not_excuse_a_change():
    found = compare(
        trace(*BASE, op("relu", "r", module="mlp")), trace(op("clamp", "r"), *BASE, op("relu", "r", module="mlp"))
    )
    assert (found.without_effect, found.first.op) == (0, "aten.clamp")


# --- alignment -----------------------------------------------------------------------------------------------------


def test_one_put_in_between_equals_is_the_new_one():
    """By occurrence the last of three would be new; by what they gave, it is the second."""
    good = [op("mul.Tensor", "1"), op("mul.Tensor", "2")]
    found = compare(trace(*good, OUT), trace(good[0], op("mul.Tensor", "x", source="net.py:77"), good[1], OUT))
    assert (found.aligned, found.first.bad_source, found.first.occurrence) == (3, "net.py:77", 1)


def test_where_digits_differ_the_form_tells_which_is_new():
    good = [op("mul.Tensor", "1", shape=(2,)), op("mul.Tensor", "2", shape=(3,))]
    bad = [op("mul.Tensor", "1'", shape=(2,)), op("mul.Tensor", "x", shape=(9,)), op("mul.Tensor", "2'", shape=(3,))]
    assert align(rows_of(trace(*good)), rows_of(trace(*bad))) == {0: 0, 1: 2}


def test_where_the_form_is_the_same_the_operator_before_tells_which_is_new():
    good = [op("exp", "e"), op("mul.Tensor", "1"), op("tanh", "t"), op("mul.Tensor", "2")]
    noisy = [changed(row, digest=row[-1] + "'") for row in good]
    bad = [*noisy[:2], op("relu", "r"), op("mul.Tensor", "x"), *noisy[2:]]
    assert align(rows_of(trace(*good)), rows_of(trace(*bad))) == {0: 0, 1: 1, 2: 4, 3: 5}


def test_calls_of_a_module_are_kept_apart():
    calls = [op("mm", f"c{n}", call=n) for n in range(3)]
    found = compare(trace(*calls), trace(calls[0], calls[1], nan(calls[2])))
    assert (found.first.call_index, found.first_nonfinite.position) == (2, 2)
    assert "call 3" in found.sentence


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_were_taken_out_are_the_ones_that_are_missing(seed):
    """Rows with values of their own, some taken out: each of the others finds itself."""
    draw = random.Random(seed)
    rows = [op(draw.choice(["mm", "mul", "add"]), f"d{n}", module=draw.choice(["attn", "mlp"])) for n in range(60)]
    kept = sorted(draw.sample(range(60), 50))
    pairs = align(rows_of(trace(*rows)), rows_of(trace(*(rows[n] for n in kept))))
    assert pairs == {n: place for place, n in enumerate(kept)}


def test_very_many_equals_go_by_occurrence(monkeypatch):
    monkeypatch.setattr(alignment, "COMPARED", 3)
    rows = [op("mm", str(n)) for n in range(3)]
    assert align(rows_of(trace(*rows)), rows_of(trace(*rows[1:]))) == {0: 0, 1: 1}


# --- modules -------------------------------------------------------------------------------------------------------


def test_a_module_that_is_gone_is_told_once_with_its_class():
    classes = {**CLASSES, "norm": "Norm", "norm.inner": "Scale"}
    good = trace(op("rsqrt", "n", module="norm"), op("mul", "o", module="norm.inner"), *BASE, classes=classes)
    found = compare(good, trace(*BASE[:3], nan(OUT)))
    assert [(item.kind, item.module, item.good_class) for item in found.modules] == [("gone", "norm", "Norm")]
    assert (found.first.whole_module, found.first.module_class) == ("norm", "Norm")
    assert "Modules that are gone as a whole: norm (Norm)." in found.sentence


def test_a_new_module_is_told_by_the_outermost():
    classes = {**CLASSES, "norm": "Norm", "norm.inner": "Scale"}
    found = compare(trace(*BASE), trace(*BASE, op("mul", "o", module="norm.inner"), classes=classes))
    assert (found.first.module, found.first.whole_module) == ("norm.inner", "norm")
    assert [(item.kind, item.module) for item in found.modules] == [("new", "norm")]


def test_another_class_at_the_same_path_is_told():
    found = compare(trace(*BASE), trace(*BASE, classes={**CLASSES, "attn": "SdpaAttention"}))
    renamed = ModuleChange(kind="class", module="attn", good_class="Attention", bad_class="SdpaAttention")
    assert found.modules == (renamed,)
    assert "Of another class: Attention is now SdpaAttention." in found.sentence


def test_an_operator_in_a_module_that_stays_came_with_no_module():
    assert compare(trace(*BASE), trace(op("clamp", "x"), *BASE)).first.whole_module is None


# --- traces that were cut --------------------------------------------------------------------------------------------


def test_what_a_cut_trace_does_not_have_is_not_called_gone():
    found = compare(trace(*BASE), trace(*BASE[:2], left_out=2))
    assert (found.aligned, found.only_good, found.first, found.left_out) == (2, 0, None, (0, 2))
    assert "2 operators were not recorded, and nothing is said about them." in found.sentence


def test_before_the_cut_gone_is_gone():
    assert compare(trace(*BASE), trace(MM, SOFTMAX, left_out=1)).first.op == "aten.add.Tensor"


# --- in words ------------------------------------------------------------------------------------------------------


def test_the_sentence_names_operator_module_both_lines_and_counts():
    good = trace(MM, op("_safe_softmax", "s", source="sdpa.py:9"), OUT)
    bad = trace(MM, changed(nan(SOFTMAX), source="sdpa.py:8"), OUT)
    assert compare(good, bad).sentence == (
        "The first change: aten._safe_softmax in attn (Attention) is gone (sdpa.py:9 in the good version; the bad one"
        " passes net.py:1; in its place: aten._softmax). The last change up to there: aten._softmax in attn (Attention)"
        " is new (sdpa.py:8 in the bad version; the good one passes net.py:1; in its place: aten._safe_softmax) and"
        " gives 4 NaN. 2 operators are in both traces, 1 only in the good one and 1 only in the bad one."
    )


def test_the_sentence_of_a_different_one_gives_both_sides():
    bad = trace(MM, changed(MASK, dtype="float16", shape=[2], digest="e"), nan(SOFTMAX), OUT)
    words = compare(trace(*BASE), bad).sentence
    assert "has the shape [2, 4] in the good version and [2] in the bad one and is float32 in the good version" in words
    assert "The first that is no longer finite: aten._softmax in attn (Attention) gives 4 NaN, and in the good" in words


def test_the_sentence_of_equal_traces_says_so():
    words = compare(trace(*BASE), trace(*BASE)).sentence
    assert words.startswith("No operator that computes is new, gone, of another form or no longer finite. 4 operators")


def test_outside_of_any_module_is_said():
    row = op("exp", "e", module="", call=-1)
    assert compare(trace(row), trace(nan(row))).first.module_class is None
    assert "aten.exp outside of any module gives 4 NaN" in compare(trace(row), trace(nan(row))).sentence


# --- the payload -----------------------------------------------------------------------------------------------------


def test_the_columns_may_come_in_another_order():
    bad = trace(*BASE[:3], nan(OUT))
    turned = replace(bad, columns=tuple(COLUMNS[::-1]), rows=tuple(row[::-1] for row in bad.rows))
    assert compare(trace(*BASE), turned) == compare(trace(*BASE), bad)


def test_numbers_travel_as_words_where_they_are_not_finite():
    good = trace(changed(MM, min="nan", max="nan", nan=8))
    assert compare(good, trace(changed(MM, min="nan", max="nan", nan=8))).first is None


@pytest.mark.parametrize(
    "damage", [{"columns": tuple(COLUMNS[1:])}, {"rows": ((1,),)}, {"rows": (tuple(range(12)),)}, {"rows": ((),)}]
)
def test_what_is_no_trace_is_refused(damage):
    with pytest.raises(RecordError, match="row of the trace has another shape"):
        compare(trace(*BASE), replace(trace(*BASE), **damage))


def test_the_answer_is_strict_json():
    found = compare(trace(*BASE), trace(op("clamp", "x"), *BASE[:3], nan(OUT)))
    data = json.loads(encode(found))
    assert (data["first"]["op"], decode(Changes, data)) == ("aten.clamp", found)
