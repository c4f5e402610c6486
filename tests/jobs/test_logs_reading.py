"""Bytes to lines: every encoding and compression, every cut of a block, and memory that does not grow."""

import bz2
import codecs
import gzip
import lzma
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.core.errors import UsageError
from repro.jobs.logs import read_log, reading
from repro.jobs.logs.reading import Source
from repro.jobs.logs.scanning import Scanner, fewest

LINES = [
    "2025-11-17 10:54:09,297 | INFO | café läuft",
    "2025-11-17 10:54:09,297 | ERROR | Invalid activations in batch example 0: NaN count=130560",
    "2025-11-17 10:54:09,297 | ERROR | Problematic text: Wer heißt Müller?",
    "2025-11-17 10:54:09,298 | WARNING | Skipping index 7 due to NaN/Inf",
]


def first_prompt(path, **more):
    """The first prompt of a log with one."""
    return read_log(path, **more).sections[0].prompts[0]


@pytest.mark.parametrize(
    ("encoding", "mark", "told"),
    [
        ("utf-8", b"", "utf-8"),
        ("utf-8", codecs.BOM_UTF8, "utf-8"),
        ("utf-16-le", codecs.BOM_UTF16_LE, "utf-16-le"),
        ("utf-16-be", codecs.BOM_UTF16_BE, "utf-16-be"),
        ("utf-16-le", b"", "utf-16-le"),
        ("utf-16-be", b"", "utf-16-be"),
        ("utf-32-le", codecs.BOM_UTF32_LE, "utf-32-le"),
        ("latin-1", b"", "utf-8"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_is_the_same_in_every_encoding_and_with_every_end_of_line(tmp_path, encoding, mark, told, end):
    path = tmp_path / "job.err"
    path.write_bytes(mark + end.join(LINES).encode(encoding))
    found = read_log(path)
    assert (found.sections[0].prompts[0].text, found.encoding) == ("Wer heißt Müller?", told)
    assert (found.lines, found.understood, found.unclear, found.others) == (4, 3, 0, 1)


def test_an_encoding_can_be_named(tmp_path):
    (tmp_path / "job.err").write_bytes("\n".join(LINES).replace("Müller", "小林").encode("gbk", "ignore"))
    assert "小林" in first_prompt(tmp_path / "job.err", encoding="gbk").text


def test_bytes_of_no_encoding_cost_their_line_only_and_are_told(tmp_path):
    lines = [line.encode() for line in LINES]
    (tmp_path / "job.err").write_bytes(b"\n".join([lines[0], b"\xff\xfe error \x00\x81", *lines[1:]]))
    found = read_log(tmp_path / "job.err")
    assert found.sections[0].prompts[0].text == "Wer heißt Müller?"
    assert found.notes == ("1 line not in utf-8, read as Windows-1252",)


@pytest.mark.parametrize(("opener", "name"), [(gzip.open, "gzip"), (bz2.open, "bzip2"), (lzma.open, "xz")])
def test_a_compressed_log_is_read_whatever_its_name(tmp_path, opener, name):
    with opener(tmp_path / "job.err", "wt", encoding="utf-8") as stream:
        stream.write("\n".join(LINES))
    found = read_log(tmp_path / "job.err")
    assert (found.compression, found.sections[0].prompts[0].text) == (name, "Wer heißt Müller?")


@pytest.mark.parametrize(("opener", "name"), [(gzip.open, "gzip"), (bz2.open, "bzip2"), (lzma.open, "xz")])
def test_an_archive_without_its_end_gives_what_it_has(tmp_path, opener, name):
    noise = random.Random(0)
    with opener(tmp_path / "whole", "wt", encoding="utf-8") as stream:
        stream.write("\n".join(LINES) + "\n")
        stream.writelines(f"{noise.getrandbits(64)}\n" for _ in range(200_000))
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "job.err").write_bytes(whole[: len(whole) // 2])
    found = read_log(tmp_path / "job.err")
    assert found.sections[0].prompts[0].text == "Wer heißt Müller?"
    assert f"the {name} archive is damaged after " in found.notes[0]


@pytest.mark.parametrize(("start", "name"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\x03\x04", "zip")])
def test_an_archive_that_is_not_read_is_refused_by_name(tmp_path, start, name):
    (tmp_path / "job.err").write_bytes(start + b"rest")
    with pytest.raises(UsageError, match=f"is a {name} file, which is not supported"):
        read_log(tmp_path / "job.err")


def test_an_empty_log_has_nothing_in_it(tmp_path):
    (tmp_path / "job.err").touch()
    assert (read_log(tmp_path / "job.err").lines, read_log(tmp_path / "job.err").understood) == (0, 0)


def test_a_failure_behind_a_progress_bar_is_found(tmp_path):
    bar = "".join(f"\r {part}%|###   | {part}/100" for part in range(100))
    (tmp_path / "job.err").write_text(f"first\n{bar}{LINES[1]}\n{LINES[2]}\n")
    first = first_prompt(tmp_path / "job.err").first
    assert (first.nan, first.line, first.text) == (130560, 2, "Wer heißt Müller?")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["nan", "NaN x", "info", "inf", "ab", "", "\n", "\r\n", "\r", "error", "dominant"])),
    st.integers(1, 9),
    st.booleans(),
)
def test_lines_are_those_of_a_plain_split_wherever_blocks_end(parts, size, every):
    text = "".join(parts)
    wanted, number = [], 1
    for piece in re.findall(r"[^\r\n]*(?:\r\n|\r|\n|$)", text)[:-1] if text else []:
        line = piece.rstrip("\r\n")
        met = re.search(r"nan|error|inf(?![a-z])", line, re.IGNORECASE)
        wanted += [(number, line)] * bool(met or every)
        number += piece.count("\n")
    scanner = Scanner([])
    scanner.every = every
    found = [(line.number, line.data.decode()) for line in scanner.read(blocks_of(text.encode(), size))]
    assert found == wanted
    assert scanner.lines == len(re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text))


def blocks_of(data, size):
    """The blocks of a log that is read in pieces of a few bytes."""

    class Pieces(Source):
        def _decoded(self):
            yield from (data[at : at + size] for at in range(0, len(data), size))

    return Pieces(Path("unused")).blocks()


def test_the_words_that_are_searched_for_are_the_shortest():
    assert fewest(["nan", "nan count", "load", "loading", "skipping"]) == ("load", "nan", "skipping")


def test_a_line_without_end_is_read_in_pieces_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 12)
    (tmp_path / "job.err").write_text(f"{'x' * 20000}\n{LINES[1]}\n")
    found = read_log(tmp_path / "job.err")
    assert (found.sections[0].failures, found.sections[0].counts) == (1, {130560: 1})
    assert "were read in pieces" in found.notes[0]


GROWTH = """
import resource, sys
from pathlib import Path
from repro.jobs.logs import read_log
found = read_log(Path(sys.argv[1]))
section, peak = found.sections[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(section.failures, len(section.prompts), found.lines, peak)
"""


def peak_of(path):
    """Failures, different prompts and lines of a log, and the peak memory of a process that reads it."""
    ran = subprocess.run([sys.executable, "-c", GROWTH, str(path)], capture_output=True, text=True, check=True)
    return [int(word) for word in ran.stdout.split()]


@pytest.mark.skipif(sys.platform == "win32", reason="the module `resource` is for Unix only")
def test_memory_does_not_grow_with_the_log(tmp_path):
    """Twenty times the log, the same prompts: the peak may differ by what one block more or less takes."""
    noise = "".join(f"2025-11-17 10:54:09,297 | INFO | Processed batch {number} of 2500\n" for number in range(20_000))
    part = noise + "\n".join(LINES) + "\n"
    (tmp_path / "small.err").write_text(part * 5)
    (tmp_path / "large.err").write_text(part * 100)
    assert (tmp_path / "large.err").stat().st_size > 100_000_000
    small, large = peak_of(tmp_path / "small.err"), peak_of(tmp_path / "large.err")
    assert (small[:2], large[:2], large[2]) == ([5, 1], [100, 1], 20 * small[2])
    kibibytes = 1 if sys.platform != "darwin" else 1024
    assert large[3] - small[3] < 4096 * kibibytes
