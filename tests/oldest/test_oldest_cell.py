"""The kit in the oldest cell, really run: `nox -s oldest` builds the cell and names it in REPRO_OLDEST.

Only such a run shows that the kit still speaks its Python and torch: no reading of the source sees a call of a library
that is too new. Models are built here, by the newest Transformers, and must be readable there.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from corpus.answers import STEPS, case_of, check_answer
from corpus.faults import BY_NAME

from repro.core.encoding import SCHEMA
from repro.engine.kit import pack
from repro.environments.cells import chosen, recipes
from repro.environments.store import Store

ROOT = Path(__file__).parents[2]
NAMED = os.environ.get("REPRO_OLDEST")
pytestmark = pytest.mark.skipif(NAMED is None, reason="REPRO_OLDEST names no cell: `nox -s oldest` builds one")
FAULTS = (
    "gpt2-sound-float32", "gpt2-zero-norm", "gpt2-zero-norm-sound", "gpt2-nan-embedding", "gpt2-inf-norm",
    "gpt2-missing-key", "bert-zero-norm", "bert-nan-embedding", "t5-zero-norm", "t5-sound-float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def python() -> str:
    (recipe,) = chosen(recipes(), [str(NAMED)])
    cell = Store().built(recipe)
    assert cell is not None, f"{NAMED} is not built"
    return cell.python


def run(python: str, folder: Path, steps: list[str], case: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each step's end event, from one process of the packed kit in the cell."""
    plan = {"schema": SCHEMA, "steps": steps, "case": case, "cache": str(folder / "cache")}
    (folder / "plan.json").write_text(json.dumps(plan), "utf-8")
    command = [python, str(pack().write(folder)), "run", str(folder / "plan.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events, done.stderr
    assert events[-1] == {"event": "done"}, done.stderr
    return {event["step"]: event for event in events if event["event"] == "end"}


def test_the_cell_is_what_its_recipe_says(python: str, tmp_path: Path) -> None:
    (recipe,) = chosen(recipes(), [str(NAMED)])
    case = case_of(BY_NAME["gpt2-sound-float32"], tmp_path)
    found = run(python, tmp_path, ["environment"], case)["environment"]["payload"]
    assert found["python"].startswith(recipe.python + ".")
    assert found["torch"].partition("+")[0] == recipe.pins["torch"]
    assert found["transformers"] == recipe.pins["transformers"]
    assert {"torch", "transformers", "numpy"} <= found["distributions"].keys()


@pytest.mark.parametrize("name", FAULTS)
def test_the_answer_is_the_injected_place(python: str, tmp_path: Path, name: str) -> None:
    fault = BY_NAME[name]
    fault.build(tmp_path / "model")
    steps = [*STEPS, *("ablation:" + ablation for ablation in fault.truth.workarounds)]
    check_answer(fault.truth, run(python, tmp_path, steps, case_of(fault, tmp_path / "model")))


def test_weights_are_copied_and_so_aligned_there(python: str, tmp_path: Path) -> None:
    """examples/boundaries.toml: files are mapped as they lie from Transformers 4.43 on."""
    fault = BY_NAME["gpt2-misaligned"]
    fault.build(tmp_path / "model")
    ends = run(python, tmp_path, ["load", "forward"], case_of(fault, tmp_path / "model"))
    assert (ends["load"]["payload"]["misaligned"], ends["forward"]["verdict"]) == (0, "good")


def test_a_dtype_without_kernels_is_a_skip_in_plain_words(python: str, tmp_path: Path) -> None:
    """torch 2.0 has no float16 layer norm on the CPU."""
    fault = BY_NAME["gpt2-sound-float16"]
    fault.build(tmp_path / "model")
    ends = run(python, tmp_path, ["load", "forward"], case_of(fault, tmp_path / "model"))
    assert (ends["load"]["verdict"], ends["forward"]["verdict"]) == ("good", "skip")
    assert "not implemented for 'Half'" in ends["forward"]["reason"]


@pytest.mark.parametrize(("script", "verdict"), [("pytorch_103749", "bad"), ("transformers_28675", "bad")])
def test_a_script_answers_there(python: str, tmp_path: Path, script: str, verdict: str) -> None:
    """examples/boundaries.toml has both faults in these releases."""
    case = {**case_of(BY_NAME["gpt2-sound-float32"], tmp_path), "model": str(ROOT / "examples" / f"{script}.py")}
    ends = run(python, tmp_path, ["script", "trace"], case)
    assert (ends["script"]["verdict"], ends["script"]["payload"]["exit_status"]) == (verdict, 1)
    assert any(row[2].startswith("aten.") for row in ends["trace"]["payload"]["rows"])


def test_a_model_is_traced_there(python: str, tmp_path: Path) -> None:
    fault = BY_NAME["gpt2-sound-float32"]
    fault.build(tmp_path / "model")
    payload = run(python, tmp_path, ["load", "trace"], case_of(fault, tmp_path / "model"))["trace"]["payload"]
    rows = [dict(zip(payload["columns"], row, strict=True)) for row in payload["rows"]]
    norms = [row for row in rows if row["op"] == "aten.native_layer_norm.default"]
    assert {"transformer.h.0.ln_1", "transformer.ln_f"} <= {row["module"] for row in norms}


@pytest.mark.parametrize("name", ["gpt2-zero-norm", "t5-zero-norm"])
def test_an_injected_fault_is_reduced_there(python: str, tmp_path: Path, name: str) -> None:
    fault = BY_NAME[name]
    fault.build(tmp_path / "model")
    steps = ["load", "forward", "bisect", "reduce"]
    found = run(python, tmp_path, steps, case_of(fault, tmp_path / "model"))["reduce"]
    assert (found["verdict"], found["error"]) == ("bad", None)
    (call,) = found["payload"]["program"]["calls"]
    assert call["op"].startswith(fault.truth.op)
    assert {tuple(leaf["shape"]) for leaf in found["payload"]["program"]["leaves"]} == {(1,)}
    assert found["payload"]["module"]["op"] == call["op"]
    assert found["payload"]["notes"] == []


def test_the_operators_of_a_script_are_reduced_there(python: str, tmp_path: Path) -> None:
    """The example of pytorch#103749, whose fault this release has; its attention ends in a softmax of its own."""
    case = {**case_of(BY_NAME["gpt2-sound-float32"], tmp_path), "model": str(ROOT / "examples" / "pytorch_103749.py")}
    found = run(python, tmp_path, ["bisect", "reduce"], case)["reduce"]
    assert (found["verdict"], found["error"]) == ("bad", None)
    program = found["payload"]["program"]
    assert (program["calls"][-1]["op"], program["mechanism"]) == ("aten._softmax.default", "masked_row")
