"""The files step on folders made by hand: weight files, indices, the Hub's cache layout, pickles."""

import hashlib
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from support.handmade import raw_safetensors, silent, write_floats

from repro.probes.checkpoint.files import check, check_pickles, list_weights, load_pickle
from repro.probes.checkpoint.resolve import Source

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def folder_with(tmp_path, **tensors):
    """A model folder with one whole weight file."""
    (tmp_path / "config.json").write_text("{}")
    if tensors:
        write_floats(tmp_path / "model.safetensors", **tensors)
    return tmp_path


def sharded(tmp_path, mapping, shards):
    """A model folder with an index and some shards, {file: {tensor: values}}."""
    folder_with(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": mapping}))
    for name, tensors in shards.items():
        write_floats(tmp_path / name, **tensors)
    return tmp_path


def answer(folder):
    return check(Source("folder", str(folder)), silent)


def problems(folder):
    return [(f["file"], f["problem"]) for f in answer(folder)[2]["findings"] if f["severity"] == "bad"]


# --- weight files and indices ------------------------------------------------------------------------------------


def test_a_whole_file_is_good(tmp_path):
    verdict, reason, payload = answer(folder_with(tmp_path, a=[1.0, 2.0], b=[3.0]))
    assert (verdict, payload["format"], payload["findings"]) == ("good", "safetensors", [])
    assert "2 tensors" in reason
    (row,) = payload["files"]
    size = (tmp_path / "model.safetensors").stat().st_size
    assert (row["bytes"], row["tensors"], row["data_start"], row["data_start_mod_8"]) == (size, 2, size - 12, 0)


def test_a_cut_file_is_bad(tmp_path):
    path = folder_with(tmp_path, a=[1.0, 2.0]) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    verdict, reason, _ = answer(tmp_path)
    assert verdict == "bad"
    assert "model.safetensors" in reason
    assert "cut" in reason


def test_a_data_start_off_the_grid_is_a_note(tmp_path):
    folder_with(tmp_path, a=[1.0])
    text = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    text += b" " * ((3 - len(text)) % 8)
    (tmp_path / "model.safetensors").write_bytes(raw_safetensors(text, bytes(4)))
    verdict, _, payload = answer(tmp_path)
    assert verdict == "good"
    assert payload["files"][0]["data_start_mod_8"] == 3
    assert [f["severity"] for f in payload["findings"]] == ["note"]


def test_a_folder_without_a_configuration_ends_the_run(tmp_path):
    write_floats(tmp_path / "model.safetensors", a=[1.0])
    verdict, reason, payload = answer(tmp_path)
    assert (verdict, payload["fatal"]) == ("skip", True)
    assert "config.json" in reason
    assert str(tmp_path) in reason


def test_a_folder_without_weights_ends_the_run(tmp_path):
    verdict, reason, payload = answer(folder_with(tmp_path))
    assert (verdict, payload["fatal"]) == ("skip", True)
    assert "no weight file" in reason


def test_one_file_is_preferred_to_an_index_and_to_a_pickle(tmp_path):
    sharded(tmp_path, {"a": ONE}, {ONE: {"a": [1.0]}, "model.safetensors": {"a": [1.0]}})
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert list_weights(str(tmp_path)).names == ["model.safetensors"]


def test_whole_shards_are_good(tmp_path):
    sharded(tmp_path, {"a": ONE, "b": TWO}, {ONE: {"a": [1.0]}, TWO: {"b": [2.0]}})
    verdict, reason, payload = answer(tmp_path)
    assert (verdict, payload["findings"]) == ("good", [])
    assert "2 weight files" in reason


def test_a_missing_shard_is_named(tmp_path):
    sharded(tmp_path, {"a": ONE, "b": TWO}, {ONE: {"a": [1.0]}})
    ((file, problem),) = problems(tmp_path)
    assert file == TWO
    assert "not there" in problem


def test_a_tensor_in_the_wrong_shard_is_named(tmp_path):
    sharded(tmp_path, {"a": TWO, "b": TWO}, {ONE: {"a": [1.0]}, TWO: {"b": [2.0]}})
    assert not any("'b'" in problem for _, problem in problems(tmp_path))
    sharded(tmp_path, {"a": TWO, "b": ONE}, {ONE: {"a": [1.0]}, TWO: {"b": [2.0]}})
    found = problems(tmp_path)
    assert [file for file, _ in found] == [INDEX, INDEX]
    assert "'a'" in found[0][1]
    assert TWO in found[0][1]


def test_a_tensor_in_no_shard_is_named(tmp_path):
    sharded(tmp_path, {"a": ONE, "lost": ONE}, {ONE: {"a": [1.0]}})
    ((_, problem),) = problems(tmp_path)
    assert "'lost'" in problem


def test_a_tensor_that_two_shards_hold_is_in_the_one_that_the_index_names(tmp_path):
    sharded(tmp_path, {"a": ONE, "b": TWO}, {ONE: {"a": [1.0]}, TWO: {"a": [1.0], "b": [2.0]}})
    assert problems(tmp_path) == []


def test_a_tensor_that_the_index_leaves_out_is_a_note(tmp_path):
    sharded(tmp_path, {"a": ONE}, {ONE: {"a": [1.0], "extra": [1.0]}})
    verdict, _, payload = answer(tmp_path)
    assert verdict == "good"
    assert [("extra" in f["problem"], f["severity"]) for f in payload["findings"]] == [(True, "note")]


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "sub/inside.safetensors", "..", ".", ""])
def test_a_shard_outside_the_folder_is_refused(tmp_path, shard):
    folder = tmp_path / "model"
    folder.mkdir()
    write_floats(tmp_path / "outside.safetensors", b=[1.0])
    sharded(folder, {"a": ONE, "b": shard}, {ONE: {"a": [1.0]}})
    assert problems(folder)
    found = list_weights(str(folder))
    assert [Path(header.path) for header in found.headers] == [folder / ONE]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": null}', "{"])
def test_an_index_that_cannot_be_read_is_bad(tmp_path, text):
    folder_with(tmp_path)
    (tmp_path / INDEX).write_text(text)
    assert problems(tmp_path)[0][0] == INDEX


# --- the Hub's cache ---------------------------------------------------------------------------------------------


def cached(tmp_path, files):
    """A Hub cache made by hand, {name: (blob's name, content)}: blobs/HASH and links to them in snapshots/REVISION."""
    snapshot, blobs = tmp_path / "snapshots" / ("ab" * 20), tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name, (blob, content) in files.items():
        if content is not None:
            (blobs / blob).write_bytes(content)
        (snapshot / name).symlink_to(os.path.relpath(blobs / blob, snapshot))
    return snapshot


def git_sha1(content):
    """The name that `git hash-object` gives: SHA-1 over "blob", the size, a zero byte, and the content."""
    return hashlib.sha1(f"blob {len(content)}".encode() + b"\x00" + content).hexdigest()


WEIGHTS = raw_safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, struct.pack("<f", 1.0))
CONFIG = b'{"model_type": "gpt2"}'


