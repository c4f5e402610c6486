"""Faults of compiled code alone: a backend that is wrong for one operator, whatever it is called."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from repro.probes.script.answer import asked, bisect
from repro.probes.script.compiled import apart

WRONG = """
import sys, torch
from torch import fx


def wrong(graph, example):
    \"\"\"Runs the graph as it is, and gives 0 in place of every NaN of the injected operator.\"\"\"

    class Runs(fx.Interpreter):
        def call_function(self, target, args, kwargs):
            result = super().call_function(target, args, kwargs)
            return torch.nan_to_num(result) if target is INJECTED else result

    return lambda *given: Runs(graph).run(*given)


def score(x):
    y = torch.exp(x)
    z = torch.sub(y, y)
    return torch.amax(torch.mul(z, 2), -1)


x = torch.tensor([[1000.0, 1.0]])
eager, compiled = score(x), torch.compile(score, backend=wrong)(x)
print(eager, compiled)
sys.exit(0 if torch.equal(eager.isnan(), compiled.isnan()) else 1)
"""


def answer(folder: Path, text: str) -> tuple[str, str, Any]:
    path = folder / "compiles.py"
    path.write_text(text)
    return bisect(asked(str(path)))


@pytest.mark.parametrize(("operator", "line"), [("torch.sub", "z = torch.sub"), ("torch.mul", "torch.mul(z, 2)")])
def test_the_node_that_the_backend_is_wrong_for_is_named(tmp_path: Path, operator: str, line: str) -> None:
    text = WRONG.replace("INJECTED", operator)
    verdict, _, payload = answer(tmp_path, text)
    origin = payload["origin"]
    assert (verdict, origin["mechanism"], origin["op"], origin["layer"]) == ("bad", "compiler", operator, "wrong")
    number = int(origin["source"].partition(":")[2])
    assert line in text.splitlines()[number - 1]
    assert math.isnan(origin["reference_value"])


def test_a_script_that_compiles_and_is_as_bad_without_it_is_looked_at_eagerly(tmp_path: Path) -> None:
    text = "import sys, torch\ny = torch.compile(lambda a: a / a, backend='eager')(torch.zeros(1))\n"
    verdict, _, payload = answer(tmp_path, text + "sys.exit(int(y.isnan().any()))")
    assert (verdict, payload["origin"]["op"], payload["origin"]["mechanism"]) == ("bad", "aten.div.Tensor", "invalid")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_what_inductor_folds_away_is_found(tmp_path: Path) -> None:
    text = (
        "import sys, torch\n"
        "x = torch.tensor([[1000.0, 1.0]])\n"
        "y = torch.compile(lambda a: torch.amax(a.exp() * 0, -1))(x)\n"
        "sys.exit(0 if y.isnan().all() else 1)\n"
    )
    with torch.no_grad():
        plain = torch.amax(torch.tensor([[1000.0, 1.0]]).exp() * 0, -1)
    assert plain.isnan().all()
    verdict, reason, payload = answer(tmp_path, text)
    if verdict == "good":
        pytest.skip(f"Inductor of PyTorch {torch.__version__} does not fold it")
    assert payload["origin"], reason
    assert (payload["origin"]["mechanism"], payload["origin"]["layer"]) == ("compiler", "inductor")


def test_a_script_whose_answer_is_chance_is_said_to_be(tmp_path: Path) -> None:
    text = (
        "import pathlib, sys, torch\n"
        "count = pathlib.Path(__file__).with_name('count')\n"
        "before = len(count.read_text()) if count.exists() else 0\n"
        "count.write_text('x' * (before + 1))\n"
        "sys.exit(1 if before == 0 else 0)\n"
    )
    verdict, reason, payload = answer(tmp_path, text)
    assert (verdict, payload["origin"], payload["watching"]) == ("skip", None, "chance")
    assert reason.startswith("the script does not end the same way twice: 1 of 1 further runs ended otherwise (good")


@pytest.mark.parametrize(
    ("actual", "expected", "at"),
    [
        ([1.0, math.nan], [1.0, math.nan], None),
        ([1.0, 0.0], [1.0, math.nan], [1]),
        ([1.0, math.nan], [1.0, 0.0], [1]),
        ([math.inf, 1.0], [math.inf, 1.0], None),
        ([math.inf, 1.0], [-math.inf, 1.0], [0]),
        ([1.0, 1.0 + 1e-7], [1.0, 1.0], None),
        ([1.0, 1.1], [1.0, 1.0], [1]),
    ],
)
def test_two_results_are_apart_where_rounding_does_not_explain_it(actual: Any, expected: Any, at: Any) -> None:
    assert apart(torch.tensor(actual), torch.tensor(expected)) == at
