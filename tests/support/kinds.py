"""Tiny models of every kind of input, as configurations; the weights are drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

SPREAD = 0.25
"""Standard deviation of the matrices: the library's own 0.02 would leave every output nearly constant."""
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {
    **TINY, "vocab_size": 96, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = {**TEXT, "num_key_value_heads": 2, "head_dim": 8}
PICTURE = {**TINY, "image_size": 32, "patch_size": 8}
ROTARY = {"type": "mrope", "mrope_section": [1, 1, 2]}
CODER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_attention_heads": 4, "decoder_ffn_dim": 64,
}  # fmt: skip
SEQ2SEQ = {
    **CODER, "vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
WAVE = {
    **TINY, "vocab_size": 32, "conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
RESNET = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
    "out_features": ["stage4"],
}  # fmt: skip
SAM_PICTURE = {
    "hidden_size": 16, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8, "num_pos_feats": 8, "mlp_dim": 16, "window_size": 0, "global_attn_indexes": [1],
}  # fmt: skip
SAM_PROMPT = {"hidden_size": 16, "image_size": 32, "patch_size": 8, "mask_input_channels": 4}
SAM_MASK = {
    "hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
}  # fmt: skip
QWEN_PICTURE = {
    "depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 4, "in_channels": 3, "mlp_ratio": 2,
}  # fmt: skip
SPECIAL = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
SERIES = {
    **CODER, "prediction_length": 4, "context_length": 12, "lags_sequence": [1, 2, 3], "num_time_features": 2,
}  # fmt: skip
PATCHED = {
    "num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4, "d_model": 16,
    "prediction_length": 4,
}  # fmt: skip
DETR = {
    **CODER, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
    "backbone_config": RESNET, "num_queries": 5,
}  # fmt: skip
MLLAMA_PICTURE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 4, "intermediate_size": 32,
    "image_size": 32, "patch_size": 8, "max_num_tiles": 2, "vision_output_dim": 64, "intermediate_layers_indices": [1],
    "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
}  # fmt: skip
QWEN_SOUND = {
    "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 32, "num_mel_bins": 8,
    "max_source_positions": 20,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """An architecture, its configuration, the inputs that it must be given, and what stands for them among the ids.

    marks: how often each id stands among the token ids.
    """

    model: str
    config: str
    settings: dict[str, Any]
    inputs: frozenset[str]
    marks: dict[int, int] = field(default_factory=dict)

    def build(self) -> transformers.PreTrainedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = getattr(transformers, self.config)(**self.settings)
            model = getattr(transformers, self.model)(config).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() >= 2:
                        parameter.normal_(0.0, SPREAD if parameter.dim() == 2 else SPREAD / 3)
            return model

    def save(self, folder: Path) -> Path:
        self.build().save_pretrained(folder)
        return folder


def _kind(model: str, config: str, settings: dict[str, Any], inputs: str, marks: dict[int, int] | None = None) -> Kind:
    return Kind(model, config, settings, frozenset(inputs.split()), marks or {})


IDS, SPOKEN = "input_ids attention_mask ", " decoder_input_ids"
LLAMA, CLIP = {**GROUPED, "model_type": "llama"}, {**PICTURE, "model_type": "clip_vision_model"}

KINDS: dict[str, Kind] = {
    "vit": _kind("ViTForImageClassification", "ViTConfig", PICTURE, "pixel_values"),
    "clip": _kind(
        "CLIPModel", "CLIPConfig", {"text_config": TEXT, "vision_config": PICTURE, "projection_dim": 16},
        IDS + "pixel_values",
    ),
    "siglip": _kind(
        "SiglipModel", "SiglipConfig", {"text_config": TEXT, "vision_config": PICTURE}, IDS + "pixel_values"
    ),
    "siglip2": _kind(
        "Siglip2Model", "Siglip2Config",
        {"text_config": {**TEXT, "projection_size": 32}, "vision_config": {**TINY, "num_patches": 16, "patch_size": 8}},
        IDS + "pixel_values pixel_attention_mask spatial_shapes",
    ),
    "detr": _kind("DetrForObjectDetection", "DetrConfig", DETR, "pixel_values"),
    "sam": _kind(
        "SamModel", "SamConfig",
        {"vision_config": SAM_PICTURE, "prompt_encoder_config": SAM_PROMPT, "mask_decoder_config": SAM_MASK},
        "pixel_values input_points input_labels",
    ),
    "videomae": _kind("VideoMAEModel", "VideoMAEConfig", {**PICTURE, "num_frames": 4}, "pixel_values"),
    "whisper": _kind(
        "WhisperForConditionalGeneration", "WhisperConfig",
        {**SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 30, "max_target_positions": 20},
        "input_features" + SPOKEN,
    ),
    "wav2vec2": _kind("Wav2Vec2ForCTC", "Wav2Vec2Config", WAVE, "input_values"),
    "ast": _kind(
        "ASTForAudioClassification", "ASTConfig",
        {**TINY, "patch_size": 8, "frequency_stride": 6, "time_stride": 6, "max_length": 44, "num_mel_bins": 26},
        "input_values",
    ),
    "qwen2_audio": _kind(
        "Qwen2AudioForConditionalGeneration", "Qwen2AudioConfig",
        {"text_config": {**GROUPED, "model_type": "qwen2"}, "audio_config": QWEN_SOUND, "audio_token_index": 90},
        IDS + "input_features feature_attention_mask", {90: 10},
    ),
    "qwen2_vl": _kind(
        "Qwen2VLForConditionalGeneration", "Qwen2VLConfig",
        {
            "text_config": {**TEXT, "num_key_value_heads": 2, "rope_scaling": ROTARY}, "vision_config": QWEN_PICTURE,
            **SPECIAL,
        },
        IDS + "pixel_values image_grid_thw pixel_values_videos video_grid_thw mm_token_type_ids",
        {90: 6, 91: 12, 92: 2},
    ),
    "gemma3": _kind(
        "Gemma3ForConditionalGeneration", "Gemma3Config",
        {
            "text_config": GROUPED, "vision_config": PICTURE, "mm_tokens_per_image": 4, "image_token_index": 90,
            "boi_token_index": 91, "eoi_token_index": 92,
        },
        IDS + "pixel_values token_type_ids", {90: 4, 91: 1, 92: 1},
    ),
    "llava": _kind(
        "LlavaForConditionalGeneration", "LlavaConfig",
        {"text_config": LLAMA, "vision_config": CLIP, "image_token_index": 90},
        IDS + "pixel_values", {90: 16},
    ),
    "llava_next": _kind(
        "LlavaNextForConditionalGeneration", "LlavaNextConfig",
        {
            "text_config": LLAMA, "vision_config": CLIP, "image_token_index": 90,
            "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]],
        },
        IDS + "pixel_values image_sizes",
    ),
    "mllama": _kind(
        "MllamaForConditionalGeneration", "MllamaConfig",
        {
            "text_config": {**GROUPED, "cross_attention_layers": [1], "rope_scaling": {"rope_type": "default"}},
            "vision_config": MLLAMA_PICTURE, "image_token_index": 90,
        },
        IDS + "pixel_values aspect_ratio_ids aspect_ratio_mask", {90: 1},
    ),
    "patchtst": _kind(
        "PatchTSTForPrediction", "PatchTSTConfig",
        {**PATCHED, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 16},
        "past_values past_observed_mask",
    ),
    "series": _kind(
        "TimeSeriesTransformerForPrediction", "TimeSeriesTransformerConfig", SERIES,
        "past_values past_observed_mask past_time_features future_values future_time_features",
    ),
    "decisions": _kind(
        "DecisionTransformerModel", "DecisionTransformerConfig",
        {"hidden_size": 32, "n_layer": 1, "n_head": 2, "state_dim": 5, "act_dim": 2},
        "states actions rewards returns_to_go timesteps attention_mask",
    ),
    "t5": _kind(
        "T5ForConditionalGeneration", "T5Config",
        {
            "vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        IDS + SPOKEN,
    ),
    "bart": _kind(
        "BartForConditionalGeneration", "BartConfig", {**SEQ2SEQ, "max_position_embeddings": 64}, IDS + SPOKEN
    ),
    "layoutlm": _kind("LayoutLMModel", "LayoutLMConfig", TEXT, IDS + "bbox"),
    "layoutlmv3": _kind(
        "LayoutLMv3Model", "LayoutLMv3Config",
        {**TEXT, "input_size": 32, "patch_size": 8, "coordinate_size": 6, "shape_size": 4},
        IDS + "bbox pixel_values",
    ),
    "lxmert": _kind(
        "LxmertModel", "LxmertConfig", {**TEXT, "visual_feat_dim": 16, "l_layers": 1, "x_layers": 1, "r_layers": 1},
        IDS + "visual_feats visual_pos",
    ),
}  # fmt: skip
