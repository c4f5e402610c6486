"""A forward pass that raises: for a NaN before it, or for something else."""

import io
from pathlib import Path
from typing import Any

import pytest

from repro.probes.model.session import Session
from repro.probes.protocol.wire import Emitter
from repro.probes.steps import registry

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.kind = nn.Linear(4, 4), kind
    def forward(self, x):
        x = self.layer(x)
        if self.kind == "shape":
            return x @ torch.ones(3, 3)
        if self.kind == "masked":
            torch.softmax(x.masked_fill(x > 0, float("-inf")), -1)
            raise ValueError("about something else")
        size = x - x if self.kind in ("check", "assert", "validation") else x * x + 1
        x = size / size
        if self.kind in ("check", "sound") and x.isnan().any():
            raise ValueError("NaN in x")
        if self.kind == "assert":
            assert torch.isfinite(x).all()
        if self.kind == "validation":
            return torch.distributions.Normal(x, 1.0).mean
        return x

def make(kind):
    return lambda: (Net(kind), (torch.ones(2, 4),))

check, validation, sound, shape, masked = map(make, ("check", "validation", "sound", "shape", "masked"))
globals()["assert_"] = make("assert")
"""
LINE = "factory.py:18"


def session_of(tmp_path: Path, kind: str) -> Session:
    (tmp_path / "factory.py").write_text(FACTORY)
    factory = f"{tmp_path / 'factory.py'}:{kind}"
    return Session({"model": factory, "factory": factory}, str(tmp_path), Emitter(io.StringIO()))


@pytest.mark.parametrize("kind", ["check", "assert_", "validation"])
def test_a_pass_that_raises_for_a_nan_is_bad_with_its_origin(tmp_path: Path, kind: str) -> None:
    session = session_of(tmp_path, kind)
    assert registry.run(session, "forward", False)[0] == "bad"
    origin: Any = registry.run(session, "bisect", False)[2]["origin"]
    assert (origin["op"], origin["source"], origin["confirmed"]) == ("aten.div.Tensor", LINE, True)
    assert registry.run(session, "ablation:dtype=bfloat16", False)[0] == "bad"
    assert registry.run(session, "ablation:autocast=off", False)[0] == "skip"
    assert registry.run(session, "reduce", False)[0] == "bad"


def test_its_sound_twin_is_good(tmp_path: Path) -> None:
    assert registry.run(session_of(tmp_path, "sound"), "forward", False)[0] == "good"


@pytest.mark.parametrize(("kind", "words"), [("shape", "cannot be multiplied"), ("masked", "something else")])
def test_a_pass_that_raises_for_a_reason_of_its_own_is_passed_on(tmp_path: Path, kind: str, words: str) -> None:
    for step in ("forward", "bisect"):
        with pytest.raises((RuntimeError, ValueError), match=words):
            registry.run(session_of(tmp_path, kind), step, False)
