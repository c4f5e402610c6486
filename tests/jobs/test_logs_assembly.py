"""The lines of one failure, put together: several lines of text, several ranks, lines that belong to nothing known."""

import time

import pytest

from repro.jobs.logs import read_log

STAMP = "2025-11-17 10:54:09,297 |"
COUNT = f"{STAMP} ERROR | Invalid activations in batch example 0: NaN count=7680"
SKIP = f"{STAMP} WARNING | Skipping index 4 due to NaN/Inf"


def read(folder, *lines, name="job_gemma3_12b.err", **more):
    """A log of these lines, read."""
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_log(folder / name, **more)


def failures(folder, *lines):
    """Every failure of a log."""
    found = []
    read(folder, *lines, give=found.append)
    return found


def text(words):
    return f"{STAMP} ERROR | Problematic text: {words}"


def test_three_lines_are_one_failure(tmp_path):
    (one,) = failures(tmp_path, COUNT, text("Why?"), SKIP)
    assert (one.line, one.nan, one.rows, one.text, one.index, one.example) == (1, 7680, 2, "Why?", 4, 0)
    assert (one.model, one.time, one.certain) == ("gemma-3-12b", "2025-11-17 10:54:09,297", True)


@pytest.mark.parametrize(
    ("mark", "certain"),
    [
        ("[rank{}]: ", True),
        ("[1,{}]<stderr>:", True),
        ("{}: ", True),
        ("(Worker pid={}) ", True),
        ("Rank {}: ", True),
        ("", False),
    ],
)
def test_ranks_that_alternate_are_kept_apart_and_without_a_mark_it_is_not_certain(tmp_path, mark, certain):
    mine = [COUNT.replace("7680", "3840"), text("mine"), SKIP.replace("index 4", "index 1")]
    other = [COUNT, text("other"), SKIP]
    lines = [mark.format(rank) + line for pair in zip(mine, other, strict=True) for rank, line in enumerate(pair)]
    found = failures(tmp_path, *lines)
    assert [(one.nan, one.text, one.index) for one in found] == [(3840, "mine", 1), (7680, "other", 4)]
    assert found[0].certain is certain


def test_a_rank_behind_time_and_name_is_found(tmp_path):
    (one,) = failures(
        tmp_path, f"{STAMP} my.module | ERROR | [rank 3] Invalid activations in batch example 0: NaN count=9"
    )
    assert one.rank == "3"


def test_a_text_goes_on_until_the_logger_speaks_again(tmp_path):
    (one,) = failures(tmp_path, COUNT, text("First"), "  second", "", "third", SKIP, "not the text")
    assert one.text == "First\n  second\n\nthird"


def test_texts_of_two_ranks_go_on_side_by_side(tmp_path):
    lines = [
        f"[rank0]: {COUNT}", f"[rank1]: {COUNT}", f"[rank0]: {text('a')}", f"[rank1]: {text('b')}", "[rank1]: b2",
        "[rank0]: a2", "[rank0]: a3", f"[rank1]: {SKIP}", f"[rank0]: {SKIP}",
    ]  # fmt: skip
    assert sorted(one.text for one in failures(tmp_path, *lines)) == ["a\na2\na3", "b\nb2"]


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", " 40%|####      | 4/10 [00:01<00:02]"])
def test_a_text_ends_where_something_else_is_printed(tmp_path, line):
    (one,) = failures(tmp_path, COUNT, text("First"), "second", line, "  more of it", SKIP)
    assert one.text == "First\nsecond"


def test_words_within_a_text_are_not_failures(tmp_path):
    (one,) = failures(tmp_path, COUNT, text("Which company"), "found NaN in its books?", SKIP)
    assert one.text == "Which company\nfound NaN in its books?"


def test_a_text_without_a_head_is_one_line(tmp_path):
    (one,) = failures(tmp_path, "Problematic text: bare", "something else")
    assert one.text == "bare"


def test_a_text_that_ends_in_dots_may_be_cut(tmp_path):
    (one,) = failures(tmp_path, COUNT, text("Who is the richest..."), "something else", SKIP)
    assert (one.text, one.text_cut) == ("Who is the richest...", True)


def test_a_text_that_never_ends_is_cut(tmp_path):
    (one,) = failures(tmp_path, COUNT, text("First"), *["more"] * 1000)
    assert (one.text.count("more"), one.text_cut) == (200, True)


def test_a_count_of_zero_is_no_failure(tmp_path):
    found = read(tmp_path, COUNT.replace("7680", "0"), "no NaN in 26 layers")
    assert (found.sections[0].failures, found.understood, found.unclear) == (0, 2, 0)


def test_only_infinities_are_a_failure(tmp_path):
    (one,) = failures(tmp_path, COUNT.replace("7680", "0, Inf count=12"))
    assert (one.nan, one.inf) == (0, 12)


def test_a_failure_far_above_gets_no_more_lines(tmp_path):
    """The first one never gets its text; what comes 60 lines on is another one's."""
    found = failures(tmp_path, COUNT.replace("7680", "3840"), *["x"] * 60, COUNT, text("Why?"), SKIP)
    assert [(one.nan, one.text, one.certain) for one in found] == [(3840, None, True), (7680, "Why?", True)]


def test_an_index_without_a_count_is_a_failure(tmp_path):
    (one,) = failures(tmp_path, SKIP)
    assert (one.index, one.nan, one.kind) == (4, None, "example")


def test_a_loss_is_a_failure_of_no_example_and_a_scaler_gives_notice(tmp_path):
    found = failures(
        tmp_path,
        "{'loss': nan, 'grad_norm': nan, 'epoch': 0.1}",
        "[deepspeed] OVERFLOW! Rank 1 Skipping step. Attempted loss scale: 65536, reducing to 32768",
    )
    assert [(one.kind, one.rank) for one in found] == [("step", None), ("notice", "1")]
    assert (found[0].fields, found[0].quantities) == ({"epoch": "0.1"}, {"loss": "NaN", "grad_norm": "NaN"})


def test_colours_are_no_part_of_a_line(tmp_path):
    (one,) = failures(tmp_path, f"\x1b[31m{COUNT}\x1b[0m", f"\x1b[31m{text('Why?')}\x1b[0m")
    assert (one.nan, one.text, one.time) == (7680, "Why?", "2025-11-17 10:54:09,297")


def test_a_long_text_is_whole(tmp_path):
    words = "why " * 5000 + "then?"
    (one,) = failures(tmp_path, COUNT, text(words), SKIP)
    assert (one.text, one.text_cut) == (words, False)


@pytest.mark.parametrize("part", ["step 1 ", "best ", "a-", "loading model ", "nan ", "=", "layer 1 ", "detected "])
def test_a_line_that_is_made_to_hold_up_the_search_does_not(tmp_path, part):
    """A million characters on which patterns begin again and again; without a bound this takes hours."""
    began = time.perf_counter()
    read(tmp_path, f"nan {part * (1_000_000 // len(part))}", f"loading model{' ' * 1_000_000}nan")
    assert time.perf_counter() - began < 10
