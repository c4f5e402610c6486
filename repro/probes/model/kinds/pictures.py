"""Pictures and videos: their sizes as the configuration has them, in the layouts that architectures take."""

from typing import Any

import torch

from .draws import EXACT, ONES, ORDERED, WHOLE, Draw, Part, Shape
from .facts import Facts
from .marks import PICTURE, VIDEO, marks_for

NAMES = ("pixel_values", "flattened_patches", "visual_feats", "visual_embeds", "image")
VIDEOS = ("pixel_values_videos",)
LATENTS = ("sample", "hidden_states")
PIXELS = 224  # where no size is configured: convolutional models take any, and this is ImageNet's
CHANNELS = 3
FRAMES = 4  # of a video where the model takes any number
REGIONS = 7  # of a picture whose features another model has made
VISION = ("vision_config", "image_config", "backbone_config", "encoder")
WORDS = 77  # of the text beside a picture in the making, as CLIP counts them
# Along a side, where a larger one is configured: a pass of 1024 takes minutes.
LARGEST_PICTURE, LARGEST_LATENT = 256, 64
STEP = 500  # of 1000, from the noise to the picture
MOST_CROPS = 4  # layouts of one picture in crops that are tried


def size_of(facts: Facts) -> Shape:
    """(channels, height, width) of a picture."""
    size: Any = facts.setting("image_size", "input_size", inside=VISION)
    if isinstance(size, dict):
        size = (size.get("height"), size.get("width"))
    pair = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    height, width = (int(length) if isinstance(length, int) else PIXELS for length in (*pair, *pair)[-2:])
    channels = facts.number("num_channels", "in_channels", "num_input_channels", default=CHANNELS, inside=VISION)
    return channels, height, width


def pictures(facts: Facts) -> list[Part]:
    """The layouts of one picture that the model may take, the likeliest first."""
    if "pixel_values" not in facts.parameters:
        return _features(facts)
    found = []
    for draws in _layouts(facts):
        given = (*draws, *_masks(facts, draws))
        found += [Part(given, marks) for marks in marks_for(facts, PICTURE, given)]
    return found


def videos(facts: Facts) -> list[Part]:
    """One video beside pictures and text."""
    channels, height, width = size_of(facts)
    if "video_grid_thw" in facts.parameters:
        layouts = [_flat(facts, "pixel_values_videos", "video_grid_thw", 2)]
    else:
        layouts = [(Draw("pixel_values_videos", (1, frames, channels, height, width)),) for frames in (FRAMES, 1)]
    return [Part(draws, marks) for draws in layouts for marks in marks_for(facts, VIDEO, draws)]


def latents(facts: Facts) -> list[Part]:
    """What a part of a diffusion pipeline takes: a picture, or one in the making with its step and the text's vectors;
    in a size that is soon computed, then in that of the configuration.
    """
    if not facts.is_foreign:  # no whole model of Transformers takes such
        return []
    name = next(name for name in LATENTS if name in facts.parameters)
    own: Any = facts.setting("sample_size")
    side = own[0] if isinstance(own, (list, tuple)) else own
    side = side if isinstance(side, int) else LARGEST_LATENT
    most = LARGEST_LATENT if "timestep" in facts.parameters else LARGEST_PICTURE
    channels = facts.number("in_channels", default=CHANNELS)
    wide = facts.number("cross_attention_dim", "joint_attention_dim", "caption_channels", default=768)
    pooled = facts.number("pooled_projection_dim", default=768)
    classes = facts.number("num_embeds_ada_norm", "num_class_embeds", default=1)
    beside = (
        Draw("timestep", (1,), EXACT, values=[STEP], dtype=torch.int64),
        Draw("encoder_hidden_states", (1, WORDS, wide)),
        Draw("pooled_projections", (1, pooled)),
        Draw("class_labels", (1,), WHOLE, classes),
    )
    wanted = {*facts.needed, "timestep", *(["pooled_projections"] if facts.setting("pooled_projection_dim") else [])}
    if facts.setting("num_embeds_ada_norm", "num_class_embeds"):
        wanted.add("class_labels")
    if facts.setting("cross_attention_dim", "joint_attention_dim"):
        wanted.add("encoder_hidden_states")
    given = tuple(draw for draw in beside if draw.name in wanted & facts.parameters)
    sides = dict.fromkeys((min(side, most), side))
    return [Part((Draw(name, (1, channels, length, length)), *given)) for length in sides]


