"""Programs of many kinds, each with one fault: what must be said of it, and what must not.

The truth of each is what its text does, by arithmetic; none of them is looked at by a list of operator names.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from repro.probes.script.answer import asked, bisect, outcome

HEAD = """
import sys, math, torch
from torch import nn
import torch.nn.functional as F
torch.manual_seed(0)
"""
END = "\nsys.exit(int(not torch.isfinite(y).all()))\n"


@dataclass(frozen=True)
class Program:
    """A script and what must be found in it. ``text`` comes behind HEAD; it leaves its result in ``y``, and END asks
    whether that is finite, unless ``whole``: then the text ends by itself.

    at, behind: what the origin's own line, and the line of the forward operator behind a backward one, must hold.
    """

    text: str
    op: str = ""
    mechanism: tuple[str, ...] = ()
    at: str = ""
    behind: str = ""
    fields: tuple[tuple[str, Any], ...] = ()
    verdict: str = "bad"
    whole: bool = False
    found: bool = True

    def write(self, folder: Path) -> Path:
        path = folder / "program.py"
        path.write_text(HEAD + textwrap.dedent(self.text) + ("" if self.whole else END))
        return path


DIVIDES, OVERFLOWS, INVALID = ("divide_by_zero",), ("overflow",), ("invalid",)
PROGRAMS = {
    # Tensors without plain storage, and those that take themselves apart.
    "jagged": Program(
        """
        held = torch.nested.nested_tensor([torch.ones(2, 3), -torch.ones(3, 3)], layout=torch.jagged)
        y = torch.nested.to_padded_tensor(held.log(), 0.0)
        """,
        "aten.log", INVALID, "held.log()",
    ),
    "sparse": Program(
        """
        held = torch.sparse_coo_tensor([[0, 1]], [1e38, 1.0], (3,)).coalesce()
        y = (held * 100).to_dense()
        """,
        "aten.mul", (), "held * 100",
    ),
    "a subclass": Program(
        """
        class Wrapped(torch.Tensor):
            @staticmethod
            def __new__(cls, held):
                return torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype)

            def __init__(self, held):
                self.held = held

            @classmethod
            def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
                result = func(*(arg.held if isinstance(arg, Wrapped) else arg for arg in args), **(kwargs or {}))
                return Wrapped(result) if isinstance(result, torch.Tensor) else result

        y = (Wrapped(torch.tensor([4.0, 0.0])).reciprocal() * 0).held
        """,
        "aten.reciprocal", DIVIDES,
    ),
    "quantised": Program(
        """
        held = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8)
        y = held.dequantize() / torch.zeros(4)
        """,
        "aten.div", DIVIDES, "held.dequantize()",
    ),
    "meta": Program(
        "shape = torch.empty(4, 4, device='meta') @ torch.empty(4, 4, device='meta')\ny = torch.ones(1) * 1e38 * 100",
        "aten.mul", OVERFLOWS, "* 100",
    ),
    "a result with names": Program(
        "top = torch.max(torch.tensor([[1e38, 1.0]]) * 100, -1)\ny = top.values - top.values",
        "aten.mul", OVERFLOWS, "* 100",
    ),
    "vmap": Program("y = torch.vmap(lambda row: (row / row).sum())(torch.tensor([[1.0], [0.0]]))", "aten.div", INVALID),
    "autocast": Program(
        """
        net = nn.Linear(4, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = net(torch.full((1, 4), 3e4)).float().exp()
        """,
        "aten.exp", OVERFLOWS, ".exp()",
    ),
    "inference mode": Program(
        "with torch.inference_mode():\n    x = torch.zeros(1)\n    y = x / x", "aten.div", INVALID, "x / x"
    ),
    "an argument for the result": Program(
        "y = torch.empty(2)\ntorch.mul(torch.full((2,), 1e38), 1e3, out=y)", "aten.mul", OVERFLOWS, "out=y"
    ),
    # Gradients.
    "a root at 0 behind where": Program(
        """
        net = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            net.weight.zero_()
        square = net(torch.ones(3, 2)) ** 2
        torch.where(square > 0, square.sqrt(), square).mean().backward()
        y = net.weight.grad
        """,
        "aten.div", (), "", "square.sqrt()", (("phase", "backward"), ("gradient", "weight")),
    ),
    "the arc cosine of 1": Program(
        """
        net = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            net.weight.copy_(torch.tensor([[1.0, 0.0]]))
        cosine = net(torch.tensor([[1.0, 0.0]]))
        torch.acos(cosine).sum().backward()
        y = net.weight.grad
        """,
        "aten.rsqrt", DIVIDES, "", "torch.acos", (("phase", "backward"), ("gradient", "weight")),
    ),
    "a backward of its own": Program(
        """
        class Sign(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x.abs()

            @staticmethod
            def backward(ctx, given):
                (x,) = ctx.saved_tensors
                return given * x / x.abs()

        x = nn.Parameter(torch.tensor([0.0, 1.0]))
        Sign.apply(x).sum().backward()
        y = x.grad
        """,
        "aten.div", INVALID, "given * x / x.abs()", "", (("phase", "backward"), ("gradient", "x")),
    ),
    "recomputed in the backward": Program(
        """
        from torch.utils.checkpoint import checkpoint

        x = nn.Parameter(torch.tensor([0.0, 1.0]))
        checkpoint(lambda a: torch.where(a > 0, a.log(), a), x, use_reentrant=False).sum().backward()
        y = x.grad
        """,
        "", (), "", "a.log()", (("phase", "backward"),),
    ),
    "torch.func": Program(
        "y = torch.func.grad(lambda a: torch.where(a > 0, a.sqrt(), a).sum())(torch.tensor([0.0, 1.0]))",
        "", (), "", "a.sqrt()", (("phase", "backward"),),
    ),
    # From outside.
    "NumPy's data": Program(
        """
        import numpy as np

        rows = np.ones((5, 3), dtype=np.float32)
        rows[3, 1] = np.nan
        data = torch.from_numpy(rows)
        y = nn.Linear(3, 2)(data)
        """,
        "", ("bad_input",), "nn.Linear(3, 2)(data)", "", (("tensor", "data"),),
    ),
    "data from text": Program(
        """
        read = [[float(field or "nan") for field in line.split(",")] for line in "1,2\\n3,\\n5,6".split("\\n")]
        batch = torch.tensor(read)
        y = nn.Linear(2, 2)(batch)
        """,
        "", ("bad_input",), "nn.Linear(2, 2)(batch)", "", (("tensor", "batch"),),
    ),
    "a file of weights": Program(
        """
        import io

        kept = nn.Linear(2, 2).state_dict()
        kept["weight"][0, 1] /= 0.0
        content = io.BytesIO()
        torch.save(kept, content)
        content.seek(0)
        net = nn.Linear(2, 2)
        net.load_state_dict(torch.load(content))
        y = net(torch.ones(1, 2))
        """,
        "", ("bad_weights", "divide_by_zero"),
    ),
    "NumPy writes into it": Program(
        "import numpy as np\nx = torch.zeros(4)\nx.numpy()[1] = np.nan\ny = x + 1", "", ("written_outside",), "x + 1"
    ),
    "ctypes writes into it": Program(
        """
        import ctypes

        x = torch.empty(4)
        place = ctypes.cast(x.data_ptr(), ctypes.POINTER(ctypes.c_float))
        for number in range(4):
            place[number] = math.inf
        y = x - x
        """,
        "", ("written_outside",), "x - x",
    ),
    "nobody writes into it": Program(
        """
        class Shift(nn.Module):
            def __init__(self):
                super().__init__()
                self.shift = nn.Parameter(torch.empty(4, 16))

            def forward(self, x):
                return x + self.shift

        used = [torch.full((4, 16), math.nan) for _ in range(200)]
        del used
        nets = [Shift() for _ in range(50)]
        y = torch.stack([net(torch.ones(16)) for net in nets])
        """,
        "aten.empty", ("unset_memory",), "torch.empty(4, 16)",
    ),
    "a NaN that is written down": Program(
        "x = torch.zeros(3)\nx[1] = float('nan')\ny = x - 1", "", ("literal",), "float('nan')"
    ),
    "a number that the dtype does not hold": Program(
        "y = torch.tensor([1.0, 7e4], dtype=torch.float16) * 1", "", ("literal",), "7e4"
    ),
    # Many, and several.
    "harmless ones by the dozen": Program(
        """
        x = torch.tensor([0.0, 1.0])
        for _ in range(200):
            y = torch.where(x > 0, x.log(), torch.zeros(2))
        y = y + torch.exp(torch.tensor([1000.0])) * 0
        """,
        "aten.exp", OVERFLOWS, "torch.exp",
    ),
    "two that do not know each other": Program(
        "first = torch.tensor([1e38]) * 100\nsecond = torch.zeros(1) / 0.0\ny = torch.cat([first, second])",
        "aten.mul", OVERFLOWS, "* 100",
    ),
    "PyTorch's own encoder, two bad layers": Program(
        """
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        net = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
        with torch.no_grad():
            for bad in (1, 2):
                net.layers[bad].linear1.weight.fill_(3e38)
            y = net(torch.randn(2, 5, 16))
        """,
        "", (), "", "", (("module", "layers.1.linear1"),),
    ),
    # Masks.
    "a row that is masked throughout": Program(
        "scores = torch.zeros(2, 4)\nscores[1] = -math.inf\ny = F.log_softmax(scores + 1, -1)", "", ("masked_row",)
    ),
    "a row of scores that overflows": Program(
        "scores = torch.full((1, 4), -6e4).half()\ny = (scores * 2).softmax(-1)", "aten.mul", OVERFLOWS, "scores * 2"
    ),
    # A loss over nothing.
    "no label": Program(
        "y = F.cross_entropy(torch.randn(2, 4), torch.full((2,), -100))",
        "aten.nll_loss", INVALID, "", "", (("phase", "loss"), ("decided_by", "integers")),
    ),
    "an alignment that is impossible": Program(
        """
        scores = torch.randn(5, 1, 4).log_softmax(-1)
        y = F.ctc_loss(scores, torch.tensor([[1, 1, 1, 2, 2, 3, 1]]), torch.tensor([5]), torch.tensor([7]))
        """,
        "aten._ctc_loss", (), "", "", (("phase", "loss"), ("decided_by", "integers")),
    ),
    # Raised for it, and not for it.
    "a distribution refuses it": Program(
        "torch.distributions.Categorical(logits=torch.zeros(3) / torch.zeros(3))", "aten.div", INVALID, whole=True
    ),
    "anomaly mode raises": Program(
        """
        x = nn.Parameter(torch.zeros(1))
        with torch.autograd.set_detect_anomaly(True):
            torch.where(x > 0, x.sqrt(), x).sum().backward()
        """,
        "", (), "", "x.sqrt()", (("phase", "backward"),), whole=True,
    ),
    "raised for another reason": Program(
        "harmless = torch.where(torch.zeros(1) > 0, torch.zeros(1).log(), torch.zeros(1))\nraise ValueError('no file')",
        verdict="skip", whole=True, found=False,
    ),
    "bad in another thread": Program(
        """
        import threading

        seen = []
        worker = threading.Thread(target=lambda: seen.append(nn.Linear(2, 2)(torch.full((1, 2), 1e38)) * 100))
        worker.start()
        worker.join()
        y = seen[0] * 1
        """,
        "", ("unknown",),
    ),
    "bad at exit": Program("import atexit, os\natexit.register(os._exit, 1)", whole=True, found=False),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_said_of_it(name: str, tmp_path: Path) -> None:
    program = PROGRAMS[name]
    path = program.write(tmp_path)
    script = asked(str(path))
    assert outcome(script)[0] == program.verdict
    verdict, reason, payload = bisect(script)
    origin = (payload or {}).get("origin")
    if not program.found:
        assert origin is None, reason
        return
    assert verdict == "bad", reason
    assert origin is not None
    assert origin["op"].startswith(program.op), reason
    assert not program.mechanism or origin["mechanism"] in program.mechanism, reason
    lines = path.read_text().splitlines()
    for key, words in (("source", program.at), ("forward_source", program.behind)):
        if words:
            file, _, line = origin[key].partition(":")
            assert (file, words in lines[int(line) - 1]) == ("program.py", True), (origin[key], reason)
    assert {key: origin[key] for key, _ in program.fields} == dict(program.fields)
