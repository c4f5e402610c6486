"""One forward pass as a program: what is asked of one that ends in an exception."""

from typing import Any

from ..model.forward import run
from ..model.inputs import Inputs
from ..model.load import Loaded
from ..program.callable import Program


class Passing:
    """A forward pass of one input. Its end is what it gives, or what it raises."""

    def __init__(self, loaded: Loaded, inputs: Inputs) -> None:
        self.loaded, self.inputs = loaded, inputs

    def run(self) -> Any:
        return run(self.loaded.model, self.inputs)

    def program(self) -> Program:
        """It as something that can be run again. Of weights no copy is made."""
        model = self.loaded.model
        return Program(self.run, [model], noun="the model", unchanged=list(model.parameters()))