def test_the_hash_of_gits_own_empty_blob():
    assert git_sha1(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def hub_files(config=CONFIG, weights=WEIGHTS):
    """Contents under the names that the right contents have."""
    return {
        "config.json": (git_sha1(CONFIG), config),
        "model.safetensors": (hashlib.sha256(WEIGHTS).hexdigest(), weights),
    }


def test_whole_blobs_match_their_names(tmp_path):
    verdict, reason, payload = answer(cached(tmp_path, hub_files()))
    assert verdict == "good"
    assert {row["name"]: row["sha256"] for row in payload["files"]} == {
        "config.json": "match",
        "model.safetensors": "match",
    }
    assert "2 cached files have the hash of their name" in reason


def test_a_corrupt_large_blob_is_found(tmp_path):
    broken = WEIGHTS[:-1] + b"\x00"
    verdict, reason, payload = answer(cached(tmp_path, hub_files(weights=broken)))
    assert verdict == "bad"
    assert {row["name"]: row["sha256"] for row in payload["files"]}["model.safetensors"] == "differs"
    assert hashlib.sha256(broken).hexdigest()[:12] in reason
    assert hashlib.sha256(WEIGHTS).hexdigest()[:12] in reason


def test_a_corrupt_small_blob_is_found(tmp_path):
    snapshot = cached(tmp_path, hub_files(config=b'{"model_type": "gpt3"}'))
    ((file, problem),) = problems(snapshot)
    assert file == "config.json"
    assert "corrupt" in problem


def test_a_link_to_a_blob_that_is_gone(tmp_path):
    ((file, problem),) = problems(cached(tmp_path, hub_files(weights=None)))
    assert file == "model.safetensors"
    assert "blob that is gone" in problem


def test_a_plain_folder_has_no_hashes(tmp_path):
    assert answer(folder_with(tmp_path, a=[1.0]))[2]["files"][0]["sha256"] is None


def test_a_link_to_a_file_of_another_name_is_not_hashed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    write_floats(tmp_path / "elsewhere" / "weights", a=[1.0])
    folder = folder_with(tmp_path / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder / "weights")
    verdict, _, payload = answer(folder)
    assert verdict == "good"
    assert payload["files"][0]["sha256"] is None


def test_progress_ends_at_the_total(tmp_path):
    seen = []
    check(Source("hub", str(cached(tmp_path, hub_files()))), lambda *event: seen.append(event))
    assert seen[-1] == (len(CONFIG) + len(WEIGHTS), len(CONFIG) + len(WEIGHTS), "bytes")


# --- pickles -----------------------------------------------------------------------------------------------------


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def pickled(tmp_path, content):
    folder_with(tmp_path)
    torch.save(content, tmp_path / "pytorch_model.bin")
    return tmp_path


def test_a_plain_pickle_is_good_and_said_to_be_untrusted(tmp_path):
    verdict, reason, payload = answer(pickled(tmp_path, {"a": torch.ones(2)}))
    assert (verdict, payload["format"], payload["untrusted_pickle"]) == ("good", "pickle", True)
    assert "untrusted" in reason


def test_a_pickle_that_would_run_code_does_not_run(tmp_path):
    marker = tmp_path / "ran"
    verdict, _, payload = answer(pickled(tmp_path, {"a": torch.ones(2), "b": Touches(marker)}))
    assert (verdict, payload["fatal"], marker.exists()) == ("skip", True, False)


def test_the_marker_can_fail(tmp_path):
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(Touches(marker)))
    assert marker.exists()


