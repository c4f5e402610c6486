"""Pictures, sounds and series with one thing changed: size, part, length, rate, mean and variance."""

from dataclasses import replace
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ...values.figures import is_float
from ..inputs import Inputs, accepts
from .draws import NORMAL, Further
from .facts import Facts
from .processed import resampled
from .sounds import MEL_BINS

PICTURES, SOUNDS, SERIES = ("pixel_values", "pixel_values_videos"), ("input_values", "input_features"), ("past_values",)
WIDER = "interpolate_pos_encoding"  # the argument by which a model takes pictures of another size than it was made for


class NoneThere(Exception):
    """The model is given nothing of the kind. The message says of which."""


def standardised(model: nn.Module, made: Inputs) -> Inputs:
    """Each picture, sound and series with mean 0 and variance 1.

    Raises:
        NoneThere: there is none that was not drawn so.
    """

    def change(more: Further) -> Optional[Tensor]:
        if more.made == NORMAL:
            return None
        wide = more.tensor.float()
        return (wide - wide.mean()) / (wide.std() + 1e-12)

    try:
        return _changed(made, (*PICTURES, *SOUNDS, *SERIES), change)
    except NoneThere:
        raise NoneThere("the model is given no picture, sound or series that was not drawn with these") from None


def half_size(model: nn.Module, made: Inputs) -> Inputs:
    """Each picture at half its height and width."""
    smaller = _changed(made, PICTURES, lambda more: _resized(more.tensor, 0.5))
    return replace(smaller, options=(*made.options, *([(WIDER, True)] if accepts(model, WIDER) else [])))


def cropped(model: nn.Module, made: Inputs) -> Inputs:
    """The middle of each picture, enlarged to its whole size."""

    def change(more: Further) -> Optional[Tensor]:
        if more.tensor.dim() < 4:
            return None
        height, width = more.tensor.shape[-2:]
        middle = more.tensor[..., height // 4 : height - height // 4, width // 4 : width - width // 4]
        return _resized(middle, 0.0, (int(height), int(width)))

    return _changed(made, PICTURES, change)


def half_length(model: nn.Module, made: Inputs) -> Inputs:
    """The first half of each sound."""
    return _changed(made, SOUNDS, lambda more: more.tensor.narrow(*_half_of(model, more)))


def half_rate(model: nn.Module, made: Inputs) -> Inputs:
    """Each wave at half its sample rate."""

    def change(more: Further) -> Optional[Tensor]:
        if (
            more.name != "input_values"
            or more.tensor.shape[-1] < 2
            or (more.tensor.dim() == 3 and more.tensor.shape[1] > 1)
        ):
            return None
        rows = more.tensor.float().reshape(-1, more.tensor.shape[-1])
        return torch.stack([resampled(row, 2, 1) for row in rows]).reshape(*more.tensor.shape[:-1], -1)

    return _changed(made, SOUNDS, change)


CHANGES: dict[str, Callable[[nn.Module, Inputs], Inputs]] = {
    "inputs=standardised": standardised,
    "image=half_size": half_size,
    "image=crop": cropped,
    "audio=half_length": half_length,
    "sample_rate=half": half_rate,
}


def _half_of(model: Any, more: Further) -> tuple[int, int, int]:
    """The dimension of time, where the half begins, and how long it is."""
    shape = more.tensor.shape
    bins = Facts(model).setting(*MEL_BINS)
    dim = 1 if len(shape) == 3 and shape[2] == bins and more.name == "input_features" else len(shape) - 1
    return dim, 0, max(int(shape[dim]) // 2, 1)


def _resized(picture: Tensor, factor: float, size: Optional[tuple[int, int]] = None) -> Optional[Tensor]:
    """Bilinear in height and width; None for patches in rows, which are of no size."""
    if picture.dim() < 4:
        return None
    height, width = picture.shape[-2:]
    wanted = size or (max(int(height * factor), 1), max(int(width * factor), 1))
    flat = picture.float().reshape(-1, 1, int(height), int(width))
    resized = nn.functional.interpolate(flat, size=wanted, mode="bilinear", align_corners=False)
    return resized.reshape(*picture.shape[:-2], *wanted)


def _changed(made: Inputs, names: tuple[str, ...], change: Callable[[Further], Optional[Tensor]]) -> Inputs:
    """With what ``change`` makes of the inputs of these names, in their own dtype.

    Raises:
        NoneThere: there is none that it changes.
    """
    further, changed = [], 0
    for more in made.further:
        new = change(more) if more.name in names and is_float(more.tensor) else None
        changed += new is not None
        further.append(more if new is None else replace(more, tensor=new.to(more.tensor.dtype)))
    if not changed:
        raise NoneThere(f"the model is given no {'sound' if names is SOUNDS else 'picture'} that this can be done with")
    return replace(made, further=tuple(further))
