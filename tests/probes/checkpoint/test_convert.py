"""A .gguf file becomes a folder, once."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from corpus import families, files
from support.handmade import emitter, silent
from transformers import AutoConfig

from repro.probes.checkpoint.resolve import CannotResolve, Source
from repro.probes.model.gguf import DONE, _name_for_older, converted, one_reader, own_names
from repro.probes.model.session import Session
from repro.probes.steps.bisect import run as bisect_step
from repro.probes.steps.weights import run as weights_step

gguf = pytest.importorskip("gguf", reason="the gguf package writes the file that is read here")
pytest.importorskip("accelerate", reason="transformers reads no GGUF file without accelerate")

HEAD = families.HEAD_DIM


def permuted(weight, heads):
    """Rows as llama.cpp keeps them: the two halves of each head, interleaved."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_llama(path, model, name):
    """A tiny Llama as llama.cpp writes it, by the package of llama.cpp itself."""
    config, state = model.config, {key: tensor.detach().numpy() for key, tensor in model.state_dict().items()}
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(name)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"w{n}" for n in range(3, families.VOCAB))])
    writer.add_token_scores([0.0] * families.VOCAB)
    writer.add_token_types([2, 3, 3, *([1] * (families.VOCAB - 3))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for key, tensor in state.items():
        if key in names:
            writer.add_tensor(names[key], tensor)
            continue
        _, _, layer, part = key.removesuffix(".weight").split(".", 3)
        heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
        content = permuted(tensor, heads[part]) if part in heads else tensor
        writer.add_tensor(f"blk.{layer}.{parts[part]}.weight", content)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def model():
    return families.build("llama", rope_theta=20_000.0)


@pytest.fixture(scope="module")
def file(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_llama(path, model, "tiny")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory, file):
    """A cache in which the file has been converted."""
    folder = tmp_path_factory.mktemp("cache")
    convert(file, folder)
    return folder


def convert(file, cache, progress=silent):
    return converted(Source("gguf", None, gguf=str(file)), str(cache), progress)


@pytest.mark.filterwarnings("ignore")
def test_a_tiny_llama_is_converted(file, cache, model):
    source = convert(file, cache)
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    assert source.folder == str(cache / "gguf" / sha)
    assert source.gguf == str(file)
    found = files.read(cache / "gguf" / sha / files.WEIGHTS)
    assert {key: tensor.dtype for key, tensor in found.items()} == dict.fromkeys(model.state_dict(), torch.float32)
    assert all(torch.equal(found[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_the_rotary_embedding_has_the_base_of_the_file_in_transformers_4_and_5(file, cache):
    """Transformers 4 has it as ``rope_theta``, and 10,000 where it finds none. An earlier conversion has it no more."""
    folder = Path(convert(file, cache).folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config.pop("rope_theta") == 20_000.0
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    convert(file, cache)
    assert json.loads((folder / "config.json").read_text("utf-8"))["rope_theta"] == 20_000.0
    assert AutoConfig.from_pretrained(folder).rope_parameters == config["rope_parameters"]


@pytest.mark.parametrize(
    ("rope", "older"),
    [
        (
            {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}, "sliding_attention": {"rope_theta": 1e4}},
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
        ),
        (
            {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0},
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}},
        ),
    ],
    ids=["two kinds of layers", "scaled"],
)
def test_settings_of_the_rotary_embedding_have_their_older_names_too(tmp_path, rope, older):
    """As the published configurations of Gemma 3 and of a scaled Llama have them."""
    (tmp_path / "config.json").write_text(json.dumps({"rope_parameters": rope}), "utf-8")
    _name_for_older(str(tmp_path / "config.json"))
    assert json.loads((tmp_path / "config.json").read_text("utf-8")) == {"rope_parameters": rope, **older}


def test_every_tensor_keeps_the_name_that_the_file_has_for_it(file, cache, model):
    names = convert(file, cache).stored_as
    assert set(names) == set(model.state_dict())
    assert names["model.layers.2.mlp.down_proj.weight"] == "blk.2.ffn_down.weight"
    assert names["model.layers.0.self_attn.q_proj.weight"] == "blk.0.attn_q.weight"
    assert (names["model.embed_tokens.weight"], names["lm_head.weight"]) == ("token_embd.weight", "output.weight")


def test_a_name_that_is_not_in_the_file_is_not_claimed(file, model):
    keys = {"model.layers.9.mlp.down_proj.weight", "layers.1.mlp.up_proj.weight", "something.else"}
    assert own_names(str(file), keys, model.config) == {"layers.1.mlp.up_proj.weight": "blk.1.ffn_up.weight"}


@pytest.mark.filterwarnings("ignore")
def test_a_nan_is_reported_under_both_names(tmp_path):
    broken = families.build("llama")
    broken.model.layers[1].mlp.down_proj.weight.data[2, 3] = float("nan")
    write_llama(tmp_path / "nan.gguf", broken, "nan")
    case = {"model": str(tmp_path / "nan.gguf"), "weights": "checkpoint", "device": "cpu"}
    session = Session(case, str(tmp_path / "cache"), emitter()[0])
    verdict, reason, payload = weights_step(session, "weights")
    assert verdict == "bad"
    names = ("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight")
    assert [(row["tensor"], row["stored_as"]) for row in payload["findings"]] == [names]
    assert "{} ({} in the file): 1 NaN".format(*names) in reason
    verdict, _, payload = bisect_step(session, "bisect")
    assert (verdict, payload["origin"]["mechanism"]) == ("bad", "bad_weights")
    assert (payload["origin"]["tensor"], payload["origin"]["stored_as"]) == names


def test_the_configuration_is_that_of_the_file(file, cache, model):
    config = json.loads((cache / "gguf" / hashlib.sha256(file.read_bytes()).hexdigest() / "config.json").read_text())
    wanted = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
    assert {key: config[key] for key in wanted} == {key: getattr(model.config, key) for key in wanted}
    assert "quantization_config" not in config


def test_a_second_time_nothing_is_written(file, cache):
    folder = cache / "gguf" / hashlib.sha256(file.read_bytes()).hexdigest()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    convert(file, cache)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_nothing_half_done_is_left(cache):
    assert [path.name for path in (cache / "gguf").iterdir() if path.name.startswith("half-")] == []


def test_half_a_conversion_is_not_used(file, tmp_path):
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    half = tmp_path / "gguf" / sha
    half.mkdir(parents=True)
    (half / "config.json").write_text("half")
    convert(file, tmp_path)
    assert json.loads((half / DONE).read_text())["sha256"] == sha
    assert (half / "config.json").read_text() != "half"


@pytest.mark.parametrize("content", [b"", b"GGU", b"gguf", b"PK\x03\x04", b"\x00GGUF"])
def test_what_does_not_begin_with_the_letters(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CannotResolve, match=r"is no GGUF file"):
        convert(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_file_that_only_begins_like_one(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(CannotResolve, match=r"model\.gguf is no whole GGUF file: its version is 0"):
        convert(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_progress_counts_the_bytes_of_the_file(file, cache):
    seen = []
    convert(file, cache, lambda *event: seen.append(event))
    assert seen[-1] == (file.stat().st_size, file.stat().st_size, "bytes")


def test_within_one_reader_a_file_is_read_once_and_through_plain_memory(tmp_path):
    path = tmp_path / "llama.gguf"
    write_llama(path, families.build("llama"), "tiny")
    before = gguf.GGUFReader
    with one_reader():
        first, second = gguf.GGUFReader(str(path)), gguf.GGUFReader(str(path))
        plain = before(str(path))
    assert first is second
    assert type(first.data) is not type(plain.data)
    assert list(first.fields) == list(plain.fields)
    assert [(one.name, one.data.tolist()) for one in first.tensors] == [
        (one.name, one.data.tolist()) for one in plain.tensors
    ]
    assert gguf.GGUFReader is before


def test_the_reader_is_put_back_where_the_conversion_fails():
    before = gguf.GGUFReader
    with pytest.raises(ZeroDivisionError), one_reader():
        raise ZeroDivisionError
    assert gguf.GGUFReader is before
