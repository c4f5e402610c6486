"""The figures of every tensor, held against the bits of the numbers themselves."""

import json
import math
import struct

import pytest
import torch
from support.handmade import INF, NAN, entry, raw_safetensors, silent, write_floats

from repro.probes.checkpoint import weights
from repro.probes.checkpoint.weights import CHUNK_BYTES, DTYPES, TARGETS, check, scan_tensor


def folder_of(tmp_path, tensors):
    """A model folder with tensors given as (safetensors dtype, shape, bytes)."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = entry(dtype, shape, len(data), len(data) + len(content))
        data += content
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(raw_safetensors(header, data))
    return str(tmp_path)


def floats(*values):
    return "F32", [len(values)], struct.pack(f"<{len(values)}f", *values)


def answer(tmp_path, **tensors):
    return check(folder_of(tmp_path, tensors), silent)


def row(tmp_path, *values):
    return answer(tmp_path, a=floats(*values))[2]["stats"][0]


# --- every bit pattern of the small types ------------------------------------------------------------------------

BITS = {"F16": (16, 10), "BF16": (16, 7), "F8_E5M2": (8, 2)}
"""Width and mantissa bits of the types that follow IEEE 754."""


@pytest.mark.parametrize("name", sorted(BITS))
def test_every_bit_pattern_is_counted(tmp_path, name):
    if DTYPES[name] is None:
        pytest.skip(f"this torch has no {name}")
    width, mantissa_bits = BITS[name]
    patterns = range(2**width)
    content = b"".join(pattern.to_bytes(width // 8, "little") for pattern in patterns)
    top = 2 ** (width - 1 - mantissa_bits) - 1  # the exponent of NaN and infinity
    parts = [((p >> mantissa_bits) & top, p & (2**mantissa_bits - 1)) for p in patterns]
    stats = answer(tmp_path, a=(name, [2**width], content))[2]["stats"][0]
    assert stats["nan"] == sum(exponent == top and mantissa != 0 for exponent, mantissa in parts)
    assert (stats["posinf"], stats["neginf"]) == (1, 1)
    assert stats["zeros"] == 2
    assert stats["subnormal"] == sum(exponent == 0 and mantissa != 0 for exponent, mantissa in parts)
    bias = top // 2
    assert stats["absmax"] == stats["max"] == -stats["min"] == (2 - 2**-mantissa_bits) * 2.0 ** (top - 1 - bias)


@pytest.mark.skipif(DTYPES["F8_E4M3"] is None, reason="this torch has no float8_e4m3fn")
def test_every_bit_pattern_of_e4m3(tmp_path):
    """No infinities, one NaN for each sign, 448 the largest; 7 subnormals of each sign."""
    stats = answer(tmp_path, a=("F8_E4M3", [256], bytes(range(256))))[2]["stats"][0]
    assert (stats["nan"], stats["posinf"], stats["neginf"]) == (2, 0, 0)
    assert (stats["zeros"], stats["subnormal"], stats["absmax"]) == (2, 14, 448.0)


# --- every type against Python's float64 -------------------------------------------------------------------------


def by_hand(values, tiny):
    """The figures of a list of Python floats."""
    finite = [v for v in values if math.isfinite(v)]
    return {
        "nan": sum(v != v for v in values),
        "posinf": values.count(INF),
        "neginf": values.count(-INF),
        "zeros": values.count(0.0),
        "subnormal": sum(0 < abs(v) < tiny for v in finite),
        "min": min(finite),
        "max": max(finite),
        "absmax": max(map(abs, finite)),
    }


TINY = {
    "F64": 2.0**-1022,
    "F32": 2.0**-126,
    "F16": 2.0**-14,
    "BF16": 2.0**-126,
    "F8_E4M3": 2.0**-6,
    "F8_E5M2": 2.0**-14,
}


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_mixed_tensor_of_every_type(tmp_path, name):
    dtype = DTYPES[name]
    if dtype is None:
        pytest.skip(f"this torch has no {name}")
    generator = torch.Generator().manual_seed(0)
    tensor = (torch.randn(5000, generator=generator, dtype=torch.float64) * 3).to(dtype).to(torch.float64)
    tensor[::7] *= TINY[name] / 8
    tensor[100], tensor[2000], tensor[3000], tensor[4999] = NAN, INF, -INF, 0.0
    stored = tensor.to(dtype)
    content = stored.view(torch.uint8).numpy().tobytes()
    stats = answer(tmp_path, a=(name, [5000], content))[2]["stats"][0]
    expected = by_hand(stored.to(torch.float64).tolist(), TINY[name])
    assert {key: stats[key] for key in expected} == expected


def test_integers_and_booleans_are_no_business_of_this_step(tmp_path):
    tensors = {"i": ("I64", [1], bytes(8)), "b": ("BOOL", [3], bytes(3)), "a": floats(1.0)}
    payload = answer(tmp_path, **tensors)[2]
    assert (payload["tensors"], payload["parameters"], payload["bytes"]) == (1, 1, 4)


# --- places ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, CHUNK_BYTES // 4 - 1, CHUNK_BYTES // 4, CHUNK_BYTES // 2 + 7, 1_199_999])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_the_first_bad_value_of_a_tensor_of_several_chunks(tmp_path, place, value):
    content = bytearray(1_200_000 * 4)
    struct.pack_into("<f", content, place * 4, value)
    struct.pack_into("<f", content, 1_199_999 * 4, value)
    struct.pack_into("<f", content, 1_199_998 * 4 if place < 1_199_998 else 0, 1.0)
    first = min(place, 1_199_999)
    _, reason, payload = answer(tmp_path, a=("F32", [6, 200_000], bytes(content)))
    (finding,) = payload["findings"]
    assert finding["first_index"] == [first // 200_000, first % 200_000]
    assert f"[{first // 200_000}, {first % 200_000}]" in reason


def test_the_first_of_two_bad_values_that_lie_far_apart(tmp_path):
    """20 MB, which the scan may divide as it likes."""
    content = bytearray(5_000_000 * 4)
    for place, value in ((4_999_999, INF), (4_300_001, NAN), (17, 2.0), (4_999_998, -3.0)):
        struct.pack_into("<f", content, place * 4, value)
    (finding,) = answer(tmp_path, a=("F32", [5_000_000], bytes(content)))[2]["findings"]
    assert (finding["first_index"], finding["nan"], finding["posinf"]) == ([4_300_001], 1, 1)
    assert (finding["min"], finding["max"], finding["zeros"]) == (-3.0, 2.0, 4_999_996)


def test_a_tensor_whose_chunk_is_cut_by_its_end(tmp_path):
    count = CHUNK_BYTES // 2 + 1
    content = struct.pack("<e", 0.5) * (count - 1) + struct.pack("<e", 2.0)
    stats = answer(tmp_path, a=("F16", [count], content))[2]["stats"][0]
    assert (stats["min"], stats["max"], stats["constant"]) == (0.5, 2.0, False)


def test_a_misaligned_file_is_read_right(tmp_path):
    """The data start at an odd byte: what is read is not mapped, so nothing is misaligned in memory."""
    header = json.dumps({"a": entry("F64", [2], 0, 16)}).encode()
    header += b" " * ((1 - len(header)) % 8)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(raw_safetensors(header, struct.pack("<2d", 1.5, NAN)))
    (finding,) = check(str(tmp_path), silent)[2]["findings"]
    assert (finding["nan"], finding["first_index"], finding["max"]) == (1, [1], 1.5)


def test_no_more_than_one_chunk_is_looked_at_at_once(tmp_path, monkeypatch):
    sizes = []

    class Feeds(weights.Tally):
        def feed(self, chunk, **more):
            sizes.append(chunk.numel() * chunk.element_size())
            super().feed(chunk, **more)

    monkeypatch.setattr(weights, "Tally", Feeds)
    answer(tmp_path, a=("F32", [700_000], bytes(2_800_000)), b=floats(1.0))
    assert max(sizes) <= CHUNK_BYTES < 2_800_000
    assert sum(sizes) == 2_800_004


def test_the_threads_are_as_before(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        answer(tmp_path, a=floats(1.0), b=floats(2.0))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_file_is_not_changed(tmp_path):
    folder = folder_of(tmp_path, {"a": floats(1.0, -0.0, NAN)})
    before = (tmp_path / "model.safetensors").read_bytes()
    check(folder, silent)
    assert (tmp_path / "model.safetensors").read_bytes() == before


# --- kinds of tensors --------------------------------------------------------------------------------------------


def test_an_empty_tensor_is_skipped(tmp_path):
    verdict, _, payload = answer(tmp_path, empty=("F32", [0, 4], b""), a=floats(1.0))
    assert (verdict, payload["tensors"]) == ("good", 1)


def test_only_empty_tensors(tmp_path):
    verdict, reason, _ = answer(tmp_path, empty=("F32", [0], b""))
    assert verdict == "skip"
    assert "no floating-point tensors" in reason


def test_a_scalar_has_an_index_without_dimensions(tmp_path):
    (finding,) = answer(tmp_path, a=("F32", [], struct.pack("<f", NAN)))[2]["findings"]
    assert finding["first_index"] == []


@pytest.mark.parametrize(
    ("values", "constant"),
    [
        ([2.0, 2.0], True),
        ([2.0, 3.0], False),
        ([2.0], False),
        ([0.0, 0.0], True),
        ([NAN, NAN], False),
        ([2.0, NAN], False),
    ],
)
def test_a_constant_tensor(tmp_path, values, constant):
    assert row(tmp_path, *values)["constant"] is constant


def test_a_tensor_of_zeros_is_listed(tmp_path):
    payload = answer(tmp_path, a=floats(0.0, -0.0), b=floats(0.0, 1.0))[2]
    assert payload["zero_tensors"] == ["a"]


def test_a_tensor_of_nan_only_has_no_range(tmp_path):
    stats = row(tmp_path, NAN, NAN)
    assert all(math.isnan(stats[key]) for key in ("min", "max", "absmax"))


def test_a_chunk_of_nan_only_does_not_spoil_the_range(tmp_path):
    chunk = CHUNK_BYTES // 4
    content = struct.pack("<f", NAN) * chunk + struct.pack("<2f", -3.0, 2.0)
    stats = answer(tmp_path, a=("F32", [chunk + 2], content))[2]["stats"][0]
    assert (stats["nan"], stats["min"], stats["max"], stats["absmax"]) == (chunk, -3.0, 2.0, 3.0)


def test_minus_zero_is_a_zero(tmp_path):
    stats = row(tmp_path, -0.0, 1.0)
    assert (stats["zeros"], stats["subnormal"]) == (1, 0)


# --- masks -------------------------------------------------------------------------------------------------------


def test_a_mask_that_was_saved_with_the_weights_is_no_fault(tmp_path):
    verdict, _, payload = answer(tmp_path, mask=floats(0.0, -INF, -INF, 0.0), a=floats(1.0))
    assert (verdict, payload["findings"], payload["masks"]) == ("good", [], ["mask"])


@pytest.mark.parametrize(
    "values",
    [[0.0, -INF, INF], [0.0, -INF, NAN], [0.0, -INF, 1.0], [0.0, INF]],
    ids=["+inf", "nan", "finite", "only +inf"],
)
def test_what_is_no_mask(tmp_path, values):
    verdict, _, payload = answer(tmp_path, a=floats(*values))
    assert verdict == "bad"
    assert payload["masks"] == []


# --- forecasts ---------------------------------------------------------------------------------------------------


def test_which_dtypes_would_overflow(tmp_path):
    tensors = {"half": floats(65504.0), "more": floats(1.0, -65536.0), "most": floats(3.4e38)}
    tensors["double"] = ("F64", [1], struct.pack("<d", -1e39))
    _, reason, payload = answer(tmp_path, **tensors)
    assert payload["overflows_in"] == {
        "float16": ["more", "most", "double"],
        "bfloat16": ["most", "double"],
        "float32": ["double"],
    }
    assert "3 would overflow in float16" in reason
    assert "1 would overflow in float32" in reason


@pytest.mark.parametrize(
    "value",
    [
        65504.0,
        65505.0,
        65519.99,
        65520.0,
        65536.0,
    ],
)
def test_the_forecast_is_what_rounding_does(tmp_path, value):
    """Beyond 65504, a number below 65520 still rounds to 65504 (IEEE 754, ties to even)."""
    try:
        struct.pack("<e", value)
        overflows = False
    except OverflowError:
        overflows = True
    payload = answer(tmp_path, a=("F64", [1], struct.pack("<d", value)))[2]
    assert payload["overflows_in"]["float16"] == (["a"] if overflows else [])


def test_an_infinite_value_is_no_forecast(tmp_path):
    payload = answer(tmp_path, a=floats(INF, 1.0))[2]
    assert payload["overflows_in"] == {name: [] for name in TARGETS}


def test_the_largest_magnitude_is_named(tmp_path):
    payload = answer(tmp_path, a=floats(1.0, 2.0), b=floats(-5.0, 3.0), c=floats(NAN))[2]
    assert payload["absmax"] == {"tensor": "b", "value": 5.0}


# --- sources -----------------------------------------------------------------------------------------------------


def test_a_good_checkpoint(tmp_path):
    verdict, reason, payload = answer(tmp_path, a=floats(1.0, -2.0), b=floats(1.5))
    assert verdict == "good"
    assert "2 tensors, all finite, largest magnitude 2 in a" in reason
    assert (payload["parameters"], payload["bytes"]) == (3, 12)


def test_the_reason_counts_the_worst(tmp_path):
    verdict, reason, _ = answer(tmp_path, a=floats(1.0), b=floats(INF, NAN, NAN, -INF, 3.0), c=floats(NAN))
    assert verdict == "bad"
    assert "2 tensors are not finite; the first is b: 2 NaN, 1 +inf, 1 -inf, first at [0]" in reason


def test_shards_that_cannot_be_read_are_not_called_good(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    mapping = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(mapping))
    write_floats(tmp_path / "one.safetensors", a=[1.0])
    verdict, reason, _ = check(str(tmp_path), silent)
    assert verdict == "skip"
    assert "two.safetensors" in reason


def test_a_pickle_is_scanned(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    tensors = {"a": torch.tensor([[1.0, NAN], [2.0, 3.0]]).T, "i": torch.arange(3), "b": torch.ones(2).bfloat16()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    verdict, _, payload = check(str(tmp_path), silent)
    assert (verdict, payload["tensors"]) == ("bad", 2)
    assert payload["findings"][0]["first_index"] == [1, 0]


def test_a_large_tensor_in_memory_is_scanned_in_row_major_order():
    tensor = torch.zeros(3, 200_000)
    tensor[2, 5] = NAN
    tally = scan_tensor("a", "f", tensor.T)
    assert (tally.seen, tally.nan, tally.first_bad) == (600_000, 1, 5 * 3 + 2)


def test_progress_counts_tensors(tmp_path):
    seen = []
    folder = folder_of(tmp_path, {"a": floats(1.0), "b": floats(2.0)})
    check(folder, lambda *event: seen.append(event))
    assert seen == [(1, 2, "tensors"), (2, 2, "tensors")]


def test_complex_tensors_are_looked_at(tmp_path):
    content = struct.pack("<2f", 1.0, NAN)
    assert answer(tmp_path, c=("C64", [1], content), a=floats(1.0))[0] == "bad"
