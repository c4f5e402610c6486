"""The module inside of what wraps it."""

from torch import nn


def inside(model: nn.Module) -> nn.Module:
    """The module that torch.compile or DistributedDataParallel wraps: its own code is what can be looked into, and a
    step of it can be made again by this process alone.
    """
    inner = getattr(model, "_orig_mod", None)
    if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
        inner = getattr(model, "module", None)
    return inside(inner) if isinstance(inner, nn.Module) else model
