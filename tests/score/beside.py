"""The same cases with what else can be installed: what each says of where it begins.

Each is attached the way its own documentation says, to the outermost module of the program when it is first called, and
asked for a module (or, of a backward pass, a line); none of them names an operator that is held against the truth.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from corpus.plain import finite
from torch import nn

from .records import Truth

RIGHT, WRONG, NOTHING = "right", "wrong", "nothing"


@dataclass
class Told:
    """What a tool said: a module, or a line; ``spoke``: whether it reported anything."""

    module: str | None = None
    line: int | None = None
    spoke: bool = False


Attach = Callable[[nn.Module, Told, Path], None]
"""Attaches a tool to a module; it may write into the folder."""


def _hooks(root: nn.Module, told: Told, _: Path) -> None:
    """Plain hooks: the first module to end with a bad output."""

    def hook(name: str) -> Any:
        def look(_: nn.Module, __: Any, output: Any) -> None:
            if not told.spoke and not finite(output):
                told.module, told.spoke = name, True

        return look

    for name, module in root.named_modules():
        module.register_forward_hook(hook(name))


def _underflow_overflow(root: nn.Module, told: Told, _: Path) -> None:
    from transformers.debug_utils import DebugUnderflowOverflow

    DebugUnderflowOverflow(root)


def _dump(root: nn.Module, told: Told, folder: Path) -> None:
    from msprobe.pytorch import PrecisionDebugger

    folder = folder / "dump"
    folder.mkdir()
    part = {"scope": [], "list": [], "data_mode": ["all"], "summary_mode": "statistics"}
    wanted = {
        "task": "statistics",
        "dump_path": str(folder),
        "rank": [],
        "step": [],
        "level": "mix",
        "statistics": part,
    }
    (folder / "config.json").write_text(json.dumps(wanted), encoding="utf-8")
    debugger = PrecisionDebugger(config_path=str(folder / "config.json"))
    debugger.start(model=root)
    told.__dict__["dump"] = (folder, debugger)


def _read_dump(told: Told) -> None:
    """The first call in the dump with sound inputs and a bad output; of an operator, the module that calls it."""
    folder, debugger = told.__dict__.pop("dump")
    debugger.stop()
    debugger.step()
    for path in folder.rglob("dump.json"):
        held = json.loads((path.parent / "construct.json").read_text("utf-8"))
        for name, call in json.loads(path.read_text("utf-8"))["data"].items():
            given = {key: value for key, value in call.items() if key != "output"}
            if name.endswith("backward") or not _bad(call.get("output")) or _bad(given):
                continue
            told.spoke = True
            module = name if name.startswith("Module.") else held.get(name)
            while module and not str(module).startswith("Module."):
                module = held.get(module)
            found = re.fullmatch(r"Module\.(.*)\.\w+\.forward\.\d+", str(module))
            told.module = found[1] if found else ""
            return


def _bad(value: Any) -> bool:
    if isinstance(value, dict):
        return any(str(value.get(k)).lower() in ("nan", "inf", "-inf") for k in ("Max", "Min")) or any(
            map(_bad, value.values())
        )
    return isinstance(value, list) and any(map(_bad, value))


ATTACHED: dict[str, Attach | None] = {
    "isfinite hooks": _hooks,
    "DebugUnderflowOverflow": _underflow_overflow,
    "detect_anomaly": None,
    "mindstudio-probe": _dump,
}
"""Each tool, and how it is attached to a model; None for a setting of autograd."""
SLOW = ("mindstudio-probe",)
"""Those that take seconds to import, in each process anew: they are asked about the tenth alone."""


def available() -> list[str]:
    """Those that are installed here."""
    return [name for name in ATTACHED if name != "mindstudio-probe" or importlib.util.find_spec("msprobe")]


def ask(tool: str, path: Path) -> Told:
    """Run a script with a tool attached to the first module that it calls."""
    told, attach = Told(), ATTACHED[tool]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with (
            warnings.catch_warnings(record=True) as said,
            _attached(attach, told, path.parent) if attach else anomaly(),
        ):
            warnings.simplefilter("always")
            try:
                exec(
                    compile(path.read_text("utf-8"), str(path), "exec"), {"__name__": "__main__", "__file__": str(path)}
                )
            except SystemExit:
                pass
            except Exception as raised:  # noqa: BLE001 - a tool says what it found by raising, and a script may raise
                _raised(raised, told)
        if attach is _dump and "dump" in told.__dict__:
            _read_dump(told)
    if attach is None and told.spoke:
        lines = re.findall(rf'File "{re.escape(str(path))}", line (\d+)', "".join(str(one.message) for one in said))
        told.line = int(lines[-1]) if lines else None
    return told


def _raised(raised: Exception, told: Told) -> None:
    if "DebugUnderflowOverflow" in str(raised):
        trace = raised.__traceback__
        while trace is not None:
            local = trace.tb_frame.f_locals
            if trace.tb_frame.f_code.co_name == "forward_hook" and "module" in local:
                told.module, told.spoke = local["self"].module_names[local["module"]], True
            trace = trace.tb_next
    elif "returned nan values" in str(raised):
        told.spoke = True


def anomaly() -> Any:
    """Autograd's own mode."""
    return torch.autograd.set_detect_anomaly(True)


@contextlib.contextmanager
def _attached(attach: Attach, told: Told, folder: Path) -> Iterator[None]:
    """The tool attached to the first module that is called."""
    plain, done = nn.Module.__call__, []

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not done:
            done.append(module)
            attach(module, told, folder)
        return plain(module, *args, **kwargs)

    with mock.patch.object(nn.Module, "__call__", call):
        yield


def judged(told: Told, truth: Truth | None) -> str:
    """right, wrong or nothing; of a twin, wrong where it reported anything."""
    if truth is None:
        return WRONG if told.spoke else NOTHING
    if told.module is None and told.line is None:
        return NOTHING
    for place in truth.places:
        if told.module is not None and place.module is None:
            return NOTHING  # the place has no module
        if (told.module is not None and told.module == place.module) or (told.line and told.line == place.line):
            return RIGHT
    return WRONG


def compare(script: Path, truth: Truth | None, tools: list[str]) -> dict[str, str]:
    """What each tool's answer is worth."""
    return {tool: judged(ask(tool, script), truth) for tool in tools}
