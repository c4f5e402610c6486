"""The model with as few of its repeated layers as the fault needs: those behind it are cut off, then those before."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Optional

from torch import nn

from ...model.inputs import Inputs
from ...model.load import Loaded
from ..tokens import Place, shows
from ..trials import Trials, ddmin
from .tiny import layers_key


def fewest(
    loaded: Loaded, inputs: Inputs, origin: dict[str, Any], block: str, trials: Trials
) -> Optional[dict[str, Any]]:
    """Which layers the fault needs, as it travels to the host; None where none can go.

    block: the repeated layer in which the fault is born. It stays, and the model is run on token ids.
    """
    path, _, at = block.rpartition(".")
    layers = loaded.model.get_submodule(path)
    if not at.isdigit() or not isinstance(layers, nn.ModuleList):
        return None
    number, total, before = int(at), len(layers), trials.asked

    def holds(kept: list[int]) -> bool:
        def question() -> bool:
            module = f"{path}.{kept.index(number)}" + origin["module"][len(block) :]
            with only(loaded.model, path, kept):
                return shows(loaded, inputs, replace(Place.of(origin), module=module))

        return trials.ask(f"{len(kept)} of {total} layers", question)

    kept = list(range(number + 1))
    if number + 1 < total and not holds(kept):
        return None
    if number and holds([number]):
        kept = [number]
    elif number:
        kept = [*ddmin(kept[:-1], lambda front: holds([*front, number])), number]
    if len(kept) == total:
        return None
    return {"path": path, "total": total, "kept": kept, "trials": trials.asked - before, "fed": "token ids"}


@contextlib.contextmanager
def only(model: nn.Module, path: str, kept: list[int]) -> Iterator[None]:
    """``model`` with only the layers of these numbers in the list at ``path``; its configuration follows."""
    holder_path, _, name = path.rpartition(".")
    holder = model.get_submodule(holder_path)
    layers: Any = holder.get_submodule(name)
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    before = [(vars(config), dict(vars(config))) for config in configs.values()]
    try:
        holder._modules[name] = nn.ModuleList([layers[at] for at in kept])
        for config in configs.values():
            _follow(config, len(layers), kept)
        yield
    finally:
        holder._modules[name] = layers
        for settings, saved in before:
            settings.update(saved)


def _follow(config: Any, total: int, kept: list[int]) -> None:
    """Number of layers, and what is listed layer by layer, as they are now. Past any check that a setter makes."""
    settings, key = vars(config), layers_key(config)
    if settings.get(key) != total:
        return
    for name, value in list(settings.items()):
        if isinstance(value, list) and len(value) == total:
            settings[name] = [value[at] for at in kept]
    settings[key] = len(kept)
