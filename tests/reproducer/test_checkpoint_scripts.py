"""Scripts that read a model's files. The faults are written by hand into small files, whose truth is known."""

import ast
import json
import os
import struct
import sys

import pytest
from corpus import files as by_hand
from corpus.faults import BY_NAME

from repro.probes.checkpoint.files import list_weights
from repro.probes.checkpoint.header import BadHeader, read_header
from repro.reproducer.checkpoint import checkpoint_of
from repro.reproducer.offer import offer, scripts
from repro.reproducer.verify import verify


def document(folder, kind, **parts):
    """verdict.json of a bad run of a local model, as far as scripts read it."""
    found = {
        "tool": "0.1.0", "verdict": "bad", "kind": kind, "script": None, "reduction": None, "owner": None,
        "origin": None,
        "model": {"id": str(folder), "class": None, "weights": "checkpoint"}, "steps": [],
        "cell": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "device": "cpu", "dtype": "float32"},
        "case": {"dtype": "float32", "attn": None, "trust_remote_code": False},
        "environment": {"packages": {"safetensors": "0.8.0"}},
        **parts,
    }  # fmt: skip
    names = sorted(path.name for path in folder.glob("*.safetensors")) + sorted(p.name for p in folder.glob("*.bin"))
    source = {"source": "folder", "folder": str(folder), "files": [{"name": name} for name in names]}
    return {**found, "files": {**source, **(parts.get("files") or {})}}


def offered(folder, run, made, runs=1):
    run.mkdir(exist_ok=True)
    return offer(made, sys.executable, run, runs=runs)


def write_file(path, tensors):
    """A safetensors file of (name, dtype, shape, bytes), as the format says."""
    header, at = {}, 0
    for name, dtype, shape, content in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(content for *_, content in tensors))


@pytest.fixture
def folder(tmp_path):
    """A model folder of one file with two tensors."""
    model = tmp_path / "private" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    write_file(model / "model.safetensors", [("a", "F32", [2], struct.pack("<2f", 1, 2)), ("b", "F32", [1], b"\0" * 4)])
    return model


def files_of(folder):
    """What the kit says of the files."""
    return {"verdict": "bad", "format": "safetensors", "findings": list_weights(str(folder)).findings}


def header_problem(folder):
    with pytest.raises(BadHeader) as caught:
        read_header(str(folder / "model.safetensors"))
    return str(caught.value)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-3])


def longer(path):
    path.write_bytes(path.read_bytes() + b"more")


def no_json(path):
    path.write_bytes(struct.pack("<Q", 4) + b"{{{{")


def too_long_header(path):
    path.write_bytes(struct.pack("<Q", 1 << 20) + b"{}")


def other_shape(path):
    write_file(path, [("a", "F32", [3], b"\0" * 8)])


def twice(path):
    entry = b'"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}'
    text = b"{" + entry + b", " + entry + b"}"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0")


def hole(path):
    text = b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]}}'
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)


def stump(path):
    path.write_bytes(b"abc")


BREAK = [truncated, longer, no_json, too_long_header, other_shape, twice, hole, stump]


@pytest.mark.parametrize("damage", BREAK)
def test_a_damaged_file_is_shown_with_the_standard_library_alone(folder, tmp_path, damage):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    damage(path)
    header_problem(folder)
    found = offered(folder, tmp_path / "run", document(folder, "files", files=files_of(folder)))
    assert (found["level"], found["needs"], found["verified"]) == ("files", [], True), found["reason"]
    path.write_bytes(whole)
    text = (tmp_path / "run" / "reproducer.py").read_text()
    assert verify(sys.executable, text, (str(folder),), runs=1).exit_statuses == (0,)


def test_a_script_of_files_is_short_and_says_what_it_needs(folder):
    truncated(folder / "model.safetensors")
    script = scripts(document(folder, "files", files=files_of(folder)), {"model.safetensors": "ab" * 32})[0]
    assert script.lines <= 15
    words = " ".join(ast.get_docstring(ast.parse(script.text)).split())
    assert words.startswith("model.safetensors is not as long as its header says: the file is cut: ")
    assert f"It needs the folder tiny as its argument (SHA-256 of model.safetensors: {'ab' * 32})." in words
    assert "private" not in script.text
    assert script.usage == ("tiny",)


