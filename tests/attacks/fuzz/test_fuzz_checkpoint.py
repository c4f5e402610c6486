"""The kit's readers of a model's files: each input is read, or refused by the error that the reader names.

What is read is held against the libraries that read the same formats.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from attacks.fuzz.inputs import VALUES, damaged_bytes, damaged_json, text_of
from attacks.fuzz.settings import EXAMPLES, fuzzed, variants, varied
from repro.probes.checkpoint.files import check, list_weights
from repro.probes.checkpoint.gguf_header import read_gguf_header
from repro.probes.checkpoint.header import ITEM_BYTES, BadHeader, read_header
from repro.probes.checkpoint.limits import OverLimit
from repro.probes.checkpoint.look import look
from repro.probes.checkpoint.resolve import CannotResolve, Source
from repro.probes.model.before.described import BadConfig, described
from repro.probes.model.before.growth import most_made
from repro.probes.model.compat import CannotLoad, read_config
from repro.probes.protocol.failures import Panicked, panics_raised

MOST_MEMORY = 64 << 20
"""Bytes that reading an input of some kilobytes may take, whatever stands in it."""
SIZES = st.sampled_from([0, 1, 2, 3, -1, 8, 2**31, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, True, 1.0, "1", None])
DTYPES = st.sampled_from([*ITEM_BYTES, "F4", "F6_E2M3", "f32", "", "F32\x1b[2J", "Z9", 32, None, [], "A" * 10_000])
NAMES = st.sampled_from(
    ["a", "b", "", "__metadata__", "\0", "\x1b[31m", "transformer.h.0.attn.c_attn.weight", "é" * 300]
)
ODD = st.sampled_from(["", ".", "..", "../a", "/etc/passwd", "a/b", "a\0b", "\x1b[2J", "x" * 300, "gone.safetensors"])


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@contextlib.contextmanager
def little_memory():
    """Within it no more is taken than MOST_MEMORY."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A file of tensors one behind the other, and then something of it wrong, or nothing."""
    entries: dict[str, Any] = {}
    at = 0
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        dtype = draw(st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "C64"]))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        size = int(numpy.prod(shape, dtype=int)) * ITEM_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    for _ in range(draw(st.integers(0, 2))):
        if not entries:
            break
        entry = entries[draw(st.sampled_from(sorted(entries)))]
        if not isinstance(entry, dict) or not entry:
            continue
        match draw(st.integers(0, 5)):
            case 0:
                entry["dtype"] = draw(DTYPES)
            case 1:
                entry["shape"] = draw(st.lists(SIZES, max_size=4) | st.just([1] * 5000) | VALUES)
            case 2:
                entry["data_offsets"] = draw(st.lists(SIZES, max_size=3) | VALUES)
            case 3:
                entry.pop(draw(st.sampled_from(sorted(entry))), None)
            case 4:
                entry[draw(NAMES)] = draw(VALUES)
            case _:
                entries[draw(NAMES)] = draw(VALUES)
    text = text_of(entries)
    text = text.replace(b'"shape"', b'"dtype"', 1) if draw(st.integers(0, 9)) == 0 else text
    length = draw(st.sampled_from([len(text)] * 8 + [0, 1, len(text) - 1, len(text) + 1, 2**40, 2**63, 2**64 - 1]))
    whole = struct.pack("<Q", max(length, 0)) + text + bytes(at)
    cut = draw(st.sampled_from([None] * 6 + [-1, -9, 8, 7, 0]))
    return whole[:cut] + draw(st.sampled_from([b""] * 6 + [b"\0", b"x" * 100]))


def refusal(read: Any, *given: Any, errors: tuple[type[Exception], ...]) -> str | None:
    """The message with which something is refused, which fits into a line; None where it is read."""
    message = None
    with little_memory():
        try:
            read(*given)
        except errors as error:
            message = str(error)
    assert message is None or 0 < len(message) < 800
    assert (message or "").isprintable()
    return message


