"""The walk-through of docs/walkthrough.md: every number of the tool against the script that made the material."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from support.hosting import ROOT, repro

SCRIPT = ROOT / "docs" / "walkthrough.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("walkthrough")
    runpy.run_path(str(SCRIPT))["make"](folder)
    return folder, json.loads((folder / "truth.json").read_text())


def asked(folder: Path, *args: str, status: int) -> dict[str, Any]:
    done = repro(*args, "--json", cwd=folder)
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_logs_say_how_many_failed_of_how_many_and_that_they_are_the_same(made: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = made
    done = repro("logs", "job_4b.err", "job_12b.err", "job_27b.err", cwd=folder)
    assert done.returncode == 1
    for size, failing in truth["failing"].items():
        assert f"gemma-3-{size}-it: {len(failing)} of 100 prompts failed" in done.stdout
    rows = truth["rows"]["12b"]
    assert f"are {min(rows)} to {max(rows)} whole token rows of 3,840 elements" in done.stdout
    assert f"All {truth['shared']} in gemma-3-27b-it are among the 38 in gemma-3-12b-it" in done.stdout
    assert f"probability {truth['chance']:.3g}." in done.stdout
    of = {size: dict(zip(truth["failing"][size], truth["rows"][size], strict=True)) for size in ("12b", "27b")}
    same = sum(of["12b"][index] == rows for index, rows in of["27b"].items())
    assert f"{same} of {truth['shared']} prompts that failed in both" in done.stdout


@pytest.mark.parametrize(
    ("places", "more"),
    [
        (("job_27b.err", "job_12b.err"), ()),
        (("27b_skipped.txt", "12b_skipped.txt"), ("--population", "100")),
        (("27b_skipped.txt", "12b_skipped.txt"), ("--population", "prompts.txt")),
        (("job_27b.err", "job_12b.err"), ("--population", "prompts.txt")),  # truncated texts fit several of these
        (("27b_skipped.txt", "job_12b.err"), ("--population", "prompts.txt")),
    ],
)
def test_all_that_fail_in_one_fail_in_the_other(
    made: tuple[Path, dict[str, Any]], places: tuple[str, ...], more: tuple[str, ...]
) -> None:
    folder, truth = made
    (pair,) = asked(folder, "overlap", *places, *more, status=0)["pairs"]
    sizes = (pair["both"], len(pair["only_first"]), len(pair["only_second"]))
    assert sizes == (truth["shared"], 0, 38 - truth["shared"])
    assert pair["chance"] == pytest.approx(truth["chance"], rel=1e-9)


def test_of_a_list_and_a_log_that_cuts_its_texts_none_is_said_to_be_missing(made: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = made
    (pair,) = asked(folder, "overlap", "27b_skipped.txt", "job_12b.err", status=0)["pairs"]
    assert pair["only_first"] == []  # every one of them did fail in the other job
    assert (pair["both"], len(pair["unclear_first"])) == (0, truth["shared"])  # nor is one said to be the same


def test_every_failed_prompt_is_listed_once_though_its_text_is_truncated(made: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = made
    assert repro("logs", "job_12b.err", "--out", "of_12b", cwd=folder).returncode == 1
    for name in ("skipped.txt", "skipped.jsonl"):
        lines = (folder / "of_12b" / name).read_text().splitlines()
        assert (len(lines), len(set(lines))) == (len(truth["failing"]["12b"]),) * 2


def test_the_settings_say_that_the_base_wins(made: tuple[Path, dict[str, Any]]) -> None:
    jobs = asked(made[0], "config-diff", "12b.yaml", "27b.yaml", status=1)["jobs"]
    assert all(
        job["overruled"] == ["model.name", "model.dtype", "steering.max_length", "steering.layer"] for job in jobs
    )


def test_the_results_say_which_scores_are_lost(made: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = made
    told = repro("scan", "scores_12b.jsonl", cwd=folder).stdout
    first = truth["failing"]["12b"][0] + 1
    assert f"score: 38 NaN of 100 (38 %), first at line {first}: score" in told
