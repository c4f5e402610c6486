"""NaN and Inf in files of tensors: every bit pattern, every kind of file, and files that were made to do harm."""

import os
import pickle
import random
import struct
import tarfile
import tracemalloc
import zipfile

import numpy
import pytest
import torch
from safetensors.torch import save_file

from repro.probes.checkpoint import arrays, weights
from repro.probes.checkpoint import look as looking
from repro.probes.checkpoint.contents import MOST_PLACES, Contents
from repro.probes.checkpoint.look import look

NAN, INF = float("nan"), float("inf")


def told(path):
    """Place -> (count, NaN, +inf, -inf, first) of what was found."""
    keys = ("count", "nan", "posinf", "neginf", "first")
    return {row["place"]: tuple(row[key] for key in keys) for row in look(str(path)).places}


def refusal(path):
    """Why a file could not be read; nothing bad was found in it."""
    found = look(str(path))
    assert found.verdict == "skip", found.record()
    return found.unread[0]


def written(path, content):
    path.write_bytes(content)
    return path


# --- every number ------------------------------------------------------------------------------------------------

LAYOUTS = {
    "float16": ("<u2", 0x7C00, 0x03FF),
    "bfloat16": ("<u2", 0x7F80, 0x007F),
    "float32": ("<u4", 0x7F800000, 0x007FFFFF),
    "float64": ("<u8", 0x7FF0000000000000, 0x000FFFFFFFFFFFFF),
    "float8_e5m2": ("u1", 0x7C, 0x03),
    "float8_e4m3fn": ("u1", 0x7F, None),
    "float8_e8m0fnu": ("u1", 0xFF, None),
    "float8_e4m3fnuz": ("u1", 0xFF, None, 0x80),
    "float8_e5m2fnuz": ("u1", 0xFF, None, 0x80),
}
"""Word, exponent bits, mantissa bits; without a mantissa there is no infinity, and all of these bits set is NaN, or the
one pattern that is given last. IEEE 754-2019, section 3.6; "OCP 8-bit Floating Point Specification" and "OCP
Microscaling Formats" (2023)."""


def patterns(word):
    """Every pattern of one or two bytes; of more, random ones and the edges of each kind."""
    bits = 8 * numpy.dtype(word).itemsize
    if bits <= 16:
        return numpy.arange(2**bits, dtype=word)
    chance = random.Random(bits)
    mantissa = 23 if bits == 32 else 52
    top = ((1 << (bits - 1 - mantissa)) - 1) << mantissa
    edges = [top, top + 1, top - 1, top | (top >> 1), (1 << mantissa) - 1, 0, 1]
    signed = [value | sign << (bits - 1) for value in edges for sign in (0, 1)]
    return numpy.array([*signed, *(chance.getrandbits(bits) for _ in range(10_000))], dtype=word)


def expected(words, exponent, mantissa, pattern=None):
    """NaN, +inf, -inf and the first of them, from the bits alone."""
    bad = (words & words.dtype.type(exponent)) == (exponent if pattern is None else pattern)
    nan = bad if mantissa is None else bad & ((words & words.dtype.type(mantissa)) != 0)
    negative = (words >> words.dtype.type(8 * words.dtype.itemsize - 1)) != 0
    infinite = bad & ~nan
    return int(nan.sum()), int((infinite & ~negative).sum()), int((infinite & negative).sum()), int(bad.argmax())


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_every_bit_pattern_is_counted_by_its_bits(tmp_path, dtype):
    word, *masks = LAYOUTS[dtype]
    words = patterns(word)
    nan, posinf, neginf, first = expected(words, *masks)
    values = torch.frombuffer(bytearray(words.tobytes()), dtype=getattr(torch, dtype))
    torch.save({"x": values}, tmp_path / "a.pt")
    paths = [tmp_path / "a.pt"]
    if not dtype.endswith("fnuz"):  # which safetensors does not have
        paths.append(tmp_path / "a.safetensors")
        save_file({"x": values}, paths[-1])
    if dtype in ("float16", "float32", "float64"):
        for order in "<>":
            paths.append(tmp_path / f"{order == '<'}.npz")
            numpy.savez(paths[-1], x=words.view(f"<{dtype[0]}{words.itemsize}").astype(f"{order}f{words.itemsize}"))
    for path in paths:
        assert told(path) == {"x": (len(words), nan, posinf, neginf, f"[{first}]")}