def sharded(folder):
    (folder / "model.safetensors").unlink()
    write_file(folder / "one.safetensors", [("a", "U8", [1], b"\0")])
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_missing_shard_is_named(folder, tmp_path):
    sharded(folder)
    found = offered(folder, tmp_path / "run", document(folder, "files", files=files_of(folder)))
    assert found["verified"]
    assert found["output"] == "expected every file that the index names, seen none of ['two.safetensors']"


def test_a_tensor_that_is_not_where_the_index_puts_it_is_named(folder, tmp_path):
    sharded(folder)
    write_file(folder / "two.safetensors", [("c", "U8", [1], b"\0")])
    found = offered(folder, tmp_path / "run", document(folder, "files", files=files_of(folder)))
    assert found["output"] == "expected every tensor where the index puts it, seen others in the place of ['b']"


def test_an_index_that_is_none_is_shown(folder, tmp_path):
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    found = offered(folder, tmp_path / "run", document(folder, "files", files=files_of(folder)))
    assert found["verified"]
    assert "seen TypeError" in found["output"]


def test_a_pickle_that_would_run_code_is_read_and_not_run(tmp_path):
    model = tmp_path / "model"
    BY_NAME["gpt2-pickle-runs-code"].build(model)
    reason = "pytorch_model.bin was refused and nothing of it was run: Unsupported global."
    files = {"verdict": "skip", "format": "pickle", "reason": reason, "findings": []}
    found = offered(model, tmp_path / "run", document(model, "files", files=files))
    assert found["verified"]
    assert "pathlib.Path" in found["output"]
    assert not (model / "pickle-ran").exists()


def test_a_pickle_of_tensors_alone_shows_nothing(tmp_path):
    model = tmp_path / "model"
    BY_NAME["gpt2-pickle-sound"].build(model)
    files = {"verdict": "skip", "format": "pickle", "reason": "pytorch_model.bin was refused", "findings": []}
    assert not offered(model, tmp_path / "run", document(model, "files", files=files))["verified"]


NAN = {"tensor": "a", "file": "model.safetensors", "nan": 1, "posinf": 0, "neginf": 1, "first_index": [1]}


def test_a_bad_value_is_named_with_its_index(folder, tmp_path):
    write_file(folder / "model.safetensors", [("a", "F32", [3], struct.pack("<3f", 1, float("nan"), float("-inf")))])
    found = offered(folder, tmp_path / "run", document(folder, "weights", weights={"findings": [NAN]}))
    assert (found["level"], found["verified"]) == ("weights", True)
    assert found["output"] == "expected 3 finite numbers, seen 2 that are none, the first at [[1]]"
    assert found["checkpoint"]["id"] == "tiny"
    text = (tmp_path / "run" / "reproducer.py").read_text()
    assert "a in model.safetensors holds 1 NaN and 1 -inf, the first at [1]." in text
    assert found["checkpoint"]["sha256"]["model.safetensors"] in text.replace("\n", "")


def test_a_mended_file_is_found_to_be_mended(folder):
    script = scripts(document(folder, "weights", weights={"findings": [NAN]}))[0]
    assert verify(sys.executable, script.text, (str(folder),), runs=1).exit_statuses == (0,)


def test_a_finite_number_beyond_the_dtype_is_shown(folder, tmp_path):
    write_file(folder / "model.safetensors", [("a", "F32", [2], struct.pack("<2f", 1, -70000))])
    made = document(
        folder, "nonfinite", weights={"findings": [], "overflows_in": {"float16": ["a"]}},
        origin={"mechanism": "overflow", "tensor": "model.a", "limit": 65504.0},
    )  # fmt: skip
    made["cell"] = {**made["cell"], "dtype": "float16"}
    found = offered(folder, tmp_path / "run", made)
    assert found["output"] == "expected -70000.0 (the file), seen -inf (float16)"
    assert found["verified"]


def model(tmp_path, name):
    folder = tmp_path / "model"
    BY_NAME[name].build(folder)
    return folder


def test_a_missing_key_is_shown_by_from_pretrained(tmp_path):
    folder = model(tmp_path, "llama-missing-key")
    lost = BY_NAME["llama-missing-key"].truth.missing_keys[0]
    made = document(folder, "load", load={"class": "LlamaForCausalLM", "missing_keys": [lost]})
    found = offered(folder, tmp_path / "run", made)
    assert (found["level"], found["verified"]) == ("load", True), found["reason"]
    assert f"seen ['{lost}'] missing" in found["output"]


