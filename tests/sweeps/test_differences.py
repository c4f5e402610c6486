"""What differs between cells, and what may be said of it: rows are injected, one difference at a time."""

import itertools

import pytest

from repro.core.encoding import decode, encode, replace
from repro.core.payloads import Environment, Origin
from repro.core.records import Kind, Outcome
from repro.core.sweep_answers import CellRow
from repro.environments.difference import NOT_RECORDED, between
from repro.sweeps.matrix.statements import compare, labelled, labels

INSTALLED = {"numpy": "2.1.0", "sympy": "1.13", "triton": "3.0.0", "typing-extensions": "4.12", "tokenizers": "0.20"}
CLOSURES = {
    "torch": ["sympy", "triton", "typing-extensions"],
    "transformers": ["numpy", "tokenizers", "typing-extensions"],
}
ENVIRONMENT = {
    "cpu": {"model": "X", "capability": "AVX2", "count": 2},
    "blas": "mkl",
    "mkldnn": True,
    "threads": 2,
    "interop_threads": 2,
    "matmul_precision": "highest",
    "tf32": {"matmul": None, "cudnn": None},
    "deterministic": False,
    "flush_denormal": False,
    "accelerators": [],
    "variables": {},
    "closures": CLOSURES,
}
CARD = {"type": "cuda", "name": "A100", "runtime": "12.1", "cudnn": 8900}


def cell(name, verdict="good", installed=None, closures=None, environment=None, **row):
    """One row: the same cell each time, but for what a test changes."""
    versions = {"torch": row.get("torch", "2.5.1"), "transformers": row.get("transformers", "4.57.3")}
    found = {
        **ENVIRONMENT,
        "distributions": {**INSTALLED, **versions, **(installed or {})},
        "closures": {**CLOSURES, **(closures or {})},
        **(environment or {}),
    }
    fixed = {"python": "3.11.7", "platform": "Linux-6.1-x86_64", "machine": "x86_64", "device": "cpu"}
    fixed |= {"dtype": "float32", "attn": "sdpa", "kind": Kind.NONFINITE if verdict == "bad" else None}
    recorded = decode(Environment, found)
    rest = {"verdict": Outcome(verdict), "reason": "", **fixed, **versions, "environment": recorded, **row}
    return CellRow(id=name, **rest)


def recorded(row, **changes):
    """The row with other values in its environment."""
    return replace(row, environment=replace(row.environment, **changes))


def torch_pair(good=None, **bad):
    """A bad cell with torch 2.4.1 and a good one with torch 2.5.1."""
    return [cell("old", "bad", torch="2.4.1", **bad), cell("new", **(good or {}))]


def texts(rows):
    return [statement.text for statement in compare(rows).statements]


FOLLOWS_TORCH = "The fault follows torch between 2.4.1 (bad, old) and 2.5.1 (good, new): nothing else differs."


# Statements


def test_two_cells_that_differ_in_torch_alone_bear_a_statement():
    assert texts(torch_pair()) == [FOLLOWS_TORCH]


def test_the_statement_names_the_cells_and_their_versions_for_programs():
    (statement,) = compare(torch_pair()).statements
    assert (statement.axis, statement.follows) == ("torch", True)
    assert (statement.cells, statement.values) == (("old", "new"), ("2.4.1", "2.5.1"))


@pytest.mark.parametrize("verdict", ["good", "skip"])
def test_without_a_bad_cell_nothing_is_said(verdict):
    bad, good = torch_pair()
    assert compare([replace(bad, verdict=Outcome(verdict)), good]).statements == ()


def test_a_skip_never_takes_part():
    bad, good = torch_pair()
    found = compare([bad, replace(good, verdict=Outcome.SKIP)])
    assert (found.statements, found.pairs[0].good) == ((), None)


@pytest.mark.parametrize("without", [0, 1])
def test_a_cell_whose_environment_is_not_known_never_takes_part(without):
    rows = torch_pair()
    rows[without] = replace(rows[without], environment=None)
    found = compare(rows)
    assert (found.statements, found.pairs[0].good) == ((), None)


