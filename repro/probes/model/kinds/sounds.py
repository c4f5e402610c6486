"""Sounds: waves, and spectrograms in the layouts that architectures take.

The configuration gives the sizes. Where it leaves two readings (mel bins before frames, or behind them), both are
offered, and a pass of the model decides between them.
"""

import torch

from .draws import EXACT, ONES, Draw, Part, Shape
from .facts import Facts
from .marks import SOUND, marks_for

FEATURES, WAVES, SPOKEN = ("input_features",), ("input_values",), ("decoder_input_values",)
FRAMES = 47  # of a spectrogram or a wave where the model takes any number; no size of a layer is this prime
SECOND = 16_000  # samples in a second of speech, for models that say nothing about their convolutions
MEL_BINS = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "num_mels", "input_feat_size")
AUDIO = ("audio_config", "audio_encoder", "encoder")


def spectrograms(facts: Facts) -> list[Part]:
    """One sound as a spectrogram, with its mask, and with the tokens that stand for it."""
    found = []
    for shape in _spectrograms(facts):
        sound = Draw("input_features", shape)
        frames = max(shape[1:]) if len(shape) == 3 else shape[-2]
        known = {
            "feature_attention_mask": Draw("feature_attention_mask", (1, frames), ONES, dtype=torch.int64),
            "input_features_mask": Draw("input_features_mask", (1, frames), ONES, dtype=torch.bool),
            "is_longer": Draw("is_longer", (1, 1), EXACT, values=[[False]], dtype=torch.bool),
        }
        masks = [draw for name, draw in known.items() if name in facts.parameters]
        draws = (sound, *masks)
        halved = (frames - 1) // 2 + 1
        guesses = ((halved - 2) // 2 + 1, halved, frames)
        found += [Part(draws, marks) for marks in marks_for(facts, SOUND, draws, guesses)]
    return found


def waves(facts: Facts) -> list[Part]:
    """One sound as a wave; a spectrogram under the same name, as some call it."""
    kernels, strides = facts.setting("conv_kernel"), facts.setting("conv_stride")
    samples = SECOND
    if isinstance(kernels, (list, tuple)) and isinstance(strides, (list, tuple)):
        samples = FRAMES
        for kernel, stride in zip(reversed(kernels), reversed(strides)):
            samples = (samples - 1) * int(stride) + int(kernel)
    shapes: list[Shape] = [(1, samples), (1, 1, samples), *_spectrograms(facts)]
    draws = [(Draw("input_values", shape),) for shape in shapes]
    return [Part(given, marks) for given in draws for marks in marks_for(facts, SOUND, given)]


def spoken(facts: Facts) -> list[Part]:
    """What a decoder of speech has said so far."""
    bins = facts.number(*MEL_BINS, default=80)
    return [Part((Draw("decoder_input_values", (1, FRAMES, bins)),))]


def _spectrograms(facts: Facts) -> list[Shape]:
    bins = facts.setting(*MEL_BINS, inside=AUDIO)
    if not isinstance(bins, int):
        return []
    positions = facts.setting("max_source_positions", inside=AUDIO)
    longest = facts.setting("max_length", inside=AUDIO)
    found: list[Shape] = []
    if isinstance(positions, int):
        found.append((1, bins, 2 * positions))  # Whisper's second convolution halves the frames
    found += [(1, FRAMES, bins), (1, 1, FRAMES, bins)]
    if isinstance(longest, int):
        found.append((1, longest, bins))  # one that takes exactly as many frames as it has positions for
    return found
