"""The plots: their numbers are the document's, what is thinned is said, and what is drawn is a picture."""

import re
import struct
import sys
import zlib
from xml.etree import ElementTree

import pytest
import vl_convert
from support.hosting import BISECT, ORIGIN, observation
from support.injected_run import PROMPT
from support.reports import (
    HOSTILE,
    OVERFLOW,
    PLOTTED,
    TWO,
    answer,
    bad_tokens,
    bisect,
    bisected,
    cell,
    good,
    magnitudes,
    matrix,
    probe,
)

from repro.core.encoding import replace
from repro.report.pictures import plots, write_plots
from repro.report.plots.chart import SCALE, distinct, png, short
from repro.report.privacy.machine import Private


def drawn(found):
    """The plots by name."""
    return {plot.name: plot for plot in plots(found).values()}


def rows(plot, *keys):
    """The values of every layer of a plot that have these keys, as tuples."""
    values = [value for layer in plot.spec["layer"] for value in layer["data"]["values"]]
    return {tuple(value[key] for key in keys) for value in values if set(keys) <= set(value)}


def svg(plot):
    """The chart as the renderer draws it, before it is made pixels."""
    return re.sub(r'xmlns(:\w+)?="[^"]*"', "", vl_convert.vegalite_to_svg(plot.spec, allowed_base_urls=[]))


def texts(drawing):
    return [element.text for element in ElementTree.fromstring(drawing).iter("text") if element.text]


# Magnitude by layer


def test_magnitudes_are_the_documents():
    points = rows(drawn(bisect(OVERFLOW))["magnitude"], "layer", "kind", "absmax")
    finite = {(str(n), "finite", item["absmax"]) for n, item in enumerate(OVERFLOW[:7])}
    assert points == finite | {("7", "Inf", None), ("8", "NaN", None), ("9", "NaN", None)}


def test_the_reference_at_the_origin_is_drawn_and_named():
    plot = drawn(bisect(OVERFLOW))["magnitude"]
    assert (68394.8671875, "7") in rows(plot, "absmax", "layer")
    assert "float32 has 68394.9 at the origin" in plot.note


def test_a_reference_that_is_no_overflow_is_not_a_magnitude():
    plot = drawn(bisect(OVERFLOW, mechanism="masked_row", reference_value=0.25))["magnitude"]
    assert 0.25 not in {size for (size,) in rows(plot, "absmax")}


def test_only_limits_within_view_are_drawn_and_the_others_said():
    plot = drawn(bisect(OVERFLOW))["magnitude"]
    limits = [v for layer in plot.spec["layer"] for v in layer["data"]["values"] if "dtypes" in v]
    assert {(item["absmax"], *item["dtypes"]) for item in limits} == {(65504.0, "float16")}
    assert "bfloat16 3.38953e+38 and float32 3.40282e+38" in plot.note


def test_the_limits_are_those_of_the_formats():
    """bfloat16 is float32's upper half: its largest number is 0x7F7F followed by zeros."""
    (bfloat16,) = struct.unpack(">f", b"\x7f\x7f\x00\x00")
    (float32,) = struct.unpack(">f", b"\x7f\x7f\xff\xff")
    (float16,) = struct.unpack(">e", b"\x7b\xff")
    from repro.core.mechanisms import LIMITS

    assert {"float16": float16, "bfloat16": bfloat16, "float32": float32} == LIMITS


def test_limits_that_are_nearly_the_same_share_a_line_and_one_far_below_has_none():
    plot = drawn(bisect(magnitudes(1e33, 1e36, "inf"), module="model.layers.2", reference_value=None))["magnitude"]
    said = {value for (value,) in rows(plot, "says")}
    assert "largest bfloat16 3.39e+38, float32 3.4e+38" in said
    assert plot.note == "Outside this view: the largest float16 65504."


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        ("model.layers.7", "7"),
        ("model.layers.1.mlp.down_proj", "1"),
        ("lm_head", None),
        ("model.layers.70", None),
        ("", None),
    ],
)
def test_the_origin_is_marked_at_its_layer_also_where_it_lies_inside(module, layer):
    marks = rows(drawn(bisect(OVERFLOW, module=module))["magnitude"], "layer", "says")
    assert {name for name, said in marks if said == "origin"} == ({layer} - {None})


