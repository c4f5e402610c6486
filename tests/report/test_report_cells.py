"""The report of a run over several environments: the cells of a matrix, and the versions of a bisection."""

import re

import pytest
from test_differences import cell as injected
from test_report import answer, tables

from repro.report.privacy.redact import Private
from repro.report.render import LIMIT, render
from repro.sweeps.matrix.table import cell_ablations_table, cells_table, matrix_part, matrix_verdict


def cell(name, verdict="good", **more):
    """A row with everything that the report may show."""
    ablations = more.pop("ablations", {})
    row = injected(name, verdict, **more)
    shown = [{"name": ablation, "verdict": word, "reason": "r"} for ablation, word in ablations.items()]
    command = f"repro matrix org/model --cell {name}"
    return {"reason": f"{name} is {verdict}", "seconds": 12.34, "command": command, **row, "ablations": shown}


def matrix(*rows, **more):
    """The least that the document of a matrix holds."""
    verdict = matrix_verdict(rows)
    return {
        "schema": 1,
        "verdict": verdict.outcome.value,
        "reason": verdict.reason,
        "headline": verdict.reason,
        "model": {"id": "org/model", "weights": "checkpoint"},
        "cell": {"executable": "/usr/bin/python3"},
        "command": "repro matrix org/model",
        "tool": "0.1.0",
        **matrix_part(rows),
        **more,
    }


TWO = (
    cell("torch-2.4.1", "bad", torch="2.4.1", ablations={"dtype=float32": "good", "threads=1": "skip"}),
    cell("torch-2.5.1", torch="2.5.1", installed={"triton": "9"}),
)
PROBES = [
    {"pins": {"torch": "2.4.1"}, "verdict": "bad", "reason": "NaN", "votes": "bad in 2 of 5", "command": "repro a"},
    {"pins": {"torch": "2.5.1"}, "verdict": "good", "reason": "finite", "votes": None, "command": "repro b"},
]
VERSIONS = {
    "package": "torch",
    "direction": "fix",
    "last_good": "2.5.1",
    "first_bad": "2.4.1",
    "skipped": ["2.5.0"],
    "with": {"transformers": "4.57.3"},
    "probes": PROBES,
    "boundaries": [],
    "sentence": "torch 2.4.1 is bad and 2.5.1 is good",
    "changes": {"sentence": "aten._softmax is gone"},
    "attribution": "both are needed",
}


def bisected(**changes):
    """The document of a bisection of versions."""
    document = matrix(headline="a headline", versions={**VERSIONS, **changes}, cells=None, differences=None)
    return {**document, "verdict": "bad"}


def section(text, name):
    """A section's text."""
    return text.split(f"## {name}\n")[1].split("\n## ")[0]


# Cells


def test_a_row_for_each_cell_with_verdict_and_reason():
    text = section(render(matrix(*TWO)), "Cells")
    assert "| `torch-2.4.1` | 3.11.7 | 2.4.1 | 4.57.3 | cpu | **bad** | 12.3 | torch-2.4.1 is bad |" in text
    assert "| `torch-2.5.1` | 3.11.7 | 2.5.1 | 4.57.3 | cpu | good | 12.3 | torch-2.5.1 is good |" in text


def test_the_platform_is_a_column_only_where_there_are_several():
    assert "| platform |" not in render(matrix(*TWO))
    text = render(matrix(*TWO, cell("torch-2.5.1", platform="macOS-14-arm64", machine="arm64")))
    assert "| `torch-2.5.1 (macOS arm64)` | 3.11.7 | 2.5.1 | 4.57.3 | cpu | macOS-14-arm64 | good |" in text


def test_ablations_against_cells():
    text = section(
        render(matrix(*TWO, cell("x", "bad", ablations={"attn=eager": "bad", "dtype=float32": "skip"}))), "Cells"
    )
    assert "| cell | as asked | `dtype=float32` | `attn=eager` |\n|---|---|---|---|\n" in text
    assert "| `torch-2.4.1` | **bad** | good | - |" in text
    assert "| `x` | **bad** | skip | **bad** |" in text
    assert "threads=1" not in text


def test_without_an_answered_ablation_there_is_no_such_table():
    assert "One change at a time, in each cell" not in render(
        matrix(cell("a"), cell("b", ablations={"threads=1": "skip"}))
    )


def test_statements_and_differences_stand_in_the_report():
    text = section(render(matrix(*TWO)), "Cells")
    assert "- The fault follows torch between 2.4.1 (bad, torch-2.4.1) and 2.5.1 (good, torch-2.5.1): nothing" in text
    assert "| `torch-2.4.1` | `torch-2.5.1` | `torch` 2.4.1, 2.5.1 | `triton` 3.0.0, 9 | - |" in text


