"""An adapter of a kind that only the package PEFT computes (DoRA, IA3, LoHa, ...), put on its base model by PEFT."""

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...checkpoint.files import adapter_weights
from ...protocol.failures import in_words
from ..compat import CannotLoad, quiet
from ..load import Loaded

PACKAGE = "peft"


def is_here() -> bool:
    return importlib.util.find_spec(PACKAGE) is not None


@dataclass
class Tuned:
    """An adapter that PEFT has put on the model. kind: in words. layers: how many of the model it is on."""

    kind: str
    layers: int
    wrapped: Any

    @property
    def words(self) -> str:
        return (
            f"with an adapter {self.kind} on {self.layers} layer{'' if self.layers == 1 else 's'}, by PEFT, not merged"
        )

    def faults(self) -> Iterator[str]:
        """Nothing that PEFT does not refuse itself."""
        return iter(())

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        with self.wrapped.disable_adapter():
            yield

    @contextlib.contextmanager
    def merged(self, _loaded: Loaded) -> Iterator[None]:
        """The adapter in the weights themselves. Taken away again it would leave their last digits changed, so they are
        put back.
        """
        kept = [(parameter, parameter.data.clone()) for parameter in self.wrapped.parameters()]
        tuner = self.wrapped.base_model
        try:
            with quiet():
                tuner.merge_adapter()
            yield
        finally:
            with quiet():  # PEFT warns that these digits change
                tuner.unmerge_adapter()
            for parameter, data in kept:
                parameter.data = data


def put_on(loaded: Loaded, folder: str, kind: str) -> Tuned:
    """The adapter of a folder on the model, whose layers PEFT replaces where they stand.

    Raises:
        CannotLoad: PEFT refuses it, or puts its part before the model and not into it.
    """
    library: Any = importlib.import_module(PACKAGE)
    try:
        settings = library.PeftConfig.from_pretrained(folder)
        if settings.is_prompt_learning:
            raise CannotLoad(
                f"The adapter is {kind}, which puts tokens before the prompt. Give a script (.py) that runs it."
            )
        with quiet():
            # As PEFT trains it: the adapter alone.
            wrapped = library.PeftModel.from_pretrained(loaded.model, folder, is_trainable=True, config=settings)
    except CannotLoad:
        raise
    except Exception as error:
        version = library.__version__
        raise CannotLoad(
            f"peft {version} does not put this adapter on {loaded.class_name}: {in_words(error)}"
        ) from error
    wrapped.eval()
    base = importlib.import_module(f"{PACKAGE}.tuners.tuners_utils").BaseTunerLayer
    layers = sum(isinstance(module, base) for module in loaded.model.modules())
    _know_again(loaded, folder)
    adapter = Tuned(kind, layers, wrapped)
    loaded.adapter = adapter
    return adapter


def _know_again(loaded: Loaded, folder: str) -> None:
    """Where each value is in a file, under the names that the layers' parts have from now on."""
    names = {name.replace(".base_layer.", "."): name for name, _ in loaded.model.named_parameters()}
    loaded.from_file = {names.get(name, name): place for name, place in loaded.from_file.items()}
    own = {_in_file(name): name for name, _ in loaded.model.named_parameters()}
    found = adapter_weights(folder)
    keys = [entry.name for header in found.headers for entry in header.entries]
    path = os.path.join(folder, found.names[0])
    loaded.from_file.update({own[key]: (path, key) for key in keys if key in own})


def _in_file(parameter: str) -> str:
    """A parameter's name as the adapter's file has it: not with the adapter's own, which is "default"."""
    return "base_model.model." + parameter.replace(".default.", ".").replace(".default", "")
