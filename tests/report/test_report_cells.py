"""The report of a run over several environments or models: cells, versions, siblings."""

import re

import pytest
from support.reports import (
    ALONE,
    FOLLOWS,
    TWO,
    answer,
    bisected,
    both,
    cell,
    matrix,
    pair,
    probe,
    tables,
)

from repro.core.encoding import replace
from repro.core.payloads import Environment
from repro.core.records import Outcome
from repro.core.sweep_answers import (
    Boundary,
    Comparison,
    Difference,
    Differences,
    Peak,
    Setting,
    SiblingModel,
    Threshold,
)
from repro.core.trace_answers import Changes
from repro.report.cells import NOTHING_ALONE
from repro.report.privacy.machine import Private
from repro.report.render import LIMIT, parts, render
from repro.sweeps.matrix.table import cell_ablations_table, cells_table


def section(report, name):
    """A section's text."""
    return next(part.text for part in parts(report) if part.heading == name)


def headings(report):
    return [part.heading for part in parts(report)]


# Cells


def test_a_row_for_each_cell_with_verdict_and_reason():
    text = section(render(matrix(*TWO)), "Cells")
    assert "| `torch-2.4.1` | 3.11.7 | 2.4.1 | 4.57.3 | cpu | **bad** | 12.3 | torch-2.4.1 is bad |" in text
    assert "| `torch-2.5.1` | 3.11.7 | 2.5.1 | 4.57.3 | cpu | good | 12.3 | torch-2.5.1 is good |" in text


def test_the_platform_is_a_column_only_where_there_are_several():
    assert "| platform |" not in render(matrix(*TWO))
    text = render(matrix(*TWO, cell("x", label="x (macOS arm64)", platform="macOS-14-arm64")))
    assert "| `x (macOS arm64)` | 3.11.7 | 2.5.1 | 4.57.3 | cpu | macOS-14-arm64 | good |" in text


def test_ablations_against_cells():
    other = cell("x", "bad", ablations={"attn=eager": "bad", "dtype=float32": "skip"})
    text = section(render(matrix(*TWO, other)), "Cells")
    assert "| cell | as asked | `dtype=float32` | `attn=eager` |\n|---|---|---|---|\n" in text
    assert "| `torch-2.4.1` | **bad** | good | - |" in text
    assert "| `x` | **bad** | skip | **bad** |" in text
    assert "threads=1" not in text


def test_without_an_answered_ablation_there_is_no_such_table():
    assert "as asked" not in render(matrix(cell("a"), cell("b", ablations={"threads=1": "skip"})))


def test_statements_and_differences_stand_in_the_report():
    text = section(render(both()), "Cells")
    assert f"- {FOLLOWS.text}" in text
    assert "| `torch-2.4.1` | `torch-2.5.1` | `torch` 2.4.1, 2.5.1 | `triton` 3.0.0, 9 | - |" in text


def test_what_stands_in_the_way_is_said():
    text = section(render(matrix(*TWO, pairs=[pair(note="It is not said: numpy differs too.")])), "Cells")
    assert "- `torch-2.4.1` beside `torch-2.5.1`: It is not said: numpy differs too." in text
    assert f"- {NOTHING_ALONE}" in text


def test_a_bad_cell_without_a_partner_says_so():
    text = section(render(matrix(TWO[0], TWO[0], pairs=[pair(good=None, note="No good cell took part.")])), "Cells")
    assert "- `torch-2.4.1`: No good cell took part." in text
    assert "| bad cell |" not in text


def test_good_cells_alone_need_no_statement():
    text = section(render(matrix(TWO[1], cell("b"))), "Cells")
    assert "follows" not in text
    assert "| bad cell |" not in text


def test_many_packages_are_counted():
    different = tuple(Difference(name=f"p{n}", good="1") for n in range(11))
    text = render(matrix(*TWO, pairs=[pair(packages=different)]))
    assert "`p7` none, 1; and 3 more" in text
    assert "`p8`" not in text


