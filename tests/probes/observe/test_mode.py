"""PyTorch's compiler: not imported for a watched pass, and kept out of the watch where the program has imported it."""

import subprocess
import sys

from support.hosting import ROOT, environment

PROGRAM = """
import sys
import torch
from torch import nn
from repro.probes.observe.watch import Watch, watched

seen = []
def visit(call):
    seen.append((call.address.op, torch.compiler.is_compiling()))
    return call.run()

model = nn.Linear(3, 3)
with watched(model, Watch(visit)):
    model(torch.ones(1, 3))
    assert "torch._dynamo" not in sys.modules
    assert torch.distributions.Distribution._validate_args
    before = len(seen)
    compiled = torch.compile(model, backend="eager")
    compiled(torch.ones(1, 3)).sum()
assert "torch._dynamo" in sys.modules
with watched(model, Watch(visit)):
    compiled(torch.ones(1, 3))
told = [op for op, _ in seen]
assert told[:before] == ["aten.ones.default", "aten.t.default", "aten.addmm.default"], told
assert told[before:] == [*told[:before], "aten.sum.default", *told[:before]], told
assert not any(compiling for _, compiling in seen)
"""


def test_the_compiler_comes_with_the_program_alone():
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], cwd=ROOT, env=environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
