"""Load the model, once for the whole run."""

import copy
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, Optional
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..checkpoint import limits
from ..checkpoint.files import list_weights, load_pickle
from ..checkpoint.opening import shown
from ..checkpoint.resolve import Source
from ..checkpoint.weights import DTYPES
from ..machine.environment import has_mps
from ..protocol.failures import in_words
from ..values.figures import dtype_name, is_float
from .before.room import check_fits, free_memory
from .compared.quantised import is_narrow, method_in, settings_in
from .compat import (
    CannotLoad,
    attn_argument,
    because,
    cast_parameters,
    construct,
    dtype_argument,
    model_class,
    quiet,
    read_config,
    size_without_memory,
    transformers_version,
    why_not_built,
)


@dataclass
class Loaded:
    """A model in memory, and what the loading said.

    ``from_file``, ``unset_buffers`` and ``misaligned`` are empty until the load checks have filled them: from_file
    maps a state-dict name to the (path, key) where its value was found unchanged, so that an ablation in another dtype
    can begin from the file's own digits; unset_buffers are those that differ between two loads; quantised is the first
    weight that is held quantised in memory, where there is one: such a model has no other dtype. quantisation is the
    configuration's quantization_config; config_dtype and architectures are as its file has them.
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
    config_dtype: Optional[str] = None
    architectures: tuple[str, ...] = ()
    adapter: Any = None  # of model/folders, where there is one

    @property
    def config(self) -> Any:
        return getattr(self.model, "config", None)


def load(case: dict[str, Any], source: Source) -> Loaded:
    """The model of ``case``, in evaluation mode, on its device.

    Raises:
        CannotLoad: configuration, class, device or files do not allow it.
        OverLimit: it is more than this machine has memory for, or than can be built in a sane time.
    """
    device = pick_device(case.get("device"))
    trust = bool(case.get("trust_remote_code"))
    config = read_config(source, trust)
    quantisation = settings_in(config)  # the library takes it away from a model that it dequantises
    dtype = getattr(torch, case["dtype"]) if case.get("dtype") else None
    attn = case.get("attn")
    chosen = model_class(config, trust)
    said, named = _config_dtype(config), getattr(config, "architectures", None) or ()
    if source.kind == "random":
        model, info = _random(chosen, config, source.config or "", source.seed or 0, dtype, attn, trust), {}
    else:
        wanted = dtype or (_config_dtype(config) if transformers_version() >= (5, 0) else torch.float32)
        _check_room(chosen, config, trust, *_in_memory(source, wanted), method_in(quantisation) is not None)
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
                raise _said(error, source) from error
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
        config_dtype=None if said is None else dtype_name(said),
        architectures=tuple(map(str, named)),
    )


def _said(error: Exception, source: Source) -> CannotLoad:
    """What the library raised, and what the files are found to have that may have led to it."""
    bad = [row for row in list_weights(source.folder or "").findings if row["severity"] != "note"]
    if bad:
        return CannotLoad("{file}: {problem} ".format(**bad[0]) + f"(transformers raised {in_words(error)})")
    return _not_built(error, source.folder or "")


def _not_built(error: Exception, place: str) -> CannotLoad:
    return CannotLoad(because("The model could not be loaded", why_not_built(place), error))


_BROUGHT: "WeakKeyDictionary[nn.Module, torch.dtype]" = WeakKeyDictionary()


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype that the model computes in: that of its first weight that is not quantised."""
    return own_dtype(model) or torch.float32


def own_dtype(model: nn.Module) -> Optional[torch.dtype]:
    """The same; of a model without floating weights that of its first floating buffer, and of one without either the
    dtype that it was brought to. None where it was brought to none: it computes in that of what it is given.
    """
    return _held_dtype(model) or _BROUGHT.get(model)


def _held_dtype(model: nn.Module) -> Optional[torch.dtype]:
    weights: list[Tensor] = [parameter for parameter in model.parameters() if is_float(parameter)]
    held = weights or [buffer for buffer in model.buffers() if is_float(buffer)]
    return next((one.dtype for one in held if not is_narrow(one)), torch.float32 if weights else None)


def bring(model: nn.Module, dtype: Optional[torch.dtype]) -> Optional[torch.dtype]:
    """From here on a model that holds no number computes in ``dtype``; None for that of its inputs. Gives what it was
    brought to before.
    """
    before = _BROUGHT.pop(model, None)
    if dtype is not None and _held_dtype(model) is None:
        _BROUGHT[model] = dtype
    return before


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
    chosen: Any, config: Any, place: str, seed: int, dtype: Optional[torch.dtype], attn: Optional[str], trust: bool
) -> nn.Module:
    """The architecture with seeded weights, drawn in float32 and then rounded: every dtype gets the same draw."""
    _check_room(chosen, config, trust, torch.float32, 0, False)  # while they are drawn
    torch.manual_seed(seed)
    wanted = dtype or _config_dtype(config)
    config.dtype = config.torch_dtype = None
    try:
        with quiet():
            model = construct(chosen, config, attn, trust)
    except Exception as error:
        raise _not_built(error, place) from error
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
                found = getattr(torch, value, None) if isinstance(value, str) else value
                if not isinstance(found, torch.dtype):
                    raise CannotLoad(f"{name} in config.json is {shown(value)}: expected one such as 'float16'.")
                return found
    return None


def _check_room(
    chosen: Any, config: Any, trust: bool, dtype: Optional[torch.dtype], mapped: int, quantised: bool
) -> None:
    """Refuse a model that cannot be built or cannot fit, before the system ends the process for it.

    Only what must be allocated counts: weights whose file has the dtype that they are loaded in are mapped, and so may
    be larger than the memory. Nothing is known of quantised ones, nor of a model that cannot be built without memory.

    Args:
        chosen: The class.
        config: Its configuration.
        trust: Whether code that comes with the model may run.
        dtype: That of the weights in memory.
        mapped: Bytes of the files that need no memory.
        quantised: Whether the configuration says that the weights are.

    Raises:
        OverLimit: with what is needed and what is there.
    """
    wide = dtype or torch.float32
    name = str(wide).replace("torch.", "")
    free = free_memory()
    most = float("inf") if free is None or quantised else limits.allowed(free) + mapped
    needed = size_without_memory(chosen, copy.deepcopy(config), trust, wide, most)
    if needed is not None and not quantised:
        half = torch.empty(0, dtype=wide).element_size() == 4 and free is not None and needed.bytes // 2 < free
        narrower = "With --dtype bfloat16 it takes half of that." if half else ""
        check_fits(needed.bytes - mapped, name, narrower, whole=needed.whole)


def _in_memory(source: Source, dtype: Optional[torch.dtype]) -> tuple[Optional[torch.dtype], int]:
    """The dtype that from_pretrained loads in, and how many bytes of the files it maps for it."""
    found = list_weights(source.folder or "")
    if found.format != "safetensors":
        paths = [os.path.join(source.folder or "", name) for name in found.names]
        return dtype, sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
    stored: Counter[torch.dtype] = Counter()
    for header in found.headers:
        for entry in header.entries:
            kind = DTYPES.get(entry.dtype)
            if kind is not None:
                stored[kind] += entry.end - entry.begin
    if dtype is None and stored:
        dtype = stored.most_common(1)[0][0]
    return dtype, stored[dtype] if dtype is not None else 0


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
        if path.endswith(".safetensors"):
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
