"""Scripts as programs: networks with a faulty line in them, whole scripts, and scripts that load a model folder.

``programs/*.toml`` has their text. A script and its twin differ in one line, so that each line has the same number in
both.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from corpus import families

from . import folders
from .architectures import PROMPT, SHAPES, Architecture, architectures
from .lines import checked
from .records import Case, Place, Truth

DATA = Path(__file__).with_name("programs")
IMPORTS = {
    "sys.": "import sys", "Path(": "from pathlib import Path", "numpy.": "import numpy", "torch.": "import torch",
    "transformers.": "import transformers", "nn.": "from torch import nn",
}  # fmt: skip
SEED = "\ntorch.manual_seed(0)\n"
RUN = """
net.eval()
with torch.no_grad():
    out = net(batch)
print("bad values:", int((~torch.isfinite(out)).sum()))
sys.exit(0 if torch.isfinite(out).all() else 1)
"""
TRAIN = """
loss = net(batch).pow(2).mean()
loss.backward()
bad = [name for name, p in net.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
print("loss", loss.item(), "bad gradients:", bad)
sys.exit(125 if not torch.isfinite(loss) else 1 if bad else 0)
"""
CALLER = ("caller",)


@dataclass(frozen=True)
class Program:
    """One script, its sound twin, and the truth about it."""

    text: str
    sound: str
    truth: Truth

    def write(self, bad: bool, folder: Path) -> Path:
        """Write it into a folder."""
        path = folder / "script.py"
        path.write_text(self.text if bad else self.sound, encoding="utf-8")
        return path


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((DATA / f"{name}.toml").read_text("utf-8"))


def _script(*parts: str) -> str:
    """A script with the imports that it needs."""
    text = "".join(parts)
    return "\n".join(line for word, line in IMPORTS.items() if word in text) + "\n" + text


def _line(text: str, part: str) -> int:
    """The number of the one line that holds a part."""
    (number,) = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    return number


# --- networks with a faulty line ---


def _insert(row: dict[str, Any], line: str) -> str:
    after = row.get("after", "y")
    body = [*row.get("before", ()), line, f"return {after}"]
    lines = "\n".join(f"        {part}" for part in body)
    return f"\n\nclass Insert(nn.Module):\n    def forward(self, x):\n{lines}\n"


def _hosted(row: dict[str, Any], host: dict[str, Any], where: str, tail: str, backward: bool) -> Program:
    here = {name: "Insert" if name == where else "nn.Identity" for name in ("early", "late")}
    network = host["text"]
    for name, module in here.items():
        network = network.replace("{" + name + "}", module)
    bad, sound = (_script(_insert(row, row[kind]), "\n", SEED, network, tail) for kind in ("bad", "sound"))
    marked = f"return {row['after']}" if row.get("at_after") else row.get("at", f"        {row['bad']}")
    place = Place(None if backward else host.get(where, where), tuple(row["ops"]), _line(bad, marked), backward)
    places = (place, replace(place, forward=False)) if row.get("also_forward") else (place,)
    phase = "backward" if backward and len(places) == 1 else None
    truth = Truth(places, tuple(row["mechanisms"]), CALLER, row["why"], phase=phase)
    return Program(bad, sound, truth)


def _networks(name: str, way: str, tail: str) -> Iterator[Case]:
    hosts = _read("hosts")
    for fault, row in _read(name).items():
        for at in row["hosts"]:
            host, where = at.split("/")
            made = _hosted(row, hosts[host], where, tail, way == "backward")
            yield from _pair(f"{host}/{fault}/{where}/float32/{way}", host, fault, way, made)


# --- whole scripts ---


def _standing() -> Iterator[Case]:
    for fault, row in _read("standing").items():
        bad, sound = (_script(SEED, row["text"].replace("HERE", row[kind])) for kind in ("bad", "sound"))
        line = _line(bad, row.get("at", row["bad"])) if row.get("line", True) else None
        truth = Truth(
            (Place(row.get("module"), tuple(row["ops"]), line),), tuple(row["mechanisms"]),
            tuple(row.get("owners", CALLER)), row["why"],
        )  # fmt: skip
        name = f"{row['architecture']}/{fault}/script/float32/{row['way']}"
        yield from _pair(name, row["architecture"], fault, row["way"], Program(bad, sound, truth), row.get("seconds"))


def _pair(
    name: str, architecture: str, fault: str, way: str, made: Program, seconds: float | None = None
) -> Iterator[Case]:
    for bad in (True, False):
        yield Case(
            name if bad else f"{name}/sound", architecture, fault, way, partial(made.write, bad),
            (lambda: made.truth) if bad else None, partial(checked, made.text, made.sound, made.truth),
            seconds=seconds or 90.0,
        )  # fmt: skip


# --- scripts that load a model folder ---


def loading(case: Case, folder: Path) -> Path:
    """A script beside a model folder that loads it and runs it once, for the tools that examine programs."""
    text = _load(architectures()[case.architecture], str(case.dtype), case.attn, _read("loading")["uses"]["forward"])
    path = folder / "script.py"
    path.write_text(text.replace('with_name("model")', "parent"), encoding="utf-8")
    return path


def _load(architecture: Architecture, dtype: str, attn: str | None, use: str) -> str:
    """The script that loads `model` beside it and gives it what the oracle gives it."""
    inputs = []
    if architecture.embedding:
        inputs.append(f'"input_ids": torch.tensor([{list(families.prompt_ids(PROMPT))}])')
    if architecture.input != "input_ids":
        shape = list(architecture.shape or SHAPES[architecture.input])
        noise = f"torch.randn({shape}, generator=torch.Generator().manual_seed(0)).to(torch.{dtype})"
        inputs.append(f'"{architecture.input}": {noise}')
    model = architecture.build()
    if model.config.is_encoder_decoder:
        inputs.append(f'"decoder_input_ids": torch.tensor([[{model.config.decoder_start_token_id}]])')
    options = f"dtype=torch.{dtype}" + (f', attn_implementation="{attn}"' if attn else "")
    given = "".join(f"    {line},\n" for line in inputs)
    return _script(
        f"\nmodel = transformers.{type(model).__name__}.from_pretrained(\n"
        f'    Path(__file__).with_name("model"), {options}).eval()\n'
        f"inputs = {{\n{given}}}\n{use.lstrip()}"
    )


def _write(architecture: Architecture, row: dict[str, Any], dtype: str, use: str, bad: bool, folder: Path) -> Path:
    folders.write(folder / "model", architecture, row["fault"], row["part"], row["layer"], dtype, bad)
    path = folder / "script.py"
    path.write_text(_load(architecture, dtype, row.get("attn"), use), encoding="utf-8")
    return path


def _truth(architecture: Architecture, row: dict[str, Any], dtype: str) -> Truth:
    """As of the folder; that a weight is bad may also be called a value that came in from outside of the script."""
    found: Truth = folders.injected(architecture, row["fault"], row["part"], row["layer"], dtype, True)[1]
    more = ("bad_input",) if "bad_weights" in found.mechanisms else ()
    return Truth(found.places, (*found.mechanisms, *more), found.owners, found.why, found.tensors, found.index)


def _loading() -> Iterator[Case]:
    data = _read("loading")
    for row in data["rows"]:
        for name in row["architectures"]:
            for dtype in row["dtypes"]:
                architecture, use = architectures()[name], data["uses"][row["use"]]
                place = f"layer{row['layer']}.{row['part']}"
                named = f"{name}/{row['fault']}/{place}/{dtype}/{row['use']}-script"
                arguments = (architecture, row["fault"], row["part"], row["layer"], dtype, row.get("attn"))
                for bad in (True, False):
                    yield Case(
                        named if bad else f"{named}/sound", name, row["fault"], row["way"],
                        partial(_write, architecture, row, dtype, use, bad),
                        partial(_truth, architecture, row, dtype) if bad else None,
                        partial(folders.checked, *arguments), seconds=90.0,
                    )  # fmt: skip


def cases() -> Iterator[Case]:
    """All scripts."""
    yield from _networks("forward", "script", RUN)
    yield from _networks("backward", "backward", TRAIN)
    yield from _standing()
    yield from _loading()
