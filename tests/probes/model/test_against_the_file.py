"""What is in memory against what is in the file: quantised weights, tied ones, and keys under other names.

The library loads the folders; what is wrong with them is made here by hand.
"""

import importlib.util
import json
import re

import pytest
import torch
import transformers
from corpus import families, files
from safetensors.torch import load_file, save_file
from support.handmade import NAN, case_of, load_folder
from torch import nn

from repro.probes.checkpoint import weights
from repro.probes.checkpoint.resolve import resolve
from repro.probes.model.ablations import NotApplicable, dtype_ablation
from repro.probes.model.compared.keys import causes
from repro.probes.model.compat import CannotLoad
from repro.probes.model.forward import look
from repro.probes.model.inputs import make_inputs
from repro.probes.model.load import load
from repro.probes.model.loadcheck import check


def checked(folder, dtype=None):
    case = case_of(folder, dtype)
    return check(load(case, resolve(case)))


def configured(folder, **more):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def altered(folder, family, change):
    """The family's folder with the tensors that ``change`` makes of its own."""
    families.build(family).save_pretrained(folder)
    tensors = change(files.read(folder / files.WEIGHTS))
    files.write(folder / files.WEIGHTS, {key: tensor.clone() for key, tensor in tensors.items()})
    return folder


# --- keys under other names --------------------------------------------------------------------------------------


def renamed(old, new):
    return lambda tensors: {key.replace(old, new): tensor for key, tensor in tensors.items()}


def prefixed(prefix):
    return lambda tensors: {prefix + key: tensor for key, tensor in tensors.items()}


def turned(*ends):
    return lambda tensors: {key: t.t() if key.endswith(ends) else t for key, t in tensors.items()}


def sharded(tensors):
    """As FSDP names them: the wrapper stands before the model and before each part of a layer."""
    wrapper = "_fsdp_wrapped_module."
    return {wrapper + re.sub(r"(layers\.\d+\.)", rf"\1{wrapper}", key): tensor for key, tensor in tensors.items()}


WRONG_KEYS = {
    "DataParallel": ("gpt2", prefixed("module."), ("prefix", "module.", "", 41, 41)),
    "compiled": ("llama", prefixed("_orig_mod."), ("prefix", "_orig_mod.", "", 30, 30)),
    "compiled and wrapped": ("llama", prefixed("module._orig_mod."), ("prefix", "module._orig_mod.", "", 30, 30)),
    "PEFT": ("llama", prefixed("base_model.model."), ("prefix", "base_model.model.", "", 30, 30)),
    "suffix": ("bert", renamed("LayerNorm.weight", "LayerNorm.g"), ("suffix", ".g", ".weight", 8, 8)),
    "middle": ("bert", renamed("self.query", "self.q"), ("renamed", "q", "query", 6, 6)),
    "LoRA": ("llama", renamed("q_proj.", "q_proj.base_layer."), ("renamed", "base_layer", "", 3, 3)),
    "one head": ("llama", renamed("lm_head", "head"), ("prefix", "head.", "lm_head.", 1, 1)),
    "FSDP": ("llama", sharded, ("wrapped", "_fsdp_wrapped_module", "", 30, 30)),
    "transposed": ("llama", turned("down_proj.weight"), ("transposed", "", "", 3, 3)),
}


@pytest.mark.parametrize("name", WRONG_KEYS)
def test_keys_under_other_names_have_a_cause(tmp_path, name):
    family, change, (kind, file, model, keys, of) = WRONG_KEYS[name]
    verdict, reason, payload = checked(altered(tmp_path, family, change))
    cause = payload["cause"]
    assert verdict == "bad"
    assert (cause["kind"], cause["file"], cause["model"], cause["keys"], cause["of"]) == (kind, file, model, keys, of)
    assert cause["explained"] == keys
    (said,) = [item["problem"] for item in payload["findings"] if item.get("cause") == kind]
    assert said in reason
    assert said.startswith(f"{keys} of {of} ")


@pytest.mark.parametrize("change", [prefixed("model."), lambda tensors: renamed("model.", "")(tensors)])
def test_a_prefix_that_the_library_knows_is_no_fault(tmp_path, change):
    verdict, reason, payload = checked(altered(tmp_path, "llama", change))
    assert (verdict, payload["cause"], payload["missing_keys"]) == ("good", None, []), reason