# --- .npy and .npz -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", "longdouble"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_numpy(tmp_path, monkeypatch, dtype, order):
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 64)
    monkeypatch.setattr(arrays, "HEADER_BYTES", 150)
    values = numpy.asarray(numpy.ones((3, 4, 5)), dtype=dtype, order=order)
    values[1, 2, 3], values[2, 3, 4] = NAN, -INF
    numpy.save(tmp_path / "a.npy", values)
    assert told(tmp_path / "a.npy") == {"array": (60, 1, 0, 1, "[1, 2, 3]")}


@pytest.mark.parametrize("write", ["npy", "pt", "safetensors"])
def test_the_parts_of_a_complex_number_are_counted(tmp_path, write):
    values = torch.tensor([1, complex(NAN, INF), complex(0, -INF)])
    path = tmp_path / f"a.{write}"
    if write == "npy":
        numpy.save(path, values.numpy())
    else:
        (torch.save if write == "pt" else save_file)({"array": values}, path)
    assert told(path) == {"array": (6, 1, 1, 1, "[1]")}


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_arrays_without_a_dimension_or_an_element(tmp_path, shape):
    numpy.save(tmp_path / "a.npy", numpy.zeros(shape))
    torch.save(torch.zeros(shape), tmp_path / "a.pt")
    assert [look(str(tmp_path / name)).verdict for name in ("a.npy", "a.pt")] == ["good", "good"]


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
def test_the_arrays_of_an_archive_by_their_names(tmp_path, save):
    save(tmp_path / "a.npz", sound=numpy.zeros((500, 500)), texts=numpy.array(["nan"]), bad=numpy.array([1, NAN]))
    assert told(tmp_path / "a.npz") == {"bad": (2, 1, 0, 0, "[1]")}


def test_python_objects_are_not_read_and_said(tmp_path):
    numpy.savez(tmp_path / "a.npz", sound=numpy.zeros(3), odd=numpy.array([{}], dtype=object))
    assert refusal(tmp_path / "a.npz").startswith("'odd': it holds Python objects")
    assert look(str(tmp_path / "a.npz")).numbers == 3


@pytest.mark.parametrize("cut", [1, 40, 799, 800, 801, 900])
def test_a_cut_array_is_not_good(tmp_path, cut):
    numpy.save(tmp_path / "a.npy", numpy.zeros(100))
    refusal(written(tmp_path / "a.npy", (tmp_path / "a.npy").read_bytes()[:-cut]))


def test_two_arrays_in_one_file_are_not_taken_for_one(tmp_path):
    numpy.save(tmp_path / "a.npy", numpy.zeros(100))
    assert "are there" in refusal(written(tmp_path / "a.npy", 2 * (tmp_path / "a.npy").read_bytes()))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000000,)}", "was cut"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "not one of a .npy file"),
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}", "not one of a .npy file"),
        (b"{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}", "not one of a .npy file"),
        (b"{'descr': '<f4'}", "not one of a .npy file"),
        (b"__import__('os').abort()", "not one of a .npy file"),
        (b"(" * 5000, "not one of a .npy file"),
        (b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "is not looked into"),
        (b"{'descr': '|V2', 'fortran_order': False, 'shape': (1,)}", "bfloat16 is saved so"),
    ],
)
def test_headers_that_are_hostile_or_not_understood(tmp_path, header, said):
    path = written(tmp_path / "a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 4)
    assert said in refusal(path)


def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31))
        file.truncate(2**31 + 100)  # with a hole: it takes no room on the disk
    assert peak_of(tmp_path / "a.npy", "skip") < 1_000_000


