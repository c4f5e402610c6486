"""How far sound models are from float64, and which wrong kernels are found: the calibration of the step `reference`.

    python -m score.rounding FILE        run all of it and write the page for people
    python -m score.rounding FILE llama  only these architectures

Ends with 1 where a sound run is called wrong.
"""

from __future__ import annotations

import copy
import os
import platform
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from support import wrong_kernels, wrong_operators
from support.asking import rounding_of
from torch import nn

from repro.probes.rounding import allowed, check, mechanism, part
from repro.probes.rounding.check import Rounding

from .architectures import Architecture, architectures

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHOWN = 40
COMMAND = "PYTHONPATH=.:tests OMP_NUM_THREADS=1 python -m score.rounding docs/rounding.md"


SOURCES = (
    "Parker, *Monte Carlo Arithmetic* (1997); Higham and Mary, *A New Approach to Probabilistic Rounding Error"
    " Analysis* (2019)"
)


@dataclass
class Sweep:
    """The sound runs. worst: by operator and dtype: (ratio, error in epsilons, calls, architecture)."""

    runs: int = 0
    operators: int = 0
    names: set[str] = field(default_factory=set)
    alarms: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    not_judged: Counter[str] = field(default_factory=Counter)
    worst: dict[tuple[str, str], tuple[float, float, int, str]] = field(default_factory=dict)

    def add(self, name: str, what: str, found: Rounding) -> None:
        """One run's answer."""
        self.runs += 1
        self.names.add(name)
        self.operators += found.judged
        self.not_judged.update(found.not_judged)
        if found.departures:
            self.alarms.append(f"{what}: {found.departures[0].address.op}")
        for key, (ratio, rms, calls) in found.worst.items():
            before = self.worst.get(key, (-1.0, 0.0, 0, ""))
            where = name if ratio > before[0] else before[3]
            self.worst[key] = (max(ratio, before[0]), max(rms, before[1]), calls + before[2], where)


@dataclass
class Injected:
    """The wrong kernels of one kind of operator."""

    faults: int = 0
    found: int = 0
    placed: int = 0
    named: int = 0


def swept(words: list[str]) -> Sweep:
    """Every architecture with both kinds of attention in three dtypes."""
    sweep = Sweep()
    for name, architecture in architectures().items():
        if words and name not in words:
            continue
        base = architecture.build()
        for attention in ("sdpa", "eager"):
            if not _takes(base, attention):
                continue
            for dtype in DTYPES:
                what = f"{name}, {attention}, {dtype}".replace("torch.", "")
                _sound(sweep, name, what, architecture, copy.deepcopy(base).to(dtype), dtype)
    return sweep


def _takes(model: Any, attention: str) -> bool:
    """Whether the model can be brought to this attention; one that has none is run once."""
    try:
        model.set_attn_implementation(attention)
    except (ValueError, ImportError, NotImplementedError):
        return attention == "sdpa"
    return attention == "sdpa" or model.config._attn_implementation == attention


def _sound(sweep: Sweep, name: str, what: str, architecture: Architecture, model: Any, dtype: torch.dtype) -> None:
    """One run; what cannot run in this dtype, or is not finite in it, is listed."""
    given = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in _inputs(architecture, model)
    }
    try:
        with torch.no_grad():
            out = model(**given)
    except RuntimeError as error:
        sweep.left_out.append(f"{what}: {str(error).splitlines()[0]}")
        return
    tensors = [value for value in out.values() if isinstance(value, torch.Tensor)]
    if not all(bool(torch.isfinite(tensor.float()).all()) for tensor in tensors):
        sweep.left_out.append(f"{what}: not finite")
        return
    sweep.add(name, what, rounding_of(model, **given))


