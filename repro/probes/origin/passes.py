"""The result of one operator in passes with other inputs."""

from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ..model.inputs import Inputs, unvalidated
from ..observe.watch import OpCall
from .counterfactual import Kin, result_at


@dataclass(frozen=True)
class Place:
    """An element of an operator's result: which operator, which result, its shape, and where in it."""

    kin: Kin
    output: int
    shape: tuple[int, ...]
    index: tuple[int, ...]


class Passes:
    """The place's result in passes with other inputs."""

    def __init__(self, model: nn.Module, inputs: Inputs, place: Place) -> None:
        self.model, self.inputs, self.place = model, inputs, place

    def given(self) -> dict[str, Any]:
        """The arguments of the case's own pass."""
        return self.inputs.arguments()

    def result(self, given: dict[str, Any], note: Optional[Callable[[OpCall, Any], None]] = None) -> Optional[Tensor]:
        """The place's result; None where the model does not take such inputs, or does not come to the operator."""

        def again() -> Any:
            with torch.no_grad(), unvalidated():
                return self.inputs.call(self.model, given)

        try:
            return result_at(self.model, again, self.place.kin, self.place.output, note)
        except Exception:  # noqa: BLE001 - a model of one length or one example may raise anything
            return None