def test_what_stands_in_the_way_is_said():
    text = section(render(matrix(TWO[0], cell("b", torch="2.5.1", installed={"numpy": "1"}))), "Cells")
    assert "- `torch-2.4.1` beside `b`: It is not said that the fault follows torch, because numpy (2.1.0, 1)" in text
    assert "- No bad and good cell differ in one thing alone, so it is not known what the fault follows." in text


def test_a_bad_cell_without_a_partner_says_so():
    text = section(render(matrix(TWO[0])), "Cells")
    assert "- `torch-2.4.1`: There is nothing to compare it with: no good cell took part." in text
    assert "| bad cell |" not in text


def test_good_cells_alone_need_no_statement():
    text = section(render(matrix(TWO[1])), "Cells")
    assert "What the fault follows" not in text
    assert "| bad cell |" not in text


def test_many_packages_are_counted():
    different = {f"p{n}": "1" for n in range(11)}
    assert "`p8` none, 1" not in (text := render(matrix(TWO[0], cell("b", torch="2.5.1", installed=different))))
    assert "and 3 more" in text


def test_each_cell_has_its_command():
    assert "```sh\nrepro matrix org/model --cell torch-2.4.1\nrepro matrix org/model --cell torch-2.5.1\n```" in render(
        matrix(*TWO)
    )


@pytest.mark.parametrize(
    ("rows", "title", "second"),
    [
        (TWO, "NaN or Inf in the output (1 of 2 cells)", " The fault follows torch between 2.4.1"),
        (TWO[1:], "good (1 of 1 cells)", None),
        ((cell("a", "skip"),), "no verdict (1 of 1 cells)", " Nothing follows from this run."),
    ],
)
def test_the_report_of_a_matrix_opens_with_the_count(rows, title, second):
    lines = render(matrix(*rows)).splitlines()
    assert lines[0] == f"# org/model: {title}"
    assert second in lines[4] if second else lines[4].endswith("is good (torch-2.5.1).")


def test_a_cell_that_was_not_run_shows_dashes():
    nothing = dict.fromkeys(("python", "torch", "transformers", "platform", "machine", "seconds", "environment"))
    row = {**cell("a", "skip"), **nothing, "ablations": None, "command": None}
    text = section(render(matrix(row)), "Cells")
    assert "| `a` | - | - | - | cpu | skip | - | a is skip |" in text
    assert "Each cell again" not in text


def test_the_terminal_and_the_report_name_the_same_cells_and_ablations():
    text = section(render(matrix(*TWO)), "Cells")
    cells = [str(item) for item in next(iter(cells_table(TWO).columns)).cells]
    ablations = [str(column.header).replace("\n", "") for column in cell_ablations_table(TWO).columns[2:]]
    assert cells == re.findall(r"^\| `(\S+)` \| 3", text, re.M)
    assert ablations == re.findall(r"`([^`]+)`", re.search(r"^\| cell \| as asked \|.*$", text, re.M)[0])


# Versions


def test_the_interval_and_what_was_skipped_stand_first():
    text = section(render(bisected()), "Versions")
    for row in (
        "| package | `torch` |",
        "| direction | the newer releases are good |",
        "| last good | `2.5.1` |",
        "| first bad | `2.4.1` |",
        "| skipped between them | `2.5.0` |",
        "| with | `transformers 4.57.3` |",
    ):
        assert row in text


def test_every_probe_has_its_verdict_votes_reason_and_command():
    text = section(render(bisected()), "Versions")
    assert "| `torch 2.4.1` | **bad** | bad in 2 of 5 | NaN |" in text
    assert "| `torch 2.5.1` | good | - | finite |" in text
    assert "```sh\nrepro a\nrepro b\n```" in text


def test_votes_may_be_a_list():
    assert "| bad, good, bad |" in render(bisected(probes=[{**PROBES[0], "votes": ["bad", "good", "bad"]}]))


def test_boundaries_are_a_table_where_there_are_any():
    boundaries = [
        {"last_good": "2.0.1", "first_bad": "2.2.0", "skipped": ["2.1.0", "2.1.1"]},
        {"last_good": "2.5.1", "first_bad": "2.4.1", "skipped": []},
    ]
    text = section(render(bisected(boundaries=boundaries)), "Versions")
    assert "| 2.0.1 | 2.2.0 | `2.1.0` and `2.1.1` |\n| 2.5.1 | 2.4.1 | - |" in text
    assert "Every boundary" not in render(bisected())


def test_what_changed_and_whose_it_is_are_said():
    text = section(render(bisected()), "Versions")
    assert text.strip().startswith(
        "torch 2.4.1 is bad and 2.5.1 is good.\n\naten.\\_softmax is gone.\n\nboth are needed.\n\n| | |"
    )


