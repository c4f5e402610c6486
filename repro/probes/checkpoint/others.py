"""Folders that another package than Transformers runs: what they are, and which package that is."""

import importlib.util
import os
import sys
from dataclasses import dataclass
from typing import Any, Optional

from . import limits
from .opening import read_json

MOST = 6  # parts that are named
DIFFUSERS, TIMM = "diffusers", "timm"
PIPELINE = "model_index.json"


@dataclass(frozen=True)
class Other:
    """A folder that another package than Transformers runs.

    package: its name. what: what the folder is, in words. more: what else can be done with it.
    """

    package: str
    what: str
    more: str = ""

    @property
    def can_run(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def refusal(self, folder: str) -> str:
        """Why it is not run, and what can be done."""
        return (
            f"{folder} is {self.what}, which the package {self.package} runs, and {sys.executable} does not have it"
            f" (pip install {self.package}). Or give --python the interpreter that has it.{self.more}"
        )


def of_another_package(folder: str) -> Optional[Other]:
    """What a folder is that Transformers does not run; None for any other."""
    pipeline = _object(os.path.join(folder, PIPELINE))
    config = _object(os.path.join(folder, "config.json"))
    if pipeline is not None:
        parts = parts_of(folder)
        listed = ", ".join(parts[:MOST]) + (", ..." if len(parts) > MOST else "")
        what = f"a pipeline of diffusers ({_word(pipeline.get('_class_name'))}: {listed})"
        return Other(DIFFUSERS, what, _own_parts(folder, parts))
    if config is None or "model_type" in config:
        return None
    if "_diffusers_version" in config or "_class_name" in config:
        return Other(DIFFUSERS, f"a part of a diffusers pipeline ({_word(config.get('_class_name'))})")
    if "pretrained_cfg" in config or ("architecture" in config and "num_classes" in config):
        return Other(TIMM, f"a model of timm ({_word(config.get('architecture'))})")
    return None


def parts_of(folder: str) -> list[str]:
    """The parts of a pipeline that are in its folder, by name; none for any other folder."""
    pipeline = _object(os.path.join(folder, PIPELINE)) or {}
    plain = (name for name in pipeline if os.path.basename(name) == name)  # no path that leads elsewhere
    return sorted(name for name in plain if os.path.isdir(os.path.join(folder, name)))


def _own_parts(folder: str, parts: list[str]) -> str:
    """Which of a pipeline's parts can be given by themselves."""
    known = [name for name in parts if "model_type" in (_object(os.path.join(folder, name, "config.json")) or {})]
    return f" Its parts of Transformers can be given as they are: {', '.join(known)}." if known else ""


def _object(path: str) -> Optional[dict[str, Any]]:
    try:
        found = read_json(path, limits.CONFIG_BYTES) if os.path.isfile(path) else None
    except (OSError, ValueError, limits.OverLimit):
        return None  # the steps behind say what is wrong with it
    return found if isinstance(found, dict) else None


def _word(value: Any) -> str:
    return value[:60] if isinstance(value, str) else "of no name"
