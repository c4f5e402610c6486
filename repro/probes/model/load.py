"""Load the model, once for the whole run."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..checkpoint.files import list_weights, load_pickle
from ..checkpoint.resolve import Source
from ..machine.environment import has_mps
from ..values.figures import is_float
from .compared.quantised import is_narrow, method_in, settings_in
from .compat import (
    CannotLoad,
    attn_argument,
    cast_parameters,
    construct,
    dtype_argument,
    model_class,
    quiet,
    read_config,
)


@dataclass
class Loaded:
    """A model in memory, and what the loading said.

    ``from_file``, ``unset_buffers`` and ``misaligned`` are empty until the load checks have filled them: from_file
    maps a state-dict name to the (path, key) where its value was found unchanged, so that an ablation in another dtype
    can begin from the file's own digits; unset_buffers are those that differ between two loads; quantised is the first
    weight that is held quantised in memory, where there is one: such a model has no other dtype. quantisation is the
    configuration's quantization_config.
    """

    model: nn.Module
    class_name: str
    source: Source
    dtype: torch.dtype
    device: torch.device
    attn: Optional[str]
    info: dict[str, list[Any]]
    from_file: dict[str, tuple[str, str]] = field(default_factory=dict)
    unset_buffers: tuple[str, ...] = ()
    misaligned: int = 0
    quantised: Optional[str] = None
    quantisation: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Any:
        return self.model.config


def load(case: dict[str, Any], source: Source) -> Loaded:
    """The model of ``case``, in evaluation mode, on its device.

    Raises:
        CannotLoad: configuration, class, device or files do not allow it.
    """
    device = pick_device(case.get("device"))
    trust = bool(case.get("trust_remote_code"))
    config = read_config(source, trust)
    quantisation = settings_in(config)  # the library takes it away from a model that it dequantises
    dtype = getattr(torch, case["dtype"]) if case.get("dtype") else None
    attn = case.get("attn")
    chosen = model_class(config, trust)
    if source.kind == "random":
        model, info = _random(chosen, config, source.seed or 0, dtype, attn, trust), {}
    else:
        torch.manual_seed(0)  # keys that the file lacks are initialised at random: the same way in every run
        options = {**dtype_argument(dtype), **attn_argument(attn)}
        try:
            with quiet():
                model, info = chosen.from_pretrained(
                    source.folder, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True,
                    trust_remote_code=trust, **options,
                )  # fmt: skip
        except Exception as error:
            method = method_in(quantisation)
            if method is None:
                raise
            raise CannotLoad(  # a package or a device that this kind of weights needs; the library names it
                f"transformers does not load these {method} weights here: {type(error).__name__}: {error}"
            ) from error
    model.eval()
    unplaced = [name for name, tensor in named_tensors(model) if tensor.is_meta]
    if not unplaced and device.type != "cpu":
        model.to(device)
    return Loaded(
        model=model,
        class_name=type(model).__name__,
        source=source,
        dtype=dtype_of(model),
        device=device,
        attn=attention_of(model),
        info={key: list(value) for key, value in dict(info).items() if isinstance(value, (list, set, tuple))},
        quantisation=quantisation,
    )


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype that the model computes in: that of its first weight that is not quantised."""
    return next((p.dtype for p in model.parameters() if is_float(p) and not is_narrow(p)), torch.float32)


def pick_device(name: Optional[str]) -> torch.device:
    """The device asked for; the CPU where none is.

    Raises:
        CannotLoad: this PyTorch or this machine has none of that kind.
    """
    wanted = torch.device(name or "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": has_mps()}
    if not there.get(wanted.type, False):
        raise CannotLoad(
            "PyTorch {} finds no {} device on this machine. Available: {}.".format(
                torch.__version__, wanted.type, ", ".join(kind for kind, has in there.items() if has)
            )
        )
    return wanted


def attention_of(model: nn.Module) -> Optional[str]:
    """ "eager", "sdpa", ...: the attention implementation that the model uses; None where it does not say."""
    return getattr(getattr(model, "config", None), "_attn_implementation", None)


def _random(
    chosen: Any, config: Any, seed: int, dtype: Optional[torch.dtype], attn: Optional[str], trust: bool
) -> nn.Module:
    """The architecture with seeded weights, drawn in float32 and then rounded: every dtype gets the same draw."""
    _check_memory(chosen, config)
    torch.manual_seed(seed)
    wanted = dtype or _config_dtype(config)
    config.dtype = config.torch_dtype = None
    with quiet():
        model = construct(chosen, config, attn, trust)
    if wanted is not None and wanted != torch.float32:
        with torch.no_grad():
            cast_parameters(model, wanted, attn)
    return model


def _config_dtype(config: Any) -> Optional[torch.dtype]:
    """The dtype that a configuration names, in its old or its new spelling, its text part included."""
    for part in (config, getattr(config, "text_config", None)):
        for name in ("dtype", "torch_dtype"):
            value = getattr(part, name, None) if part is not None else None
            if value is not None:
                return getattr(torch, value) if isinstance(value, str) else value
    return None


def _check_memory(chosen: Any, config: Any) -> None:
    """Refuse a model that cannot fit, before the system kills the process for it (Linux; elsewhere nothing is
    known).
    """
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in construct(chosen, config, None, False).parameters())
        with open("/proc/meminfo", encoding="ascii") as lines:
            free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except Exception:  # noqa: BLE001 - only a forecast: a model that meta cannot build, or a system without /proc
        return
    if count * 4 > free:
        raise CannotLoad(
            f"{count:,} parameters need {count * 4 / 1e9:.0f} GB in float32 while they are drawn,"
            f" and {free / 1e9:.0f} GB are free."
        )


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def file_tensors(folder: str) -> Iterator[tuple[str, str, Tensor]]:
    """(path, key, tensor) of every tensor in a folder's weight files, one at a time; safetensors are mapped, not
    read.
    """
    from safetensors import safe_open

    found = list_weights(folder)
    for name in found.names:
        path = os.path.join(folder, name)
        if found.format == "safetensors":
            with safe_open(path, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - not a dict
                    yield path, key, opened.get_tensor(key)
        else:
            for key, tensor in load_pickle(path, "cpu").items():
                yield path, key, tensor


def file_tensor(place: tuple[str, str]) -> Tensor:
    """One tensor by (path, key)."""
    path, key = place
    return opened(path)(key)


def opened(path: str) -> Callable[[str], Tensor]:
    """The tensors of one weight file by key; those of safetensors are mapped when they are asked for."""
    if path.endswith(".safetensors"):
        from safetensors import safe_open

        found: Callable[[str], Tensor] = safe_open(path, framework="pt").get_tensor
        return found
    return load_pickle(path, "cpu").__getitem__