def test_two_rules_are_counted_together(tmp_path):
    def change(tensors):
        return renamed("self_attn.k_proj", "attention.wk")(renamed("self_attn.q_proj", "attention.wq")(tensors))

    cause = checked(altered(tmp_path, "llama", change))[2]["cause"]
    assert (cause["keys"], cause["explained"], cause["of"]) == (3, 6, 6)


def test_what_is_not_in_the_file_at_all_has_no_cause(tmp_path):
    def change(tensors):
        kept = {key: tensor for key, tensor in tensors.items() if "layers.1.mlp.up" not in key}
        return {**kept, "extra.thing": torch.ones(3)}

    verdict, _, payload = checked(altered(tmp_path, "llama", change))
    assert (verdict, payload["cause"]) == ("bad", None)


def test_the_rule_of_many_experts_is_found():
    shape = (4, 8)
    missing = {f"model.layers.{at}.experts.{n}.up.weight": shape for at in range(40) for n in range(100)}
    (cause,) = causes(missing, {f"module.{key}": shape for key in missing})
    assert (cause.rule.kind, cause.rule.file, len(cause.keys)) == ("prefix", "module.", 4000)
    assert all(file == "module." + model for file, model in cause.keys)


def test_one_pair_with_nothing_in_common_is_no_rule():
    assert causes({"head.weight": (4, 8)}, {"other.bias": (4, 8)}) == []
    assert causes({"a.weight": (4, 8), "b.weight": (4, 8)}, {"c.weight": (4, 8)}) == []


# --- tied or not -------------------------------------------------------------------------------------------------


@pytest.fixture
def separate(tmp_path):
    """T5 with two embeddings in the file: the decoder's and the output projection."""
    model = families.build("t5")
    state = {k: v for k, v in model.state_dict().items() if "embed_tokens" not in k and k != "shared.weight"}
    state["decoder.embed_tokens.weight"] = torch.randn(families.VOCAB, families.HIDDEN)
    state["lm_head.weight"] = torch.randn(families.VOCAB, families.HIDDEN)
    settings = {**model.config.to_dict(), "tie_word_embeddings": False, "architectures": [type(model).__name__]}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    files.write(tmp_path / files.WEIGHTS, {key: tensor.clone() for key, tensor in state.items()})
    return tmp_path


def test_separate_embeddings_are_no_fault(separate):
    verdict, reason, payload = checked(separate)
    assert (verdict, payload["misplaced"]) == ("good", []), reason


def test_an_embedding_that_shares_with_the_output_projection(separate):
    """transformers#48154: what 5.15.1 does with this file."""
    loaded = load_folder(separate)
    model = loaded.model
    model.shared.weight = model.encoder.embed_tokens.weight = model.lm_head.weight
    verdict, reason, payload = check(loaded)
    assert verdict == "bad"
    rows = {row["tensor"]: (row["holds"], row["belongs"]) for row in payload["misplaced"]}
    pair = ("lm_head.weight", "decoder.embed_tokens.weight")
    assert rows == {"shared.weight": pair, "encoder.embed_tokens.weight": pair}
    assert "encoder.embed_tokens.weight holds lm_head.weight's values" in reason


def test_a_weight_that_ended_in_another_module(checkpoints):
    loaded = load_folder(checkpoints["gpt2"])
    one, two = (loaded.model.transformer.h[at].mlp.c_fc for at in (0, 1))
    one.weight = nn.Parameter(two.weight.detach().clone())
    verdict, reason, payload = check(loaded)
    name = "transformer.h.{}.mlp.c_fc.weight"
    assert verdict == "bad"
    assert payload["misplaced"] == [{"tensor": name.format(0), "holds": name.format(1), "belongs": name.format(0)}]
    assert payload["values"]["differ"] == [name.format(0)]
    assert f"{name.format(0)} holds {name.format(1)}'s values, not its own" in reason


