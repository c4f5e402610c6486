"""Result files with NaN or Inf: the oracle is NumPy or PyTorch, which the code under test does not use."""

import gzip
import json
import math
import os
import pickle
import random
import struct
import sys
import tracemalloc
import zipfile

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from repro.core.records import Outcome
from repro.jobs.scan import csv_text
from repro.jobs.scan.floats import CHUNK, count
from repro.jobs.scan.json_text import read_json
from repro.jobs.scan.looking import READERS, kind_of, look, scan

NAN, INF = math.nan, math.inf


def told(path):
    """Place -> (count, NaN, +inf, -inf, first) of what was found."""
    return {one.place: (one.count, one.nan, one.posinf, one.neginf, one.first) for one in look(path).findings}


def written(path, content):
    """A file with this text or these bytes."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def verdict(path):
    """The outcome and the reason."""
    found = look(path).verdict
    return found.outcome.value, found.reason


# Bits


def by_torch(values):
    """NaN, +inf and -inf as PyTorch counts them."""
    wide = values.float() if values.dtype.itemsize < 4 else values
    return (wide.isnan().sum().item(), (wide == INF).sum().item(), (wide == -INF).sum().item())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e8m0fnu"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_every_bit_pattern_of_a_small_type_is_counted_as_pytorch_does(dtype, big_endian):
    kind = getattr(torch, dtype)
    patterns = numpy.arange(256**kind.itemsize, dtype="<u1" if kind.itemsize == 1 else "<u2")
    found = count(
        patterns.astype(patterns.dtype.newbyteorder(">")).tobytes() if big_endian else patterns.tobytes(),
        dtype,
        big_endian=big_endian,
    )
    values = torch.frombuffer(bytearray(patterns.tobytes()), dtype=kind)
    assert (found.nan, found.posinf, found.neginf) == by_torch(values)
    assert found.first == int(values.float().isfinite().logical_not().nonzero()[0])


BITS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0x7F800000, 0xFF800000, 0x7F800001, 0x7FFFFFFF, 0xFFC00000, 0x7F7FFFFF, 0xFF7FFFFF, 0x007FFFFF]),
)


@given(st.lists(BITS, max_size=40))
def test_float32_is_counted_as_numpy_does(bits):
    values = numpy.array(bits, dtype="<u4").view("<f4")
    found = count(values.tobytes(), "float32")
    expected = (numpy.isnan(values).sum(), numpy.isposinf(values).sum(), numpy.isneginf(values).sum())
    assert (found.nan, found.posinf, found.neginf) == expected


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40), st.booleans())
def test_float64_is_counted_as_numpy_does(numbers, big_endian):
    values = numpy.array(numbers, dtype=">f8" if big_endian else "<f8")
    found = count(values.tobytes(), "float64", big_endian=big_endian)
    bad = numpy.flatnonzero(~numpy.isfinite(values))
    assert (found.nan, found.bad) == (numpy.isnan(values).sum(), len(bad))
    assert found.first == (bad[0] if len(bad) else None)


# .npy and .npz


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_numpy(tmp_path, dtype, order):
    values = numpy.asarray(numpy.ones((3, 4, 5)), dtype=dtype, order=order)
    values[1, 2, 3] = NAN
    values[2, 3, 4] = -INF
    numpy.save(tmp_path / "a.npy", values)
    assert told(tmp_path / "a.npy") == {"array": (60, 1, 0, 1, "[1, 2, 3]")}


def test_the_parts_of_a_complex_number_are_counted(tmp_path):
    numpy.save(tmp_path / "a.npy", numpy.array([1, complex(NAN, INF), complex(0, -INF)], dtype="complex64"))
    assert told(tmp_path / "a.npy") == {"array": (6, 1, 1, 1, "[1]")}


def test_a_bad_number_behind_the_first_piece_has_its_own_index(tmp_path):
    values = numpy.zeros((3, CHUNK), dtype="float16")
    values[2, 5] = INF
    numpy.save(tmp_path / "a.npy", values)
    assert told(tmp_path / "a.npy") == {"array": (3 * CHUNK, 0, 1, 0, "[2, 5]")}


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_arrays_without_a_dimension_or_an_element(tmp_path, shape):
    numpy.save(tmp_path / "a.npy", numpy.zeros(shape))
    assert verdict(tmp_path / "a.npy")[0] == "good"


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
def test_the_arrays_of_an_archive_by_their_names(tmp_path, save):
    save(tmp_path / "a.npz", sound=numpy.zeros((500, 500)), texts=numpy.array(["nan"]), bad=numpy.array([1, NAN]))
    assert told(tmp_path / "a.npz") == {"bad": (2, 1, 0, 0, "[1]")}


def test_python_objects_are_not_read_and_said(tmp_path):
    numpy.savez(tmp_path / "a.npz", sound=numpy.zeros(3), odd=numpy.array([{}], dtype=object))
    found = look(tmp_path / "a.npz")
    assert found.verdict.outcome is Outcome.SKIP
    assert found.verdict.reason.startswith("'odd': it holds Python objects")
    assert "none found in 3 other numbers" in found.verdict.reason


@pytest.mark.parametrize("cut", [1, 40, 127, 130])
def test_a_cut_array_is_not_good(tmp_path, cut):
    numpy.save(tmp_path / "a.npy", numpy.zeros(100))
    written(tmp_path / "a.npy", (tmp_path / "a.npy").read_bytes()[:-cut])
    assert verdict(tmp_path / "a.npy")[0] == "skip"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000000,)}", "was cut"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "not one of a .npy file"),
        (b"{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}", "not one of a .npy file"),
        (b"{'descr': '<f4'}", "not one of a .npy file"),
        (b"__import__('os').abort()", "not one of a .npy file"),
        (b"(" * 5000, "not one of a .npy file"),
        (b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "is not looked into"),
        (b"{'descr': '|V2', 'fortran_order': False, 'shape': (1,)}", "bfloat16 is saved so"),
        (b"{'descr': '<f16', 'fortran_order': False, 'shape': (1,)}", "is not looked into"),
    ],
)
def test_headers_that_are_hostile_or_not_understood(tmp_path, header, said):
    path = written(tmp_path / "a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 4)
    assert verdict(path)[0] == "skip"
    assert said in verdict(path)[1]


def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path):
    path = written(tmp_path / "a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1))
    assert "4,294,967,295 bytes" in verdict(path)[1]


def test_an_archive_whose_members_lie_over_each_other_is_refused(tmp_path):
    numpy.savez_compressed(tmp_path / "a.npz", x=numpy.zeros(200_000))
    raw = (tmp_path / "a.npz").read_bytes()
    at = raw.index(b"PK\x01\x02")
    end = raw.index(b"PK\x05\x06")
    entries = b"".join(raw[at:end].replace(b"x.npy", b"%05d" % n) for n in range(300))
    tail = raw[end : end + 8] + struct.pack("<HHII", 300, 300, len(entries), at) + b"\0\0"
    path = written(tmp_path / "bomb.npz", raw[:at] + entries + tail)
    assert "zip bomb" in verdict(path)[1]


def test_zeros_that_pack_well_are_no_bomb(tmp_path):
    numpy.savez_compressed(tmp_path / "a.npz", x=numpy.zeros(20_000_000, dtype="float16"))
    assert verdict(tmp_path / "a.npz") == ("good", "none of 20,000,000 numbers is NaN or Inf")


def test_a_member_with_another_checksum_is_not_good(tmp_path):
    numpy.savez(tmp_path / "a.npz", x=numpy.zeros(100))
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    raw[400] ^= 1
    assert verdict(written(tmp_path / "a.npz", bytes(raw)))[0] == "skip"


# safetensors


def test_the_tensors_of_a_safetensors_file(tmp_path):
    bad = torch.zeros(3, 4, dtype=torch.bfloat16)
    bad[1, 2] = INF
    save_file(
        {"sound": torch.ones(5), "whole": torch.ones(2, dtype=torch.int64), "bad": bad}, tmp_path / "a.safetensors"
    )
    assert told(tmp_path / "a.safetensors") == {"bad": (12, 0, 1, 0, "[1, 2]")}
    assert look(tmp_path / "a.safetensors").numbers == 19


def safetensors(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(begin, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        safetensors({}, length=2**63),
        safetensors(b"[1]"),
        safetensors(b"["),
        safetensors(b"[" * 100_000),
        safetensors(b'{"a": 1, "a": 2}'),
        safetensors({"a": entry(0, 4)}),
        safetensors({"a": entry(0, 4)}, b"\0" * 5),
        safetensors({"a": entry(0, 4, (2,))}, b"\0" * 4),
        safetensors({"a": entry(4, 8)}, b"\0" * 8),
        safetensors({"a": entry(0, 8, (2,)), "b": entry(4, 8)}, b"\0" * 8),
        safetensors({"a": entry(0, 4, (-1, -1))}, b"\0" * 4),
        safetensors({"a": entry(0, 4, (True,))}, b"\0" * 4),
        safetensors({"a": {"dtype": "F32"}}, b"\0" * 4),
        safetensors({"a": entry(0, 4, dtype="F4")}, b"\0" * 4),
    ],
)
def test_a_hostile_safetensors_file_is_not_good(tmp_path, content):
    assert verdict(written(tmp_path / "a.safetensors", content))[0] == "skip"


def test_a_git_lfs_pointer_is_named(tmp_path):
    path = written(tmp_path / "a.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in verdict(path)[1]


# PyTorch's own files


def state():
    """Tensors of many kinds; ``bad`` holds NaN at [2, 1]."""
    bad = torch.ones(3, 4)
    bad[2, 1] = NAN
    return {
        "bad": bad,
        "again": bad,
        "turned": bad.t(),
        "parameter": torch.nn.Parameter(bad.half()),
        "expanded": torch.tensor([INF]).expand(1000, 1),
        "nested": {"list": [torch.zeros(2), (NAN, 1.0)]},
        "whole": torch.arange(3),
        "sound": torch.zeros(5, dtype=torch.bfloat16),
    }


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_save(tmp_path, suffix, zipped):
    torch.save(state(), tmp_path / f"a.{suffix}", _use_new_zipfile_serialization=zipped)
    assert told(tmp_path / f"a.{suffix}") == {
        "bad": (12, 1, 0, 0, "[2, 1]"),
        "again": (12, 1, 0, 0, "[2, 1]"),
        "turned": (12, 1, 0, 0, "[1, 2]"),
        "parameter": (12, 1, 0, 0, "[2, 1]"),
        "expanded": (1, 0, 1, 0, "[0, 0]"),
        "nested.list[1][0]": (1, 1, 0, 0, "nested.list[1][0]"),
    }
    assert look(tmp_path / f"a.{suffix}").unread == ()


def test_a_tensor_of_one_byte_numbers(tmp_path):
    torch.save(torch.tensor([1.0, NAN]).to(torch.float8_e4m3fn), tmp_path / "a.pt")
    assert told(tmp_path / "a.pt") == {"tensor": (2, 1, 0, 0, "[1]")}


@pytest.mark.parametrize(("column", "outcome"), [(3, "skip"), (0, "skip"), (None, "good")])
def test_a_view_with_holes_is_good_only_where_the_holes_are_sound_too(tmp_path, column, outcome):
    whole = torch.zeros(4, 5)
    if column is not None:
        whole[1, column] = NAN
    torch.save({"view": whole[:, :2]}, tmp_path / "a.pt")
    assert verdict(tmp_path / "a.pt")[0] == outcome


def test_a_whole_module_is_read_without_its_class(tmp_path):
    module = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(module.bias, INF)
    torch.save(module, tmp_path / "a.pt")
    assert told(tmp_path / "a.pt") == {"_parameters.bias": (2, 0, 2, 0, "[0]")}


@pytest.mark.parametrize("dtype", ["float16", ">f4", "float64"])
def test_arrays_of_numpy_in_a_file_of_torch(tmp_path, dtype):
    values = numpy.asarray(numpy.ones((2, 3)), dtype=dtype, order="F")
    values[1, 2] = INF
    torch.save({"array": values, "scalar": numpy.float32(NAN), "sound": numpy.float64(1)}, tmp_path / "a.pt")
    assert told(tmp_path / "a.pt") == {"array": (6, 0, 1, 0, "[1, 2]"), "scalar": (1, 1, 0, 0, "[]")}
    assert look(tmp_path / "a.pt").unread == ()


def test_raw_bytes_that_may_be_numbers_are_said(tmp_path):
    torch.save({"x": numpy.zeros(2, dtype=[("a", "<f4")])}, tmp_path / "a.pt")
    assert "hold raw bytes, which may be numbers" in verdict(tmp_path / "a.pt")[1]


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def test_a_pickle_is_never_executed(tmp_path):
    marker = tmp_path / "executed"
    torch.save({"evil": Evil(marker), "bad": torch.tensor([NAN])}, tmp_path / "a.pt")
    assert told(tmp_path / "a.pt") == {"bad": (1, 1, 0, 0, "[0]")}
    assert not marker.exists()
    pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()  # so it would have been


def test_a_pickle_that_is_no_file_of_torch_is_not_read(tmp_path):
    assert "pickles are not executed" in verdict(written(tmp_path / "a.bin", pickle.dumps([1.0])))[1]


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"PK\x03\x04", b"\x80\x02.", b"garbage, and no pickle at all"])
def test_a_file_that_is_none_of_torch_is_not_good(tmp_path, content):
    assert verdict(written(tmp_path / "a.pt", content))[0] == "skip"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_cut_file_of_torch_is_not_good(tmp_path, zipped):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    written(tmp_path / "a.pt", (tmp_path / "a.pt").read_bytes()[:-900])
    assert verdict(tmp_path / "a.pt")[0] == "skip"


def test_a_zip_archive_of_something_else_is_not_good(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "without data.pkl" in verdict(tmp_path / "a.pt")[1]


def test_many_views_of_one_storage_do_not_take_for_ever(tmp_path):
    whole = torch.zeros(200_000)
    torch.save([whole.view(-1) for _ in range(200)], tmp_path / "a.pt")
    assert "lie over each other" in verdict(tmp_path / "a.pt")[1]


# JSON


def test_numbers_of_json_by_their_keys(tmp_path):
    text = '{"loss": [1, NaN, -Infinity], "runs": [{"score": 1}, {"score": Infinity}], "note": null, "ok": true}'
    assert told(written(tmp_path / "a.json", text)) == {
        "loss[]": (3, 1, 0, 1, "loss[1]"),
        "runs[].score": (2, 0, 1, 0, "runs[1].score"),
    }


def test_null_is_no_nan(tmp_path):
    assert verdict(written(tmp_path / "a.json", "[null, 1]")) == ("good", "none of 1 numbers is NaN or Inf")


@pytest.mark.parametrize(("word", "counts"), [("nan", (1, 0, 0)), (" NaN ", (1, 0, 0)), ("-inf", (0, 0, 1))])
def test_a_text_that_spells_one_counts_and_is_said(tmp_path, word, counts):
    (found,) = look(written(tmp_path / "a.json", json.dumps({"x": word}))).findings
    assert (found.nan, found.posinf, found.neginf) == counts
    assert found.as_text == 1


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ('{"x": ["nan", "inf"]}', 2),
        ('{"x": ["nan", 1.5]}', 1),
        ('{"x": ["nan", "error", 1.5]}', 1),
        ('{"merges": ["nan", "the", "inf"]}', 0),
        ('{"word": "the"}\n{"word": "nan"}', 0),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_word_among_other_texts_is_a_word(tmp_path, text, bad, suffix):
    found = look(written(tmp_path / f"a.{suffix}", text if suffix == "jsonl" else f"[{text}]".replace("\n", ",")))
    assert sum(found.counts) == bad


def test_words_that_are_passed_over_are_said(tmp_path):
    assert verdict(written(tmp_path / "a.json", '["nan", "the"]')) == (
        "good", 'there is no number in it (1 words such as "nan" stand among other texts)'
    )  # fmt: skip


def test_a_person_of_that_name_in_a_table_is_no_nan(tmp_path):
    assert verdict(written(tmp_path / "a.csv", "name,x\nNan,1\nIda,2\n"))[0] == "good"
    assert verdict(written(tmp_path / "b.csv", "name,x\nIda,NaN\nNan,2\n"))[1] == "1 of 2 numbers is NaN or Inf"


@pytest.mark.parametrize("text", ['"nancy"', '"banana"', '"information"', '"null"', '""', "1e308", "1" * 400])
def test_what_is_no_nan(tmp_path, text):
    assert verdict(written(tmp_path / "a.json", text))[0] == "good"


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e999", "-1e999", "1.#QNAN", "Infinity"])
def test_words_outside_quotes(tmp_path, word):
    assert verdict(written(tmp_path / "a.json", f"[1, {word}, 2]")) == ("bad", "1 of 3 numbers is NaN or Inf")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def numbers(value):
    """Every number in plain data."""
    if isinstance(value, (list, dict)):
        return [found for item in (value.values() if isinstance(value, dict) else value) for found in numbers(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


@given(value=PLAIN, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_json_is_read_as_the_standard_library_does(tmp_path_factory, value, indent, ascii_only):
    path = tmp_path_factory.getbasetemp() / "plain.json"
    written(path, json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return  # a lone surrogate is no UTF-8
    found, expected = look(path), numbers(value)
    words = sum(one.as_text for one in found.findings)
    assert found.unread == ()
    assert found.numbers - words == len(expected)
    assert sum(found.counts) - words == sum(not math.isfinite(one) for one in expected)


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
def test_the_cut_between_two_pieces_may_lie_anywhere(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("repro.jobs.scan.json_text.CHUNK", piece)
    text = '{"a\\"é": [1.5, 2, -3e1 , NaN,\n 4], "b": "x\\\\", "c": {"d": [[-Infinity], 12]}}'
    assert told(written(tmp_path / "a.json", text)) == {
        'a"é[]': (5, 1, 0, 0, 'a"é[3]'),
        "c.d[][]": (1, 0, 0, 1, "c.d[0][0]"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1",
        "{",
        '{"a"',
        '{"a":}',
        "[1,]",
        "[,1]",
        "{,}",
        "[1}",
        "1 2",
        "hello",
        '"open',
        "[1 2]",
        '{"a" 1}',
        "]",
        "[@]",
    ],
)
def test_what_is_no_json_is_not_good(tmp_path, text):
    assert verdict(written(tmp_path / "a.json", text))[0] == "skip"


def test_escapes_in_keys_are_read(tmp_path):
    assert list(told(written(tmp_path / "a.json", '{"\\u00e9\\n\\ud83d\\ude00": NaN}'))) == ["é\n😀"]


def test_what_stands_before_the_cut_counts(tmp_path):
    found = look(written(tmp_path / "a.json", '{"loss": [1, NaN, 2'))
    assert (found.verdict.outcome, found.counts) == (Outcome.BAD, (1, 0, 0))
    assert "it was cut" in found.unread[0]


def test_deep_json_is_refused(tmp_path):
    assert "deeper than 10,000 levels" in verdict(written(tmp_path / "a.json", "[" * 200_000))[1]


def test_deep_json_within_the_limit_is_read(tmp_path):
    assert verdict(written(tmp_path / "a.json", "[" * 9_000 + "NaN" + "]" * 9_000))[0] == "bad"


def test_bytes_that_are_no_text_are_not_good(tmp_path):
    assert "no text" in verdict(written(tmp_path / "a.json", b'["\xff\xfe\xff"]'))[1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(tmp_path, encoding):
    assert verdict(written(tmp_path / "a.json", '["é", NaN]'.encode(encoding)))[0] == "bad"


def test_keys_made_from_data_do_not_fill_the_memory(tmp_path):
    text = json.dumps({f"prompt {n}": 1.0 for n in range(30_000)} | {"last": NAN})
    assert told(written(tmp_path / "a.json", text)) == {"(further keys)": (20_001, 1, 0, 0, "last")}


def test_json_lines_by_key_with_the_line(tmp_path):
    text = '{"s": 1}\n{"s": NaN, "t": "x"}\n\n{"s": "inf"}\n'
    assert told(written(tmp_path / "a.jsonl", text)) == {"s": (3, 1, 1, 0, "line 2: s")}


def test_a_line_that_is_no_json_does_not_hide_the_others(tmp_path):
    found = look(written(tmp_path / "a.jsonl", '{"s": 1}\noops\n{"s": NaN}\n{"s": 1'))
    assert found.counts == (1, 0, 0)
    assert [reason.split(":")[0] for reason in found.unread] == ["line 2", "line 4"]


def test_many_broken_lines_are_counted(tmp_path):
    found = look(written(tmp_path / "a.jsonl", "oops\n" * 10))
    assert (len(found.unread), found.unread[-1]) == (4, "7 further lines that are no JSON")


def test_packed_text_is_unpacked(tmp_path):
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(b'{"s": NaN}\n'))
    assert told(path) == {"s": (1, 1, 0, 0, "line 1: s")}
    assert verdict(written(tmp_path / "b.json.gz", gzip.compress(b"[1]")[:-4]))[0] == "skip"


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.jobs.scan.json_text.CHUNK", 4096)
    path = written(tmp_path / "a.json", "[" + ", ".join(['{"score": 1.25, "text": "some words"}'] * 30_000) + "]")
    tracemalloc.start()
    try:
        found = look(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.numbers, path.stat().st_size > 1_000_000) == (30_000, True)
    assert peak < 200_000


def test_a_long_text_takes_linear_time(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.jobs.scan.json_text.CHUNK", 64)
    assert verdict(written(tmp_path / "a.json", '["' + "x" * 3_000_000 + '", NaN]'))[0] == "bad"


def test_a_text_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.jobs.scan.json_text.LONGEST_TOKEN", 1000)
    monkeypatch.setattr("repro.jobs.scan.json_text.CHUNK", 100)
    assert "more than 1,000 characters" in verdict(written(tmp_path / "a.json", '["' + "x" * 5000))[1]


# Tables


def test_numbers_of_a_table_by_column(tmp_path):
    text = "name,loss,acc\na,1.5,2\nb,nan,\nc,-inf,3\n"
    assert told(written(tmp_path / "a.csv", text)) == {"loss": (3, 1, 0, 1, "line 3")}


def test_an_empty_field_is_no_nan(tmp_path):
    assert verdict(written(tmp_path / "a.csv", "a,b\n1,\n,2\n"))[0] == "good"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path, delimiter):
    text = "\n".join(delimiter.join(row) for row in (("x", "y"), ("1", "2"), ("3", "inf")))
    assert told(written(tmp_path / "a.csv", text)) == {"y": (2, 0, 1, 0, "line 3")}


def test_columns_without_names_are_numbered(tmp_path):
    assert told(written(tmp_path / "a.csv", "1,2\n3,nan\n")) == {"column 2": (2, 1, 0, 0, "line 2")}


def test_fields_with_line_breaks_and_lines_of_other_lengths(tmp_path):
    assert told(written(tmp_path / "a.csv", 'text,x\n"a\nb",1\n"c",2,nan\n')) == {"column 3": (1, 1, 0, 0, "line 4")}


def test_a_nul_in_a_table_is_said(tmp_path):
    assert "has a NUL" in verdict(written(tmp_path / "a.csv", b"a,b\n1,\x002\n"))[1]


def test_a_quote_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_text, "LONGEST_FIELD", 1000)
    before = csv_text.csv.field_size_limit()
    assert "cannot be taken apart" in verdict(written(tmp_path / "a.csv", 'a,b\n"' + "x,1\n" * 1000))[1]
    assert csv_text.csv.field_size_limit() == before


def test_a_prompt_longer_than_the_csv_modules_limit_is_read(tmp_path):
    assert verdict(written(tmp_path / "a.csv", "text,x\n" + "w" * 200_000 + ",nan\n"))[0] == "bad"


# Parquet


def test_parquet_without_its_library_is_could_not_tell(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in verdict(written(tmp_path / "a.parquet", b"PAR1"))[1]


def test_the_columns_of_a_parquet_file(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed here")
    from pyarrow import parquet

    rows = [
        {"x": 1.0, "v": [1.0, NAN], "s": {"y": -INF}, "n": 1, "t": "nan"},
        {"x": None, "v": [INF], "s": {"y": 0.0}, "n": 2, "t": "b"},
        {"x": NAN, "v": None, "s": None, "n": 3, "t": "c"},
    ]
    table = pyarrow.Table.from_pylist(rows)
    deep = pyarrow.array([[[1.0]], [], [[2.0], [NAN, 3.0]]], pyarrow.list_(pyarrow.list_(pyarrow.float16())))
    pairs = pyarrow.array([[("a", 1.0)], None, [("b", INF)]], pyarrow.map_(pyarrow.string(), pyarrow.float32()))
    table = table.append_column("deep", deep).append_column("pairs", pairs)
    parquet.write_table(table, tmp_path / "a.parquet")
    assert told(tmp_path / "a.parquet") == {
        "x": (2, 1, 0, 0, "row 2"),
        "v[]": (3, 1, 1, 0, "row 0"),
        "s.y": (2, 0, 0, 1, "row 0"),
        "deep[][]": (4, 1, 0, 0, "row 2"),
        "pairs[].value": (2, 0, 1, 0, "row 2"),
    }


def test_a_broken_parquet_file_is_not_good(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed here")
    assert "pyarrow does not read it" in verdict(written(tmp_path / "a.parquet", b"PAR1 and nothing else"))[1]


# Any damage

SOUND = {
    "a.json": lambda path: written(path, json.dumps({"loss": [1.5, 2], "runs": [{"a": "b"}]})),
    "a.jsonl": lambda path: written(path, '{"s": 1}\n{"s": [2.5]}\n'),
    "a.csv": lambda path: written(path, "x,y\n1,2\n3,4\n"),
    "a.npy": lambda path: numpy.save(path, numpy.ones((2, 3))),
    "a.npz": lambda path: numpy.savez_compressed(path, a=numpy.ones(9), b=numpy.arange(3)),
    "a.safetensors": lambda path: save_file({"a": torch.ones(3), "b": torch.zeros(2, 2)}, path),
    "a.pt": lambda path: torch.save({"a": torch.ones(3), "n": numpy.ones(2), "f": 1.0}, path),
    "a.bin": lambda path: torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_damaged_file_gets_an_answer_and_no_error(tmp_path, name):
    SOUND[name](tmp_path / name)
    sound = (tmp_path / name).read_bytes()
    assert verdict(tmp_path / name)[0] == "good"
    chance = random.Random(name)
    for _ in range(150):
        raw = bytearray(sound)
        for _ in range(chance.choice([1, 1, 2, 8])):
            raw[chance.randrange(len(raw))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        found = look(written(tmp_path / name, bytes(raw[: chance.choice([len(raw), chance.randrange(len(raw))])])))
        assert not any(reason.startswith("unexpected ") for reason in found.unread), found


def test_an_error_that_nobody_planned_is_could_not_tell(tmp_path, monkeypatch):
    def broken(path, tally):
        raise KeyError("x")

    monkeypatch.setitem(READERS, ".json", broken)
    assert verdict(written(tmp_path / "a.json", "[1]"))[1].startswith("unexpected KeyError: 'x'")


# Folders


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.json", ".json"), ("a.JSON", ".json"), ("a.b.jsonl", ".jsonl"), ("a.csv.gz", ".csv"), ("a.npy.gz", None),
        ("a.gz", None), ("a.txt", None), ("json", None), (".json", None), ("a.pt", ".pt"),
    ],
)  # fmt: skip
def test_the_kind_of_a_file(tmp_path, name, kind):
    assert kind_of(tmp_path / name) == kind


def folder_of(tmp_path):
    for name in ("a.json", "sub/b.json", "sub/c.csv", "old/d.json", "notes.md", "sub/x.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        written(tmp_path / name, "[NaN]")
    return tmp_path


def names(found, top):
    return [os.path.relpath(looked.path, top).replace(os.sep, "/") for looked in found.files]


def test_folders_are_searched_through_and_other_kinds_counted(tmp_path):
    found = scan([folder_of(tmp_path)])
    assert names(found, tmp_path) == ["a.json", "old/d.json", "sub/b.json", "sub/c.csv"]
    assert found.others == {".md": 2}


def test_patterns_take_in_and_leave_out(tmp_path):
    found = scan([folder_of(tmp_path)], include=["*.json"], exclude=["old", "sub/b*"])
    assert names(found, tmp_path) == ["a.json"]


def test_a_file_that_is_named_twice_is_looked_at_once(tmp_path):
    folder_of(tmp_path)
    assert len(scan([tmp_path / "a.json", tmp_path, tmp_path / "a.json"]).files) == 4


def test_a_named_file_of_another_kind_is_could_not_tell(tmp_path):
    (looked,) = scan([folder_of(tmp_path) / "notes.md"]).files
    assert looked.verdict.outcome is Outcome.SKIP


def test_a_pipe_and_a_link_to_nothing_are_said(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "gone.json")
    reasons = [looked.verdict.reason for looked in scan([tmp_path]).files]
    assert reasons == ["it cannot be read: No such file or directory", "it is no plain file"]


def test_a_link_in_a_circle_ends(tmp_path):
    (folder_of(tmp_path) / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(scan([tmp_path]).files) == 4


def test_the_verdict_of_a_scan(tmp_path):
    sound, bad, broken = (
        written(tmp_path / f"{name}.json", text) for name, text in (("s", "[1]"), ("b", "[NaN]"), ("x", "["))
    )
    outcomes = [scan(paths).verdict.outcome.value for paths in ([sound], [sound, broken], [bad, broken], [broken])]
    assert outcomes == ["good", "good", "bad", "skip"]
    assert scan([sound, broken]).verdict.reason == "no NaN or Inf in 1 of 2 files; 1 could not be read"


def test_the_reader_of_json_raises_for_what_is_none(tmp_path):
    from repro.jobs.scan.findings import Tally, Unreadable

    with pytest.raises(Unreadable, match=r"'@\]' \(near line 2\)"):
        read_json(written(tmp_path / "a.json", "[1,\n@]"), Tally())
