"""What came in from outside of what was watched, and what of it is said."""

from __future__ import annotations

import pytest
import torch
from support.handmade import INF, NAN, as_loaded
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from repro.probes.origin.outside import PARAMETER, Leaf, came_in, is_unset_when_made, mechanism_of


class Config(PretrainedConfig):
    model_type = "unset"


class Unset(PreTrainedModel):
    """One parameter that nobody initialises, one that the constructor sets, and one that an initialiser does."""

    config_class = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.unset = nn.Parameter(torch.empty(3))
        self.set = nn.Parameter(torch.empty(3).fill_(0.5))
        self.linear = nn.Linear(3, 3)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            module.weight.data.normal_()
            module.bias.data.zero_()


def leaf(name: str, index: tuple[int, ...]) -> tuple[Unset, Leaf]:
    """A parameter of the model with a NaN in it."""
    model = Unset(Config())
    parameter = dict(model.named_parameters())[name]
    with torch.no_grad():
        parameter[index] = NAN
    return model, Leaf(name, PARAMETER, index, parameter.detach())


def test_a_parameter_that_nobody_sets_is_unset_memory() -> None:
    model, found = leaf("unset", (1,))
    assert is_unset_when_made(as_loaded(model), found)
    mechanism, _, note = mechanism_of(as_loaded(model), found)
    assert mechanism == "unset_memory"
    assert "nothing sets the parameter unset" in (note or "")


@pytest.mark.parametrize(("name", "index"), [("set", (1,)), ("linear.weight", (0, 2)), ("linear.bias", (0,))])
def test_a_parameter_that_is_set_is_not(name: str, index: tuple[int, ...]) -> None:
    model, found = leaf(name, index)
    assert not is_unset_when_made(as_loaded(model), found)
    assert mechanism_of(as_loaded(model), found)[0] == "bad_weights"


@pytest.mark.parametrize(
    ("values", "examples", "features"),
    [
        (torch.tensor([[1.0, NAN], [2.0, 3.0], [INF, 4.0]]), [0, 2], [0, 1]),
        (torch.tensor([1.0, NAN]), [1], []),
        (torch.tensor(NAN), [], []),
        (torch.full((20, 3, 30), NAN), list(range(8)), list(range(8))),
    ],
    ids=["rows", "vector", "number", "all"],
)
def test_how_much_of_it_is_bad(values: Tensor, examples: list[int], features: list[int]) -> None:
    found = came_in("data", values)
    bad = int((~torch.isfinite(values)).sum())
    assert found == {
        "kind": "data",
        "shape": list(values.shape),
        "bad": bad,
        "total": values.numel(),
        "examples": examples,
        "features": features,
    }