MARIAN = {
    "vocab_size": 50, "decoder_vocab_size": 50, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
    "pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 32,
}  # fmt: skip
SOUND = {
    "a head of its own beside a tied one": ("GPT2LMHeadModel", families.gpt2_config(tied=False)),
    "a tied head": ("LlamaForCausalLM", families.llama_config(tied=True)),
    "an encoder of other words": (
        "MarianMTModel",
        transformers.MarianConfig(**MARIAN, share_encoder_decoder_embeddings=False),
    ),
    "one table for all": ("MarianMTModel", transformers.MarianConfig(**MARIAN)),
    "an encoder alone": ("T5EncoderModel", families.t5_config()),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_way_to_tie_is_no_fault(tmp_path, name):
    class_name, config = SOUND[name]
    getattr(transformers, class_name)(config).save_pretrained(tmp_path)
    verdict, reason, payload = checked(tmp_path)
    assert verdict == "good", reason
    assert payload["values"]["not_compared"] == 0


def test_a_tied_weight_that_nothing_was_put_into(tmp_path):
    """transformers#43880: an encoder's embedding that is declared tied, and is not."""
    transformers.T5EncoderModel(families.t5_config()).save_pretrained(tmp_path)
    loaded = load_folder(tmp_path)
    loaded.model.encoder.embed_tokens.weight = nn.Parameter(torch.zeros(families.VOCAB, families.HIDDEN))
    verdict, reason, _ = check(loaded)
    assert verdict == "bad"
    assert "encoder.embed_tokens.weight: declared tied to another weight, but with other values" in reason


# --- what the library fuses while loading ------------------------------------------------------------------------


def test_fused_experts_are_compared(tmp_path):
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4}
    transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes, **heads)).save_pretrained(tmp_path)
    loaded = load_folder(tmp_path)
    verdict, reason, payload = check(loaded)
    assert (verdict, payload["values"]["not_compared"]) == ("good", 0), reason
    with torch.no_grad():
        name, experts = next((n, p) for n, p in loaded.model.named_parameters() if p.dim() == 3)
        experts[2, 5] += 1
    verdict, _, payload = check(loaded)
    assert verdict == "bad"
    (differs,) = payload["values"]["differ"]
    assert ".experts.2." in differs
    assert name not in payload["values"]["differ"]


# --- quantised ---------------------------------------------------------------------------------------------------

BLOCK = 16


def scaled(kind):
    """weight -> (stored, scale, name of the scale), the way that makers of such files do it."""

    def block(weight):
        rows, columns = weight.shape
        cut = weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scale = cut.abs().amax((1, 3)) / 448
        return (cut / scale[:, None, :, None]).reshape(rows, columns), scale

    def tensor(weight):
        scale = weight.abs().max() / 448
        return weight / scale, scale

    return {"block": block, "tensor": tensor}[kind]


