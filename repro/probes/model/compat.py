"""Configuration -> model: which class, with which arguments, and the constructor run with or without memory for the
parameters.

What differs between Transformers releases in building a model is known here and nowhere else.
"""

import contextlib
import copy
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..checkpoint import limits
from ..checkpoint.limits import OverLimit
from ..checkpoint.opening import read_json, shown
from ..checkpoint.resolve import Source
from ..protocol.failures import in_words
from ..values.figures import is_float
from .before.described import BadConfig, blamed, described
from .before.room import bounded

DTYPE_FIELDS = ("dtype", "_dtype", "torch_dtype")  # a configuration's own dtype, in the spellings of several releases


class CannotLoad(Exception):
    """The model cannot be loaded here. The message says why and what can be done."""


def transformers_version() -> tuple[int, ...]:
    import transformers

    return tuple(int(part) for part in transformers.__version__.split(".")[:2])


def dtype_argument(dtype: Optional[torch.dtype]) -> dict[str, Any]:
    """from_pretrained's name for the dtype: ``torch_dtype`` until transformers 4.56 renamed it."""
    if dtype is None:
        return {}
    return {"dtype" if transformers_version() >= (4, 56) else "torch_dtype": dtype}


def attn_argument(attn: Optional[str]) -> dict[str, Any]:
    """from_pretrained's argument for the attention implementation, unknown before transformers 4.36."""
    return {"attn_implementation": attn} if attn and transformers_version() >= (4, 36) else {}


def model_class(config: Any, trust_remote_code: bool) -> Any:
    """The class that the checkpoint names, else the widest automatic class that knows this configuration.

    Raises:
        CannotLoad: no class of this Transformers knows the configuration.
    """
    import transformers

    remote = getattr(config, "auto_map", None) or {}
    heads = (
        "AutoModelForCausalLM",
        "AutoModelForSeq2SeqLM",
        "AutoModelForMaskedLM",
        "AutoModelForImageTextToText",
        "AutoModel",
    )
    if trust_remote_code and remote:
        for name in heads:
            if name in remote:
                return getattr(transformers, name)
    named = getattr(config, "architectures", None) or ()
    if not isinstance(named, (list, tuple)) or not all(isinstance(name, str) for name in named):
        raise CannotLoad(f"architectures in config.json is {shown(named)}: expected a list of names of classes.")
    for name in named:
        found = getattr(transformers, name, None)
        if isinstance(found, type) and (_is_whole(found) or hasattr(found, "_backends")):
            return found  # one with _backends says at its first use which package is missing
    for name in heads:
        auto = getattr(transformers, name, None)
        if auto is not None and type(config) in getattr(auto, "_model_mapping", {}):
            return auto
    if remote:
        raise CannotLoad("The model brings its own code. Look at it, then give --trust-remote-code to run it.")
    raise CannotLoad(
        "transformers {} has no class for {} (architectures {}).".format(
            transformers.__version__, type(config).__name__, getattr(config, "architectures", None)
        )
    )


def _is_whole(found: type) -> bool:
    """Whether a class is a model by itself, and no base of models, configuration or tokenizer."""
    from transformers import PreTrainedModel

    return issubclass(found, PreTrainedModel) and getattr(found, "config_class", None) is not None


def read_config(source: Source, trust_remote_code: bool) -> Any:
    """The configuration of a source.

    Raises:
        CannotLoad: this Transformers does not know it, or it is no configuration.
    """
    from transformers import AutoConfig

    place = source.config or source.folder or ""
    try:
        data = described(place)
    except BadConfig as error:
        raise CannotLoad(str(error)) from None
    try:
        with bounded("Reading the configuration"):
            return AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code, local_files_only=True)
    except OverLimit:
        raise
    except Exception as error:
        text = str(error)
        if "trust_remote_code" in text:
            raise CannotLoad(
                "The model brings its own code. Look at it, then give --trust-remote-code to run it."
            ) from error
        if _is_unknown(declared_type(place)) or "does not recognize this architecture" in text:
            import transformers

            kind, version = declared_type(place), transformers.__version__
            if kind is None:
                raise CannotLoad(
                    f"The config.json in {place} has no model_type, by which transformers knows an architecture."
                    " Add it, such as 'gpt2', or write the file again with save_pretrained()."
                ) from error
            raise CannotLoad(
                f"config.json says model_type {shown(kind)}, and transformers {version} does not know it. Correct it,"
                " or use a release of transformers that does (--python)."
            ) from error
        why = "" if data.get("auto_map") else blamed(data, _config_of)
        raise CannotLoad(because(f"The configuration in {place} cannot be read", why, error)) from error


