"""What a smaller script may not do otherwise than the original: draw without a seed, train in another way, grow."""

from __future__ import annotations

import os
import pickle

import numpy  # noqa: F401 - a script's process has it, for PyTorch imports it
import pytest

from repro.probes.listing.runs.conduct import Conduct, Seen, observed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a copy of this process for each script")


def conduct(text: str) -> Conduct:
    """Of a script, in a process of its own: what is put down is never taken back."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            seen = Seen()
            with observed(seen):
                exec(compile(text, "script.py", "exec"), {"__name__": "__main__"})
            os.write(write, pickle.dumps(seen.conduct))
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as found:
        told: Conduct = pickle.loads(found.read())
    return told


@pytest.mark.parametrize(
    ("text", "unseeded"),
    [
        ("import torch\ntorch.manual_seed(3)\ntorch.randn(2)", set()),
        ("import torch\ntorch.randn(2)", {"torch"}),
        ("import torch\ntorch.randn(2)\ntorch.manual_seed(3)", {"torch"}),
        ("import torch\ntorch.nn.Linear(2, 2)", {"torch"}),
        ("import torch\ntorch.zeros(2)", set()),
        ("import random\nrandom.seed(1)\nrandom.random()", set()),
        ("import random\nrandom.seed()\nrandom.random()", {"random"}),
        ("import random\nrandom.random()", {"random"}),
        ("import numpy\nnumpy.random.seed(1)\nnumpy.random.rand(2)", set()),
        ("import numpy\nnumpy.random.rand(2)", {"numpy"}),
        ("import numpy\nnumpy.random.default_rng().normal()", {"numpy"}),
        ("import numpy\nnumpy.random.default_rng(1).normal()", set()),
        ("import torch\ntorch.rand(2, generator=torch.Generator().manual_seed(1))", set()),
    ],
)
def test_a_draw_without_a_seed_is_seen(text: str, unseeded: set[str]) -> None:
    assert conduct(text).unseeded == unseeded


STEP = """
import torch
torch.manual_seed(0)
lin = torch.nn.Linear(3, 1)
x, y = torch.ones(4, 3), torch.ones(4, 1)
opt = torch.optim.SGD(lin.parameters(), lr=0.1, momentum=0.9)
for step in range(3):
    loss = ((lin(x) - y) ** 2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
"""


@pytest.mark.parametrize(
    ("one", "two", "says"),
    [
        ("    opt.zero_grad()\n", "", "gradients add up"),
        (", momentum=0.9", "", "another optimizer"),
        (
            "    opt.step()\n",
            "    torch.optim.SGD(lin.parameters(), lr=0.1, momentum=0.9).step()\n",
            "another optimizer",
        ),
        ("(lin(x) - y)", "lin(x)", "another loss"),
        ("Linear(3, 1)", "Linear(3, 1).requires_grad_()", None),
        ("range(3)", "range(1)", None),
        ("torch.manual_seed(0)\n", "", "without a seed"),
    ],
)
def test_another_way_of_training_is_told(one: str, two: str, says: str | None) -> None:
    assert one in STEP
    other = conduct(STEP.replace(one, two)).other_than(conduct(STEP))
    assert (other is None) if says is None else (other is not None and says in other)


def test_a_pure_gradient_needs_no_optimizer() -> None:
    alone = STEP.replace("    opt.step()\n", "").replace("opt.zero_grad()", "lin.zero_grad()")
    alone = "\n".join(line for line in alone.splitlines() if "SGD" not in line)
    assert conduct(alone).other_than(conduct(STEP)) is None


def test_a_default_that_stands_for_a_larger_model_is_told() -> None:
    net = "import torch\ntorch.manual_seed(0)\ndef net(n=64):\n    return torch.nn.Linear(n, n)(torch.ones(n))\n"
    small, default = conduct(net + "net(4)"), conduct(net + "net()")
    assert default.other_than(small) is not None
    assert small.other_than(default) is None