@pytest.mark.parametrize(
    ("axis", "bad", "good", "said"),
    [
        ("transformers", "4.43.0", "4.42.4", "follows Transformers between 4.43.0 (bad, a) and 4.42.4 (good, b)"),
        ("python", "3.13.0", "3.11.7", "follows Python between 3.13.0 (bad, a) and 3.11.7 (good, b)"),
        ("python", "3.11.7", "3.11.9", "follows Python between 3.11.7 (bad, a) and 3.11.9 (good, b)"),
        ("platform", "macOS-14-x86_64", "Linux-x86_64", "follows the platform between macOS-14-x86_64 (bad, a)"),
        ("device", "cuda", "cpu", "follows the device between cuda (bad, a) and cpu (good, b)"),
    ],
)
def test_each_axis_can_bear_a_statement(axis, bad, good, said):
    (text,) = texts([cell("a", "bad", **{axis: bad}), cell("b", **{axis: good})])
    assert said in text


@pytest.mark.parametrize("axis", ["transformers", "python", "platform", "machine", "device"])
def test_no_statement_where_another_axis_differs_too(axis):
    assert compare(torch_pair(good={axis: "0.1"})).statements == ()


# Packages


@pytest.mark.parametrize("package", ["triton", "sympy"])
def test_what_only_torch_requires_comes_along_and_is_named(package):
    assert texts(torch_pair(good={"installed": {package: "9"}})) == [
        FOLLOWS_TORCH.replace("differs.", f"differs except what comes with it ({package}).")
    ]


@pytest.mark.parametrize("package", ["numpy", "typing-extensions", "tokenizers", "accelerate"])
def test_no_statement_where_a_package_differs_that_is_not_torchs_own(package):
    found = compare(torch_pair(good={"installed": {package: "9"}}))
    was = INSTALLED.get(package, "none")
    assert found.statements == ()
    assert found.pairs[0].in_the_way == (f"{package} ({was}, 9)",)
    note = f"Whether the fault follows torch is not known: {package} ({was}, 9) differs too."
    assert found.pairs[0].note == note


def test_a_package_of_one_cell_counts_by_that_cells_requirements():
    """torch 2.5.1 requires nvidia-x, and torch 2.4.1 did not."""
    new = {"installed": {"nvidia-x": "1"}, "closures": {"torch": [*CLOSURES["torch"], "nvidia-x"]}}
    assert "(nvidia-x)" in texts(torch_pair(good=new))[0]


def test_a_package_in_both_cells_must_be_torchs_own_in_both():
    bad, good = {"installed": {"nvidia-x": "1"}}, {"installed": {"nvidia-x": "2"}}
    good["closures"] = {"torch": [*CLOSURES["torch"], "nvidia-x"]}
    assert compare(torch_pair(**bad, good=good)).statements == ()


def test_what_only_transformers_requires_comes_along_with_transformers():
    rows = [cell("a", "bad", transformers="4.43.0"), cell("b", transformers="4.42.4", installed={"tokenizers": "0.19"})]
    assert compare(rows).statements[0].carried == ("tokenizers",)
    other = recorded(rows[1], distributions={**rows[1].environment.distributions, "triton": "9"})
    assert texts([rows[0], other]) == []


@pytest.mark.parametrize("axis", ["python", "platform", "device"])
def test_other_axes_bring_no_packages(axis):
    rows = [cell("a", "bad", **{axis: "1"}), cell("b", **{axis: "2"}, installed={"triton": "9"})]
    assert compare(rows).statements == ()


def test_no_statement_where_the_installed_packages_were_not_recorded():
    found = compare(torch_pair(environment={"distributions": {}, "packages": INSTALLED}))
    assert found.statements == ()
    assert found.pairs[0].in_the_way == (NOT_RECORDED,)


def test_no_package_comes_along_without_a_closure():
    bad, good = torch_pair(good={"installed": {"triton": "9"}})
    assert compare([recorded(bad, closures={}), good]).statements == ()


def test_another_build_of_one_release_is_a_difference_in_torch():
    rows = [cell("a", "bad", torch="2.5.1+cu124"), cell("b", torch="2.5.1+cpu")]
    assert "torch between 2.5.1+cu124 (bad, a) and 2.5.1+cpu (good, b)" in texts(rows)[0]


