"""The loaded model in another dtype and back, as from_pretrained would have loaded it in that dtype.

``model.half()`` is something else: it rounds buffers such as rotary frequencies, which from_pretrained leaves in
float32, and a way back to float32 keeps the digits that were lost. Here parameters come from the file's own digits,
and buffers from the model's own constructor under the wanted default dtype.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..values.figures import dtype_name, is_bad, is_float
from .compared.quantised import method_in
from .compat import DTYPE_FIELDS, config_parts, kept_in_float32, skeleton
from .load import Loaded, bring, file_tensor
from .ready import MEMORY


def buffers_in(loaded: Loaded, dtype: torch.dtype) -> dict[str, Tensor]:
    """Values for the floating buffers that no file covers, where the constructor gives what was loaded; else the
    loaded ones stay.
    """
    model = loaded.model
    wanted = {name: b for name, b in model.named_buffers() if is_float(b) and name not in loaded.from_file}
    wanted = {name: b for name, b in wanted.items() if name not in loaded.unset_buffers}
    if not wanted:
        return {}
    try:
        here = dict(skeleton(model, loaded.dtype, loaded.attn).named_buffers())
        there = dict(skeleton(model, dtype, loaded.attn).named_buffers())
    except Exception:  # noqa: BLE001 - a constructor that needs real weights; then buffers stay as loaded
        return {}
    found = {}
    for name, buffer in wanted.items():
        if name not in here or name not in there or here[name].is_meta or there[name].shape != buffer.shape:
            continue
        if here[name].dtype == buffer.dtype and torch.equal(here[name], buffer.detach().cpu()):
            found[name] = there[name].to(buffer.device)
    return found


def _parameters_in(loaded: Loaded, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, bool]]:
    """(name, value, rounded): ``rounded`` where only the loaded digits are there and they are fewer than ``dtype``
    holds.
    """
    model = loaded.model
    kept = kept_in_float32(model, dtype)
    for name, parameter in model.named_parameters():
        if not is_float(parameter):
            continue
        wanted = torch.float32 if kept is not None and kept.search(name) else dtype
        place = loaded.from_file.get(name)
        value = file_tensor(place) if place is not None else parameter.detach()
        rounded = place is None and torch.finfo(parameter.dtype).bits < torch.finfo(wanted).bits
        if place is None and loaded.source.folder is not None and is_bad(parameter):
            raise DigitsLost(
                f"{name} is not finite in {dtype_name(parameter.dtype)}, and no tensor of the file holds it as it is"
            )
        yield name, value.to(device=parameter.device, dtype=wanted), rounded


class DigitsLost(Exception):
    """The wider values of a parameter are not to be had from what was loaded. The message says of which."""


def check_takes_a_dtype(model: nn.Module) -> None:
    """
    Raises:
        DigitsLost: a part of it is TorchScript, whose code has the dtype written in it.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise DigitsLost("a TorchScript module keeps the dtype that it was made with")


@contextlib.contextmanager
def in_dtype(loaded: Loaded, dtype: torch.dtype) -> Iterator[int]:
    """The model as from_pretrained loads it in ``dtype``, while the context lasts.

    Yields how many parameters had fewer digits to give.

    Raises:
        DigitsLost: a weight is quantised in memory, or its digits are lost.
    """
    model = loaded.model
    check_takes_a_dtype(model)
    if loaded.quantised is not None:
        method = method_in(loaded.quantisation) or "by the model's own code"
        raise DigitsLost(f"{loaded.quantised} is quantised in memory ({method}): it has no other dtype")
    with restored(model):
        rounded = 0
        parameters = dict(model.named_parameters())
        for name, value, short in _parameters_in(loaded, dtype):
            parameters[name].data = value
            rounded += short
        fresh = buffers_in(loaded, dtype)
        for name, buffer in model.named_buffers():
            if name in fresh:
                buffer.data = fresh[name]
            elif is_float(buffer) and name in loaded.from_file:
                buffer.data = file_tensor(loaded.from_file[name]).to(device=buffer.device, dtype=dtype)
            elif loaded.source.kind == MEMORY and loaded.config is None and buffer.dtype == loaded.dtype:
                buffer.data = buffer.data.to(dtype)  # a module without a configuration goes as a whole
        set_config_dtype(model, dtype)
        yield rounded


@contextlib.contextmanager
def widened(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """The very numbers that are loaded, in a wider dtype: what is left of a difference is the arithmetic's, not the
    rounding of weights. Not for a model whose weights are quantised in memory.
    """
    with restored(model):
        for _, tensor in list(model.named_parameters()) + list(model.named_buffers()):
            if is_float(tensor):
                tensor.data = tensor.data.to(dtype)
        set_config_dtype(model, dtype)
        yield


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Parameters, buffers and the configuration's dtype are as before when the context ends; so is the dtype that a
    model without any of these is brought to.
    """
    tensors = [(tensor, tensor.data) for _, tensor in list(model.named_parameters()) + list(model.named_buffers())]
    buffers = [(module._buffers, dict(module._buffers)) for module in model.modules()]  # a pass may put others there
    fields = [
        (part, name, vars(part)[name])
        for part in config_parts(getattr(model, "config", None))
        for name in DTYPE_FIELDS
        if name in vars(part)
    ]
    brought = bring(model, None)
    try:
        yield
    finally:
        bring(model, brought)
        for held, before in buffers:
            held.update(before)
        for tensor, data in tensors:
            tensor.data = data
        for part, name, value in fields:
            vars(part)[name] = value


def set_config_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """What a model says of its dtype, where that is not said by its weights."""
    bring(model, dtype)
    for part in config_parts(getattr(model, "config", None)):
        for name in DTYPE_FIELDS:
            if name in vars(part):
                vars(part)[name] = dtype