def test_a_bare_pickle_does_not_run_either(tmp_path):
    marker = tmp_path / "ran"
    folder_with(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Touches(marker), protocol=2))
    assert answer(tmp_path)[0] == "skip"
    assert not marker.exists()


def test_the_refusal_names_the_callable(tmp_path):
    reason = answer(pickled(tmp_path, {"b": Touches(tmp_path / "ran")}))[1]
    assert f"{os.mkdir.__module__}.mkdir" in reason


def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path):
    assert "a list, not a state dict" in answer(pickled(tmp_path, [torch.ones(1)]))[1]


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04cut"], ids=["empty", "text", "cut zip"])
def test_a_pickle_that_cannot_be_read_is_refused(tmp_path, content):
    folder_with(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    verdict, reason, _ = answer(tmp_path)
    assert verdict == "skip"
    assert "pytorch_model.bin was refused" in reason


def test_a_missing_pickle_shard_is_named(tmp_path):
    folder_with(tmp_path)
    mapping = {"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(mapping))
    ((file, _),) = problems(tmp_path)
    assert file == "pytorch_model-00001-of-00001.bin"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_tensors_of_a_pickle(tmp_path, zipped, device):
    path = tmp_path / "weights.bin"
    torch.save({"a": torch.ones(2, 3), "step": 7}, path, _use_new_zipfile_serialization=zipped)
    loaded = load_pickle(str(path), device)
    assert {name: (tuple(t.shape), t.device.type) for name, t in loaded.items()} == {"a": ((2, 3), device)}


def test_no_pickle_of_a_zip_runs_beside_the_data(tmp_path):
    """A torch file is a zip; a second, harmful pickle in it is not looked at."""
    marker = tmp_path / "ran"
    pickled(tmp_path, {"a": torch.ones(1)})
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "a") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(Touches(marker)))
    found = list_weights(str(tmp_path))
    check_pickles(str(tmp_path), found)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.onnx", "it is a model in ONNX form"),
        ("tf_model.h5", "it is a model of TensorFlow"),
        ("flax_model.msgpack", "it is a model of Flax (JAX)"),
        ("openvino_model.bin", "it is a model in OpenVINO form"),
        ("zero_to_fp32.py", "it is a checkpoint of DeepSpeed in pieces; run its zero_to_fp32.py"),
        ("pytorch_model_fsdp_0", "it is a checkpoint of FSDP in pieces"),
        ("last.ckpt", "it is a checkpoint of Lightning or TensorFlow"),
        ("q4.gguf", "give the .gguf file itself"),
        ("weights.bin", "of a name that from_pretrained reads (found: weights.bin); rename or convert it"),
    ],
)
def test_a_configuration_with_something_else_in_place_of_weights(tmp_path, name, said):
    folder = folder_with(tmp_path)
    (folder / name).write_bytes(b"")
    verdict, reason, payload = check(Source("folder", str(folder)), silent)
    assert (verdict, payload["fatal"]) == ("skip", True)
    assert said in reason