def test_each_cell_has_its_command():
    block = "```sh\nrepro matrix org/model --cell torch-2.4.1\nrepro matrix org/model --cell torch-2.5.1\n```"
    assert block in render(matrix(*TWO))


@pytest.mark.parametrize(
    ("found", "title", "second"),
    [
        (both(), "NaN or Inf in the output (1 of 2 cells)", f" {FOLLOWS.text}"),
        (matrix(TWO[1], cell("b")), "good (2 of 2 cells)", " are good (torch-2.5.1)."),
        (matrix(cell("a", "skip"), cell("b", "skip")), "no verdict (2 of 2 cells)", " No cell gave a verdict."),
    ],
)
def test_the_report_of_a_matrix_opens_with_the_count(found, title, second):
    lines = render(found).splitlines()
    assert lines[0] == f"# org/model: {title}"
    assert lines[4].endswith(second)


@pytest.mark.parametrize("row", [TWO[0], TWO[1], cell("a", "skip")])
def test_one_cell_is_a_plain_run(row):
    """Nothing says "1 of 1 cells", or that there is no other cell to compare with."""
    alone = Differences(pairs=(pair(good=None, note="There is nothing to compare it with."),))
    run = replace(answer(), verdict=row.verdict)
    assert render(replace(run, cells=(row,), differences=alone, shown_cell=row.id)) == render(run)


def test_a_cell_that_was_not_run_shows_dashes():
    nothing = dict.fromkeys(("python", "torch", "transformers", "platform", "machine", "environment"))
    row = replace(cell("a", "skip"), **nothing, command="", seconds=0.0)
    text = section(render(matrix(row, row)), "Cells")
    assert "| `a` | - | - | - | cpu | skip | 0.0 | a is skip |" in text
    assert "```" not in text


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
        "| direction | newer releases are good |",
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


def test_boundaries_are_a_table_where_there_are_any():
    first = Boundary(direction="regression", last_good="2.0.1", first_bad="2.2.0", skipped=("2.1.0", "2.1.1"))
    boundaries = (first, Boundary(direction="fix", last_good="2.5.1", first_bad="2.4.1"))
    text = section(render(bisected(boundaries=boundaries)), "Versions")
    assert "| 2.0.1 | 2.2.0 | `2.1.0` and `2.1.1` |\n| 2.5.1 | 2.4.1 | - |" in text
    assert "| last good | first bad |" not in render(bisected())


def test_what_changed_and_whose_it_is_are_said():
    text = section(render(bisected()), "Versions")
    assert text.strip().startswith(
        "torch 2.4.1 is bad and 2.5.1 is good.\n\naten.\\_softmax is gone.\n\nboth are needed.\n\n|  |  |"
    )


def test_each_boundary_has_its_change_and_each_note_a_line():
    changes = (Changes(sentence="one is gone"), Changes(sentence="another is new"))
    text = section(render(bisected(changes=changes[0], all_changes=changes, notes=("numpy was held",))), "Versions")
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
    text = render(bisected(**absent, skipped=(), probes=(), with_={}))
    assert text.splitlines()[0] == "# org/model: NaN or Inf in the output"
    assert "| votes |" not in text


# Models


def compared(count=2, **more):
    """The comparison of siblings, the first of which is good."""
    models = tuple(
        SiblingModel(
            name=f"m|{n}",
            model=f"org/m{n}",
            verdict=Outcome.GOOD if n == 0 else Outcome.BAD,
            reason="r",
            parameters=10**n,
            peak=Peak(value=10.0**n, dtype="float32", measured=True),
            headroom={"float16": 65504 / 10.0**n},
        )
        for n in range(count)
    )
    found = Setting(path="hidden_size", values=tuple(range(count)), absent=(False,) * count, order="rises")
    threshold = Threshold(kind="bad_from", sentences=("Good up to m|0.",))
    made = {"models": models, "threshold": threshold, "settings": (found,), "same_settings": 7, "shown_model": "m|0"}
    return replace(answer(), comparison=Comparison(**made, **more))