def test_a_second_call_of_a_layer_has_a_name_of_its_own():
    twice = [{"module": "h.0", "call_index": call, "absmax": 1.0 + call} for call in (0, 1)]
    plot = drawn(bisect(twice, module="h.0", call_index=1, reference_value=None))["magnitude"]
    assert rows(plot, "layer", "absmax") == {("0", 1.0), ("0, call 1", 2.0)}
    assert ("0, call 1", "origin") in rows(plot, "layer", "says")


def test_zeros_have_a_mark_though_a_logarithm_has_no_place_for_them():
    assert ("0", "0", None) in rows(drawn(bisect(magnitudes(0.0, 1.0)))["magnitude"], "layer", "kind", "absmax")


@pytest.mark.parametrize("values", [("nan", "nan"), (0.0, 0.0), ("inf",), (5e-324, 1.7e308), (1.0,), (65504.0,)])
def test_any_magnitudes_can_be_drawn(values):
    assert svg(drawn(bisect(magnitudes(*values)))["magnitude"]).startswith("<svg ")


def test_many_layers_are_thinned_and_the_note_says_so():
    plot = drawn(bisect(magnitudes(*map(float, range(1, 1001))), module="model.layers.517"))["magnitude"]
    layers = {name for (name,) in rows(plot, "layer")}
    assert len(layers) == 160
    assert {"515", "516", "517", "518", "519", "0", "999"} <= layers
    assert "160 of 1,000 layers are drawn; verdict.json has all." in plot.note


# Spread over tokens


def covered(plot):
    """(layer, token) for every token below a bar."""
    return {
        (name, token)
        for name, start, end in rows(plot, "layer", "start", "end")
        for token in range(int(start), int(end))
    }


def test_bars_cover_the_bad_tokens_and_no_others():
    plot = drawn(bisect(spread=bad_tokens([], [0], [0, 1, 4], tokens=6)))["spread"]
    assert covered(plot) == {("1", 0), ("2", 0), ("2", 1), ("2", 4)}
    assert len(rows(plot, "layer", "start", "end")) == 3


