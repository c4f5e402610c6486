"""Folders of the package timm: a model of pictures, as timm itself loads it."""

import importlib
from dataclasses import replace
from typing import Any

import torch

from ...checkpoint.resolve import Source
from ...protocol.failures import in_words
from ..compat import CannotLoad, quiet
from ..given.factory import Made, ready_alone
from ..load import pick_device
from ..ready import ready

SEED = 0
PLACE = "local-dir:"  # by which timm is given a folder, since its 1.0.16
PIXELS = (3, 224, 224)  # where the folder names no size: ImageNet's


def make(case: dict[str, Any], source: Source, _prompts: list[str]) -> Made:
    """The model of a folder, and one picture of seeded noise in its size.

    Raises:
        CannotLoad: this release does not know its architecture, or does not load it.
    """
    if case.get("attn"):
        raise CannotLoad("A model of timm does not choose its attention by --attn: leave it out.")
    device = pick_device(case.get("device"))
    dtype = getattr(torch, case["dtype"]) if case.get("dtype") else torch.float32
    library: Any = importlib.import_module("timm")
    torch.manual_seed(source.seed or SEED)
    try:
        with quiet():
            model = library.create_model(f"{PLACE}{source.folder or source.config}", pretrained=source.seed is None)
    except Exception as error:
        raise CannotLoad(f"timm {library.__version__} does not load this model: {in_words(error)}") from error
    model.eval().to(device, dtype)
    if case.get("inputs"):
        return Made(replace(ready_alone(model), source=source), None, None)
    size = getattr(model, "pretrained_cfg", {}).get("input_size") or PIXELS
    drawn = torch.randn(1, *size, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        loaded, given = ready(model, (drawn.to(device, dtype),))
    return Made(replace(loaded, source=source), given, None)