FP8 = {
    "block": {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"},
    "tensor": {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "dynamic"},
}


def fp8(folder, kind):
    """A llama whose projections are float8 with a scale each."""
    pytest.importorskip("accelerate", reason="transformers loads no FP8 checkpoint without accelerate")
    families.build("llama").to(torch.bfloat16).save_pretrained(folder)
    tensors = {}
    for key, tensor in files.read(folder / files.WEIGHTS).items():
        if not key.endswith("_proj.weight"):
            tensors[key] = tensor
            continue
        stored, scale = scaled(kind)(tensor.float())
        tensors[key], tensors[key + "_scale_inv"] = stored.to(torch.float8_e4m3fn), scale
        if kind == "tensor":  # another number beside it, which is no part of the weight
            tensors[key.removesuffix("weight") + "activation_scale"] = torch.tensor(0.5)
    save_file(tensors, folder / files.WEIGHTS, {"format": "pt"})
    configured(folder, quantization_config={**FP8[kind], "dequantize": True})
    return folder


PROJECTIONS = 7 * families.LAYERS


@pytest.mark.parametrize("kind", FP8)
def test_a_sound_fp8_checkpoint_is_good(tmp_path, kind):
    verdict, reason, payload = checked(fp8(tmp_path, kind))
    assert verdict == "good", reason
    assert payload["quantised"] == {"method": "fp8", "tensors": PROJECTIONS, "compared": PROJECTIONS}
    assert f"{PROJECTIONS} of them fp8, dequantised" in reason
    assert weights.check(str(tmp_path), lambda *_: None)[0] == "good"


@pytest.mark.parametrize("where", ["weight", "scale"])
def test_a_damaged_fp8_tensor_is_found_in_the_file(tmp_path, where):
    name = "model.layers.1.mlp.up_proj.weight" + ("_scale_inv" if where == "scale" else "")
    tensors = load_file(fp8(tmp_path, "block") / files.WEIGHTS)
    damaged = tensors[name].float()
    damaged[1, 1] = NAN
    tensors[name] = damaged.to(tensors[name].dtype)
    save_file(tensors, tmp_path / files.WEIGHTS, {"format": "pt"})
    verdict, _, payload = weights.check(str(tmp_path), lambda *_: None)
    assert (verdict, [row["tensor"] for row in payload["findings"]]) == ("bad", [name])
    assert checked(tmp_path)[0] == "good"  # memory has what the file has


def test_one_fp8_weight_that_is_not_the_files(tmp_path):
    loaded = load_folder(fp8(tmp_path, "block"))
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.up_proj.weight[3, 3] += 1
    verdict, reason, payload = check(loaded)
    assert (verdict, payload["values"]["differ"]) == ("bad", ["model.layers.1.mlp.up_proj.weight"])
    assert "other values in memory than in the file" in reason


def test_arithmetic_that_is_not_known_is_not_judged(tmp_path):
    """Where no weight comes out equal, it is the kit that does not know how they are scaled."""
    loaded = load_folder(fp8(tmp_path, "block"))
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if name.endswith("_proj.weight"):
                parameter.mul_(3)
    verdict, reason, payload = check(loaded)
    assert (verdict, payload["values"]["differ"]) == ("good", [])
    assert f"{PROJECTIONS} tensors are quantised (fp8): not compared" in reason


def test_fp8_weights_that_the_configuration_does_not_mention_are_loaded_without_their_scale(tmp_path):
    configured(fp8(tmp_path, "block"), quantization_config=None)
    verdict, reason, payload = checked(tmp_path)
    assert verdict == "bad"
    assert f"{PROJECTIONS - 1} more: quantised in the file, and loaded without its scale" in reason
    assert (payload["cause"]["kind"], payload["cause"]["keys"], payload["cause"]["of"]) == ("quantised", 21, 21)


def test_float8_numbers_without_a_scale_are_weights_like_others(tmp_path):
    families.build("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    tensors = {
        key: tensor.to(torch.float8_e4m3fn) if key.endswith("_proj.weight") else tensor
        for key, tensor in files.read(tmp_path / files.WEIGHTS).items()
    }
    save_file(tensors, tmp_path / files.WEIGHTS, {"format": "pt"})
    verdict, reason, payload = checked(tmp_path, "bfloat16")
    assert (verdict, payload["values"]["not_compared"]) == ("good", 0), reason


def packed(folder):
    """Weights packed eight to an integer, as GPTQ has them."""
    tensors = {}
    for key, tensor in files.read(families.build("llama").save_pretrained(folder) or folder / files.WEIGHTS).items():
        base = key.removesuffix("weight")
        if not key.endswith("_proj.weight"):
            tensors[key] = tensor
            continue
        rows, columns = tensor.shape
        tensors[base + "qweight"] = torch.ones(columns // 8, rows, dtype=torch.int32)
        tensors[base + "qzeros"] = torch.ones(1, rows // 8, dtype=torch.int32)
        tensors[base + "scales"] = torch.ones(1, rows, dtype=torch.float16)
    files.write(folder / files.WEIGHTS, tensors)
    return folder


def test_quantised_weights_that_the_configuration_does_not_mention(tmp_path):
    verdict, reason, payload = checked(packed(tmp_path))
    assert (verdict, payload["cause"]["kind"], payload["cause"]["keys"]) == ("bad", "quantised", PROJECTIONS)
    assert "quantised weights (packed) that the model did not take" in reason


@pytest.mark.parametrize(
    ("method", "package"), [("gptq", "optimum|gptqmodel"), ("awq", "gptqmodel"), ("bitsandbytes", "bitsandbytes")]
)
def test_a_package_that_is_missing_is_named(tmp_path, method, package):
    if any(importlib.util.find_spec(name) for name in package.split("|")):
        pytest.skip(f"{package} is there")
    settings = {"quant_method": method, "bits": 4} | ({"load_in_4bit": True} if method == "bitsandbytes" else {})
    configured(packed(tmp_path), quantization_config=settings)
    with pytest.raises(CannotLoad, match=f"does not load these {method} weights here: .*({package})"):
        load_folder(tmp_path)


def test_a_model_that_is_quantised_in_memory_has_no_other_dtype(tmp_path):
    loaded = load_folder(fp8(tmp_path, "block"))
    (made,) = make_inputs(loaded, [], False)
    with dtype_ablation("float32")(loaded, (made,), {}):
        assert look(loaded.model, made).figures["nan"] == 0
    name = "model.layers.0.mlp.up_proj.weight"
    stored = load_file(tmp_path / files.WEIGHTS)[name]
    loaded.model.model.layers[0].mlp.up_proj.weight = nn.Parameter(stored, requires_grad=False)
    verdict, reason, _ = check(loaded)
    assert (verdict, loaded.quantised) == ("good", name)
    assert "1 of them fp8, as they are stored" in reason
    with pytest.raises(NotApplicable, match="is quantised in memory"), dtype_ablation("float32")(loaded, (made,), {}):
        pass