def _inputs(architecture: Architecture, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    yield from architecture.inputs(model).items()


def _ask(into: Injected, network: nn.Module, ids: torch.Tensor, place: str, op: str, names: list[str]) -> None:
    found = rounding_of(network, ids).departures
    into.faults += 1
    into.found += bool(found)
    exact = bool(found) and all(one.address.module == place for one in found) and found[0].address.op.startswith(op)
    into.placed += exact
    into.named += exact and mechanism.mechanism_of(found[0])[0] in names


def injected() -> tuple[dict[str, Injected], list[str]]:
    """The faults by operator, and the alarms of their sound twins."""
    rows: dict[str, Injected] = {}
    alarms: list[str] = []
    for name, faults in wrong_kernels.FAULTS.items():
        for dtype in DTYPES:
            for place in (0, 2):
                torch.manual_seed(place)
                network, ids = wrong_kernels.Network(name, place).eval().to(dtype), torch.randint(100, (2, 12))
                wrong_kernels.chosen.clear()
                alarms += [f"{name}, {dtype}"] * bool(rounding_of(network, ids).departures)
                for fault, names in faults.items():
                    wrong_kernels.chosen[name] = fault
                    row = rows.setdefault(name, Injected())
                    _ask(row, network, ids, f"layers.{place}.used", f"wrong.{name}", names.split("|"))
                wrong_kernels.chosen.clear()
    for name, fault in wrong_operators.FAULTS.items():
        for dtype in fault.dtypes:
            network, ids = wrong_operators.Network(fault).eval().to(dtype), wrong_operators.IDS
            wrong_operators.chosen.clear()
            wrong_operators.CALLS.clear()
            alarms += [f"{name}, {dtype}"] * bool(rounding_of(network, ids).departures)
            wrong_operators.chosen.append(name)
            if fault.mechanisms:
                row = rows.setdefault(fault.op.partition(".")[0], Injected())
                _ask(row, network, ids, "inner", f"faulty.{fault.op}", list(fault.mechanisms))
            else:
                alarms += [f"{name}, {dtype}"] * bool(rounding_of(network, ids).departures)
            wrong_operators.chosen.clear()
    return rows, alarms


def _wrapped(words: str) -> str:
    return textwrap.fill(" ".join(words.split()), 120, break_long_words=False, break_on_hyphens=False)


def _table(head: str, rows: list[tuple[object, ...]]) -> str:
    lines = [f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def _constants() -> list[tuple[object, ...]]:
    return [
        (
            "FINAL", allowed.FINAL, "units in the last place by which a result of 16 bits may be off",
            "computed in float32 and rounded once is half a unit",
        ),
        (
            "FUNCTION", allowed.FUNCTION, "the same of float32 and wider",
            "SLEEF, whose vectorised functions err by up to 3.5 units",
        ),
        ("FLOOR", allowed.FLOOR, "roundings of the whole result's root mean square", "calibrated by the table below"),
        (
            "ADDS", ", ".join(f"`{name}`" for name in allowed.ADDS),
            "functions that may also be off by FUNCTION units of what they add up inside",
            "1 + erf in a gelu; Abramowitz and Stegun 7.1.26 in the CPU's erf",
        ),
        (
            "INSIDE", allowed.INSIDE, "times the root of the length, times how far a rounding of each input moves it",
            SOURCES,
        ),
        ("DRAWS", allowed.DRAWS, "random movements of the inputs", "the fewest that give a root mean square"),
        ("WORST", allowed.WORST, "how far beyond it one element may be", "calibrated by the table below"),
        (
            "ALL", allowed.ALL, "the part of it that all elements together may use",
            "roundings to nearest use at most 0.46",
        ),
        (
            "TRIES", f"{check.OF_TRIES} of {check.TRIES}", "inputs near these on which it must show too",
            "one input is no distribution",
        ),
        (
            "FAR", check.FAR, "times what is allowed, from where on one input is enough",
            "a kernel with a memory is right on the next",
        ),
        ("SMALL", part.SMALL, "numbers of one call that are held; of larger calls a part is drawn", "speed"),
    ]  # fmt: skip


def page(sweep: Sweep, rows: dict[str, Injected], alarms: list[str]) -> str:
    """The page."""
    total = Injected(*(sum(getattr(row, name) for row in rows.values()) for name in vars(Injected())))
    worst = sorted(sweep.worst.items(), key=lambda row: -row[1][0])
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    margin = worst[0][1][0] if worst else 0.0
    twins = sum(len(faults) for faults in [wrong_kernels.FAULTS]) * len(DTYPES) * 2
    twins += sum(len(fault.dtypes) * (1 if fault.mechanisms else 2) for fault in wrong_operators.FAULTS.values())
    parts = [
        "# Finite and wrong",
        _wrapped(
            f"Written by `{COMMAND}`, never by hand. A model can be finite and wrong. Behind a finite forward pass "
            "`repro MODEL` runs it once more and holds each operator against float64 **on the very inputs that it "
            "got**, so that each answers for its own error only (step `reference`; `--no-reference` leaves it out). Of "
            "a large call a part is held, drawn by its address: some rows and columns of a product with the column of "
            "the largest result, some heads of an attention, some elements. A part is computed from the same numbers "
            "as the whole. Views and copies that only move numbers are not held, and neither is what has no float64 "
            "kernel on the CPU: those are counted as not judged."
        ),
        "## What rounding allows",
        _wrapped(
            "For each element: a rounding of the result, a floor, and how far the result moves where the inputs are "
            "moved at random by one rounding, which is large where the inputs are badly conditioned (a sum that "
            "cancels, a softmax of large scores). The **ratio** is the error over that; above 1 the operator is "
            "farther from float64 than rounding explains. Two NaNs at one place agree; a NaN against a number does "
            "not, in either direction. A plain number among the arguments may be rounded to the dtype of the tensors. "
            "Where many terms of a sum are equal, as those of padding that nobody masks, its roundings all go one way: "
            "a product may be off by twice what the same product is whose terms are added up one by one, another sum "
            "of mostly equal numbers by half a rounding for each. "
            "A transposed convolution in 16 bits may add up in its result's own memory, as the CPU's does: its errors "
            "are those of a replay that does so. A model in float64, and an operator of a library that computes in "
            "float64 by itself, are held against their own kernels: no independent arithmetic is behind those figures."
        ),
        "## What overflows inside and is swallowed",
        _wrapped(
            "1/inf and exp(-inf) are right, and the output can be wrong all the same. Where an operator gives NaN or "
            "Inf of finite numbers in a pass that ends finite, the pass is made again on numbers of a wider dtype, "
            "rounded nowhere, in which nothing overflows; then with those overflows alone put in. Where the two end "
            "alike, the overflow makes no difference. Else the run's own output decides: where it is farther from the "
            "wide one than twice what three passes that are rounded at random are (eight times in float32), and is "
            "that of the wide pass with the overflows put in, the run is bad, with the first overflow that shows as "
            "its origin. Where that does not fit together, it is good with a note that says so."
        ),
        _wrapped(
            "Its script has the operators from the overflow to the first that makes a finite number of it, as few as "
            "show it, on plain finite inputs, and the same in float64. What it asserts is four times the largest of "
            "eight runs in float64 whose results are moved by a rounding of the run's dtype, and a rounding of the "
            "result. Where the overflow only changes a branch that the model takes, there is no such script."
        ),
        "## How an error grows",
        _wrapped(
            "Where the verdict is bad, the pass is also made freely in float64, on the very numbers that are loaded: "
            "behind each layer the report has how far the run is from that, beside how far a run that is rounded at "
            "random is. Not where the weights in float64 have no room."
        ),
        _table("constant | value | what it is | source", _constants()),
        "## Sound models",
        _table("what | result", [
            ("runs", f"{sweep.runs}, of {len(sweep.names)} architectures, eager and fused, in three dtypes"),
            ("operators held", f"{sweep.operators:,}"),
            ("**false alarms**", f"**{len(sweep.alarms)} of {sweep.runs}** runs"),
            ("the largest ratio", f"{margin:.2f}"),
            ("not judged", ", ".join(f"`{op}` ({count})" for op, count in sweep.not_judged.most_common(8)) or "none"),
            ("left out", "; ".join(sweep.left_out) or "none"),
        ]),
        f"{versions}, Python {platform.python_version()}, {platform.machine()}, CPU, random weights.",
        _wrapped(
            f"The {min(SHOWN, len(worst))} of {len(worst)} kinds of operators that come closest. The error is a root "
            "mean square in epsilons of the dtype times that of the result; it is large where the result is next to "
            "nothing, as the mean that a layer norm gives beside its result."
        ),
        _table("operator | dtype | calls | largest ratio | largest error | in", [
            (f"`{op}`", dtype, calls, f"{ratio:.2f}", f"{rms:.3g}", where)
            for (op, dtype), (ratio, rms, calls, where) in worst[:SHOWN]
        ]),
        "## Wrong kernels",
        _wrapped(
            f"{total.faults} faults: operators of a library of the tests' own, which are right in float64 and wrong in "
            "the narrower dtypes, in networks of ordinary modules. Each is asked in the dtypes in which it is larger "
            f"than a rounding. Found: **{total.found}**; module and operator exact: **{total.placed}**; mechanism "
            f"right: **{total.named}**. False alarms on their {twins} sound twins: **{len(alarms)}**."
        ),
        _table("operator | faults | found | place exact | mechanism right", [
            (f"`{op}`", row.faults, row.found, row.placed, row.named) for op, row in sorted(rows.items())
        ]),
        _wrapped(
            "Not seen: a conversion to bfloat16 that cuts off in place of rounding to nearest. Each number is then off "
            "by less than one unit in the last place, which is within what is allowed of any operator. What lies "
            "outside of the part that is drawn of a large call is not seen either; `sampled` counts those calls."
        ),
        *(f"- {alarm}" for alarm in (*sweep.alarms, *alarms)),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main(argv: list[str]) -> int:
    """Run, write."""
    if not argv:
        print(__doc__, file=sys.stderr)
        return 2
    os.environ["HF_HUB_OFFLINE"] = "1"
    sweep = swept(argv[1:])
    rows, alarms = injected()
    Path(argv[0]).write_text(page(sweep, rows, alarms), encoding="utf-8")
    print(f"{sweep.runs} sound runs, {sweep.operators} operators, {len(sweep.alarms) + len(alarms)} false alarms")
    for alarm in (*sweep.alarms, *alarms):
        print(alarm)
    return 1 if sweep.alarms or alarms else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
