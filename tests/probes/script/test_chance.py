"""Scripts whose answer is chance: no change of them says anything, and what is drawn without a seed is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from repro.probes.script.answer import ablation, asked, bisect, outcome
from repro.probes.script.chance import SEEDS

LUCK = "x = torch.rand(1).item()"
NUMPY = "import numpy\nx = numpy.random.rand()"
PYTHON = "import random\nx = random.random()"
DRAWS = [(LUCK, "torch"), (NUMPY, "numpy.random"), (PYTHON, "random")]
SEEDED = {"torch": "torch.manual_seed(3)", "numpy.random": "numpy.random.seed(3)", "random": "random.seed(3)"}
ABLATIONS = ("dtype=float32", "threads=1", "attn=math", "fast_path=off", "compile=off", "mkldnn=off")


def script(folder: Path, *lines: str) -> str:
    path = folder / "script.py"
    path.write_text("\n".join(["import sys", "import torch", *lines]) + "\n")
    return str(path)


def ends(path: str, seeds: range) -> list[int]:
    """How plain Python ends it with torch's generator begun from each seed, which is the oracle: 0, or 1 for raised."""
    code = (
        "import runpy, sys, torch\n"
        "for seed in map(int, sys.argv[2:]):\n"
        "    torch.manual_seed(seed)\n"
        "    try: runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "    except AssertionError: print(1)\n"
        "    else: print(0)\n"
    )
    command = [sys.executable, "-c", code, path, *map(str, seeds)]
    return [int(word) for word in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


def bad(path: str) -> object:
    """What is asked of it, begun anew until its first run is bad."""
    for _ in range(60):
        found = asked(path)
        if found.runs.plain.verdict == "bad" and not found.chance.turned:
            return found
    raise AssertionError("it never came out bad")


def test_a_root_that_is_bad_by_chance_is_blamed_on_no_setting(tmp_path: Path) -> None:
    path = script(tmp_path, "y = (0.7 - torch.rand(3)).sqrt().sum()", "assert y == y")
    truth = ends(path, SEEDS)
    assert set(truth) == {0, 1}, "the oracle itself does not end the same way under each seed"
    found = bad(path)
    assert (found.chance.unseeded, found.chance.otherwise) == (("torch",), truth.count(0))
    for name in ABLATIONS:
        verdict, reason, _ = ablation(found, name)
        assert verdict == "skip"
        assert "does not end the same way twice" in reason
    verdict, _, payload = bisect(found)
    assert verdict == "bad", "under a seed with which it fails, the operator is found all the same"
    assert payload["origin"]["op"] == "aten.sqrt.default"


@pytest.mark.parametrize(("line", "generator"), DRAWS)
def test_a_script_that_draws_and_comes_out_good_is_noted(tmp_path: Path, line: str, generator: str) -> None:
    verdict, reason, told = outcome(asked(script(tmp_path, line, "print(x)")))
    assert (verdict, told["unseeded"]) == ("good", [generator])
    assert reason.endswith(f"(it draws random numbers without a seed ({generator}), so another run may end otherwise)")


@pytest.mark.parametrize(("line", "generator"), DRAWS)
def test_with_a_seed_nothing_is_said(tmp_path: Path, line: str, generator: str) -> None:
    first, _, rest = line.rpartition("\n")
    verdict, reason, told = outcome(asked(script(tmp_path, first, SEEDED[generator], rest, "print('done')")))
    assert (verdict, reason, told["unseeded"]) == ("good", "done", [])


def test_a_script_that_draws_nothing_is_asked_once_more_and_no_more(tmp_path: Path) -> None:
    told = outcome(asked(script(tmp_path, "print(torch.ones(2))")))[2]
    assert (told["unseeded"], told["further_runs"], told["otherwise"]) == ([], 1, 0)


def test_a_script_that_is_bad_whatever_it_draws_keeps_its_workaround(tmp_path: Path) -> None:
    path = script(tmp_path, "y = (torch.rand(3).half() + 300) ** 2", "assert y.isfinite().all()")
    found = asked(path)
    assert (found.chance.unseeded, found.chance.otherwise) == (("torch",), 0)
    assert ablation(found, "dtype=float32")[0] == "good"
    assert ablation(found, "threads=1")[0] == "bad"


def test_a_script_that_fails_under_another_seed_is_bad(tmp_path: Path) -> None:
    path = script(tmp_path, "y = (0.7 - torch.rand(3)).sqrt().sum()", "assert y == y")
    truth = ends(path, SEEDS)
    assert 1 in truth[:2], "a good script is asked twice, and the oracle has both of these good"
    found = next(found for found in (asked(path) for _ in range(60)) if found.chance.turned)
    verdict, reason, told = outcome(found)
    assert (verdict, told["exit_status"], told["further_runs"], told["otherwise"]) == ("bad", 1, 5, 1 + truth.count(0))
    assert "does not end the same way twice" in reason
    assert bisect(found)[2]["origin"]["op"] == "aten.sqrt.default"
    assert ablation(found, "threads=1")[0] == "skip"


COUNTED = (
    "import pathlib",
    "count = pathlib.Path(__file__).with_name('count')",
    "before = len(count.read_text()) if count.exists() else 0",
    "count.write_text('x' * (before + 1))",
)


def test_a_script_that_is_good_once_and_then_bad_is_neither(tmp_path: Path) -> None:
    """What a run leaves behind may be all that makes the next one fail."""
    found = asked(script(tmp_path, *COUNTED, "sys.exit(0 if before == 0 else 1)"))
    verdict, reason, told = outcome(found)
    assert (verdict, told["further_runs"], told["otherwise"]) == ("skip", 1, 1)
    assert reason.startswith("the script does not end the same way twice: 1 of 1 further runs ended otherwise (good")
    assert bisect(found)[0] == ablation(found, "threads=1")[0] == "skip"


@pytest.mark.parametrize("end", ["sys.exit(1 if x.isnan() else 0)", "if x.isnan(): raise ValueError('not finite')"])
def test_a_script_that_is_good_once_and_then_has_a_nan_is_bad(tmp_path: Path, end: str) -> None:
    """As one that reads unset memory: good in a fresh process, and a NaN makes a later run fail."""
    found = asked(script(tmp_path, *COUNTED, "x = torch.tensor(-1.0 if before else 1.0).sqrt()", end))
    verdict, reason, _ = outcome(found)
    assert verdict == "bad", reason
    assert bisect(found)[2]["origin"]["op"] == "aten.sqrt.default"


def test_a_script_that_is_good_once_and_then_raises_something_is_good_and_noted(tmp_path: Path) -> None:
    found = asked(script(tmp_path, *COUNTED, "if before: raise FileExistsError('there already')", "print('done')"))
    verdict, reason, _ = outcome(found)
    assert (verdict, reason) == ("good", "done (another run ended otherwise: skip: FileExistsError: there already)")


def test_what_is_no_draw_and_ends_otherwise_takes_the_ablations_along(tmp_path: Path) -> None:
    found = asked(script(tmp_path, *COUNTED, "sys.exit(1 if before == 0 else 0)"))
    verdict, reason, _ = ablation(found, "fast_path=off")
    assert verdict == "skip"
    assert "1 of 1 further runs ended otherwise" in reason
