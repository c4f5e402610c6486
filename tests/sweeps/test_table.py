"""The cells of a matrix as one verdict, and two tables for a terminal."""

import io
import itertools

import pytest
from rich.console import Console
from support.hosting import ORIGIN

from repro.core.encoding import decode
from repro.core.payloads import Origin
from repro.core.records import Outcome
from repro.core.sweep_answers import CellAblation, CellRow
from repro.sweeps.matrix.table import answered_ablations, cell_ablations_table, cells_table, matrix_verdict


def cell(name, verdict="good", **row):
    """A row as a run gives it."""
    where = {"python": "3.11.7", "torch": "2.4.1", "transformers": "4.57.3", "device": "cpu"}
    here = {"platform": "Linux-6.1-x86_64", "machine": "x86_64", "seconds": 12.34}
    found = {"verdict": Outcome(verdict), "reason": f"{name} is {verdict}", **where, **here, **row}
    return CellRow(id=name, **found)


def ablation(name, verdict="good"):
    return CellAblation(name=name, verdict=Outcome(verdict), reason="r")


def shown(table, **options):
    """The table's lines as a console gives them; by default as into a pipe."""
    stream = io.StringIO()
    Console(file=stream, **{"width": 110, **options}).print(table)
    return [line.strip() for line in stream.getvalue().splitlines()]


def words(line):
    return line.split()


@pytest.mark.parametrize("verdicts", [*itertools.product(("good", "bad", "skip"), repeat=3)])
def test_one_bad_cell_is_bad_and_skips_alone_are_skip(verdicts):
    expected = "bad" if "bad" in verdicts else "good" if "good" in verdicts else "skip"
    assert matrix_verdict([cell(str(n), word) for n, word in enumerate(verdicts)]).outcome.value == expected


def test_no_cell_is_no_answer():
    verdict = matrix_verdict([])
    assert (verdict.outcome, verdict.reason) == (Outcome.SKIP, "no cell was run")


def test_the_reason_counts_and_names_the_cells():
    rows = [cell("a"), cell("b", "bad"), cell("c"), cell("d", "skip"), cell("e", "bad")]
    assert matrix_verdict(rows).reason == "2 of 5 cells are bad (b and e); 2 good (a and c); 1 skip (d)"
    assert matrix_verdict(rows[:1]).reason == "1 of 1 cells is good (a)"


def test_a_line_for_each_cell():
    lines = shown(cells_table([cell("seed-2.9.1", "bad"), cell("torch-2.4.1", "skip")]))
    assert [words(line) for line in lines if "-2." in line] == [
        ["seed-2.9.1", "3.11.7", "2.4.1", "4.57.3", "cpu", "bad", "12.3", "seed-2.9.1", "is", "bad"],
        ["torch-2.4.1", "3.11.7", "2.4.1", "4.57.3", "cpu", "skip", "12.3", "torch-2.4.1", "is", "skip"],
    ]


def test_a_bad_cell_shows_where_the_fault_is_born():
    row = cell("a", "bad", origin=decode(Origin, ORIGIN))
    text = " ".join(" ".join(shown(cells_table([row]), width=200)).split())
    assert "float16 overflow in model.layers.7 (aten.add.Tensor, modeling_gemma3.py:416)" in text
    assert "a is bad" not in text


def test_an_origin_without_a_place_is_the_model_itself():
    text = " ".join(shown(cells_table([cell("a", "bad", origin=Origin())])))
    assert "First bad value in the model itself" in " ".join(text.split())


def test_a_cell_that_was_not_built_shows_dashes():
    nothing = dict.fromkeys(("python", "torch", "transformers"))
    (line,) = (line for line in shown(cells_table([cell("x1", "skip", **nothing)])) if line.startswith("x1"))
    assert words(line)[:7] == ["x1", "-", "-", "-", "cpu", "skip", "12.3"]


def test_text_of_others_is_not_read_as_markup():
    assert "[red]x[/red]" in " ".join(shown(cells_table([cell("a", "skip", reason="[red]x[/red]")])))


def test_the_table_is_plain_in_a_pipe_and_without_colour(monkeypatch):
    table = cells_table([cell("a", "bad")])
    assert "\x1b" not in "".join(shown(table))
    assert "\x1b[1;31m" in "".join(shown(table, force_terminal=True, color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in "".join(shown(table, force_terminal=True))


def test_ablations_against_cells():
    rows = [
        cell("a", "bad", ablations=(ablation("dtype=float32"), ablation("attn=eager", "bad"))),
        cell("b", "skip"),
        cell("c", ablations=(ablation("attn=eager", "skip"), ablation("dtype=float32", "bad"))),
    ]
    table = cell_ablations_table(rows)
    assert [str(column.header).replace("\n", "") for column in table.columns] == [
        "cell",
        "asasked",
        "dtype=float32",
        "attn=eager",
    ]
    assert [words(line) for line in shown(table) if line[:2] in ("a ", "b ", "c ")] == [
        ["a", "bad", "good", "bad"],
        ["b", "skip", "-", "-"],
        ["c", "good", "bad", "skip"],
    ]


def test_an_ablation_that_no_cell_answered_has_no_column():
    rows = [cell("a", ablations=(ablation("x", "skip"), ablation("y"))), cell("b", ablations=(ablation("x", "skip"),))]
    assert answered_ablations(rows) == ["y"]


def test_without_ablations_there_is_no_table():
    assert cell_ablations_table([cell("a"), cell("b", ablations=(ablation("x", "skip"),)), cell("c")]) is None


def test_all_ablations_fit_beside_the_longest_name_of_a_cell():
    names = ["dtype=float32", "dtype=bfloat16", "attn=eager", "attn=sdpa", "aligned_copy", "attention_mask=none"]
    names += ["use_cache=false", "no_first_special_token", "threads=1", "second_prompt"]
    lines = shown(
        cell_ablations_table([cell("transformers-4.42.4", "bad", ablations=tuple(ablation(name) for name in names))])
    )
    assert all(part in " ".join(lines) for part in ("bfloat16", "attention_", "aligned_", "threads="))
    (line,) = (line for line in lines if line.startswith("transformers"))
    assert words(line) == ["transformers-4.42.4", "bad", *["good"] * len(names)]
    assert max(map(len, lines)) <= 110
