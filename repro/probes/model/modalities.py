"""Inputs beside token ids: pictures, spectrograms and waves, drawn from a seed in the shape that the model takes.

The configuration gives the sizes. Where it leaves two readings (mel bins before frames, or behind them), both are
named, and a pass of the model decides between them.
"""

from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from .compat import config_parts

Shape = tuple[int, ...]

PIXELS = 224  # where no size is configured: convolutional models take any, and this is ImageNet's
CHANNELS = 3
FRAMES = 47  # of a spectrogram or a wave where the model takes any number; no size of a layer is this prime
SECOND = 16_000  # samples in a second of speech, for models that say nothing about their convolutions
MEL_BINS = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "num_mels")


@dataclass(frozen=True)
class Further:
    """One input beside the token ids: numbers from a normal distribution, drawn in float32 with a seed of their own."""

    name: str
    tensor: Tensor
    seed: int

    def record(self) -> dict[str, Any]:
        dtype = str(self.tensor.dtype).replace("torch.", "")
        return {"name": self.name, "shape": list(self.tensor.shape), "dtype": dtype, "seed": self.seed}


def draw(name: str, shape: Shape, seed: int, dtype: torch.dtype, device: torch.device) -> Further:
    """``torch.randn`` of ``shape`` from a generator of its own, on the CPU, then cast."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return Further(name, values.to(device=device, dtype=dtype), seed)


def shapes(name: str, config: Any) -> list[Shape]:
    """The shapes that an input of this name may have, the likeliest first."""
    return SHAPES[name](config)


def _setting(config: Any, *names: str) -> Any:
    """The first of these settings that the configuration, or one inside it, has."""
    for part in config_parts(config):
        for name in names:
            value = getattr(part, name, None)
            if value is not None:
                return value
    return None


def _pictures(config: Any) -> list[Shape]:
    size = _setting(config, "image_size")
    if isinstance(size, dict):
        size = (size.get("height"), size.get("width"))
    pair = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    height, width = (int(length) if isinstance(length, int) else PIXELS for length in pair[-2:])
    channels = _setting(config, "num_channels", "in_channels", "num_input_channels")
    picture = (int(channels) if isinstance(channels, int) else CHANNELS, height, width)
    frames = _setting(config, "num_frames")
    moving = [(1, int(frames), *picture)] if isinstance(frames, int) else []
    return [*moving, (1, *picture)]


def _spectrograms(config: Any) -> list[Shape]:
    bins = _setting(config, *MEL_BINS)
    if not isinstance(bins, int):
        return []
    positions, longest = _setting(config, "max_source_positions"), _setting(config, "max_length")
    found: list[Shape] = []
    if isinstance(positions, int):
        found.append((1, bins, 2 * positions))  # Whisper's second convolution halves the frames
    found += [(1, FRAMES, bins), (1, 1, FRAMES, bins)]
    if isinstance(longest, int):
        found.append((1, longest, bins))  # one that takes exactly as many frames as it has positions for
    return found


def _waves(config: Any) -> list[Shape]:
    kernels, strides = _setting(config, "conv_kernel"), _setting(config, "conv_stride")
    samples = SECOND
    if isinstance(kernels, (list, tuple)) and isinstance(strides, (list, tuple)):
        samples = FRAMES
        for kernel, stride in zip(reversed(kernels), reversed(strides)):
            samples = (samples - 1) * int(stride) + int(kernel)
    return [(1, samples), (1, 1, samples), *_spectrograms(config)]


SHAPES: dict[str, Callable[[Any], list[Shape]]] = {
    "pixel_values": _pictures,
    "input_features": _spectrograms,
    "input_values": _waves,
}


def main_input(model: Any) -> Optional[str]:
    """The input that the model's class calls its main one."""
    name = getattr(model, "main_input_name", None)
    return None if name is None else str(name)
