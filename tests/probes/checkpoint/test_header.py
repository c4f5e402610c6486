"""The safetensors header of files written byte by byte."""

import json
import struct

import pytest
from support.handmade import entry, raw_safetensors

from repro.probes.checkpoint import limits
from repro.probes.checkpoint.header import BadHeader, read_header


def refused(tmp_path, content):
    """The message with which a file is refused."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadHeader) as caught:
        read_header(str(path))
    return str(caught.value)


def read(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    return read_header(str(path))


TWO = {"a": entry("F32", [2], 0, 8), "b": entry("F16", [2, 2], 8, 16)}


def test_a_whole_file(tmp_path):
    header = read(tmp_path, raw_safetensors(TWO, bytes(16)))
    start = 8 + len(json.dumps(TWO))
    assert (header.data_start, header.file_bytes) == (start, start + 16)
    assert [(e.name, e.dtype, e.shape, e.begin - start, e.end - start, e.numel) for e in header.entries] == [
        ("a", "F32", (2,), 0, 8, 2),
        ("b", "F16", (2, 2), 8, 16, 4),
    ]


def test_entries_come_in_file_order(tmp_path):
    header = read(tmp_path, raw_safetensors(dict(reversed(TWO.items())), bytes(16)))
    assert [e.name for e in header.entries] == ["a", "b"]


def test_metadata_is_no_tensor(tmp_path):
    header = read(tmp_path, raw_safetensors({"__metadata__": {"format": "pt"}, **TWO}, bytes(16)))
    assert header.metadata == {"format": "pt"}
    assert len(header.entries) == 2


def test_a_file_without_tensors(tmp_path):
    assert read(tmp_path, raw_safetensors({})).entries == ()


def test_empty_and_scalar_tensors(tmp_path):
    entries = {"empty": entry("F32", [0, 5], 0, 0), "scalar": entry("F64", [], 0, 8)}
    header = read(tmp_path, raw_safetensors(entries, bytes(8)))
    assert [(e.name, e.numel) for e in header.entries] == [("empty", 0), ("scalar", 1)]


def test_a_type_that_is_not_known_is_not_measured(tmp_path):
    assert read(tmp_path, raw_safetensors({"a": entry("F4", [3], 0, 2)}, bytes(2))).entries[0].dtype == "F4"


@pytest.mark.parametrize("size", range(8))
def test_less_than_a_length_field(tmp_path, size):
    assert f"{size} bytes" in refused(tmp_path, bytes(size))


def test_a_file_cut_at_every_byte_is_refused(tmp_path):
    whole = raw_safetensors(TWO, bytes(16))
    for size in range(len(whole)):
        refused(tmp_path, whole[:size])


def test_the_message_of_a_cut_file_counts(tmp_path):
    message = refused(tmp_path, raw_safetensors(TWO, bytes(12)))
    assert "cut" in message
    assert "1 of 2 tensors" in message
    assert "'b'" in message


def test_a_hole(tmp_path):
    entries = {"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)}
    assert "a hole of 4 bytes before 'b'" in refused(tmp_path, raw_safetensors(entries, bytes(12)))


def test_a_hole_at_the_beginning(tmp_path):
    message = refused(tmp_path, raw_safetensors({"a": entry("F32", [1], 4, 8)}, bytes(8)))
    assert "a hole of 4 bytes before 'a'" in message


def test_an_overlap(tmp_path):
    entries = {"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 4, 8)}
    assert "an overlap of 4 bytes before 'b'" in refused(tmp_path, raw_safetensors(entries, bytes(8)))


def test_two_tensors_on_the_same_bytes(tmp_path):
    entries = {"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8)}
    assert "an overlap of 8 bytes" in refused(tmp_path, raw_safetensors(entries, bytes(8)))


def test_a_name_that_stands_twice(tmp_path):
    about = json.dumps(entry("F32", [1], 0, 4))
    message = refused(tmp_path, raw_safetensors(f'{{"a": {about}, "a": {about}}}'.encode(), bytes(4)))
    assert "'a' twice" in message


def test_a_key_of_an_entry_that_stands_twice(tmp_path):
    text = b'{"a": {"dtype": "F32", "shape": [1], "shape": [2], "data_offsets": [0, 8]}}'
    assert "'shape' twice" in refused(tmp_path, raw_safetensors(text, bytes(8)))


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 100_000_001, 1000])
def test_a_length_beyond_the_file(tmp_path, length):
    message = refused(tmp_path, struct.pack("<Q", length) + b"{}")
    assert str(length) in message
    assert "10" in message


def test_a_git_lfs_pointer_says_what_to_do(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 548105171\n"
    assert "git lfs pull" in refused(tmp_path, pointer)


def test_a_page_of_html(tmp_path):
    assert "header" in refused(tmp_path, b"<!DOCTYPE html><html><body>403 Forbidden</body></html>")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe{}", b"not json", b'{"a": }'])
def test_a_header_that_is_no_json(tmp_path, text):
    assert "no JSON" in refused(tmp_path, raw_safetensors(text))


@pytest.mark.parametrize("text", [b"[]", b"3", b'"a"', b"null"])
def test_a_header_that_is_no_object(tmp_path, text):
    assert "not an object" in refused(tmp_path, raw_safetensors(text))


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({}, "lacks dtype, shape or data_offsets: it has no dtype"),
        ([], "is no object: []"),
        ("text", "is no object: 'text'"),
        (None, "is no object: None"),
        (3, "is no object: 3"),
        ({"dtype": "F32", "shape": [1]}, "has no data_offsets"),
        ({"shape": [1], "data_offsets": [0, 4]}, "has no dtype"),
        ({"dtype": "F32", "data_offsets": [0, 4]}, "has no shape"),
        (entry(32, [1], 0, 4), "dtype of 'a' is 32"),
        (entry("\x1b[2J", [1], 0, 4), r"dtype of 'a' is '\x1b[2J'"),
        (entry("F32", 1, 0, 4), "shape of 'a' is 1"),
        (entry("F32", ["x"], 0, 4), "shape of 'a' is ['x']"),
        (entry("F32", [1] * 65, 0, 4), "shape of 'a' is [1, 1, 1, 1, 1, 1, ...]: expected at most 64 sizes"),
        (entry("F32", [2**63], 0, 4), "shape of 'a' is [9223372036854775808]"),
        (entry("F32", [-96], 0, 384), "shape of 'a' is [-96]"),
        (entry("F32", [-1, -1], 0, 4), "shape of 'a' is [-1, -1]"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0]}, "data_offsets of 'a' are [0]"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 2, 4]}, "data_offsets of 'a' are [0, 2, 4]"),
        ({"dtype": "F32", "shape": [1], "data_offsets": None}, "data_offsets of 'a' are None"),
        (entry("F32", [1], -4, 0), "data_offsets of 'a' are [-4, 0]"),
        (entry("F32", [1], 4, 0), "data_offsets of 'a' are [4, 0]"),
    ],
    ids=str,
)
def test_an_entry_says_which_part_of_it_is_wrong(tmp_path, about, said):
    assert said in refused(tmp_path, raw_safetensors({"a": about}, bytes(4)))


@pytest.mark.parametrize("metadata", ["text", "", 0, [], [1], {"format": 1}])
def test_metadata_that_is_no_object_of_texts(tmp_path, metadata):
    assert "__metadata__" in refused(tmp_path, raw_safetensors({"__metadata__": metadata}))


def test_a_name_of_any_length_is_shortened(tmp_path):
    message = refused(tmp_path, raw_safetensors({"a" * 100_000: entry("F32", [2], 0, 4)}, bytes(4)))
    assert "aaaa...aaaa" in message
    assert len(message) < 300


def test_more_tensors_than_are_read_without_being_asked(tmp_path, monkeypatch):
    monkeypatch.setenv(limits.VARIABLE, "0.000001")
    with pytest.raises(limits.OverLimit, match=r"2 tensors in its header, and the limit is 1\..*--limits 10"):
        read(tmp_path, raw_safetensors(TWO, bytes(16)))
    monkeypatch.setenv(limits.VARIABLE, "none")
    assert len(read(tmp_path, raw_safetensors(TWO, bytes(16))).entries) == 2


@pytest.mark.parametrize("said", ["0", "-1", "many", "nan", "inf"])
def test_a_factor_that_is_none(monkeypatch, said):
    monkeypatch.setenv(limits.VARIABLE, said)
    with pytest.raises(limits.OverLimit, match="expected a factor above 0"):
        limits.factor()


ITEM_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "C64": 64,
}  # fmt: skip


@pytest.mark.parametrize("dtype", sorted(ITEM_BITS))
def test_the_size_of_each_type(tmp_path, dtype):
    size = 3 * ITEM_BITS[dtype] // 8
    assert read(tmp_path, raw_safetensors({"a": entry(dtype, [3], 0, size)}, bytes(size))).entries
    message = refused(tmp_path, raw_safetensors({"a": entry(dtype, [3], 0, size + 1)}, bytes(size + 1)))
    assert f"has {size + 1} bytes" in message
    assert f"needs {size}" in message


def test_bytes_behind_the_last_tensor(tmp_path):
    assert "5 bytes behind the last tensor" in refused(tmp_path, raw_safetensors(TWO, bytes(21)))


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_header(str(tmp_path / "gone"))


def test_a_number_that_is_infinite(tmp_path):
    refused(tmp_path, raw_safetensors(b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}', bytes(4)))


def test_a_nest_that_is_too_deep(tmp_path):
    refused(tmp_path, raw_safetensors(b"[" * 100_000))


@pytest.mark.parametrize(("shape", "offsets"), [([1.5], [0, 4]), ([1], [0.2, 4.9]), (["1"], [0, 4]), ([True], [0, 4])])
def test_what_is_no_whole_number(tmp_path, shape, offsets):
    about = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    refused(tmp_path, raw_safetensors({"a": about}, bytes(4)))


@pytest.mark.parametrize("number", ["1e400", "9" * 400])
def test_a_number_that_no_float_holds_is_refused_as_the_library_does(tmp_path, number):
    from safetensors import SafetensorError, safe_open

    text = f'{{"a": {{"dtype": "F32", "shape": [], "data_offsets": [0, 4], "more": {number}}}}}'.encode()
    content = raw_safetensors(text) + bytes(4)
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(SafetensorError):
        safe_open(str(path), framework="pt")
    assert "beyond any number" in refused(tmp_path, content)
