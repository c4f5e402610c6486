"""The header of .gguf files, held against the library that writes them."""

import struct

import gguf
import numpy
import pytest

from repro.probes.checkpoint.gguf_header import read_gguf_header
from repro.probes.checkpoint.limits import OverLimit
from repro.probes.checkpoint.resolve import CannotResolve


def written(path, **more):
    writer = gguf.GGUFWriter(str(path), "llama", **more)
    writer.add_block_count(1)
    writer.add_token_list(["a", "bc", ""])
    writer.add_token_scores([0.0, 1.0, 2.0])
    writer.add_array("nested.lists", [[1, 2], [3, 4]])
    writer.add_bool("yes", True)
    writer.add_custom_alignment(64)
    writer.add_tensor("token_embd.weight", numpy.ones((3, 4), numpy.float32))
    writer.add_tensor("q", numpy.zeros((2, 34), numpy.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("order", list(gguf.GGUFEndian))
def test_what_the_library_wrote(tmp_path, order):
    path = written(tmp_path / "a.gguf", endianess=order)
    header, library = read_gguf_header(str(path)), gguf.GGUFReader(path)
    assert header.version == 3
    assert list(header.keys) == [name for name in library.fields if not name.startswith("GGUF.")]
    assert header.data_start == library.data_offset
    assert [(one.name, list(one.shape), one.kind, one.numel) for one in header.tensors] == [
        (one.name, one.shape.tolist(), int(one.tensor_type), one.n_elements) for one in library.tensors
    ]
    assert [header.data_start + one.begin for one in header.tensors] == [one.data_offset for one in library.tensors]
    assert header.numel == 12 + 64


def test_a_file_cut_at_every_byte_is_refused(tmp_path):
    whole = written(tmp_path / "a.gguf").read_bytes()
    end = max(at for at in range(len(whole), 0, -1) if whole[at - 1])  # the library pads behind the last tensor
    needed = read_gguf_header(str(tmp_path / "a.gguf"))
    last = needed.data_start + needed.tensors[-1].begin + 68
    assert last >= end
    for size in range(last):
        (tmp_path / "b.gguf").write_bytes(whole[:size])
        with pytest.raises(CannotResolve, match=r"b\.gguf is no (whole )?GGUF file"):
            read_gguf_header(str(tmp_path / "b.gguf"))


def key(kind, rest, name=b"general.alignment"):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + rest


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (struct.pack("<IQQ", 1, 0, 0), "its version is 1"),
        (struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**20), "a name in its header has 1,048,576 bytes"),
        (struct.pack("<IQQ", 3, 0, 1) + key(13, b""), "has the type 13, which there is not"),
        (struct.pack("<IQQ", 3, 0, 1) + key(4, struct.pack("<I", 0)), "general.alignment is 0"),
        (struct.pack("<IQQ", 3, 0, 1) + key(4, struct.pack("<I", 24)), "general.alignment is 24"),
        (struct.pack("<IQQ", 3, 0, 1) + key(8, struct.pack("<Q", 1) + b"x"), "general.alignment is None"),
        (struct.pack("<IQQ", 3, 0, 1) + key(8, struct.pack("<Q", 99)), "has 99 bytes, the whole file has"),
    ],
)
def test_what_is_no_header(tmp_path, content, said):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + content)
    with pytest.raises(CannotResolve, match=said):
        read_gguf_header(str(tmp_path / "a.gguf"))


def test_more_than_is_read_without_being_asked(tmp_path, monkeypatch):
    path = str(written(tmp_path / "a.gguf"))
    monkeypatch.setenv("REPRO_LIMITS", "0.0000005")
    with pytest.raises(OverLimit, match="2 tensors in its header"):
        read_gguf_header(path)
    monkeypatch.setenv("REPRO_LIMITS", "none")
    assert read_gguf_header(path).tensors
