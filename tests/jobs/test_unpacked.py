"""Compressed files, whole, cut and damaged: everything in front of the damage is given."""

import bz2
import gzip
import io
import lzma
import random
import zlib

import pytest

from repro.jobs.logs.logs import read_log
from repro.jobs.scan.looking import look
from repro.jobs.unpacked import Damaged, Unpacked, format_of

PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
TEXT = "".join(f"step {number}: loss {random.Random(number).random()}\n" for number in range(40_000)).encode()


def read(packed, kind):
    """What could be read, and the damage."""
    stream, found = io.BufferedReader(Unpacked(io.BytesIO(packed), kind)), b""
    try:
        while piece := stream.read1(1 << 16):
            found += piece
    except Damaged as damage:
        return found, str(damage)
    return found, None


@pytest.mark.parametrize("kind", PACK)
def test_a_whole_archive_and_several_one_behind_the_other(kind):
    one = PACK[kind](TEXT)
    assert format_of(one) == kind
    assert read(one, kind) == (TEXT, None)
    assert read(one + PACK[kind](b"more\n") + b"\0" * 512, kind) == (TEXT + b"more\n", None)


def by_bytes(packed):
    """What zlib itself gives for a cut gzip archive, byte by byte."""
    unpacker = zlib.decompressobj(wbits=31)
    return b"".join(unpacker.decompress(packed[place : place + 1]) for place in range(len(packed)))


def test_of_a_cut_gzip_archive_every_byte_is_given_that_can_be_unpacked():
    packed = gzip.compress(TEXT)
    for share in (0.3, 0.65, 0.999):
        cut = packed[: int(len(packed) * share)]
        found, damage = read(cut, "gzip")
        assert found == by_bytes(cut)
        assert len(found) > 0.9 * share * len(TEXT)
        assert damage == f"the gzip archive is damaged after {len(found):,} bytes: it ends before its end was written"


@pytest.mark.parametrize("kind", PACK)
def test_of_a_damaged_archive_what_stands_before_is_given(kind):
    packed = bytearray(PACK[kind](TEXT))
    middle = len(packed) // 2
    packed[middle : middle + 64] = bytes(64)
    found, damage = read(bytes(packed), kind)
    assert TEXT.startswith(found[: len(TEXT) // 4])
    assert "is damaged after" in damage


def test_a_small_file_that_holds_much_is_unpacked_in_pieces():
    packed = gzip.compress(bytes(300 << 20))
    stream = io.BufferedReader(Unpacked(io.BytesIO(packed), "gzip"))
    assert max(len(piece) for piece in iter(lambda: stream.read1(1 << 30), b"")) <= 1 << 20


def test_the_failures_of_a_cut_log_are_counted_up_to_the_cut(tmp_path):
    lines = [f"Skipping example {number}: NaN in the hidden states\n" for number in range(1022)]
    packed = gzip.compress("".join(lines).encode())
    cut = packed[: len(packed) * 2 // 3]
    (tmp_path / "job.log.gz").write_bytes(cut)
    whole = by_bytes(cut).count(b"\n")
    reading = read_log(tmp_path / "job.log.gz")
    assert reading.lines in (whole, whole + 1)
    assert any("is damaged after" in note for note in reading.notes)
    failures = sum(section.failures for section in reading.sections)
    assert failures in (whole, whole + 1)
    assert failures > 300


@pytest.mark.parametrize(
    ("name", "line"), [("a.jsonl.gz", '{"x": NaN}\n'), ("a.csv.gz", "1,nan\n"), ("a.json.gz", "[NaN],\n")]
)
def test_a_cut_result_file_is_bad_by_what_stands_before_the_cut(tmp_path, name, line):
    before = "[" if name.startswith("a.json.") else ""
    noise = "".join(line.replace("NaN", str(n)).replace("nan", str(random.Random(n).random())) for n in range(5000))
    packed = gzip.compress((before + line + noise).encode())
    (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    found = look(tmp_path / name)
    assert found.verdict.outcome.value == "bad"
    assert found.counts[0] == 1
    assert found.numbers > 1000
    assert any("is damaged after" in reason for reason in found.unread)
