"""Arguments of one shape stay of one shape; those that differ in a call of the original need not."""

from __future__ import annotations

import torch

from repro.probes.listing.runs.alike import Alike, apart


def test_pairs_are_those_that_never_differ() -> None:
    alike = Alike()
    alike.look({"ids": (2, 6), "mask": (2, 6), "labels": (2, 6), "pixels": (2, 3)})
    alike.look({"ids": (2, 4), "mask": (2, 4), "labels": (2, 6)})
    assert alike.pairs == {("ids", "mask")}


def test_what_has_come_apart_is_named_and_what_is_not_given_is_not() -> None:
    pairs = {("ids", "mask"), ("ids", "labels")}
    assert apart({"ids": (1, 2), "mask": (1, 1)}, pairs) == [("ids", "mask")]
    assert apart({"ids": (1, 2), "mask": (1, 2)}, pairs) == []
    assert apart({}, pairs) == []


def test_a_module_is_told_of_once_for_a_call_from_outside() -> None:
    from repro.probes.listing.runs import alike

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Identity()

        def forward(self, x: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
            return self.inner(input=x * mask * scale)

    told: list[dict[str, tuple[int, ...]]] = []
    original = torch.nn.Module.__call__
    try:
        alike.told(told.append)
        Outer()(x=torch.ones(2, 3), mask=torch.ones(2, 3), scale=2.0)
    finally:
        torch.nn.Module.__call__ = original  # type: ignore[method-assign]
    assert told == [{"x": (2, 3), "mask": (2, 3)}]