def test_each_boundary_has_its_change_and_each_note_a_line():
    changes = [{"sentence": "one is gone"}, {"sentence": "another is new"}]
    text = section(render(bisected(changes=changes[0], all_changes=changes, notes=["numpy was held"])), "Versions")
    assert all(f"\n\n{line}.\n\n" in text for line in ("one is gone", "another is new", "numpy was held"))
    assert text.count("ne is gone") == 1


def test_what_the_search_took_is_said():
    text = section(render(bisected(python="3.11", releases=9, environments=5)), "Versions")
    assert "| Python | 3.11 |\n| releases in the range | 9 |\n| environments | 5 |" in text


def test_the_answer_is_not_said_twice():
    assert render(bisected(sentence="a headline")).count("eadline") == 1


def test_the_report_of_a_bisection_opens_with_both_ends():
    lines = render(bisected()).splitlines()
    assert lines[0] == "# org/model: NaN or Inf in the output (torch: good at 2.5.1, bad at 2.4.1)"
    assert lines[4] == "a headline. aten.\\_softmax is gone."


def test_an_answer_without_a_boundary_renders_too():
    absent = dict.fromkeys(("direction", "last_good", "first_bad", "changes", "attribution"))
    text = render(bisected(**absent, skipped=[], probes=[], **{"with": {}}))
    assert text.splitlines()[0] == "# org/model: NaN or Inf in the output"
    assert "What was tested" not in text


# What holds for every report

DOCUMENTS = [matrix(*TWO), matrix(TWO[0]), matrix(cell("a", "skip", environment={})), bisected()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_placeholder_is_left(document):
    assert not re.search(r"\{\{|\{%|\bTODO\b|\bNone\b|\bundefined\b", render(document))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_table_row_has_as_many_cells_as_its_head(document):
    for table in tables(render(document)):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1


def test_a_run_in_one_environment_has_neither_section():
    text = render(answer())
    assert "## Cells" not in text
    assert "## Versions" not in text
    assert text == render({**answer(), "cells": None, "differences": None})


def test_the_cell_that_the_other_sections_are_from_is_named():
    text = render({**answer(), **matrix_part(TWO), "shown_cell": "torch-2.4.1"})
    assert "Everything below is from the cell `torch-2.4.1`.\n\n## Where it is born" in text
    assert "Everything below" not in render(matrix(*TWO))


def test_a_run_over_several_environments_has_no_empty_sections():
    text = render(matrix(*TWO))
    assert "## Steps" not in text
    assert "SHA-256" not in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize("count", [1, 50, 150])
def test_the_report_stays_below_the_limit_and_says_what_was_left_out(count):
    rows = [cell(f"cell-{n}", "bad" if n % 2 else "good", torch=f"2.{n}.0", threads=n) for n in range(count)]
    for row in rows:
        row["reason"] = "x" * 200
    text = render(matrix(*rows))
    assert len(text.encode()) < LIMIT
    assert (f"of {count} rows are shown; verdict.json has all." in text) is (count > 1)


def test_many_probes_are_thinned_around_the_boundary():
    probes = [{**PROBES[0], "pins": {"torch": f"1.{n}"}, "reason": "x" * 300} for n in range(200)]
    text = render(bisected(probes=probes, last_good="1.99", first_bad="1.100"))
    assert len(text.encode()) < LIMIT
    assert "| `torch 1.99` |" in text
    assert "| `torch 1.100` |" in text
    assert "of 200 rows are shown" in text


def test_no_private_word_is_in_a_report():
    row = {**TWO[0], "reason": "no /home/alice/x on wonder, hf_abcdefghijk", "command": "repro /home/alice/m"}
    text = render(matrix(row), Private(home="/home/alice", user="alice", host="wonder"))
    assert not re.search(r"alice|wonder|hf_a", text)


def test_text_of_others_does_nothing_in_markdown():
    text = render(matrix({**cell("a", "skip"), "reason": "| <b> @someone #12"}))
    assert "\\| \\<b> &#64;someone &#35;12 |" in text


def test_what_is_installed_is_not_listed_in_the_environment():
    document = answer()
    document["environment"] = {**document["environment"], "distributions": {"numpy": "7"}, "closures": {"torch": ["z"]}}
    text = render(document)
    assert "numpy" not in text
    assert "closures" not in text


def test_the_folders_of_the_cells_are_left_out():
    row = cell("a", "skip", environment={"executable": "/opt/cells/a/bin/python"})
    text = render(matrix({**row, "reason": "no /opt/cells/a/lib/x.py"}))
    assert "ENV/lib/x.py" in text
    assert "/opt" not in text
