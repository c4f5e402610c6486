"""The project's promises about speed and memory, each measured as a ratio inside one run: `nox -s bench`.

    python bench/run.py [screen] [weights] [start] [whole] [cells] [diff] [prompts] [script] [inprocess] [narrow]
                        [reference] [memory] [gradients]

Two things that are compared run in turn (A B A B ...), and the figure is the median of the pairwise ratios, so that a
machine whose speed drifts, or that others share, does not decide the answer. Exit status 1 where a limit is passed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.environments.store import Store

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

MODELS = Path(__file__).parent.parent / "repro" / "models"
CLICK = [sys.executable, "-c", "import click"]
REPRO = [sys.executable, "-m", "repro"]


# Peak memory of the weights step in a process of its own. On Linux from VmHWM: ru_maxrss of getrusage begins with what
# the parent process had, because it survives fork and exec.
PEAK = """
import pathlib, re, resource, sys
from repro.probes.checkpoint import weights
weights.check(sys.argv[1], lambda done, total, unit: None)
status = pathlib.Path("/proc/self/status")
if status.exists():
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


# Peak memory of a plain pass and of the same held against float64, in a process of its own whose peak is begun anew
# before each of the two, with what is free given back; after a round that is not counted, in which the libraries take
# their own. Linux alone has it.
HOLDING = """
import ctypes, pathlib, re, sys, torch
from repro.probes.model.forward import look, run
from repro.probes.model.ready import ready
from repro.probes.rounding.run import hold
sys.path.insert(0, sys.argv[1])
from run import build
model = build(sys.argv[2]).to(getattr(torch, sys.argv[3]))
ids = torch.randint(0, 50_000, (1, 32), generator=torch.Generator().manual_seed(0))
loaded, given = ready(model, (ids,))
seen = look(loaded.model, given)
print(8 * max(sum(part.numel() for part in module.parameters(recurse=False)) for module in model.modules()))
for call in 2 * (lambda: run(loaded.model, seen.inputs), lambda: hold(loaded, [seen])):
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    call()
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024)
"""


