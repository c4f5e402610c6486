"""A network run once, with each of its operators held against float64."""

import torch
from torch import Tensor, nn

from repro.probes.observe.watch import Watch, watched
from repro.probes.rounding.check import Rounding


@torch.no_grad()
def rounding_of(network: nn.Module, *args: Tensor, **kwargs: Tensor) -> Rounding:
    """What departs, and what was held."""
    rounding = Rounding()
    watch = Watch(rounding.visit)
    with watched(network, watch):
        network(*args, **kwargs)
    assert watch.trouble is None
    assert rounding.judged
    return rounding
