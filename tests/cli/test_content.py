"""Lines and tables as they are printed: whole in a pipe, fitted to a terminal, and without a say over it."""

import sys

from repro.cli.screen import content
from repro.jobs.content import Table, cut, many

TABLE = Table(("name", "count"), (("a name of several words", "1"), ("人", "1,000")), (1,))


def test_a_table_is_as_wide_as_its_cells_in_a_pipe(capsys):
    content.show(["first", TABLE, Table(("empty",), ())])
    assert capsys.readouterr().out.splitlines() == [
        "first",
        "name                     count",
        "a name of several words      1",
        "人                       1,000",
        "",
    ]


def test_a_table_is_folded_in_a_terminal_and_nothing_is_cut(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "16")
    content.show([TABLE])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 16
    assert "".join(shown.split()).count("several") == 1


def test_what_does_not_print_is_an_escape(capsys):
    content.show(["\x1b[2J", Table(("a\x07",), (("\u202eb",),))])
    assert not set(capsys.readouterr().out) & set("\x1b\x07\u202e")


def test_numbers_of_things_and_long_texts():
    assert [many(1, "line"), many(1200, "line"), many(2, "entry", "entries")] == ["1 line", "1,200 lines", "2 entries"]
    assert [cut("abcd", 4), cut("abcde", 4)] == ["abcd", "abc…"]