def taken_by_the_library(path: Path) -> bool:
    try:
        with safe_open(path, framework="np") as opened:
            return all(opened.get_slice(key).get_shape() is not None for key in opened.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False


@given(content=headers() | st.binary(max_size=200))
@varied
def test_a_safetensors_header(tmp_path_factory, content):
    for one in variants(content):
        path = put(tmp_path_factory.getbasetemp(), "model.safetensors", one)
        refused = refusal(read_header, str(path), errors=(BadHeader, OverLimit))
        if refused is not None:
            # Of two equal keys the library takes one, and does not say which; a tensor of 65 sizes no torch takes.
            assert "twice" in refused or "at most 64 sizes" in refused or not taken_by_the_library(path)
        elif {entry.dtype for entry in read_header(str(path)).entries} <= set(ITEM_BYTES) - {"F8_E8M0"}:
            assert taken_by_the_library(path)


@given(
    content=headers() | st.binary(max_size=300), kind=st.sampled_from([".safetensors", ".pt", ".bin", ".npz", ".npy"])
)
@varied
def test_a_file_of_tensors_that_is_looked_into(tmp_path_factory, content, kind):
    for one in variants(content):
        path = put(tmp_path_factory.getbasetemp(), f"results{kind}", one)
        with little_memory():
            found = look(str(path)).record()
        assert all(isinstance(why, str) and len(why) < 600 for why in found["unread"])


def saved(kind: str) -> bytes:
    """A sound file of tensors."""
    buffer = io.BytesIO()
    if kind == ".npy":
        numpy.save(buffer, numpy.ones((2, 3), numpy.float32))
    elif kind == ".npz":
        numpy.savez(buffer, a=numpy.ones(3), b=numpy.zeros((2, 2)))
    else:
        torch.save({"a": torch.ones(2, 3), "b": [1.0, torch.zeros(2)]}, buffer)
    return buffer.getvalue()


@given(data=st.data(), kind=st.sampled_from([".pt", ".npz", ".npy"]))
@varied
def test_a_damaged_file_of_tensors(tmp_path_factory, data, kind):
    for content in variants(data.draw(damaged_bytes(saved(kind)))):
        found = look(str(put(tmp_path_factory.getbasetemp(), f"damaged{kind}", content))).record()
        assert all(isinstance(why, str) and len(why) < 600 for why in found["unread"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder of two shards."""
    place = tmp_path_factory.mktemp("model")
    put(place, "config.json", b"{}")
    for name in ("a", "b"):
        text = text_of({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
        put(place, f"{name}.safetensors", struct.pack("<Q", len(text)) + text + bytes(4))
    return place


INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}


@st.composite
def indexes(draw: st.DrawFn) -> bytes:
    mapping = draw(
        st.dictionaries(NAMES, ODD | st.sampled_from(["a.safetensors", "b.safetensors"]) | VALUES, max_size=4)
    )
    return text_of({**INDEX, "weight_map": mapping})


@given(content=indexes() | damaged_json(INDEX) | damaged_bytes(text_of(INDEX)) | VALUES.map(text_of))
@varied
def test_an_index(folder, content):
    for one in variants(content):
        put(folder, "model.safetensors.index.json", one)
        source = Source("folder", str(folder))
        with little_memory():
            verdict, reason, payload = check(source, lambda *_: None)
            found = list_weights(str(folder))
        try:
            mapping = json.loads(one.decode())["weight_map"]
            whole = mapping == {"a": "a.safetensors", "b": "b.safetensors"}
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        assert (verdict == "good") >= whole
        assert all(Path(name).name == name and name not in ("", ".", "..") for name in found.names)
        assert len(reason) < 1000
        json.dumps(payload, allow_nan=False)


SOUND = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 32, "n_layer": 2, "n_head": 2,
         "vocab_size": 96, "n_positions": 64, "torch_dtype": "float32", "activation_function": "gelu_new"}  # fmt: skip


@given(content=damaged_json(SOUND) | damaged_bytes(text_of(SOUND)) | VALUES.map(text_of))
@varied
def test_a_configuration_as_data(tmp_path_factory, content):
    for one in variants(content):
        path = put(tmp_path_factory.getbasetemp(), "config.json", one)
        if refusal(described, str(path), errors=(BadConfig, OverLimit)) is None:
            assert isinstance(json.loads(one), dict)


@given(content=damaged_json(SOUND))
@settings(fuzzed, max_examples=max(EXAMPLES // 50, 20), deadline=None)
def test_a_configuration_by_the_library(tmp_path_factory, content):
    path = put(tmp_path_factory.getbasetemp(), "config.json", content)
    with contextlib.suppress(CannotLoad, OverLimit):
        assert read_config(Source("random", None, config=str(path)), False) is not None


def small_gguf(folder: Path) -> bytes:
    path = folder / "small.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_token_list(["a", "b", "c"])
    writer.add_token_scores([0.0, 1.0, 2.0])
    writer.add_string("general.name", "small")
    writer.add_tensor("token_embd.weight", numpy.ones((3, 4), numpy.float32))
    writer.add_tensor("blk.0.attn_q.weight", numpy.ones((4, 4), numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole_gguf(tmp_path_factory):
    return small_gguf(tmp_path_factory.mktemp("gguf"))


@st.composite
def ggufs(draw: st.DrawFn, whole: bytes) -> bytes:
    """A sound file with numbers of its header changed: counts, lengths, types, sizes, offsets."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        number = draw(
            st.sampled_from([0, 1, 9, 8, 255, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
        )
        at = draw(st.sampled_from([4, 8, 16, 24, 32]) | st.integers(0, len(whole) - 8))
        form = draw(st.sampled_from("IQ"))
        struct.pack_into(f"<{form}", data, at, number % 2 ** (32 if form == "I" else 64))
    return bytes(data[: draw(st.sampled_from([None] * 4 + [0, 3, 4, 24, 100, -1, -64]))])


@given(data=st.data())
@varied
def test_a_gguf_header(tmp_path_factory, whole_gguf, data):
    for content in variants(data.draw(ggufs(whole_gguf) | st.binary(max_size=100).map(b"GGUF".__add__))):
        path = put(tmp_path_factory.getbasetemp(), "model.gguf", content)
        refused = refusal(read_gguf_header, str(path), errors=(CannotResolve, OverLimit))
        assert refused is None or content != whole_gguf


NORMALIZERS = st.lists(
    st.sampled_from([{"type": name} for name in ("NFKC", "NFKD", "NFC", "NFD", "Lowercase", "StripAccents", "Nmt")])
    | st.builds(lambda text: {"type": "Prepend", "prepend": text}, st.text(min_size=1, max_size=4))
    | st.builds(
        lambda kind, old, new: {"type": "Replace", "pattern": {kind: old}, "content": new},
        st.sampled_from(["String", "Regex"]), st.sampled_from(["a", "aa", "b", "x", ".", ""]),
        st.sampled_from(["", "a", "ab", "aaa", "\ufdfa", "x" * 20]),
    ),
    max_size=3,
)  # fmt: skip
PRE_TOKENIZERS = st.sampled_from([
    None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    {"type": "Digits", "individual_digits": True}, {"type": "Whitespace"},
])  # fmt: skip
TEXTS = st.text(alphabet=st.sampled_from("aAbx 1\u0130\ufdfa\u00e9\u4e2d"), max_size=8)


@given(normalizers=NORMALIZERS, pre_tokenizer=PRE_TOKENIZERS, text=TEXTS)
@fuzzed
def test_a_tokenizer_makes_no_more_than_its_rules_say(normalizers, pre_tokenizer, text):
    """The library itself is asked what it makes of a text."""
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    rules = {"normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": pre_tokenizer}
    try:
        tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model, **rules}))
    except Exception:  # noqa: BLE001 - the library's own class; an empty pattern is refused
        return
    try:
        with panics_raised():
            made = tokenizer.normalizer.normalize_str(text)
    except Panicked:  # by an empty pattern
        return
    if pre_tokenizer is not None:
        made = "".join(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(made))
    assert len(made) <= most_made(SimpleNamespace(backend_tokenizer=tokenizer), len(text)) + 1