def _layouts(facts: Facts) -> list[tuple[Draw, ...]]:
    channels, height, width = size_of(facts)
    picture = (channels, height, width)
    plain = (Draw("pixel_values", (1, *picture)),)
    has = facts.parameters.__contains__
    found: list[tuple[Draw, ...]] = []
    if has("image_grid_thw"):
        found.append(_flat(facts, "pixel_values", "image_grid_thw", 1))
    if has("spatial_shapes"):
        found.append(_rows_of_patches(facts, picture))
    if has("aspect_ratio_ids"):
        tiles = facts.number("max_num_tiles", default=1, inside=VISION)
        ones = (Draw("aspect_ratio_ids", (1, 1), ONES, dtype=torch.int64),)
        mask = Draw("aspect_ratio_mask", (1, 1, tiles), ONES, dtype=torch.int64)
        found.append((Draw("pixel_values", (1, 1, tiles, *picture)), *ones, mask))
    if has("image_sizes"):
        sizes = Draw("image_sizes", (1, 2), EXACT, values=[[height, width]], dtype=torch.int64)
        pins = facts.setting("image_grid_pinpoints") or []
        crops = {1 + max(1, h // height) * max(1, w // width) for h, w in pins}
        found += [(Draw("pixel_values", (1, count, *picture)), sizes) for count in sorted(crops)[:MOST_CROPS]]
        found.append((*plain, sizes))
    frames = facts.setting("num_frames", inside=VISION)
    if isinstance(frames, int):
        found.append((Draw("pixel_values", (1, frames, *picture)),))
    found.append(plain)
    found += [(Draw("pixel_values", (1, count, *picture)),) for count in (1, 2)]  # several pictures, or a pair
    return found


def _flat(facts: Facts, name: str, grid: str, frames: int) -> tuple[Draw, ...]:
    """Patches in rows, with how many there are in time, height and width: two by three of what is merged into one."""
    patch = facts.number("patch_size", default=14, inside=VISION)
    together = facts.number("temporal_patch_size", default=1, inside=VISION)
    merged = facts.number("spatial_merge_size", "merge_size", default=1, inside=VISION)
    channels = facts.number("in_channels", "in_chans", "num_channels", default=CHANNELS, inside=VISION)
    high, wide = 2 * merged, 3 * merged
    rows = (frames * high * wide, channels * together * patch * patch)
    return Draw(name, rows), Draw(grid, (1, 3), EXACT, values=[[frames, high, wide]], dtype=torch.int64)


def _rows_of_patches(facts: Facts, picture: Shape) -> tuple[Draw, ...]:
    patch = facts.number("patch_size", default=16, inside=VISION)
    count = facts.number("num_patches", default=16, inside=VISION)
    side = int(count**0.5)
    return (
        Draw("pixel_values", (1, side * side, picture[0] * patch * patch)),
        Draw("pixel_attention_mask", (1, side * side), ONES, dtype=torch.int64),
        Draw("spatial_shapes", (1, 2), EXACT, values=[[side, side]], dtype=torch.int64),
    )


def _masks(facts: Facts, draws: tuple[Draw, ...]) -> tuple[Draw, ...]:
    """What else the forward pass asks for: a mask of ones, or the words of a task."""
    mask = Draw("pixel_mask", (1, *draws[0].shape[-2:]), ONES, dtype=torch.int64)
    words = facts.number("task_seq_len", default=1), facts.number("text_encoder_vocab_size", default=1)
    task = Draw("task_inputs", (1, words[0]), WHOLE, words[1])
    return tuple(draw for draw in (mask, task) if draw.name in facts.needed)


def _features(facts: Facts) -> list[Part]:
    """What another model made of a picture: its patches with their places, or features of regions."""
    found = []
    if "flattened_patches" in facts.parameters:
        patch = facts.number("patch_size", default=16, inside=VISION)
        width = facts.number("patch_embed_hidden_size", default=CHANNELS * patch * patch, inside=VISION)
        rows = [[float(1 + at // REGIONS), float(1 + at % REGIONS)] for at in range(2 * REGIONS)]
        values = torch.randn((len(rows), width), generator=torch.Generator().manual_seed(0))
        patches = torch.cat([torch.tensor(rows), values], dim=1)
        found.append(Part((Draw("flattened_patches", (1, *patches.shape), EXACT, values=patches.tolist()),)))
    if "visual_feats" in facts.parameters:
        size = facts.number("visual_feat_dim", default=2048)
        boxes = Draw("visual_pos", (1, REGIONS, 4), ORDERED, 1)
        found.append(Part((Draw("visual_feats", (1, REGIONS, size)), boxes)))
    if "visual_embeds" in facts.parameters:
        size = facts.number("visual_embedding_dim", default=512)
        found.append(Part((Draw("visual_embeds", (1, REGIONS, size)),)))
    if "image" in facts.parameters:
        found.append(Part((Draw("image", (1, *size_of(facts))),)))
    return found
