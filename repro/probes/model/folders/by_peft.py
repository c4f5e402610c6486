"""An adapter of another kind than plain LoRA, put on its base model by the package PEFT, where that is there."""

import contextlib
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...checkpoint.files import adapter_weights, load_pickle
from ...protocol.failures import in_words
from ...values.figures import same_values
from ..compat import CannotLoad, quiet
from ..load import Loaded, named_tensors, opened

PACKAGE = "peft"
WEIGHT = ".weight"


def is_there() -> bool:
    """Whether this interpreter has the package."""
    return importlib.util.find_spec(PACKAGE) is not None


class ByPeft:
    """What was put on the model. kind: in words."""

    def __init__(self, wrapper: Any, kind: str, version: str) -> None:
        self._wrapper, self._kind, self._version = wrapper, kind, version

    @property
    def words(self) -> str:
        return f"with an adapter {self._kind}, put on by peft {self._version}, not merged"

    def faults(self) -> Iterator[str]:
        """PEFT has refused what it does not know."""
        return iter(())

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """The base model alone."""
        with self._wrapper.disable_adapter():
            yield

    @contextlib.contextmanager
    def merged(self, loaded: Loaded) -> Iterator[None]:
        """The adapter in the weights themselves, which have their own numbers again afterwards.

        Raises:
            CannotLoad: such an adapter has no place in them.
        """
        tuner = self._wrapper.base_model
        if not hasattr(tuner, "merge_adapter"):
            raise CannotLoad(f"an adapter {self._kind} cannot be merged")
        inner = [module.base_layer for module in loaded.model.modules() if isinstance(module, _layer_kind())]
        kept = [(held, held.detach().clone()) for layer in inner for held in layer.parameters(recurse=False)]
        try:
            tuner.merge_adapter()
        except Exception as error:
            raise CannotLoad(f"PEFT does not merge it: {in_words(error)}") from error
        try:
            yield
        finally:
            tuner.unmerge_adapter()
            with torch.no_grad():
                for held, values in kept:
                    held.copy_(values)


def put_on(loaded: Loaded, folder: str, kind: str) -> ByPeft:
    """The adapter of a folder on the model, whose layers PEFT replaces; where it works on the inputs instead, PEFT's
    own model stands in its place.

    Raises:
        CannotLoad: PEFT refuses it.
    """
    peft: Any = importlib.import_module(PACKAGE)
    try:
        with quiet():
            is_before_it = bool(peft.PeftConfig.from_pretrained(folder).is_prompt_learning)
            wrapper = peft.PeftModel.from_pretrained(loaded.model, folder, is_trainable=not is_before_it).eval()
    except Exception as error:
        raise CannotLoad(
            f"The adapter is {kind}, and peft {peft.__version__} does not put it on the model: {in_words(error)}"
        ) from error
    if is_before_it:
        loaded.model = wrapper
        wrapper.prompt_encoder.requires_grad_(True)  # what is trained, as of the others; PEFT has it so at first alone
    _name_again(loaded, folder, "base_model." if is_before_it else "")
    return ByPeft(wrapper, kind, str(peft.__version__))


def _layer_kind() -> Any:
    return importlib.import_module("peft.tuners.tuners_utils").BaseTunerLayer


def _name_again(loaded: Loaded, folder: str, inside: str) -> None:
    """The tensors that are as a file has them, by the names that they have now. inside: what PEFT's own model puts in
    front of the base model's names.
    """
    before, loaded.from_file = loaded.from_file, {}
    stored = dict(_stored(folder))
    for name, held in named_tensors(loaded.model):
        own = name[len(inside) :] if name.startswith(inside) else name
        place = before.get(own.replace(".base_layer.", "."))
        path, key, value = stored.get(_plain(name), ("", "", None))
        if place is not None:
            loaded.from_file[name] = place
        elif value is not None and held.shape == value.shape and same_values(held.detach().cpu(), value):
            loaded.from_file[name] = (path, key)


def _stored(folder: str) -> Iterator[tuple[str, tuple[str, str, Tensor]]]:
    found = adapter_weights(folder)
    path = os.path.join(folder, *found.names[:1])
    if found.format == "safetensors":
        read = opened(path)
        for entry in (entry for header in found.headers for entry in header.entries):
            yield _plain(entry.name), (path, entry.name, read(entry.name))
    elif found.names:
        for key, value in load_pickle(path, "cpu").items():
            yield _plain(key), (path, key, value)


def _plain(name: str) -> str:
    """Without what PEFT has around a model, and the adapter's own name and what else its file leaves out."""
    if name == "prompt_embeddings":
        return "prompt_encoder.embedding"
    found = re.sub(r"\.default(?=\.|$)", "", name).replace("base_model.model.", "")
    return found[: -len(WEIGHT)] if found.endswith(WEIGHT) else found
