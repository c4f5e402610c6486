"""A part of a pipeline of the package diffusers: a denoiser, a decoder. Its class is the package's own."""

import importlib
import os
from typing import Any

import torch
from torch import nn

from ...checkpoint import limits
from ...checkpoint.opening import read_json, shown
from ...checkpoint.others import part_of_pipeline
from ...checkpoint.resolve import Source
from ...protocol.failures import in_words
from ..compat import CannotLoad, quiet
from ..load import Loaded, dtype_of, pick_device, stored_dtype


def is_part(source: Source) -> bool:
    """Whether the folder holds such a part, and the interpreter the package."""
    place = source.config or source.folder
    return place is not None and part_of_pipeline(place) is not None


def load(case: dict[str, Any], source: Source) -> Loaded:
    """The part in evaluation mode, on its device, in the dtype that was asked for or that its file has.

    Raises:
        CannotLoad: the package has no such class, or refuses the files.
    """
    diffusers: Any = importlib.import_module("diffusers")
    place = source.config or source.folder or ""
    config = read_json(os.path.join(place, "config.json"), limits.CONFIG_BYTES)
    name = part_of_pipeline(place)
    kind = getattr(diffusers, name or "", None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module) and hasattr(kind, "from_pretrained")):
        raise CannotLoad(f"diffusers {diffusers.__version__} has no model {shown(name)}, which config.json names.")
    if case.get("attn"):
        raise CannotLoad(f"{name} is a model of diffusers, whose attention --attn does not choose: leave it out.")
    device, found = pick_device(case.get("device")), stored_dtype(source)
    dtype = getattr(torch, case["dtype"]) if case.get("dtype") else found
    made: Any = kind
    torch.manual_seed(source.seed or 0)
    try:
        with quiet():
            if source.kind == "random":
                model, info = made.from_config(config).to(dtype or torch.float32), {}
            else:
                model, info = made.from_pretrained(
                    source.folder, torch_dtype=dtype, output_loading_info=True, local_files_only=True
                )
    except Exception as error:
        raise CannotLoad(f"diffusers {diffusers.__version__} does not load this {name}: {in_words(error)}") from error
    model.eval().to(device)
    return Loaded(
        model=model,
        class_name=type(model).__name__,
        source=source,
        dtype=dtype_of(model),
        device=device,
        attn=None,
        info={key: list(value) for key, value in dict(info).items() if isinstance(value, (list, set, tuple))},
    )
