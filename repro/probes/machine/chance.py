"""The state of every random generator that a program may draw from, taken and put back."""

import random
import sys
from dataclasses import dataclass
from typing import Any, Optional

import torch


@dataclass(frozen=True)
class Chance:
    """The generators of Python, of PyTorch (the CPU's, and those of the accelerators that are in use) and of NumPy's
    old interface, as they were at one moment.
    """

    python: Any
    cpu: torch.Tensor
    cuda: Optional[list[torch.Tensor]]
    mps: Optional[torch.Tensor]
    numpy: Any

    @classmethod
    def taken(cls) -> "Chance":
        """As they are now."""
        cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        mps = getattr(torch, "mps", None)
        has_mps = mps is not None and torch.backends.mps.is_available()
        return cls(
            random.getstate(),
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if cuda else None,
            mps.get_rng_state() if has_mps else None,  # type: ignore[union-attr] # has_mps says so
            _numpy().get_state() if _numpy() is not None else None,
        )

    def plain(self) -> dict[str, Any]:
        """As data that torch.load reads with weights_only."""
        numpy = self.numpy
        if numpy is not None:
            numpy = [str(numpy[0]), [int(word) for word in numpy[1]], *numpy[2:]]
        return {"python": self.python, "cpu": self.cpu, "cuda": self.cuda, "mps": self.mps, "numpy": numpy}

    @classmethod
    def read(cls, data: dict[str, Any]) -> "Chance":
        """What ``plain`` gave. The generators of accelerators that are not here are left out."""
        cuda = data["cuda"] if torch.cuda.is_available() else None
        if cuda is not None and len(cuda) != torch.cuda.device_count():
            cuda = None
        has_mps = data["mps"] is not None and torch.backends.mps.is_available()
        python = data["python"]
        python = (python[0], tuple(python[1]), python[2])
        numpy = None if data["numpy"] is None else tuple(data["numpy"])
        return cls(python, data["cpu"], cuda, data["mps"] if has_mps else None, numpy)

    def put(self) -> None:
        """Put them back."""
        random.setstate(self.python)
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)
        if self.mps is not None:
            torch.mps.set_rng_state(self.mps)
        if self.numpy is not None and _numpy() is not None:
            _numpy().set_state(self.numpy)


def _numpy() -> Any:
    """NumPy's generators, where the program has imported it: one that was never imported was never drawn from."""
    return getattr(sys.modules.get("numpy"), "random", None)