def test_each_model_has_a_row_and_each_setting_that_differs_one():
    text = section(render(compared()), "Models")
    assert "| m\\|0 | 1 | - | - | - | good | - | - | 1 in float32 | 65504 | - | - |" in text
    assert "| `hidden_size` | 0 | 1 | rises with size | - |" in text
    assert "Good up to m" in text
    assert "7 are the same" in text
    assert all(len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1 for table in tables(text))


def test_long_tables_of_models_are_cut_and_it_is_said():
    assert "The first 40 of 50 models are shown." in section(render(compared(50)), "Models")


def test_a_run_of_one_model_has_no_such_section():
    assert "Models" not in headings(render(answer()))


# What holds for every report

ANSWERS = [both(), matrix(TWO[0], TWO[0]), matrix(cell("a", "skip", environment=None), TWO[1]), bisected(), compared()]


@pytest.mark.parametrize("found", ANSWERS)
def test_no_placeholder_is_left(found):
    assert not re.search(r"\{\{|\{%|\bTODO\b|\bNone\b|\bundefined\b", render(found))


@pytest.mark.parametrize("found", ANSWERS)
def test_every_table_row_has_as_many_cells_as_its_head(found):
    for table in tables(render(found)):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1


def test_a_run_in_one_environment_has_neither_section():
    assert not {"Cells", "Versions"} & set(headings(render(answer())))


def test_the_cell_that_the_other_sections_are_from_is_named():
    text = render(replace(answer(), cells=TWO, shown_cell="torch-2.4.1"))
    assert "Everything below is from the cell `torch-2.4.1`.\n\n## Origin" in text
    assert "Everything below" not in render(matrix(*TWO))


def test_a_run_over_several_environments_has_no_empty_sections():
    text = render(matrix(*TWO))
    assert "## Steps" not in text
    assert "SHA-256" not in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize("count", [1, 50, 150])
def test_the_report_stays_below_the_limit_and_says_what_was_left_out(count):
    verdicts = ["bad" if n % 2 else "good" for n in range(count)]
    rows = [cell(f"cell-{n}", word, torch=f"2.{n}.0", reason="x" * 200) for n, word in enumerate(verdicts)]
    text = render(matrix(*rows, pairs=[ALONE] * count, statements=[FOLLOWS] * count))
    assert len(text.encode()) < LIMIT
    assert (f"of {count} rows are shown; verdict.json has all." in text) is (count > 1)


def test_many_probes_are_thinned_around_the_boundary():
    probes = tuple(probe(f"1.{n}", reason="x" * 300) for n in range(200))
    text = render(bisected(probes=probes, last_good="1.99", first_bad="1.100"))
    assert len(text.encode()) < LIMIT
    assert "| `torch 1.99` |" in text
    assert "| `torch 1.100` |" in text
    assert "of 200 rows are shown" in text


def test_no_private_word_is_in_a_report():
    row = replace(TWO[0], reason="no /home/alice/x on wonder, hf_abcdefghijk", command="repro /home/alice/m")
    text = render(matrix(row, row), Private(home="/home/alice", user="alice", host="wonder"))
    assert not re.search(r"alice|wonder|hf_a", text)


def test_text_of_others_does_nothing_in_markdown():
    text = render(matrix(cell("a", "skip", reason="| <b> @someone #12"), TWO[1]))
    assert "\\| \\<b> &#64;someone &#35;12 |" in text


def test_what_is_installed_is_not_listed_in_the_environment():
    found = answer()
    installed = replace(found.environment, distributions={"numpy": "7"}, closures={"torch": ("z",)})
    text = render(replace(found, environment=installed))
    assert "numpy" not in text
    assert "closures" not in text


def test_the_folders_of_the_cells_are_left_out():
    environment = Environment(executable="/opt/cells/a/bin/python")
    text = render(matrix(cell("a", "skip", environment=environment, reason="no /opt/cells/a/lib/x.py"), TWO[1]))
    assert "ENV/lib/x.py" in text
    assert "/opt" not in text