def test_a_build_for_another_platform_goes_with_the_platform():
    rows = [cell("a", "bad", torch="2.5.1", platform="macOS"), cell("b", torch="2.5.1+cpu")]
    assert [statement.axis for statement in compare(rows).statements] == ["platform"]
    assert compare([rows[0], replace(rows[1], torch="2.5.0+cpu")]).statements == ()


def test_pythons_own_way_to_name_a_platform_is_no_difference():
    newer = {"python": "3.13.0", "platform": "macOS-14.5-arm64-arm-64bit-Mach-O"}
    rows = [cell("a", "bad", **newer), cell("b", platform="macOS-14.5-arm64-arm-64bit")]
    assert [statement.axis for statement in compare(rows).statements] == ["python"]


# Settings


@pytest.mark.parametrize(
    "changed",
    [
        {"threads": 4},
        {"interop_threads": 4},
        {"matmul_precision": "high"},
        {"deterministic": True},
        {"flush_denormal": True},
        {"cpu": {"model": "Y", "capability": "AVX2"}},
        {"variables": {"OMP_NUM_THREADS": "1"}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_no_statement_where_a_setting_differs_that_torch_does_not_determine(changed):
    found = compare(torch_pair(good={"environment": changed}))
    assert found.statements == ()
    assert len(found.pairs[0].in_the_way) == 1


@pytest.mark.parametrize(("name", "value"), [("dtype", "float16"), ("attn", "eager")])
def test_dtype_and_attention_are_settings_too(name, value):
    found = compare(torch_pair(good={name: value}))
    assert (found.statements, found.pairs[0].settings[0].name) == ((), name)


@pytest.mark.parametrize(
    "changed", [{"blas": "openblas"}, {"mkldnn": False}, {"cpu": {"model": "X", "capability": "AVX512"}}]
)
def test_what_is_built_into_torch_goes_with_torch_and_with_nothing_else(changed):
    assert compare(torch_pair(good={"environment": changed})).statements[0].carried
    for axis in ("transformers", "python", "device"):
        rows = [cell("a", "bad", **{axis: "1"}), cell("b", **{axis: "2"}, environment=changed)]
        assert compare(rows).statements == ()


def test_another_platform_has_another_processor_but_its_threads_can_be_equal():
    apple = {"cpu": {"model": "M1", "capability": "DEFAULT"}, "blas": "accelerate"}
    assert len(texts([cell("a", "bad", platform="macOS", environment=apple), cell("b")])) == 1
    assert texts([cell("a", "bad", platform="macOS", environment={**apple, "threads": 3}), cell("b")]) == []


def test_the_runtime_of_an_accelerator_goes_with_torch_and_the_card_does_not():
    old = {"device": "cuda", "environment": {"accelerators": [CARD]}}
    rows = torch_pair(**old, good={"device": "cuda", "environment": {"accelerators": [{**CARD, "runtime": "12.4"}]}})
    assert compare(rows).statements[0].carried == ("accelerators.runtime",)
    assert texts([rows[0], recorded(rows[1], accelerators=({**CARD, "name": "H100"},))]) == []


def test_a_card_that_neither_cell_computes_on_does_not_stand_in_the_way():
    seen = {"accelerators": [CARD], "tf32": {"matmul": False, "cudnn": True}}
    assert len(texts(torch_pair(environment=seen))) == 1
    assert texts([cell("a", "bad", device="cuda", environment=seen), cell("b")]) == []


# Which statements stay


def test_contradicting_pairs_are_both_reported():
    rows = [
        cell("a", "bad", torch="2.4.1"),
        cell("b", "good", torch="2.5.1"),
        cell("c", "bad", torch="2.4.0", python="3.10.1"),
        cell("d", "bad", torch="2.5.0", python="3.10.1"),
    ]
    kept = [(one.axis, one.follows, one.cells) for one in compare(rows).statements]
    assert kept == [("torch", True, ("a", "b")), ("torch", False, ("c", "d"))]


def test_not_transformers_is_said_of_two_bad_cells_that_agree():
    rows = [cell("a", "bad", transformers="4.42.4"), cell("b", "bad", transformers="4.43.0")]
    said = "does not depend on Transformers between 4.42.4 (a) and 4.43.0 (b): both are bad, and nothing else differs."
    assert texts(rows) == [f"The fault {said}"]


@pytest.mark.parametrize(
    "change", [{"verdict": Outcome.SKIP}, {"environment": None}, {"kind": Kind.LOAD}, {"python": "3.10.1"}]
)
def test_not_transformers_is_not_said_where_the_pair_does_not_show_it(change):
    rows = [cell("a", "bad", transformers="4.42.4"), replace(cell("b", "bad", transformers="4.43.0"), **change)]
    assert compare(rows).statements == ()


def test_not_transformers_is_not_said_where_a_package_of_another_differs():
    rows = [cell("a", "bad", transformers="4.42.4"), cell("b", "bad", transformers="4.43.0", installed={"triton": "9"})]
    assert compare(rows).statements == ()


def test_two_good_cells_say_nothing_about_a_fault():
    assert compare([cell("a", transformers="4.42.4"), cell("b", transformers="4.43.0")]).statements == ()


def test_two_bad_cells_with_origins_in_two_places_are_said_to_have_them():
    origins = [Origin(module="layers.0", op="aten.bmm"), Origin(module="layers.3", op="aten.add.Tensor")]
    rows = [cell(f"{n}", "bad", transformers=f"4.4{n}.0", origin=origins[n]) for n in (0, 1)]
    assert "both are bad, but not in one place (layers.0 aten.bmm; layers.3 aten.add.Tensor), and" in texts(rows)[0]


def test_only_the_nearest_versions_are_named():
    rows = [cell(v, "bad" if v < "2.5" else "good", torch=v) for v in ("2.0.1", "2.4.1", "2.5.1", "2.9.1")]
    kept = {(one.follows, one.values) for one in compare(rows).statements}
    assert kept == {(True, ("2.4.1", "2.5.1")), (False, ("2.0.1", "2.4.1"))}


def test_versions_are_ordered_as_versions():
    rows = [cell("a", "bad", torch="2.9.1"), cell("b", torch="2.10.0"), cell("c", torch="2.13.0")]
    assert [one.values for one in compare(rows).statements] == [("2.9.1", "2.10.0")]


def test_a_window_keeps_both_its_edges():
    verdicts = {"4.30.2": "good", "4.31.0": "bad", "4.40.0": "bad", "4.41.0": "good"}
    rows = [cell(version, verdict, transformers=version) for version, verdict in verdicts.items()]
    kept = [one.values for one in compare(rows).statements if one.follows]
    assert kept == [("4.31.0", "4.30.2"), ("4.40.0", "4.41.0")]


def test_platforms_have_no_order_and_all_stay():
    rows = [cell("a", "bad", platform="Darwin"), cell("b", platform="Linux"), cell("c", platform="Windows")]
    assert len(compare(rows).statements) == 2


# Nearest


def test_the_nearest_good_cell_has_the_fewest_axes_changed():
    far = cell("far", torch="2.5.1", python="3.10.1")
    near = cell("near", torch="2.5.1", installed={"numpy": "1", "sympy": "1"})
    pair = compare([cell("a", "bad", torch="2.4.1"), far, near]).pairs[0]
    assert (pair.good, [change.name for change in pair.axes]) == ("near", ["torch"])


def test_then_the_fewest_packages():
    one = cell("z", torch="2.5.1", installed={"triton": "9"})
    two = cell("b", torch="2.5.1", installed={"triton": "9", "sympy": "9"})
    assert compare([cell("a", "bad", torch="2.4.1"), two, one]).pairs[0].good == "z"


def test_then_the_fewest_settings():
    one, two = cell("z", torch="2.5.1"), cell("b", torch="2.5.1", environment={"threads": 1})
    assert compare([cell("a", "bad", torch="2.4.1"), two, one]).pairs[0].good == "z"


def test_the_nearest_does_not_depend_on_the_order_of_the_rows():
    rows = [cell("a", "bad", torch="2.4.1"), *(cell(name, torch="2.5.1") for name in ("d", "c", "b"))]
    assert {compare(order).pairs[0].good for order in itertools.permutations(rows)} == {"b"}


def test_a_pair_lists_all_that_differs():
    good = {"installed": {"numpy": "1.26.4", "gguf": "1"}, "environment": {"threads": 8}, "python": "3.10.1"}
    pair = compare(torch_pair(good=good)).pairs[0]
    assert [(c.name, c.bad, c.good) for c in (*pair.axes, *pair.packages, *pair.settings)] == [
        ("torch", "2.4.1", "2.5.1"),
        ("python", "3.11.7", "3.10.1"),
        ("numpy", "2.1.0", "1.26.4"),
        ("gguf", None, "1"),
        ("threads", 2, 8),
    ]


def test_the_parts_of_cuda_come_last():
    good = {"installed": {"nvidia-cublas": "1", "numpy": "1", "zlib": "1"}}
    packages = compare(torch_pair(good=good)).pairs[0].packages
    assert [change.name for change in packages] == ["numpy", "zlib", "nvidia-cublas"]


def test_a_pair_with_several_axes_has_no_note():
    assert compare(torch_pair(good={"python": "3.10.1", "installed": {"numpy": "1"}})).pairs[0].note is None


def test_a_pair_without_any_difference_says_so():
    notes = [
        compare([cell("a", "bad"), cell("b", **more)]).pairs[0].note for more in ({}, {"installed": {"numpy": "1"}})
    ]
    assert notes[0] == "Both have the same versions, platform and device, and nothing else differs."
    assert notes[1].endswith("platform and device; what differs is numpy (2.1.0, 1).")


def test_a_pair_that_a_package_bars_is_given_beside_the_nearest():
    rows = [*torch_pair(), cell("other", torch="2.4.1", transformers="4.42.4", installed={"accelerate": "1"})]
    assert [(pair.good, pair.nearest, pair.in_the_way) for pair in compare(rows).pairs] == [
        ("new", True, ()),
        ("other", False, ("accelerate (none, 1)",)),
    ]


def test_of_the_pairs_that_are_barred_one_stands_for_each_axis():
    barred = [cell(f"o{n}", torch="2.4.1", transformers=f"4.{n}", installed={"accelerate": "1"}) for n in range(3)]
    assert [pair.good for pair in compare([*torch_pair(), *barred]).pairs] == ["new", "o0"]


def test_a_barred_pair_is_left_out_where_another_bears_the_statement():
    barred = cell("old-too", torch="2.5.0", installed={"accelerate": "1"})
    assert [pair.good for pair in compare([*torch_pair(), barred]).pairs] == ["new"]


def test_many_things_in_the_way_are_counted_in_the_note():
    different = {f"p{n}": "1" for n in range(6)}
    note = compare(torch_pair(good={"installed": different})).pairs[0].note
    assert "p0 (none, 1), p1 (none, 1), p2 (none, 1), p3 (none, 1) and 2 more differ too." in note


def test_a_bad_cell_without_a_partner_says_why():
    (alone,) = compare([cell("a", "bad")]).pairs
    (unknown,) = compare([replace(cell("a", "bad"), environment=None), cell("b")]).pairs
    assert (alone.good, unknown.good) == (None, None)
    assert alone.note == "Not compared: no good cell has a recorded environment."
    assert unknown.note == "Not compared: its environment was not recorded."


def test_the_differences_are_strict_json():
    assert '"in_the_way"' in encode(compare(torch_pair(good={"installed": {"numpy": "1"}})))


def test_the_gap_is_a_pure_function_of_two_rows():
    rows = torch_pair()
    before = encode(rows)
    assert between(*rows) == between(*rows)
    assert encode(rows) == before


# Names


def test_cells_of_several_machines_are_told_apart():
    mac = {"platform": "macOS-14.5-arm64", "machine": "arm64"}
    rows = [cell("a"), cell("b"), cell("b", **mac), cell("b", **mac), cell("c", platform=None, machine=None), cell("c")]
    assert labels(rows) == (
        "a",
        "b (Linux x86_64)",
        "b (macOS arm64) #1",
        "b (macOS arm64) #2",
        "c (platform not known)",
        "c (Linux x86_64)",
    )


def test_the_label_of_a_row_leaves_the_rest_as_it_was():
    rows = [cell("a"), cell("a", platform="macOS-14-arm64", machine="arm64")]
    assert [row.label for row in labelled(rows)] == ["a (Linux x86_64)", "a (macOS arm64)"]
    assert [replace(row, label="") for row in labelled(rows)] == rows