def test_other_bytes_are_another_question(tmp_path):
    folder = model(tmp_path, "llama-missing-key")
    made = document(folder, "load", load={"class": "LlamaForCausalLM", "missing_keys": ["x"]})
    script = scripts(made, {"model.safetensors": "00" * 32})[0]
    found = verify(sys.executable, script.text, script.argv, runs=1)
    assert found.exit_statuses == (125,)
    assert "model.safetensors is another file" in found.reason


def test_a_sound_file_shows_no_missing_key(tmp_path):
    folder = model(tmp_path, "llama-files-sound")
    made = document(folder, "load", load={"class": "LlamaForCausalLM", "missing_keys": ["x"]})
    assert not offered(folder, tmp_path / "run", made)["verified"]


def test_a_shape_that_differs_is_shown(tmp_path):
    folder = model(tmp_path, "gpt2-mismatched-shape")
    made = document(folder, "load", load={"class": "GPT2LMHeadModel", "mismatched": [{"tensor": "x"}]})
    assert offered(folder, tmp_path / "run", made)["verified"]


@pytest.mark.parametrize(("name", "shows"), [("custom-unset-buffer", True), ("custom-persistent-buffer", False)])
def test_a_buffer_that_nobody_sets_is_shown_by_two_loads(tmp_path, name, shows):
    folder = model(tmp_path, name)
    made = document(folder, "load", load={"class": "InjectedForCausalLM", "unset_buffers": ["positions.table"]})
    made["case"] = {**made["case"], "trust_remote_code": True}
    found = offered(folder, tmp_path / "run", made)
    assert found["verified"] == shows, found["reason"]
    assert "runs the code that comes with the model" in (tmp_path / "run" / "reproducer.py").read_text().replace(
        "\n", " "
    )


def test_values_that_differ_from_the_file_are_asked_of_the_loaded_model(tmp_path):
    folder = model(tmp_path, "gpt2-files-sound")
    name = "transformer.h.1.mlp.c_fc.weight"
    made = document(folder, "load", load={"class": "GPT2LMHeadModel", "values": {"differ": [name]}})
    found = offered(folder, tmp_path / "run", made)
    assert found["output"] == f"expected the values of the file, seen others in 0 of 2048 places of {name}"


def test_tensors_that_are_left_without_values_are_asked_of_the_loaded_model(tmp_path):
    folder = model(tmp_path, "gpt2-files-sound")
    made = document(folder, "load", load={"class": "GPT2LMHeadModel", "meta": ["x"]})
    assert offered(folder, tmp_path / "run", made)["output"] == "expected a value in every tensor, seen none in []"


def test_a_damaged_copy_in_a_cache_has_no_script(folder):
    finding = {"file": "model.safetensors", "problem": "the cached blob is corrupt: its name", "severity": "bad"}
    assert scripts(document(folder, "files", files={"findings": [finding]})) == ()


def test_an_encoder_and_a_decoder_get_their_own_tokens(folder):
    made = document(folder, "nonfinite", forward=forward([4, 5]), load={"class": "T5ForConditionalGeneration"})
    made["reduction"] = {"inputs": {"ids": [4], "decoder_ids": [0], "attention_mask": False}}
    text = scripts(made)[0].text
    assert "decoder_input_ids = torch.tensor([[0]])" in text
    assert "model(input_ids=input_ids, decoder_input_ids=decoder_input_ids).logits" in text


def forward(ids, **more):
    row = {"input_ids": ids, "verdict": "bad", "decoder_input_ids": None}
    return {"verdict": "bad", "output": "logits", "prompts": [row], **more}


def test_the_whole_model_is_run_on_the_reduced_input(tmp_path):
    folder = model(tmp_path, "llama-nan-embedding")
    token = BY_NAME["llama-nan-embedding"].truth.tensor_index[0]
    made = document(folder, "nonfinite", forward=forward([44, token]), load={"class": "LlamaForCausalLM"})
    made["reduction"] = {"program": None, "module": None, "inputs": {"ids": [token], "attention_mask": True}}
    script = scripts(made)[0]
    assert f"input_ids = torch.tensor([[{token}]])" in script.text
    found = offered(folder, tmp_path / "run", made)
    assert (found["level"], found["verified"]) == ("model", True), found["reason"]
    assert "gives logits that are not all finite, for one token." in (tmp_path / "run" / "reproducer.py").read_text()


