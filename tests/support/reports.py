"""Answers for the tests of the report: an overflow, cells, a search over releases, and the tables of a report."""

from support.hosting import BISECT, ORIGIN, observation
from support.injected_run import LOGITS, PROMPT, verdict

from repro.core.answer import Answer, CellInfo, ModelInfo
from repro.core.encoding import replace
from repro.core.payloads import Environment
from repro.core.records import Case, Kind, Outcome
from repro.core.sweep_answers import (
    CellAblation,
    CellPair,
    CellRow,
    Difference,
    Differences,
    Release,
    Statement,
    Versions,
)
from repro.core.trace_answers import Changes

ENVIRONMENT = {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "platform": "Linux", "blas": "mkl"}


def answer(*changed, **more):
    """The answer of a float16 overflow, in which some steps may have come out otherwise."""
    return verdict(*changed, environment=ENVIRONMENT, **more)


def good(**options):
    forward = observation("forward", payload={"logits": {}, "prompts": [PROMPT]})
    return answer(forward, observation("bisect", payload={"origin": None}), **options)


def much(count):
    """A run with much of everything."""
    rows = [{"module": f"model.layers.{n}", "absmax": float(n), "ratio": 0.1} for n in range(count)]
    spread = [{"module": f"model.layers.{n}", "bad_tokens": list(range(n)), "tokens": count} for n in range(count)]
    prompts = [{**PROMPT, "prompt": "x" * 5000, "input_ids": list(range(5000))}] * count
    findings = [{"tensor": f"t{n}" * 50, "file": "f" * 200, "nan": 1, "posinf": 0, "neginf": 0} for n in range(count)]
    return answer(
        observation("weights", "bad", payload={"tensors": count, "findings": findings}),
        observation("forward", "bad", payload={"logits": LOGITS, "prompts": prompts}),
        observation("bisect", "bad", payload={**BISECT, "headroom": rows, "spread": spread}),
    )


def cell(name, verdict="good", **more):
    """A row with everything that the report may show."""
    ablations = more.pop("ablations", {}).items()
    shown = tuple(CellAblation(name=key, verdict=Outcome(word), reason="r") for key, word in ablations)
    row = CellRow(
        id=name,
        label=name,
        verdict=Outcome(verdict),
        reason=f"{name} is {verdict}",
        python="3.11.7",
        torch="2.5.1",
        transformers="4.57.3",
        platform="Linux-6.1-x86_64",
        machine="x86_64",
        device="cpu",
        dtype="float32",
        attn="sdpa",
        kind=Kind.NONFINITE if verdict == "bad" else None,
        environment=Environment(python="3.11.7"),
        ablations=shown,
        seconds=12.34,
        command=f"repro matrix org/model --cell {name}",
    )
    return replace(row, **more)


TWO = (
    cell("torch-2.4.1", "bad", torch="2.4.1", ablations={"dtype=float32": "good", "threads=1": "skip"}),
    cell("torch-2.5.1"),
)
FOLLOWS = Statement(
    axis="torch",
    follows=True,
    cells=("torch-2.4.1", "torch-2.5.1"),
    values=("2.4.1", "2.5.1"),
    carried=("triton",),
    text="The fault follows torch between 2.4.1 (bad, torch-2.4.1) and 2.5.1 (good, torch-2.5.1): nothing else "
    "differs besides what comes with it (triton).",
)


def pair(bad="torch-2.4.1", good="torch-2.5.1", **more):
    """A bad cell beside a good one: torch differs, and some packages."""
    axes = (Difference(name="torch", bad="2.4.1", good="2.5.1"),) if good else ()
    return CellPair(**{"bad": bad, "good": good, "nearest": True, "axes": axes, **more})


ALONE = pair(packages=(Difference(name="triton", bad="3.0.0", good="9"),))


def matrix(*rows, pairs=(), statements=(), **more):
    """The least that the answer of a matrix holds; what it says of differences is given."""
    words = [row.verdict for row in rows]
    found = next((word for word in (Outcome.BAD, Outcome.GOOD) if word in words), Outcome.SKIP)
    named = [row.id for row in rows if row.verdict is found]
    reason = f"{len(named)} of {len(rows)} cells {'is' if len(named) == 1 else 'are'} {found.value} ({named[0]})"
    made = Answer(
        verdict=found,
        reason=reason,
        headline=reason,
        model=ModelInfo(id="org/model"),
        cell=CellInfo(executable="/usr/bin/python3"),
        case=Case("org/model"),
        command="repro matrix org/model",
        tool="0.1.0",
        cells=rows,
        differences=Differences(pairs=tuple(pairs), statements=tuple(statements)),
    )
    return replace(made, **more)


def both(**more):
    """The matrix of a bad and a good cell that differ in torch alone."""
    return matrix(*TWO, pairs=[ALONE], statements=[FOLLOWS], **more)


def probe(version, verdict="bad", **more):
    """A release that was asked."""
    made = Release(version=version, verdict=Outcome(verdict), reason="r", pins={"torch": version}, command="c")
    return replace(made, **more)


PROBES = (
    probe("2.4.1", "bad", reason="NaN", votes="bad in 2 of 5", command="repro a"),
    probe("2.5.1", "good", reason="finite", command="repro b"),
)
VERSIONS = Versions(
    package="torch",
    direction="fix",
    last_good="2.5.1",
    first_bad="2.4.1",
    skipped=("2.5.0",),
    with_={"transformers": "4.57.3"},
    probes=PROBES,
    sentence="torch 2.4.1 is bad and 2.5.1 is good",
    changes=Changes(sentence="aten._softmax is gone"),
    attribution="both are needed",
)


def bisected(**changes):
    """The answer of a bisection of versions."""
    found = {"headline": "a headline", "versions": replace(VERSIONS, **changes), "cells": None, "differences": None}
    return matrix(TWO[0], **found)


def bisect(headroom=(), spread=(), **origin):
    """A float16 overflow in layer 7 with these figures of its layers."""
    found = {**BISECT, "origin": {**ORIGIN, **origin}, "headroom": list(headroom), "spread": list(spread)}
    return answer(observation("bisect", "bad", payload=found))


def magnitudes(*values, module="model.layers.{}"):
    return [{"module": module.format(n), "call_index": 0, "absmax": value} for n, value in enumerate(values)]


def bad_tokens(*bad, tokens):
    return [{"module": f"model.layers.{n}", "bad_tokens": list(each), "tokens": tokens} for n, each in enumerate(bad)]


OVERFLOW = magnitudes(2984.0, 5088.0, 6236.0, 10424.0, 24704.0, 41952.0, 54688.0, "inf", "nan", "nan")
HOSTILE = ["<script>x</script>", "</svg><b>", "a & b", '"on', "\x00\x1b[31m", "\u202eabc", "\ud800", "y" * 300]
PLOTTED = {
    "run": bisect(OVERFLOW, bad_tokens([], [0], [0, 1, 2], tokens=3)),
    "matrix": both(),
    "cells": matrix(cell("a", "bad"), cell("b")),
    "versions": bisected(),
}


def tables(text):
    """Runs of lines that start with a bar."""
    found, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(line)
        elif rows:
            found.append(rows)
            rows = []
    return found