def peak_of(path, verdict):
    """The most bytes that looking at a file took."""
    tracemalloc.start()
    try:
        assert look(str(path)).verdict == verdict
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_an_archive(tmp_path):
    numpy.savez_compressed(tmp_path / "a.npz", x=numpy.zeros(20_000_000, dtype="float16"))
    assert peak_of(tmp_path / "a.npz", "good") < 8_000_000


def test_an_archive_whose_members_lie_over_each_other_is_refused(tmp_path):
    numpy.savez_compressed(tmp_path / "a.npz", x=numpy.zeros(200_000))
    raw = (tmp_path / "a.npz").read_bytes()
    at = raw.index(b"PK\x01\x02")
    end = raw.index(b"PK\x05\x06")
    entries = b"".join(raw[at:end].replace(b"x.npy", b"%05d" % n) for n in range(300))
    tail = raw[end : end + 8] + struct.pack("<HHII", 300, 300, len(entries), at) + b"\0\0"
    assert "zip bomb" in refusal(written(tmp_path / "bomb.npz", raw[:at] + entries + tail))


def test_a_member_with_another_checksum_is_not_good(tmp_path):
    numpy.savez(tmp_path / "a.npz", x=numpy.zeros(100))
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    raw[400] ^= 1
    assert "CRC" in refusal(written(tmp_path / "a.npz", bytes(raw)))


def test_without_numpy_its_files_are_could_not_tell(tmp_path, monkeypatch):
    numpy.savez(tmp_path / "a.npz", x=numpy.zeros(100))
    torch.save(torch.tensor([NAN]), tmp_path / "a.pt")
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    assert "pip install numpy" in refusal(tmp_path / "a.npz")
    assert look(str(tmp_path / "a.pt")).verdict == "bad"


# --- safetensors -------------------------------------------------------------------------------------------------


def test_the_tensors_of_a_safetensors_file(tmp_path):
    bad = torch.zeros(3, 4, dtype=torch.bfloat16)
    bad[1, 2] = INF
    save_file(
        {"sound": torch.ones(5), "whole": torch.ones(2, dtype=torch.int64), "bad": bad}, tmp_path / "a.safetensors"
    )
    assert told(tmp_path / "a.safetensors") == {"bad": (12, 0, 1, 0, "[1, 2]")}
    assert look(str(tmp_path / "a.safetensors")).numbers == 19


def test_a_type_that_this_torch_does_not_know_is_said(tmp_path):
    header = b'{"x":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    path = written(tmp_path / "a.safetensors", struct.pack("<Q", len(header)) + header + b"\0")
    assert "does not know its type F4" in refusal(path)