@pytest.mark.parametrize("tokens", [65, 4096, 4099])
def test_where_columns_are_shared_each_is_filled_if_one_of_its_tokens_is_bad(tokens):
    bad = [0, 7, tokens // 2, tokens - 1]
    plot = drawn(bisect(spread=bad_tokens([], bad, tokens=tokens)))["spread"]
    each = -(-tokens // 64)
    assert covered(plot) == {("1", t) for t in range(tokens) if any(t // each == one // each for one in bad)}
    assert f"Each column stands for {each} of the {tokens:,} tokens" in plot.note


def test_the_tokens_are_named_where_they_are_few():
    prompt = {**PROMPT, "tokens": ["<bos>", "a"]}
    found = {**BISECT, "spread": bad_tokens([0], tokens=2)}
    forward = observation("forward", "bad", payload={"logits": {}, "prompts": [prompt]})
    document = answer(forward, observation("bisect", "bad", payload=found))
    assert {"0 <bos>", "1 a"} <= set(texts(svg(drawn(document)["spread"])))


def test_no_spread_where_no_token_is_bad():
    assert "spread" not in drawn(bisect(spread=bad_tokens([], [], tokens=3)))


# Verdicts


def test_each_ablation_has_its_verdict():
    document = answer(
        observation("ablation:a", "skip", ending="crashed"), observation("ablation:b", "skip", ending="not_run")
    )
    assert rows(drawn(document)["ablations"], "row", "verdict") == {
        ("as asked", "bad"),
        ("dtype=float32", "good"),
        ("attn=eager", "bad"),
        ("a", "skip"),
    }


def test_every_verdict_has_a_shape_of_its_own():
    (marks,) = drawn(answer(observation("ablation:a", "skip")))["ablations"].spec["layer"]
    shapes = marks["encoding"]["shape"]["scale"]
    assert sorted(shapes["domain"]) == ["bad", "good", "skip"]
    assert len(set(shapes["range"])) == 3


def test_cells_against_ablations():
    document = matrix(*TWO, cell("x", "bad", ablations={"attn=eager": "bad", "dtype=float32": "skip"}))
    assert rows(drawn(document)["cells"], "row", "column", "verdict") == {
        *(("torch-2.4.1", "as asked", "bad"), ("torch-2.4.1", "dtype=float32", "good")),
        ("torch-2.5.1", "as asked", "good"),
        *(("x", "as asked", "bad"), ("x", "dtype=float32", "skip"), ("x", "attn=eager", "bad")),
    }


def test_cells_without_ablations_have_their_verdicts():
    document = matrix(cell("a"), cell("b", "skip"), cell("c", "bad"))
    assert rows(drawn(document)["cells"], "row", "verdict") == {("a", "good"), ("b", "skip"), ("c", "bad")}


def test_many_cells_are_thinned_with_every_bad_one_kept():
    plot = drawn(matrix(*[cell(f"c{n}", "bad" if n in (17, 83) else "good") for n in range(100)]))["cells"]
    assert len(rows(plot, "row")) == 40
    assert {("c17",), ("c83",)} <= rows(plot, "row")
    assert "40 of 100 cells are drawn" in plot.note


def test_releases_stand_in_their_order_with_a_line_where_the_answer_changes():
    probes = (probe("2.4.1", "bad"), probe("2.10.0", "good"), probe("2.9.1", "good"), probe("2.8.0", "bad"))
    plot = drawn(bisected(probes=probes, last_good="2.9.1", first_bad="2.8.0"))["versions"]
    marks, line = plot.spec["layer"]
    assert [value["row"] for value in marks["data"]["values"]] == ["2.4.1", "2.8.0", "2.9.1", "2.10.0"]
    assert line["encoding"]["y"]["value"] == plot.spec["height"] / 2  # between the second and the third of four
    assert plot.note == "The verdict changes at the dashed line."


def test_skipped_releases_lie_between_two_lines():
    probes = (probe("2.1", "good"), probe("2.2", "skip"), probe("2.3", "bad"))
    plot = drawn(bisected(probes=probes, last_good="2.1", first_bad="2.3"))["versions"]
    heights = [layer["encoding"]["y"]["value"] for layer in plot.spec["layer"][1:]]
    assert heights == [plot.spec["height"] / 3, plot.spec["height"] * 2 / 3]


def test_a_partner_is_named_where_it_is_not_always_the_same():
    pins = [{"torch": "2.1", "transformers": partner} for partner in ("4.1", "4.2")]
    probes = (probe("2.1", "good", pins=pins[0]), probe("2.1", "bad", pins=pins[1]))
    plot = drawn(bisected(probes=probes))["versions"]
    assert rows(plot, "row") == {("2.1, transformers 4.1",), ("2.1, transformers 4.2",)}


def test_a_release_that_is_no_version_comes_first():
    plot = drawn(bisected(probes=(probe("2.1", "good"), probe("main", "bad"))))["versions"]
    assert [value["row"] for value in plot.spec["layer"][0]["data"]["values"]] == ["main", "2.1"]


# All of them


def test_there_is_no_plot_without_data():
    assert drawn(replace(good(), ablations=())) == {}
    assert drawn(matrix(TWO[0])) == {}
    assert list(drawn(good())) == ["ablations"]


@pytest.mark.parametrize("found", PLOTTED.values(), ids=PLOTTED)
def test_a_specification_names_no_address_but_its_schema(found):
    for plot in plots(found).values():
        assert re.findall(r"\w+://[^']+", str({**plot.spec, "$schema": None})) == []


def pixels(picture):
    """Width and height of a PNG, every chunk and every row of which is whole."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    place, data, size = 8, b"", (0, 0)
    while place < len(picture):
        (length,) = struct.unpack(">I", picture[place : place + 4])
        kind, body = picture[place + 4 : place + 8], picture[place + 8 : place + 8 + length]
        assert struct.unpack(">I", picture[place + 8 + length : place + 12 + length]) == (zlib.crc32(kind + body),)
        data += body if kind == b"IDAT" else b""
        if kind == b"IHDR":
            size, depth, colour = struct.unpack(">II", body[:8]), body[8], body[9]
            assert (depth, colour) == (8, 6)
        place += 12 + length
    assert len(zlib.decompress(data)) == size[1] * (4 * size[0] + 1)
    return size


@pytest.mark.parametrize("found", PLOTTED.values(), ids=PLOTTED)
def test_a_picture_is_a_png_of_the_size_of_its_chart(found):
    for plot in plots(found).values():
        width, height = pixels(png(plot))
        assert SCALE * plot.spec["width"] < width < SCALE * (plot.spec["width"] + 330)
        assert SCALE * plot.spec["height"] < height < SCALE * (plot.spec["height"] + 330)


def test_pictures_are_written_and_those_of_before_removed(tmp_path):
    write_plots(tmp_path, PLOTTED["run"])
    written = write_plots(tmp_path, PLOTTED["matrix"])
    assert written == [tmp_path / "plots" / "cells.png"]
    assert list((tmp_path / "plots").iterdir()) == written


def test_without_the_library_nothing_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert write_plots(tmp_path, PLOTTED["run"]) == []
    assert not (tmp_path / "plots").exists()


def test_private_words_are_in_no_picture(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("repro.report.pictures.png", lambda plot: seen.append(str(plot)) or b"")
    write_plots(tmp_path, answer(observation("ablation:/home/wonderalice/x", "bad")), Private(home="/home/wonderalice"))
    assert "~/x" in seen[0]
    assert "wonderalice" not in seen[0]


def test_hostile_names_are_text_in_a_drawing():
    headroom = [{"module": name, "absmax": 1.0 + n} for n, name in enumerate(HOSTILE)]
    spread = [{"module": name, "bad_tokens": [n], "tokens": len(HOSTILE)} for n, name in enumerate(HOSTILE)]
    ablations = [observation(f"ablation:{name}", "bad") for name in HOSTILE]
    found = {**BISECT, "origin": {**ORIGIN, "module": HOSTILE[0]}, "headroom": headroom, "spread": spread}
    forward = observation("forward", "bad", payload={"prompts": [{**PROMPT, "tokens": HOSTILE}]})
    made = drawn(answer(forward, observation("bisect", "bad", payload=found), *ablations))
    assert set(made) == {"magnitude", "spread", "ablations"}
    for plot in made.values():
        root = ElementTree.fromstring(svg(plot))
        assert {element.tag for element in root.iter()} <= {"svg", "g", "path", "line", "rect", "text"}
        assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]
        assert pixels(png(plot)) > (0, 0)
    shown = set(texts(svg(made["ablations"])))
    assert {"<script>x</script>", "a & b", "\\x00\\x1b[31m", "\\u202eabc"} <= shown


def test_names_that_are_cut_to_the_same_stay_two_rows():
    names = [f"{'x' * 40}{n}{'y' * 40}" for n in range(2)]
    document = answer(
        *[observation(f"ablation:{name}", word) for name, word in zip(names, ("bad", "good"), strict=True)]
    )
    verdicts = rows(drawn(document)["ablations"], "row", "verdict")
    assert {(row, word) for row, word in verdicts if row.startswith("xxx")} == {
        (short(names[0]), "bad"),
        (f"{short(names[1])} (2)", "good"),
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [("abc", "abc"), ("x" * 24, "x" * 24), ("a" * 20 + "b" * 20, "a" * 11 + "…" + "b" * 12), ("a\nb", "a\\nb")],
)
def test_a_long_name_loses_its_middle(name, shown):
    assert short(name) == shown


def test_labels_are_made_distinct():
    assert distinct(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
