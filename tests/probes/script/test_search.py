"""Scripts: which operator makes them bad, by repairing it; which are left alone; and the process as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.reducing import number, result_of, trials

from repro.probes.protocol.wire import jsonable
from repro.probes.script.answer import asked, bisect, reduce

BAD_IF = "sys.exit(1 if not bool(torch.isfinite(y).all()) else 0)"


def script(folder: Path, *lines: str) -> str:
    path = folder / "script.py"
    body = "\n".join(lines)
    path.write_text(f"import sys\n\nimport torch\n\n{body}\n")
    return str(path)


def origin_of(path: str) -> dict[str, Any]:
    verdict, _, payload = bisect(asked(path))
    assert verdict == "bad"
    assert payload is not None
    origin: dict[str, Any] = payload["origin"]
    return origin


def reduction(path: str) -> dict[str, Any]:
    """The reduced program; it shows again what it says, in a run that shares nothing with the kit."""
    script = asked(path)
    bisect(script)
    verdict, _, payload = reduce(script, trials()[0])
    assert verdict == "bad"
    assert payload is not None
    program: dict[str, Any] = jsonable(payload["program"])
    assert str(result_of(program)) == str(number(program["seen"]))
    return program


def test_the_operator_whose_repair_makes_the_script_good_is_the_origin(tmp_path: Path) -> None:
    path = script(tmp_path, "x = torch.zeros(3)", "y = x.exp() + (x - x).log() * x", BAD_IF)
    origin = origin_of(path)
    assert (origin["op"], origin["mechanism"], origin["confirmed_by"]) == (
        "aten.log.default",
        "divide_by_zero",
        "repaired",
    )
    assert (origin["source"], origin["code"]) == ("script.py:6", "__main__")


def test_it_is_reduced_to_one_number(tmp_path: Path) -> None:
    path = script(tmp_path, "x = torch.linspace(-3, 3, 60).reshape(4, 15).half() * 20000", "y = x * x", BAD_IF)
    program = reduction(path)
    assert [call["op"] for call in program["calls"]] == ["aten.mul.Tensor"]
    assert [leaf["shape"] for leaf in program["leaves"]] == [[1], [1]]


def test_a_nan_that_is_dropped_is_not_blamed(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "x = torch.zeros(3)",
        "dropped = torch.where(x > 0, x / x, torch.ones(3))",
        "y = dropped + torch.full((3,), 60000.0).half() * 2",
        BAD_IF,
    )
    verdict, _, payload = bisect(asked(path))
    assert verdict == "bad"
    assert payload is not None
    assert payload["origin"]["op"] == "aten.mul.Tensor"
    assert [row["op"] for row in payload["ruled_out"]] == ["aten.div.Tensor"]


def test_the_one_that_made_it_infinite_is_blamed_and_not_the_one_that_made_nan_of_that(tmp_path: Path) -> None:
    path = script(tmp_path, "x = torch.full((4,), -60000.0).half()", "z = x + x", "y = z - z", BAD_IF)
    origin = origin_of(path)
    assert (origin["op"], origin["mechanism"]) == ("aten.add.Tensor", "overflow")


def test_a_masked_row_is_the_softmaxs_and_not_the_adds_that_made_the_mask(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "lowest = torch.full((2, 3), torch.finfo(torch.float32).min)",
        "y = torch.softmax(torch.ones(2, 3) + lowest + lowest, -1)",
        BAD_IF,
    )
    origin = origin_of(path)
    assert (origin["op"], origin["mechanism"]) == ("aten._softmax.default", "masked_row")
    program = reduction(path)
    assert [call["op"] for call in program["calls"]] == ["aten.add.Tensor", "aten._softmax.default"]


def test_a_fault_that_is_made_twice_is_that_of_the_first(tmp_path: Path) -> None:
    """No single repair helps; each of them suffices with the other one repaired."""
    path = script(
        tmp_path, "y = torch.ones(2)", "for _ in range(2):", "    y = y + torch.full((2,), 60000.0).half() * 2", BAD_IF
    )
    origin = origin_of(path)
    assert (origin["op"], origin["occurrence"], origin["confirmed_by"]) == ("aten.mul.Tensor", 0, "suffices")


def test_a_script_that_is_bad_for_another_reason_blames_nobody(tmp_path: Path) -> None:
    """Two NaN that do not matter: with all of them repaired it is as bad as before."""
    path = script(tmp_path, "x = torch.zeros(2)", "a, b = x / x, x / x", "sys.exit(1)")
    verdict, reason, _ = bisect(asked(path))
    assert verdict == "skip"
    assert "bad also with all 2" in reason


def test_a_script_that_is_bad_without_any_nan_is_a_skip(tmp_path: Path) -> None:
    verdict, reason, _ = bisect(asked(script(tmp_path, "print('wrong numbers')", "sys.exit(1)")))
    words = "no operator makes a NaN or Inf, and no operator could be compared with float64"
    assert (verdict, reason) == ("skip", words)


@pytest.mark.parametrize(
    ("line", "verdict"),
    [("sys.exit(0)", "good"), ("sys.exit(125)", "skip"), ("sys.exit(7)", "skip"), ("1 / 0", "skip"), ("pass", "good")],
)
def test_a_script_that_is_not_bad_has_no_origin(tmp_path: Path, line: str, verdict: str) -> None:
    found = bisect(asked(script(tmp_path, "y = torch.zeros(2) / 0", line)))
    assert (found[0], found[2]) == (verdict, None)


@pytest.mark.parametrize(("value", "verdict"), [("nan", "bad"), ("1", "skip")])
def test_an_operator_that_raises_for_a_nan_of_the_script_is_bad(tmp_path: Path, value: str, verdict: str) -> None:
    """The operator that reads it first is the one that raises; repaired, an assertion behind it ends the script."""
    given = f'm = torch.tensor([[float("{value}"), 0.0], [0.0, 1.0]])'
    refused = "torch.linalg.svdvals(m)" if value == "nan" else "torch.linalg.cholesky(m - 2)"
    asked_of = asked(script(tmp_path, given, refused, "assert not m.isfinite().all()"))
    assert asked_of.verdict == verdict
    if verdict == "bad":
        origin = (bisect(asked_of)[2] or {})["origin"]
        assert (origin["mechanism"], origin["source"]) == ("literal", "script.py:5")


def test_an_assertion_of_the_script_is_its_answer(tmp_path: Path) -> None:
    path = script(tmp_path, "y = torch.zeros(2) / torch.zeros(2)", "assert not y.isnan().any(), 'nan'")
    assert origin_of(path)["op"] == "aten.div.Tensor"


def test_what_a_script_reads_in_strides_is_captured_as_it_lies(tmp_path: Path) -> None:
    """An injected operator that is wrong for memory that is not contiguous alone."""
    library = torch.library.Library("scripted", "DEF")
    library.define("strided(Tensor x) -> Tensor")

    def wrong(x: torch.Tensor) -> torch.Tensor:
        return x.clone() if x.is_contiguous() or x.dtype != torch.float32 else torch.full_like(x, float("nan"))

    library.impl("strided", wrong, "CPU")
    path = script(tmp_path, "y = torch.ops.scripted.strided(torch.ones(4, 6).t()[:, 1:3])", BAD_IF)
    (leaf,) = reduction(path)["leaves"]
    assert leaf["layout"] is not None


def test_an_operator_in_place_is_captured_as_it_was_before(tmp_path: Path) -> None:
    path = script(tmp_path, "y = torch.full((3,), 60000.0).half()", "y.mul_(y)", "y[0] = 1", BAD_IF)
    origin = origin_of(path)
    assert origin["op"] == "aten.mul_.Tensor"
    assert origin["inputs"][0]["max"] == 60000.0
    assert [call["op"] for call in reduction(path)["calls"]] == ["aten.mul.Tensor"]


def test_the_search_ends_when_its_time_is_up(tmp_path: Path) -> None:
    found = asked(script(tmp_path, "x = torch.zeros(2)", "y = x / 0 + x.log()", BAD_IF))
    found.runs.end = 0.0
    verdict, reason, _ = bisect(found)
    assert verdict == "skip"
    assert "no origin was found" in reason


def test_a_script_is_not_called_a_model(tmp_path: Path) -> None:
    path = script(tmp_path, "y = torch.zeros(2) / torch.zeros(2)", BAD_IF)
    verdict, reason, _ = bisect(asked(path))
    assert (verdict, " in the script itself (aten.div.Tensor" in reason) == ("bad", True)


def test_the_code_of_a_library_is_neither_the_scripts_nor_that_of_a_module_that_ran_before(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    (folder / "halves").mkdir(parents=True)
    (folder / "halves" / "__init__.py").write_text("def half(x):\n    return x / x.sum()\n", encoding="utf-8")
    head = f"import sys; sys.path.insert(0, {str(folder)!r}); import halves"
    ran = "torch.nn.Linear(2, 2)(torch.ones(2))"
    verdict, reason, payload = bisect(asked(script(tmp_path, head, ran, "y = halves.half(torch.zeros(2))", BAD_IF)))
    assert (verdict, " in the code of halves (aten.div.Tensor" in reason) == ("bad", True)
    assert [payload["origin"][key] for key in ("code", "module", "module_class")] == ["halves", "", ""]


def test_without_an_origin_nothing_is_reduced(tmp_path: Path) -> None:
    made, events = trials()
    verdict, _, payload = reduce(asked(script(tmp_path, "sys.exit(1)")), made)
    assert (verdict, payload, events) == ("skip", None, [])


def test_the_dtype_of_the_largest_parameter_is_told_whatever_the_operator_computes_in(tmp_path: Path) -> None:
    net = "net = torch.nn.Linear(2, 2).half()"
    path = script(tmp_path, net, "with torch.no_grad():", "    y = net(torch.ones(1, 2).half()).float() / 0", BAD_IF)
    origin = origin_of(path)
    assert origin["op"] == "aten.div.Tensor"
    assert origin["output"]["dtype"] == "float32"
    assert origin["largest_weight"]["dtype"] == "float16"


GENERATION = """
from transformers import GPT2Config, GPT2LMHeadModel
torch.manual_seed(0)
config = GPT2Config(vocab_size=50, n_positions=32, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1)
model = GPT2LMHeadModel(config).eval()
NAN
ids = torch.tensor([[5, 8, 9]])
out = model.generate(ids, max_new_tokens=8, do_sample=True, pad_token_id=0)
"""


@pytest.mark.parametrize(
    "written",
    [
        "model.transformer.wpe.weight.data[6, 3] = float('nan')",
        "model.transformer.wpe.weight.data[6, 3] = torch.tensor(1.0).log() / 0",
        "import numpy\nmodel.transformer.wpe.weight.data[6] = torch.from_numpy(numpy.full(8, numpy.nan))",
    ],
)
def test_what_was_there_before_a_generation_is_in_no_step_of_it(tmp_path: Path, written: str) -> None:
    path = script(tmp_path, GENERATION.replace("NAN", written))
    line = next(number for number, text in enumerate(Path(path).read_text().split("\n"), 1) if "wpe" in text)
    origin = origin_of(path)
    assert (origin["phase"], origin["generate_step"]) == ("forward", None)
    assert f"script.py:{line}" in f"{origin['source']} {origin['note']}"


VANISHING = [
    ("y = F.normalize(x)", "default constant",
     "eps=1e-12 is 0 in float16 (the default of torch.nn.functional.normalize)"),
    ("y = F.normalize(x, eps=1e-10)", "constant", "eps=1e-10 is 0 in float16 (given to torch.nn.functional.normalize)"),
    ("def unit(v, tiny=1e-9):\n    return v / (v.norm() + tiny)\ny = unit(x)", "default constant",
     "tiny=1e-09 is 0 in float16 (the default of __main__.unit)"),
    ("y = x / x.norm().clamp_min(0.0)", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "decided_by", "says"), VANISHING)
def test_a_constant_that_is_0_in_the_dtype_is_named(
    tmp_path: Path, lines: str, decided_by: str | None, says: str | None
) -> None:
    x = torch.zeros(1, 4, dtype=torch.float16)
    assert torch.tensor(1e-9, dtype=x.dtype) == 0, "the oracle"
    path = script(tmp_path, "import torch.nn.functional as F", "x = torch.zeros(1, 4).half()", lines, BAD_IF)
    origin = origin_of(path)
    assert (origin["decided_by"], origin["mechanism"]) == (decided_by, "invalid")
    assert origin["note"] == says
