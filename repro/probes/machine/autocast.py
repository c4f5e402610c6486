"""The autocast that a program is in, taken and entered again: what is run later is run as it was."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

DEVICES = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class Autocast:
    """For each kind of device that has one, whether it is on, and its dtype."""

    kinds: tuple[tuple[str, bool, torch.dtype], ...] = ()

    @classmethod
    def taken(cls) -> "Autocast":
        """As it is now, in this thread."""
        return cls(tuple(_now()))

    @property
    def is_on(self) -> bool:
        """Whether it is, for any device."""
        return any(on for _, on, _ in self.kinds)

    @property
    def off(self) -> "Autocast":
        """The same, off for every device."""
        return Autocast(tuple((device, False, dtype) for device, _, dtype in self.kinds))

    def plain(self) -> list[list[Any]]:
        """As data that torch.load reads with weights_only."""
        return [[device, on, str(dtype).replace("torch.", "")] for device, on, dtype in self.kinds]

    @classmethod
    def read(cls, data: list[list[Any]]) -> "Autocast":
        """What ``plain`` gave."""
        return cls(tuple((str(device), bool(on), getattr(torch, dtype)) for device, on, dtype in data))

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """As it was, where it is another one now."""
        now = {device: (on, dtype) for device, on, dtype in _now()}
        with contextlib.ExitStack() as entered:
            for device, on, dtype in self.kinds:
                is_on, of = now.get(device, (on, dtype))
                if on != is_on or (on and dtype != of):
                    entered.enter_context(torch.autocast(device, dtype=dtype, enabled=on))
            yield


def _now() -> Iterator[tuple[str, bool, torch.dtype]]:
    if hasattr(torch, "get_autocast_dtype"):
        for device in DEVICES:
            with contextlib.suppress(RuntimeError):  # this PyTorch knows no autocast for it
                yield device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        return
    yield "cpu", torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    yield "cuda", torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