def test_a_git_lfs_pointer_is_named(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    assert "git lfs pull" in refusal(written(tmp_path / "a.safetensors", pointer))


# --- torch.save --------------------------------------------------------------------------------------------------


def state():
    """Tensors of many kinds; ``bad`` holds NaN at [2, 1]."""
    bad = torch.ones(3, 4)
    bad[2, 1] = NAN
    whole = torch.zeros(4, 5)
    whole[1, 3] = NAN
    circle = [1.0]
    circle.append(circle)
    return {
        "bad": bad,
        "again": bad,
        "turned": bad.t(),
        "parameter": torch.nn.Parameter(bad.half()),
        "expanded": torch.tensor([INF]).expand(1000, 1),
        "sparse": bad.to_sparse(),
        "view": whole[:, 3:],
        "beside": whole[:, :2],
        "nested": {"list": [torch.zeros(2), (NAN, 1.0)], 7: circle},
        "whole": torch.arange(3),
        "sound": torch.zeros(5, dtype=torch.bfloat16),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("piece", [weights.CHUNK_BYTES, 8])
def test_a_file_of_torch_save(tmp_path, monkeypatch, zipped, piece):
    monkeypatch.setattr(weights, "CHUNK_BYTES", piece)
    torch.save(state(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert told(tmp_path / "a.pt") == {
        "bad": (12, 1, 0, 0, "[2, 1]"),
        "again": (12, 1, 0, 0, "[2, 1]"),
        "turned": (12, 1, 0, 0, "[1, 2]"),
        "parameter": (12, 1, 0, 0, "[2, 1]"),
        "expanded": (1, 0, 1, 0, "[0, 0]"),
        "sparse.values()": (12, 1, 0, 0, "[9]"),
        "view": (8, 1, 0, 0, "[1, 0]"),
        "nested.list[1][0]": (1, 1, 0, 0, "nested.list[1][0]"),
    }
    assert look(str(tmp_path / "a.pt")).unread == []


def test_what_is_not_looked_into_is_said(tmp_path):
    torch.save({"x": torch.empty(3, device="meta"), "y": torch.zeros(3).untyped_storage()}, tmp_path / "a.pt")
    assert "without its numbers, on the meta device" in look(str(tmp_path / "a.pt")).unread[0]
    assert "TypedStorage are not looked into" in look(str(tmp_path / "a.pt")).unread[1]


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_never_executed(tmp_path, zipped):
    marker = tmp_path / "executed"
    torch.save({"evil": Evil(marker)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert f"{os.mkdir.__module__}.mkdir" in refusal(tmp_path / "a.pt")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()  # so it would have been


@pytest.mark.parametrize("held", [torch.nn.Linear(2, 2), {"x": numpy.ones(3)}], ids=["module", "array"])
def test_what_weights_only_refuses_is_could_not_tell_with_a_remedy(tmp_path, held):
    torch.save(held, tmp_path / "a.pt")
    assert refusal(tmp_path / "a.pt").endswith("Save its tensors alone, in a dict")


def refused_before_torch(path, monkeypatch):
    """Why a file was refused, which torch.load was not given."""
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("torch.load was called"))
    return refusal(path)


@pytest.mark.parametrize(
    ("names", "packing", "said"),
    [
        (("data.pkl", "constants.pkl"), zipfile.ZIP_STORED, "TorchScript"),
        (("data.pkl", "version"), zipfile.ZIP_DEFLATED, "packed"),
        (("readme.txt",), zipfile.ZIP_STORED, "without data.pkl"),
    ],
)
def test_another_archive_is_refused_before_torch_sees_it(tmp_path, monkeypatch, names, packing, said):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", packing) as archive:
        for name in names:
            archive.writestr(f"a/{name}", "hello")
    assert said in refused_before_torch(tmp_path / "a.pt", monkeypatch)


@pytest.mark.parametrize("disguise", ["", "l\udcfc\udc9cF\udcf9 j\udca8P\x19"])
def test_a_tar_archive_is_refused_before_torch_sees_it(tmp_path, monkeypatch, disguise):
    with tarfile.open(tmp_path / "a.pt", "w", format=tarfile.GNU_FORMAT) as archive:
        for name in filter(None, (disguise, "storages", "tensors", "pickle")):
            archive.addfile(tarfile.TarInfo(name))
    assert "no file of torch.save" in refused_before_torch(tmp_path / "a.pt", monkeypatch)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"PK\x03\x04", b"garbage", pickle.dumps([1.0])])
def test_a_file_that_is_none_of_torch_is_refused_before_torch_sees_it(tmp_path, monkeypatch, content):
    refused_before_torch(written(tmp_path / "a.bin", content), monkeypatch)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_cut_file_of_torch_is_not_good(tmp_path, zipped):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    refusal(written(tmp_path / "a.pt", (tmp_path / "a.pt").read_bytes()[:-900]))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("numbers", [1001, 2**37])
@pytest.mark.parametrize("place", ["storage and shape", "shape"])
def test_a_small_file_that_claims_more_numbers_than_it_has(tmp_path, zipped, numbers, place):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    said = b"M" + struct.pack("<H", 1000)
    claimed = b"\x8a\x05" + numbers.to_bytes(5, "little")
    end = b"" if place == "storage and shape" else b"\x85"  # TUPLE1: the shape
    if zipped:
        with zipfile.ZipFile(tmp_path / "a.pt") as plain, zipfile.ZipFile(tmp_path / "b.pt", "w") as to:
            for name in plain.namelist():
                to.writestr(name, plain.read(name).replace(said + end, claimed + end))
    else:
        written(tmp_path / "b.pt", (tmp_path / "a.pt").read_bytes().replace(said + end, claimed + end))
    refusal(tmp_path / "b.pt")


def test_many_views_of_one_storage_do_not_take_for_ever(tmp_path):
    whole = torch.zeros(200_000)
    torch.save([whole.view(-1) for _ in range(200)], tmp_path / "a.pt")
    assert "lie over each other" in refusal(tmp_path / "a.pt")


def test_a_torch_that_cannot_map_files_reads_them(tmp_path, monkeypatch):
    """torch 2.0 has no such argument."""
    given = []

    def load(path, map_location, weights_only, plain=torch.load):
        given.append(weights_only)
        return plain(path, map_location=map_location, weights_only=weights_only)

    torch.save({"x": torch.tensor([NAN])}, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", load)
    assert (told(tmp_path / "a.pt"), given) == ({"x": (1, 1, 0, 0, "[0]")}, [True])


def test_a_file_is_mapped_and_looked_at_in_pieces(tmp_path, monkeypatch):
    """So memory does not grow with it, however its numbers lie."""
    monkeypatch.setattr(weights, "CHUNK_BYTES", 4096)
    sizes = []
    feed = weights.Tally.feed
    monkeypatch.setattr(weights.Tally, "feed", lambda self, chunk: (sizes.append(chunk.nbytes), feed(self, chunk))[1])
    options = []
    load = looking.pickled.torch.load

    def watched(path, mmap=False, **others):
        options.append(mmap)
        return load(path, mmap=mmap, **others)

    monkeypatch.setattr(torch, "load", watched)
    whole = torch.zeros(3, 5000, 7)
    torch.save([whole, whole.permute(2, 0, 1), whole[:, ::2]], tmp_path / "a.pt")
    assert look(str(tmp_path / "a.pt")).numbers == 2.5 * whole.numel()
    assert (max(sizes), options) == (4096, [True])


# --- any file ----------------------------------------------------------------------------------------------------


def test_more_places_than_can_be_listed_are_counted_together():
    found = Contents()
    for number in range(MOST_PLACES + 3):
        found.add(f"t{number}", "float32", (2,), 2, (1, 0, 1), (0,))
    last = found.places[-1]
    assert (len(found.places), found.numbers) == (MOST_PLACES + 1, 2 * MOST_PLACES + 6)
    assert (last["place"], last["count"], last["nan"], last["neginf"]) == ("(further tensors)", 6, 3, 3)


SOUND = {
    "a.npy": lambda path: numpy.save(path, numpy.ones((2, 3))),
    "a.npz": lambda path: numpy.savez_compressed(path, a=numpy.ones(9), b=numpy.arange(3)),
    "a.safetensors": lambda path: save_file({"a": torch.ones(3), "b": torch.zeros(2, 2)}, path),
    "a.pt": lambda path: torch.save({"a": torch.ones(3), "f": 1.0}, path),
    "a.bin": lambda path: torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_damaged_file_gets_an_answer_and_a_cut_one_is_never_good(tmp_path, name):
    SOUND[name](tmp_path / name)
    sound = (tmp_path / name).read_bytes()
    assert look(str(tmp_path / name)).verdict == "good"
    chance = random.Random(name)
    for _ in range(150):
        raw = bytearray(sound)
        for _ in range(chance.choice([1, 1, 2, 8])):
            raw[chance.randrange(len(raw))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        end = chance.choice([len(raw), chance.randrange(len(raw))])
        found = look(str(written(tmp_path / name, bytes(raw[:end]))))
        assert found.verdict in (("good", "bad", "skip") if end == len(raw) else ("skip",)), found.record()
        assert all(found.unread)


@pytest.mark.parametrize("name", ["gone.npy", "gone.pt", "gone.npz", "gone.safetensors", "a.txt"])
def test_a_file_that_is_not_there_or_of_no_kind_is_could_not_tell(tmp_path, name):
    refusal(tmp_path / name)