def _is_unknown(kind: Optional[str]) -> bool:
    """Whether this Transformers has no configuration of that model type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return kind not in CONFIG_MAPPING


def because(what: str, why: str, error: Exception) -> str:
    """What does not work, why that is where it is known, and what the library raised."""
    raised = in_words(error).rstrip(".")
    return f"{what}: {why} (transformers raised {raised})" if why else f"{what}: {raised}."


def _config_of(data: dict[str, Any]) -> Any:
    """The configuration that some data are, by the library's own class."""
    from transformers import AutoConfig

    kind = data["model_type"]
    with quiet():
        return type(AutoConfig.for_model(kind)).from_dict({**data})


def why_not_built(place: str) -> str:
    """Which entries keep a model from being built, in words; see ``blamed``. No code of the model's runs."""
    with contextlib.suppress(BadConfig, OverLimit):
        data = described(place)
        if not data.get("auto_map"):
            with bounded("Trying it without each entry", limits.TRIAL_SECONDS):
                return blamed(data, _built)
    return ""


def _built(data: dict[str, Any]) -> None:
    config = _config_of(data)
    with quiet(), torch.device("meta"):
        construct(model_class(config, False), config, None, False)


def declared_type(place: str) -> Optional[str]:
    """The model type that a configuration declares, read without Transformers."""
    path = os.path.join(place, "config.json") if os.path.isdir(place) else place
    try:
        found = read_json(path, limits.CONFIG_BYTES).get("model_type")
    except (OSError, ValueError, AttributeError, OverLimit):
        return None
    return None if found is None else str(found)


def checkpoint(model: Any, on: bool) -> None:
    """Gradient checkpointing on or off, by the newest name that the library has for it."""
    verb = "enable" if on else "disable"
    for name in ("activation", "gradient"):
        method = getattr(model, f"{name}_checkpointing_{verb}", None)
        if method is not None:
            method()
            return


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Transformers' load report and progress bars: the load step reports the keys itself."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    bars = getattr(logging, "is_progress_bar_enabled", lambda: False)()
    if bars:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def construct(chosen: Any, config: Any, attn: Optional[str], trust: bool) -> nn.Module:
    """A model built by its own constructor, without a checkpoint, in the current default dtype."""
    options = attn_argument(attn)
    if hasattr(chosen, "_from_config"):
        return chosen._from_config(config, **options)
    return chosen.from_config(config, trust_remote_code=trust, **options)


def kept_in_float32(model: nn.Module, dtype: torch.dtype) -> Optional["re.Pattern[str]"]:
    """Names of the parameters that Transformers keeps in float32 for ``dtype``: some for float16 only, the strict
    ones for both.
    """
    names: list[str] = []
    if dtype == torch.float16:
        names += list(getattr(model, "_keep_in_fp32_modules", None) or [])
    if dtype in (torch.float16, torch.bfloat16):
        names += list(getattr(model, "_keep_in_fp32_modules_strict", None) or [])
    return re.compile("|".join(rf"((^|\.){re.escape(name)}($|\.))" for name in names)) if names else None


