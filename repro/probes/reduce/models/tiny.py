"""Models of few layers around one module, built from the model's own configuration alone."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import nn

from ...model.load import Loaded
from ..tokens import Place

# Of a configuration: what is no setting of the architecture, or is set here.
NOT_SETTINGS = frozenset((
    "_name_or_path", "transformers_version", "architectures", "model_type", "dtype", "torch_dtype", "auto_map",
    "_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "task_specific_params", "id2label",
    "label2id", "unk_token_id", "use_cache",
))  # fmt: skip
VOCABULARY = 8  # a fault in one layer needs no words
TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
LARGEST = 500_000_000  # parameters of a model that is built: 2 GB in float32, in which a constructor makes it


@dataclass(frozen=True)
class Plan:
    """A smaller model: the class at ``outer`` of the whole one, built with ``settings``; the module is at ``path``."""

    outer: str
    settings: dict[str, Any]
    path: str


@dataclass(frozen=True)
class Small:
    """A model of few layers, and the place of the module in it. ``settings``: what its configuration is built with.
    ``channel``: the one in which the fault is, if it is in one.
    """

    model: nn.Module
    settings: dict[str, Any]
    path: str
    place: Place
    channel: Optional[int]

    @property
    def block(self) -> nn.Module:
        return self.model.get_submodule(self.path)


def is_built(loaded: Loaded, path: str, layers: int) -> bool:
    """Whether a model with so many copies of the module is small enough to be built."""
    own = loaded.model.get_submodule(path).parameters()
    return layers * sum(parameter.numel() for parameter in own) <= LARGEST


def plans(loaded: Loaded, path: str) -> Iterator[Plan]:
    """The smaller models around the module at ``path``, of the nearest classes of Transformers that hold it: of one
    layer, else of as many as there are up to this one.
    """
    import transformers

    for name in _ancestors(path):
        outer = loaded.model.get_submodule(name) if name else loaded.model
        kind = type(outer)
        if isinstance(outer, transformers.PreTrainedModel) and getattr(transformers, kind.__name__, None) is kind:
            for settings, place in settings_of(outer.config, path[len(name) + 1 :] if name else path):
                if is_built(loaded, path, int(settings.get(layers_key(outer.config), 1))):
                    yield Plan(name, settings, place)


def built(loaded: Loaded, path: str, plan: Plan, origin: dict[str, Any]) -> Small:
    """The planned model, in the loaded model's dtype, on its device; the module has its own weights.

    Raises:
        Exception: the class wants more than a configuration, or has other parameters there.
    """
    outer: Any = loaded.model.get_submodule(plan.outer) if plan.outer else loaded.model
    own = dict(loaded.model.get_submodule(path).named_parameters())
    attn = {} if loaded.attn is None else {"attn_implementation": loaded.attn}
    with torch.random.fork_rng(devices=[]):
        model = type(outer)(type(outer.config)(**plan.settings, **attn))
    model = model.to(dtype=loaded.dtype, device=loaded.device).eval()
    with torch.no_grad():
        for key, parameter in model.get_submodule(plan.path).named_parameters():
            parameter.copy_(own[key])
    place = replace(Place.of(origin), module=plan.path + origin["module"][len(path) :])
    return Small(model, plan.settings, plan.path, place, origin["channel_index"])


def _ancestors(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, -1, -1)]


def layers_key(config: Any) -> str:
    """What this configuration calls its number of layers."""
    return str(getattr(config, "attribute_map", {}).get("num_hidden_layers", "num_hidden_layers"))


def settings_of(config: Any, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """(settings, path of the module) of smaller models: one layer, then all up to this one; small sizes first."""
    values = {key: value for key, value in config.to_dict().items() if _is_setting(key, value)}
    default = _default(type(config))
    plain = {key: v for key, v in values.items() if key != "layer_types" and getattr(default, key, None) != v}
    key_of_count = layers_key(config)
    count = getattr(config, key_of_count, None)
    parts = path.split(".")
    at = next((at for at, part in enumerate(parts) if part.isdigit()), None)
    per_layer = {key: v for key, v in values.items() if isinstance(v, list) and len(v) == count}
    ids = {key: 0 for key in TOKEN_IDS if isinstance(getattr(config, key, None), int) and getattr(config, key) > 0}
    for sizes in ({"vocab_size": VOCABULARY, **ids}, {}):
        if at is None or count is None:
            yield {**plain, **sizes}, path
            continue
        number = int(parts[at])
        one = {key: value[number : number + 1] for key, value in per_layer.items()}
        first = ".".join([*parts[:at], "0", *parts[at + 1 :]])
        yield {**plain, **sizes, key_of_count: 1, **one}, first
        up_to = {key: value[: number + 1] for key, value in per_layer.items()}
        yield {**plain, **sizes, key_of_count: number + 1, **up_to}, path


def _default(kind: Any) -> Any:
    """A configuration of this class with nothing set; None where there is none, and then every setting is written."""
    try:
        return kind()
    except Exception:  # noqa: BLE001 - a class may want an argument
        return None


def _is_setting(key: str, value: Any) -> bool:
    if key in NOT_SETTINGS or key.startswith("_"):
        return False
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
