"""Sound checkpoints of many architectures, saved by the library: each is loaded, found good, and run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from support.handmade import load_folder

from repro.probes.model.forward import judge, look
from repro.probes.model.inputs import make_inputs
from repro.probes.model.loadcheck import check
from repro.probes.observe.screen import blocks

TEXT = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = {**TEXT, "num_key_value_heads": 2, "head_dim": 8}
SEQ2SEQ = {
    "vocab_size": 96, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
SHORT = {
    "vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
T5 = {
    "vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0,
}  # fmt: skip
PICTURE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SOUND = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 32,
    "conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip

SOUND_TWINS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "albert": ("AlbertForMaskedLM", "AlbertConfig", {**TEXT, "embedding_size": 16}),
    "bart": ("BartForConditionalGeneration", "BartConfig", SEQ2SEQ),
    "bert": ("BertForMaskedLM", "BertConfig", TEXT),
    "bert_classifier": ("BertForSequenceClassification", "BertConfig", TEXT),
    "bloom": ("BloomForCausalLM", "BloomConfig", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "clip": ("CLIPModel", "CLIPConfig", {"text_config": TEXT, "vision_config": PICTURE, "projection_dim": 16}),
    "clip_vision": ("CLIPVisionModel", "CLIPVisionConfig", PICTURE),
    "cohere": ("CohereForCausalLM", "CohereConfig", GROUPED),
    "convnext": (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 2, 1], "image_size": 32},
    ),
    "deberta_v2": (
        "DebertaV2ForMaskedLM",
        "DebertaV2Config",
        {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 16},
    ),
    "distilbert": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": 96, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64},
    ),
    "electra": ("ElectraForMaskedLM", "ElectraConfig", {**TEXT, "embedding_size": 16}),
    "falcon": ("FalconForCausalLM", "FalconConfig", TEXT),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**GROUPED, "sliding_window": 16}),
    "gemma3_multimodal": (
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        {
            "text_config": {**GROUPED, "vocab_size": 120},
            "vision_config": PICTURE,
            "mm_tokens_per_image": 4,
            "image_token_index": 110,
            "boi_token_index": 111,
            "eoi_token_index": 112,
        },
    ),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", SHORT),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", TEXT),
    "gptj": ("GPTJForCausalLM", "GPTJConfig", {**SHORT, "rotary_dim": 8}),
    "hubert": ("HubertForCTC", "HubertConfig", SOUND),
    "jamba": (
        "JambaForCausalLM",
        "JambaConfig",
        {
            **TEXT,
            "num_key_value_heads": 2,
            "num_hidden_layers": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "use_mamba_kernels": False,
            "mamba_d_state": 4,
        },
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "llama_tied": ("LlamaForCausalLM", "LlamaConfig", {**GROUPED, "tie_word_embeddings": True}),
    "llava": (
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        {
            "text_config": {**GROUPED, "model_type": "llama"},
            "vision_config": {**PICTURE, "model_type": "clip_vision_model"},
            "image_token_index": 90,
        },
    ),
    "mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": 96, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2},
    ),
    "mbart": ("MBartForConditionalGeneration", "MBartConfig", SEQ2SEQ),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {**GROUPED, "num_local_experts": 4}),
    "mpt": ("MptForCausalLM", "MptConfig", {"vocab_size": 96, "d_model": 32, "n_layers": 2, "n_heads": 4}),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {**TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32},
    ),
    "phi": ("PhiForCausalLM", "PhiConfig", TEXT),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {**TEXT, "num_key_value_heads": 2}),
    "qwen2_moe": (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {**TEXT, **EXPERTS, "num_key_value_heads": 2, "shared_expert_intermediate_size": 32},
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", GROUPED),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", TEXT),
    "segformer": (
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {
            "hidden_sizes": [8, 8, 16, 16],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 16,
        },
    ),
    "siglip": (
        "SiglipModel",
        "SiglipConfig",
        {"text_config": {**TEXT, "projection_size": 32}, "vision_config": PICTURE},
    ),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", {**TEXT, "num_key_value_heads": 2}),
    "swin": (
        "SwinForImageClassification",
        "SwinConfig",
        {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    ),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "t5_encoder": ("T5EncoderModel", "T5Config", T5),
    "vit": ("ViTForImageClassification", "ViTConfig", PICTURE),
    "wav2vec2": ("Wav2Vec2ForCTC", "Wav2Vec2Config", SOUND),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {**SEQ2SEQ, "num_mel_bins": 16, "max_source_positions": 50, "max_target_positions": 64},
    ),
    "xlnet": (
        "XLNetLMHeadModel",
        "XLNetConfig",
        {"vocab_size": 96, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    ),
}


@pytest.mark.parametrize("name", SOUND_TWINS)
def test_a_sound_architecture_is_loaded_and_run(tmp_path, name):
    class_name, config_name, settings = SOUND_TWINS[name]
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(**settings)
    getattr(transformers, class_name)(config).save_pretrained(tmp_path)
    loaded = load_folder(tmp_path)
    verdict, reason, payload = check(loaded)
    assert (loaded.class_name, verdict) == (class_name, "good"), reason
    values = payload["values"]
    assert values["compared"] > 0
    assert (values["differ"], values["not_compared"], payload["misplaced"], payload["cause"]) == ([], 0, [], None)
    verdict, reason, _ = judge([look(loaded.model, made) for made in make_inputs(loaded, [], False)], False)
    assert verdict == "good", reason


def test_layers_of_attention_and_of_state_space_are_one_list():
    _, config_name, settings = SOUND_TWINS["jamba"]
    model = transformers.JambaForCausalLM(getattr(transformers, config_name)(**settings))
    assert len({type(layer) for layer in model.model.layers}) == 2
    assert blocks(model) == [f"model.layers.{number}" for number in range(4)]