def config_parts(config: Any) -> list[Any]:
    """A configuration and the configurations inside it (text, vision, ...): a model may read its dtype in any of
    them. None for a module that has no configuration of Transformers' kind.
    """
    if not hasattr(config, "__dict__"):
        return []
    return [config] + [
        part for part in vars(config).values() if hasattr(part, "model_type") and hasattr(part, "to_dict")
    ]


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _parameters_without_memory() -> Iterator[None]:
    """Constructors run as they are, but parameters end on the meta device and are not initialised; buffers are real."""
    register = nn.Module.register_parameter
    originals: dict[str, Any] = {
        name: value
        for name, value in vars(nn.init).items()
        if name.endswith("_") and not name.startswith("_") and callable(value)
    }

    def on_meta(module: nn.Module, name: str, parameter: Optional[nn.Parameter]) -> None:
        register(module, name, parameter)
        if parameter is not None:
            kept = parameter.requires_grad
            module._parameters[name] = nn.Parameter(parameter.detach().to("meta"), requires_grad=kept)

    def untouched(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tensor

    # the one place through which every parameter goes
    setattr(nn.Module, "register_parameter", on_meta)  # noqa: B010 - an assignment does not type
    for name in originals:
        setattr(nn.init, name, untouched)
    try:
        yield
    finally:
        setattr(nn.Module, "register_parameter", register)  # noqa: B010 - as above
        for name, value in originals.items():
            setattr(nn.init, name, value)


class _Enough(Exception):
    """The model is larger than what is of interest."""


@dataclass(frozen=True)
class Size:
    """Bytes that a model takes; ``whole`` is false where there are more than were counted."""

    bytes: int
    whole: bool


def size_without_memory(chosen: Any, config: Any, trust: bool, dtype: torch.dtype, most: float) -> Optional[Size]:
    """Bytes of a model's parameters in ``dtype`` and of its buffers, from building it without memory for them.

    Args:
        chosen: The class.
        config: The configuration, which the building may change.
        trust: Whether code that comes with the model may run.
        dtype: That of the parameters.
        most: Beyond twice of this no more is built: one that replaces parameters counts some of them twice.

    Returns:
        None for a model that cannot be built so.

    Raises:
        OverLimit: the building takes more time or memory than it may.
    """
    item = torch.empty(0, dtype=dtype).element_size()
    total = 0
    seen: set[int] = set()

    def add(tensor: Optional[Tensor], itemsize: int) -> None:
        nonlocal total
        if tensor is not None and id(tensor) not in seen:  # one that is tied is registered twice
            seen.add(id(tensor))
            total += tensor.numel() * itemsize
            if total > 2 * most:
                raise _Enough

    parameter_in, buffer_in = nn.Module.register_parameter, nn.Module.register_buffer

    def parameter(module: nn.Module, name: str, param: Optional[nn.Parameter]) -> None:
        parameter_in(module, name, param)
        add(param, item)

    def buffer(module: nn.Module, name: str, tensor: Optional[Tensor], persistent: bool = True) -> None:
        buffer_in(module, name, tensor, persistent)
        add(tensor, 0 if tensor is None else tensor.element_size())

    setattr(nn.Module, "register_parameter", parameter)  # noqa: B010 - an assignment does not type
    setattr(nn.Module, "register_buffer", buffer)  # noqa: B010 - as above
    try:
        with bounded("Building the model that the configuration describes"), quiet(), torch.device("meta"):
            model = construct(chosen, config, None, trust)
    except _Enough:
        return Size(total, False)
    except OverLimit:
        raise
    except Exception:  # noqa: BLE001 - only a forecast: a constructor may want real numbers, and loading says why it failed
        return None
    finally:
        setattr(nn.Module, "register_parameter", parameter_in)  # noqa: B010 - as above
        setattr(nn.Module, "register_buffer", buffer_in)  # noqa: B010 - as above
    parameters = sum(one.numel() for one in model.parameters()) * item
    return Size(parameters + sum(one.numel() * one.element_size() for one in model.buffers()), True)


def skeleton(model: nn.Module, dtype: torch.dtype, attn: Optional[str]) -> nn.Module:
    """The same class, constructed in ``dtype``: buffers with their values, parameters without memory."""
    config = copy.deepcopy(model.config)
    for part in config_parts(config):  # the constructor would take the dtype from here, whatever the default is
        for field in DTYPE_FIELDS:
            if field in vars(part):
                vars(part)[field] = dtype
    with quiet(), default_dtype(dtype), _parameters_without_memory(), torch.random.fork_rng(devices=[]):
        return construct(type(model), config, attn, False)


def cast_parameters(model: nn.Module, dtype: torch.dtype, attn: Optional[str]) -> None:
    """Round the parameters of a model that was built in float32, for good, and give its buffers the constructor's
    values in ``dtype``.
    """
    kept = kept_in_float32(model, dtype)
    fresh = dict(skeleton(model, dtype, attn).named_buffers())
    for name, parameter in model.named_parameters():
        if is_float(parameter) and not (kept is not None and kept.search(name)):
            parameter.data = parameter.data.to(dtype)
    for name, buffer in model.named_buffers():
        if is_float(buffer) and name in fresh and fresh[name].shape == buffer.shape:
            buffer.data = fresh[name].to(buffer.device)