@dataclass(frozen=True)
class Figure:
    """One measured promise. ``limit`` is the most that ``value`` may be, or the least where ``at_least``."""

    name: str
    value: float
    limit: float | None
    unit: str = "x"
    at_least: bool = False

    @property
    def kept(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def paired(one: Callable[[], object], other: Callable[[], object], rounds: int) -> float:
    """Median of time(one) / time(other), in turn, after a round that is not counted."""
    one(), other()
    return statistics.median(seconds(one) / seconds(other) for _ in range(rounds))


def build(name: str) -> Any:
    """A shipped architecture with seeded weights, in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(MODELS / f"{name}.json")
    return AutoModelForCausalLM.from_config(config).eval()


def bench_screen() -> list[Figure]:
    """A forward pass under the screen against the plain one, and Transformers' own debug tool beside it."""
    import torch
    from transformers.debug_utils import DebugUnderflowOverflow

    from repro.probes.observe.screen import screened

    model = build("gpt2")
    figures = []

    def plain() -> None:
        with torch.no_grad():
            model(input_ids=ids)

    def under_screen() -> None:
        with screened(model, outline=True) as screen, torch.no_grad():
            model(input_ids=ids)
        screen.calls()

    for tokens in (32, 256):
        ids = torch.randint(0, 50257, (1, tokens), generator=torch.Generator().manual_seed(0))
        rounds = 25 if tokens == 32 else 15
        figures.append(
            Figure(f"forward under the screen, {tokens} tokens / plain", paired(under_screen, plain, rounds), 1.05)
        )
    ids = ids[:, :32]
    DebugUnderflowOverflow(model, max_frames_to_save=1)  # it leaves its hooks on the model for good, so it comes last
    fresh = build("gpt2")

    def untouched() -> None:
        with torch.no_grad():
            fresh(input_ids=ids)

    ratio = paired(plain, untouched, 9)
    figures.append(Figure("DebugUnderflowOverflow, 32 tokens / plain (for comparison)", ratio, None))
    return figures


def bench_weights() -> list[Figure]:
    """The weights step against from_pretrained with isnan and isinf on each parameter, and the step's peak memory."""
    import torch
    from transformers import AutoModelForCausalLM

    from repro.probes.checkpoint import weights

    with tempfile.TemporaryDirectory() as folder:
        model = build("gpt2-medium")
        largest = max(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        model.save_pretrained(folder)
        del model

        def usual() -> None:
            loaded = AutoModelForCausalLM.from_pretrained(folder)
            for _, parameter in loaded.named_parameters():
                bool(torch.isnan(parameter).any()), bool(torch.isinf(parameter).any())

        def ours() -> None:
            weights.check(folder, lambda done, total, unit: None)

        ratio = paired(usual, ours, 9)
        peak_bytes = int(subprocess.check_output([sys.executable, "-c", PEAK, folder], text=True))
    return [
        Figure("from_pretrained + isnan/isinf / weights step, GPT-2 medium", ratio, 5.0, at_least=True),
        Figure("peak memory of the weights step - largest tensor", (peak_bytes - largest) / 1e6, 300.0, "MB"),
    ]


def bench_start() -> list[Figure]:
    """`repro --help` and a usage error against importing click, as whole processes."""

    def process(command: list[str]) -> Callable[[], object]:
        return lambda: subprocess.run(command, capture_output=True, check=False)

    commands = {
        "--help": ["--help"],
        "an unknown option": ["gpt2", "--nonsense"],
        "a missing folder": ["./no-such-model"],
    }
    return [
        Figure(f"repro {name} / import click", paired(process(REPRO + given), process(CLICK), 11), 3.0)
        for name, given in commands.items()
    ]


def bench_whole() -> list[Figure]:
    """The whole run on GPT-2 medium with random weights: loads, and the steps beside the load in plain forward passes.

    Importing PyTorch is part of the start of the process, not of a step, and is taken off the environment step, which
    is where it falls.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        command = [*REPRO, "gpt2-medium", "--device", "cpu", "--weights", "random:0", "--out", str(out)]
        wall = seconds(lambda: subprocess.run(command, capture_output=True, check=True))
        records = [json.loads(line) for line in (out / "evidence.jsonl").read_text("utf-8").splitlines()]
    steps = {record["step"]: record for record in records if "step" in record}
    imports = seconds(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True))
    plain = steps["forward"]["payload"]["plain_seconds"]
    beside = {
        name: step["seconds"] for name, step in steps.items() if not name.startswith("ablation:") and name != "load"
    }
    ablations = sum(step["seconds"] for name, step in steps.items() if name.startswith("ablation:"))
    beside["environment"] = max(beside["environment"] - imports, 0.0)
    return [
        Figure("whole run, steps beside the load / plain forward, GPT-2 medium", sum(beside.values()) / plain, 12.0),
        Figure("whole run, ablations / plain forward (for comparison)", ablations / plain, None),
        Figure("whole run, load step", steps["load"]["seconds"], None, "s"),
        Figure("whole run, wall time", wall, None, "s"),
    ]


def bench_cells() -> list[Figure]:
    """A second `nox -s "repro(CELL)"`, its cell built, against the probe's own process with the same plan."""
    root = Path(__file__).resolve().parents[1]
    cell = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["repro"]["cell"]
    question = ["gpt2", "--device", "cpu", "--weights", "random:0"]
    subprocess.run([*REPRO, "cells", "build", cell], check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as folder:
        python = str(Store().folder / cell / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
        command = [*REPRO, *question, "--no-ablations", "--python", python, "--out", folder]
        subprocess.run(command, check=True, capture_output=True)
        probe = [python, str(Path(folder, "probes.pyz")), "run", str(Path(folder, "plan.json"))]
        asked = [question[0], *question[3:], "--no-ablations"]
        session = [sys.executable, str(root / "noxfile.py"), "-s", f"repro({cell})", "--", *asked]

        def through_nox() -> None:
            subprocess.run(session, check=True, capture_output=True)

        def alone() -> None:
            subprocess.run(probe, check=True, capture_output=True)

        through_nox(), alone()
        added = statistics.median(seconds(through_nox) - seconds(alone) for _ in range(5))
    return [Figure("a second nox -s repro with a built cell - the probe's own process", added, 10.0, "s")]


def captured_ratio(model: Any, lengths: list[int], *, vectors: bool = False) -> float:
    """A batch of prompts with every layer's rows looked at, up to its records, against the same batch without."""
    import torch

    from repro.probes.checkpoint.resolve import Source
    from repro.probes.model.load import Loaded
    from repro.probes.observe.screen import blocks
    from repro.probes.prompts.answers import look
    from repro.probes.prompts.batches import Example, Tokens, captured, forward

    loaded = Loaded(model, "", Source("random", None), torch.float32, torch.device("cpu"), None, {})
    generator = torch.Generator().manual_seed(0)
    ids = [tuple(torch.randint(0, 50_000, (length,), generator=generator).tolist()) for length in lengths]
    tokens, layers = Tokens(loaded, None, None, "left"), blocks(model)
    batch = tokens.batch(0, [Example(number, None, None, row) for number, row in enumerate(ids)])

    def plain() -> None:
        forward(model, batch)

    def looked_at() -> None:
        look(loaded, tokens, batch, captured(model, batch, layers, residual=vectors), layers)

    return paired(looked_at, plain, 15 if max(lengths) < 100 else 9)


def bench_prompts() -> list[Figure]:
    """The captured run of `repro prompts` against the same batches without capture."""
    short, long = [16, 32, 24, 30, 32, 20, 8, 31], [200, 256, 128, 240, 256, 190, 64, 250]
    gpt2 = build("gpt2")
    return [
        Figure("8 prompts of at most 32 tokens, captured / plain, GPT-2", captured_ratio(gpt2, short), 1.10),
        Figure("8 prompts of at most 256 tokens, captured / plain, GPT-2", captured_ratio(gpt2, long), 1.10),
        Figure(
            "the 32 tokens with the rows for vectors (for comparison)", captured_ratio(gpt2, short, vectors=True), None
        ),
        Figure(
            "8 prompts of at most 32 tokens, captured / plain, Gemma 3 270M",
            captured_ratio(build("gemma-3-270m"), short),
            1.10,
        ),
    ]


def watched_step_ratio(model: Any, tokens: int, rounds: int) -> float:
    """A training step under the look that a script's first watched run has, against the plain one."""
    import torch

    from repro.probes.observe.watch import OUTSIDE, Names, Watch, watched_everywhere
    from repro.probes.program.makers import Look, Rule

    ids = torch.randint(0, 64, (1, tokens), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()

    def watched() -> None:
        with watched_everywhere(Watch(Look(Rule()).visit, OUTSIDE), Names()):
            step()

    return paired(watched, step, rounds)


def bench_script() -> list[Figure]:
    """Training steps as a script has them, watched: of GPT-2, and of a network whose operators take microseconds, where
    what a look costs is all that counts.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    small = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=64))
    ratios = {"GPT-2": watched_step_ratio(build("gpt2"), 64, 5), "32 channels": watched_step_ratio(small, 16, 15)}
    return [Figure(f"a script's training step, watched / plain, {name}", ratio, 8.0) for name, ratio in ratios.items()]


def keep_output(module: Any, args: Any, output: Any) -> None:
    """As a recurrent network keeps its state: in a plain attribute, from one call to the next."""
    module.kept = output[0] if isinstance(output, tuple) else output
    module.kept = module.kept.detach()


def bench_inprocess() -> list[Figure]:
    """What the user's own process pays: a guarded training step, `repro.find` where all is well, and the import."""
    import torch

    import repro
    from repro.inprocess.watching import find

    model = build("gpt2").train()
    ids = torch.randint(0, 50257, (4, 128), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()

    def guarded() -> float:
        """The median of guarded steps over the plain ones before them."""
        ratios = []
        step()
        for _ in range(9):  # a guard is on for a whole training: it is put on and taken off beside the clock
            plain = seconds(step)
            with repro.Guard(model, optimizer):
                ratios.append(seconds(step) / plain)
        return statistics.median(ratios)

    bare = guarded()
    layers: Any = model.transformer.h
    handles = [layer.register_forward_hook(keep_output) for layer in layers]
    keeping = guarded()
    for layer, handle in zip(layers, handles, strict=True):
        handle.remove()
        del layer.kept
    model.eval()

    def forward() -> None:
        with torch.no_grad():
            model(input_ids=ids)

    def found() -> None:
        with torch.no_grad():
            find(model, input_ids=ids)

    forward(), found()
    pairs = [(seconds(found), seconds(forward)) for _ in range(9)]
    over = statistics.median(one - 1.05 * other for one, other in pairs)
    importing = [[sys.executable, "-c", f"import {name}"] for name in ("repro", "click")]
    ours, click = (lambda command=command: subprocess.run(command, check=True) for command in importing)
    return [
        Figure("a guarded training step / plain, GPT-2, 4 x 128 tokens", bare, 1.05),
        Figure("the same, where each layer keeps its output in an attribute", keeping, 1.05),
        Figure("repro.find of a sound GPT-2 - 1.05 x a forward pass", over, 0.1, "s"),
        Figure("import repro / import click", paired(ours, click, 11), 1.5),
    ]


def bench_diff() -> list[Figure]:
    """Two ways held against each other against both of their plain passes."""
    import torch

    from repro.probes.checkpoint.resolve import Source
    from repro.probes.differing.diff import answer, held_against, make
    from repro.probes.differing.ways import named, plain
    from repro.probes.model.inputs import Inputs
    from repro.probes.model.load import Loaded

    figures = []
    for name, tokens, limit in (("gpt2", 256, 4.0), ("gemma-3-270m", 64, 4.0)):
        model = build(name).float()
        ids = torch.randint(5, 1000, (1, tokens), generator=torch.Generator().manual_seed(0))
        inputs = (Inputs(None, "seeded", ids, torch.ones_like(ids)),)
        loaded = Loaded(model, "", Source("random", None), torch.float32, torch.device("cpu"), "sdpa", {})
        this, other = plain(inputs), named(loaded, inputs, {}, "eager")

        def both(model: Any = model, this: Any = this, other: Any = other) -> None:
            this.run(model, lambda number: None)
            with other.setting():
                other.run(model, lambda number: None)

        def held(model: Any = model, this: Any = this, other: Any = other, inputs: Any = inputs) -> None:
            made = make(model, this, inputs, lambda done, total, unit: None)
            answer(held_against(model, made, other, lambda done, total, unit: None), this)

        figures.append(
            Figure(f"diff against eager / both passes, {name}, {tokens} tokens", paired(held, both, 5), limit)
        )
    return figures


def bench_narrow() -> list[Figure]:
    """The forecast against the plain pass, and how many sets of modules --keep-float32 asks."""
    import torch

    from repro.probes.checkpoint.resolve import Source
    from repro.probes.model.forward import look, run
    from repro.probes.model.inputs import make_inputs
    from repro.probes.model.load import Loaded
    from repro.probes.model.precision import in_dtype
    from repro.probes.narrow.forecast import forecast
    from repro.probes.narrow.keep import Search, wide_run

    figures = []
    for name in ("gpt2", "gemma-3-270m"):
        loaded = Loaded(build(name).float(), "", Source("random", None), torch.float32, torch.device("cpu"), None, {})
        seen = look(loaded.model, make_inputs(loaded, [], False)[0])
        ratio = paired(lambda: forecast(loaded, [seen]), lambda: run(loaded.model, seen.inputs), 5)  # noqa: B023
        figures.append(Figure(f"forecast / a plain pass, {name}, {seen.inputs.length} tokens", ratio, 4.0))
    with torch.no_grad():
        loaded.model.model.layers[7].post_feedforward_layernorm.weight.fill_(60_000.0)
        narrow = Loaded(loaded.model.half(), "", loaded.source, torch.float16, loaded.device, None, {})
    with in_dtype(narrow, torch.float32):
        wide = wide_run(dataclasses.replace(narrow, dtype=torch.float32), [seen.inputs], torch.float16)
    search = Search(narrow, wide)
    most = 2 * math.log2(len(wide.order)) + 2 * len(search.answer() or ())
    figures.append(Figure("--keep-float32: sets that were run, Gemma 3 270M", len(search.trials), most, ""))
    return figures


def bench_reference() -> list[Figure]:
    """The check against float64 of `repro MODEL`, against the plain pass that it looks at again."""
    import torch

    from repro.probes.model.forward import look, run
    from repro.probes.model.ready import ready
    from repro.probes.rounding.run import hold

    figures = []
    for name, count in (("gpt2", 32), ("gpt2", 256)):
        generator = torch.Generator().manual_seed(0)
        loaded, given = ready(build(name).float(), (torch.randint(0, 50_000, (1, count), generator=generator),))
        seen = look(loaded.model, given)
        ratio = paired(lambda: hold(loaded, [seen]), lambda: run(loaded.model, seen.inputs), 7)  # noqa: B023
        limit = 6.0 if (name, count) == ("gpt2", 32) else None
        figures.append(Figure(f"held against float64 / a plain pass, {name}, {count} tokens", ratio, limit))
    return figures


def bench_memory() -> list[Figure]:
    """What the check against float64 takes beside the plain pass, in units of the largest module in float64."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    figures = []
    for name in ("gpt2", "gemma-3-270m"):
        for dtype in ("float32", "bfloat16"):
            command = [sys.executable, "-c", HOLDING, str(Path(__file__).parent), name, dtype]
            largest, *_, plain, held = map(int, subprocess.check_output(command, text=True).split())
            what = f"peak of the check - of a plain pass, {name}, {dtype}"
            figures.append(Figure(f"{what} / largest module", (held - plain) / largest, 1.0))
            figures.append(Figure(f"{what} (for comparison)", (held - plain) / 1e6, None, "MB"))
    return figures


def bench_gradients() -> list[Figure]:
    """The gradients of two ways held against each other, against both of their plain passes forward and backward."""
    import torch

    from repro.probes.checkpoint.resolve import Source
    from repro.probes.differing.gradients import Backward, held
    from repro.probes.differing.ways import named, plain
    from repro.probes.model.inputs import Inputs
    from repro.probes.model.load import Loaded

    figures = []
    for name, tokens in (("gpt2", 256), ("gemma-3-270m", 64)):
        model = build(name).float()
        ids = torch.randint(5, 1000, (1, tokens), generator=torch.Generator().manual_seed(0))
        inputs = (Inputs(None, "seeded", ids, torch.ones_like(ids)),)
        loaded = Loaded(model, "", Source("random", None), torch.float32, torch.device("cpu"), "sdpa", {})
        this, other = plain(inputs), named(loaded, inputs, {}, "training")
        backward = Backward(model, inputs, "logits")
        begun = torch.ones(1, tokens, model.config.vocab_size)

        def both(model: Any = model, ids: Any = ids, begun: Any = begun, ways: Any = (this, other)) -> None:
            for way in ways:
                with way.setting():
                    model(input_ids=ids).logits.backward(begun)
                model.zero_grad()

        ratio = paired(lambda: held(backward, this, other), both, 3)  # noqa: B023
        words = f"gradients against training / both passes, {name}, {tokens} tokens"
        figures.append(Figure(words, ratio, 4.0))
    return figures


BENCHES = {
    "screen": bench_screen,
    "weights": bench_weights,
    "start": bench_start,
    "whole": bench_whole,
    "cells": bench_cells,
    "diff": bench_diff,
    "prompts": bench_prompts,
    "script": bench_script,
    "inprocess": bench_inprocess,
    "narrow": bench_narrow,
    "reference": bench_reference,
    "memory": bench_memory,
    "gradients": bench_gradients,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all, and print a line for each figure."""
    unknown = sorted(set(names) - set(BENCHES))
    if unknown:
        print(f"bench/run.py: no benchmark {', '.join(unknown)}; known: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    kept = True
    for name in names or BENCHES:
        for figure in BENCHES[name]():
            limit = ""
            if figure.limit is not None:
                word = "at least" if figure.at_least else "at most"
                limit = f"{word} {figure.limit:g} {figure.unit}: {'kept' if figure.kept else 'NOT KEPT'}"
            print(f"{figure.name:66} {figure.value:8.2f} {figure.unit:3} {limit}", flush=True)
            kept = kept and figure.kept
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
