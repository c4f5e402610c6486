"""The model's class built from a small configuration, with seeded weights, run on plain token ids.

For the makers of the class it is the first script to read: no checkpoint, and nothing that was captured.
"""

import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Optional

import torch

from ...model.inputs import Inputs
from ...model.load import Loaded
from ...values.figures import dtype_name
from ..tokens import Place, shows
from ..trials import Trials
from .module import block_of
from .tiny import settings_of

SEEDS = (0, 1)
PLAIN = 2_000_000  # parameters of a layer in its own sizes that a reader still runs at once
# What a configuration calls its sizes, and a value that a reader takes for small. Each is set only where the class has
# it and has a larger one; whether such a model can be built and shows the fault is tried. GQA keeps its two heads.
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
    "ffn_dim": 64, "word_embed_proj_dim": 32, "d_kv": 16, "d_ff": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 1,
    "num_decoder_layers": 1, "embedding_size": 32,
}  # fmt: skip


def seeded(loaded: Loaded, inputs: Inputs, origin: dict[str, Any], trials: Trials) -> Optional[dict[str, Any]]:
    """The small model with its inputs, as it travels to the host; None where none shows the same fault.

    Only inputs with a place for each token go along: pictures and sounds belong to the sizes that the model has.
    """
    import transformers

    model: Any = loaded.model
    kind = type(model)
    whole = isinstance(model, transformers.PreTrainedModel)
    if not whole or imported_from(kind) is None or imported_from(type(model.config)) is None:
        return None
    if inputs.input_ids is None or any(not more.by_token for more in inputs.further):
        return None
    if loaded.quantised is not None or loaded.adapter is not None:
        return None
    path = block_of(model, origin["module"])
    plain = sum(parameter.numel() for parameter in model.get_submodule(path).parameters()) <= PLAIN
    for settings, place in _candidates(model.config, path, plain):
        for seed in SEEDS:
            found = trials.attempt(
                f"{kind.__name__} of a small configuration",
                functools.partial(_built, loaded, settings, seed),
                may_raise=True,
            )
            if found is None:
                break
            built, vocabulary = found
            small = replace(loaded, model=built)
            given = _plain_ids(inputs, vocabulary)
            module = place + origin["module"][len(path) :]
            question = functools.partial(shows, small, given, replace(Place.of(origin), module=module))
            if trials.ask(f"{kind.__name__} of a small configuration, seed {seed}", question):
                return _record(small, settings, seed, given)
    return None


def imported_from(kind: Any) -> Optional[str]:
    """The module from which anybody can import a class; None for one that came with the model or lies in a script.

    Code of a package is meant: it is where packages are installed.
    """
    import transformers

    if getattr(transformers, kind.__name__, None) is kind:
        return "transformers"
    name = str(kind.__module__)
    module: Any = sys.modules.get(name)
    path = getattr(module, "__file__", None) or ""
    installed = bool({"site-packages", "dist-packages"} & set(path.split(os.sep)))
    return name if installed and getattr(module, kind.__name__, None) is kind else None


def _candidates(config: Any, path: str, plain: bool) -> Iterator[tuple[dict[str, Any], str]]:
    """(settings, path of the layer) of smaller models: with small sizes; with the model's own, where these are plain
    as well.
    """
    names = {getattr(config, "attribute_map", {}).get(name, name): size for name, size in SIZES.items()}
    held = {name: getattr(config, name, None) for name in names}
    small = {name: names[name] for name, value in held.items() if isinstance(value, int) and value > names[name]}
    for settings, place in settings_of(config, path):
        yield {**settings, **small}, place
    if small and plain:
        yield from settings_of(config, path)


def _built(loaded: Loaded, settings: dict[str, Any], seed: int) -> tuple[Any, int]:
    """The model as the script makes it, the same seed and the same order; and how many token ids it has.

    Raises:
        Exception: the class does not take these settings, or has no embeddings of tokens.
    """
    config: Any = loaded.config
    attn = {} if loaded.attn is None else {"attn_implementation": loaded.attn}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = type(loaded.model)(type(config)(**settings, **attn))
    return model.to(loaded.device, loaded.dtype).eval(), int(model.get_input_embeddings().weight.shape[0])


def _plain_ids(inputs: Inputs, vocabulary: int) -> Inputs:
    """The same number of tokens, with ids that the small vocabulary has."""
    assert inputs.input_ids is not None
    decoder = inputs.decoder_input_ids
    return replace(
        inputs,
        input_ids=inputs.input_ids % vocabulary,
        decoder_input_ids=None if decoder is None else decoder % vocabulary,
    )


def _record(small: Loaded, settings: dict[str, Any], seed: int, given: Inputs) -> dict[str, Any]:
    config: Any = small.config
    assert given.input_ids is not None
    decoder = given.decoder_input_ids
    return {
        "model_class": type(small.model).__name__,
        "config_class": type(config).__name__,
        "model_from": imported_from(type(small.model)),
        "config_from": imported_from(type(config)),
        "config": settings,
        "dtype": dtype_name(small.dtype),
        "attn": getattr(config, "_attn_implementation", None),
        "seed": seed,
        "ids": given.input_ids[0].tolist(),
        "decoder_ids": None if decoder is None else decoder[0].tolist(),
        "attention_mask": given.attention_mask is not None,
        "further": [more.record() for more in given.further],
    }
