"""The end of a bad run: on a terminal in 24 rows of 80 columns, in a pipe a line for each thing."""

import io
from types import SimpleNamespace

import pytest
from support.hosting import BISECT, ORIGIN, observation
from support.reports import FOLLOWS, OVERFLOW, answer, bisect, bisected, cell, good, matrix

from repro.cli.screen import summaries
from repro.cli.screen.streams import Stream
from repro.core.answer import Outputs, Reproducer
from repro.core.encoding import replace
from repro.core.records import Owner

LONG = "x" * 200


class Terminal(io.StringIO):
    """A stream that says that somebody looks at it."""

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def screen(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)


def shown(monkeypatch, found, tmp_path, how=summaries.summary, stream=None):
    """What is printed of an answer whose steps the progress has told of."""
    stream = Terminal() if stream is None else stream
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    result = SimpleNamespace(answer=found, folder=tmp_path / "o")
    told = {step.step for step in found.steps}
    how(result, told, to_stderr=False) if how is summaries.summary else how(result, to_stderr=False)
    return stream.getvalue()


def rows(text, columns=80):
    """How many rows of a terminal a text takes."""
    return sum(max(1, -(-len(line) // columns)) for line in text.splitlines())


def overflow(**changed):
    script = {"level": "operator", "needs": ("torch",), "verified": True, "runs": 3}
    found = bisect(OVERFLOW, value="inf", operands=[68000.0, 12.5])
    return replace(
        found,
        owner=Owner("transformers", "the residual grows", advice="use bfloat16"),
        workarounds=("dtype=float32", "dtype=bfloat16"),
        reproducer=Reproducer(path="reproducer.py", **script),
        outputs=Outputs(html="report.html", bundle="bundle.zip"),
        **changed,
    )


def test_a_terminal_gets_the_four_answers(monkeypatch, tmp_path):
    text = shown(monkeypatch, overflow(), tmp_path)
    assert text.splitlines() == [
        "BAD: org/model: float16 overflow in model.layers.7",
        "what:   float16 overflow: the value is Inf, float32 has 68394.9, the largest",
        "        float16 is 65504. Every logit is NaN.",
        "where:  model.layers.7 (Gemma3DecoderLayer), aten.add.Tensor at",
        "        modeling_gemma3.py:416, token 0 '<bos>', channel 163",
        "why:    Owner: transformers. Its inputs there: 68000 and 12.5. The residual",
        "        grows.",
        "to do:  Good with dtype=float32 and dtype=bfloat16 (each was run).",
        "        Use bfloat16.",
        "        Run it: python o/reproducer.py (needs torch; verified 3 times).",
        "        Report it to Transformers: repro report o",
        "report: o/report.md (beside it: report.html, bundle.zip)",
        "rerun:  repro org/model --dtype float16",
    ]


def test_a_pipe_gets_a_line_for_each_thing(monkeypatch, tmp_path):
    text = shown(monkeypatch, overflow(), tmp_path, stream=io.StringIO())
    begins = [line.split(" ")[0] for line in text[text.index("BAD:") :].splitlines()]
    assert begins == ["BAD:", "workarounds:", "owner:", "to", "reproducer:", "report:", "", "", "rerun:"]
    assert "\x1b" not in text


def long_names():
    found = {**ORIGIN, "module": f"a.{LONG}", "module_class": LONG, "op": LONG, "source": f"{LONG}.py:1", "token": LONG}
    made = answer(observation("bisect", "bad", payload={**BISECT, "origin": {**found, "tensor": LONG}}))
    return replace(
        made,
        command=f"repro {LONG} {LONG}",
        owner=Owner("transformers", f"{LONG} " * 20, advice=f"{LONG} " * 20),
        workarounds=tuple(f"{LONG}{n}" for n in range(5)),
        reproducer=replace(overflow().reproducer, path=f"{LONG}.py"),
    )


def wide():
    return matrix(*(cell(f"{LONG}{n}", "bad", ablations={LONG: "good"}) for n in range(9)), statements=[FOLLOWS] * 9)


@pytest.mark.parametrize(
    ("found", "how"),
    [
        (overflow(), summaries.summary),
        (long_names(), summaries.summary),
        (bisected(), summaries.versions),
        (wide(), summaries.table),
    ],
    ids=["overflow", "long names", "versions", "matrix"],
)
def test_what_a_person_needs_is_in_the_last_24_rows(monkeypatch, tmp_path, found, how):
    text = shown(monkeypatch, found, tmp_path, how)
    end = text[text.index("BAD: ") :]
    assert rows(end) <= 23  # and the shell's next line
    assert [label for label in ("\nwhat:", "\nwhere:", "\nreport:", "\nrerun:") if label not in end] == []


def test_a_command_that_is_too_long_is_where_it_is_whole(monkeypatch, tmp_path):
    assert 'rerun:  "command" in o/verdict.json' in shown(monkeypatch, long_names(), tmp_path)


def test_a_cut_is_shown_and_names_lose_their_middle(monkeypatch, tmp_path):
    text = shown(monkeypatch, long_names(), tmp_path)
    assert "where:  a.xxxxxxxxxxxx" in text
    assert "…xxxx" in text
    assert text.count(" …\n") >= 2


def test_a_narrow_terminal_does_not_end_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "12")
    assert "rerun:" in shown(monkeypatch, overflow(), tmp_path)


def test_nothing_in_it_moves_the_cursor(monkeypatch, tmp_path):
    found = replace(overflow(), owner=Owner(None, "a\x1b[2Jb\u202e"), command="repro 'a\x1b[2J'")
    assert "\x1b" not in shown(monkeypatch, found, tmp_path)


def test_a_good_run_is_one_line_with_its_files(monkeypatch, tmp_path):
    text = shown(monkeypatch, good(), tmp_path)
    assert text.startswith("GOOD: ")
    assert "to do" not in text


def test_the_folder_is_written_whole_where_it_lies_elsewhere(monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert f"report: {tmp_path}/o/report.md" in shown(monkeypatch, overflow(), tmp_path)


def test_a_stream_that_nobody_reads_is_no_crash(monkeypatch, tmp_path):
    """The streams of the command line decide what a loss means."""
    inner = Terminal()
    stream = Stream(inner, "stdout", may_be_lost=True)
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    inner.close()
    summaries.summary(SimpleNamespace(answer=overflow(), folder=tmp_path), frozenset(), to_stderr=False)