def test_a_sound_model_shows_nothing(tmp_path):
    folder = model(tmp_path, "llama-files-sound")
    made = document(folder, "nonfinite", forward=forward([44, 47]), load={"class": "LlamaForCausalLM"})
    found = offered(folder, tmp_path / "run", made)
    assert not found["verified"]
    assert found["output"].endswith("seen 0 others (torch.float32)")


@pytest.mark.skipif(os.name == "nt", reason="there is no fork")
def test_a_child_that_dies_shows_its_signal(tmp_path):
    folder = model(tmp_path, "custom-crash-sigsegv-float16")
    step = {"step": "forward", "ending": "crashed", "signal": "SIGSEGV"}
    made = document(folder, "crash", steps=[step], load={"class": "InjectedForCausalLM"})
    made["case"] = {"dtype": "float16", "attn": None, "trust_remote_code": True}
    made["cell"] = {**made["cell"], "dtype": "float16"}
    found = offered(folder, tmp_path / "run", made)
    assert (found["level"], found["output"]) == ("crash", "expected exit status 0, seen SIGSEGV")
    assert found["verified"]


@pytest.mark.skipif(os.name == "nt", reason="there is no fork")
def test_a_child_that_lives_shows_none(tmp_path):
    folder = model(tmp_path, "custom-crash-sigsegv-float16")  # it dies in float16 only
    step = {"step": "forward", "ending": "crashed", "signal": "SIGSEGV"}
    made = document(folder, "crash", steps=[step], load={"class": "InjectedForCausalLM"})
    made["case"] = {**made["case"], "trust_remote_code": True}
    assert offered(folder, tmp_path / "run", made)["exit_statuses"] == [0]


def of_hub(folder):
    made = document(folder, "load", load={"class": "LlamaForCausalLM", "missing_keys": ["x"]})
    made["model"] = {**made["model"], "id": "org/tiny"}
    made["files"] = {**made["files"], "source": "hub", "revision": "0123456789abcdef0123456789abcdef01234567"}
    return made


def test_a_model_of_the_hub_is_named_with_its_revision(folder):
    script = scripts(of_hub(folder), {"model.safetensors": "00" * 32})[0]
    assert 'snapshot_download("org/tiny", revision="0123456789abcdef0123456789abcdef01234567"' in script.text
    assert script.argv == script.usage == ()
    assert script.checkpoint == {
        "id": "org/tiny",
        "revision": "0123456789abcdef0123456789abcdef01234567",
        "sha256": {"model.safetensors": "00" * 32},
    }


def test_a_model_of_the_hub_is_read_from_the_cache_without_network(tmp_path, monkeypatch):
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    BY_NAME["llama-missing-key"].build(snapshot)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    found = offered(snapshot, tmp_path / "run", of_hub(snapshot))
    assert found["verified"], found["reason"]
    assert found["usage"] == []


def test_a_gguf_file_is_loaded_by_its_name(folder):
    made = of_hub(folder)
    made["model"] = {**made["model"], "id": "/data/private/tiny.gguf"}
    made["files"] = {**made["files"], "source": "gguf"}
    script = scripts(made)[0]
    assert "gguf_file=name" in script.text
    assert script.needs == ("torch", "transformers", "accelerate", "gguf")
    assert (script.argv, script.usage) == (("/data/private/tiny.gguf",), ("tiny.gguf",))


@pytest.mark.parametrize(
    ("version", "dtype", "attn"),
    [("4.35.2", "torch_dtype", False), ("4.55.0", "torch_dtype", True), ("4.57.3", "dtype", True)],
)
def test_the_words_of_a_release_are_used_for_it(folder, version, dtype, attn):
    made = of_hub(folder)
    made["cell"] = {**made["cell"], "transformers": version}
    made["case"] = {**made["case"], "attn": "eager"}
    text = scripts(made)[0].text
    assert f" {dtype}=torch.float32" in text
    assert ('attn_implementation="eager"' in text) == attn


def test_random_weights_have_no_checkpoint(folder):
    made = of_hub(folder)
    made["model"] = {**made["model"], "weights": "random"}
    assert checkpoint_of(made) is None
    assert scripts(made) == ()


def test_every_script_keeps_to_the_grammar_of_python_3_9(folder):
    for made in (of_hub(folder), document(folder, "weights", weights={"findings": [NAN]})):
        for script in scripts(made):
            ast.parse(script.text, feature_version=(3, 9))


def test_the_corpus_and_this_file_write_the_same_format(folder):
    assert by_hand.read(folder / "model.safetensors")["a"].tolist() == [1.0, 2.0]
