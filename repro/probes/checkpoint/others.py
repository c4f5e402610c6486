"""Folders that another package than Transformers runs: what they are, and which package that is."""

import importlib.util
import os
import sys
from typing import Any, Optional

from . import limits
from .opening import read_json

DIFFUSERS = "diffusers"
MOST = 6  # parts that are named


def needs_another_package(folder: str) -> Optional[str]:
    """What a folder is and what it needs, in words; None for one that Transformers may run."""
    pipeline = _object(os.path.join(folder, "model_index.json"))
    config = _object(os.path.join(folder, "config.json"))
    if pipeline is not None:
        parts = sorted(name for name in pipeline if os.path.isdir(os.path.join(folder, name)))
        listed = ", ".join(parts[:MOST]) + (", ..." if len(parts) > MOST else "")
        what = f"a pipeline of diffusers ({_word(pipeline.get('_class_name'))}: {listed})"
        return _said(folder, what, DIFFUSERS, _own_parts(folder, parts))
    if config is None or "model_type" in config:
        return None
    if "_diffusers_version" in config or "_class_name" in config:
        if part_of_pipeline(folder) is not None:
            return None
        what = f"a part of a diffusers pipeline ({_word(config.get('_class_name'))})"
        return _said(folder, what, DIFFUSERS, "")
    if "pretrained_cfg" in config or ("architecture" in config and "num_classes" in config):
        return _said(folder, f"a model of timm ({_word(config.get('architecture'))})", "timm", "")
    return None


def part_of_pipeline(folder: str) -> Optional[str]:
    """The class of the part of a pipeline that a folder holds, where this interpreter has the package that runs it."""
    config = _object(os.path.join(folder, "config.json")) or {}
    name = config.get("_class_name")
    is_one = isinstance(name, str) and "model_type" not in config
    return name if is_one and importlib.util.find_spec(DIFFUSERS) is not None else None


def _own_parts(folder: str, parts: list[str]) -> str:
    """Which of a pipeline's parts can be given by themselves."""
    places = {name: os.path.join(folder, name) for name in parts}
    known = [
        name
        for name, place in places.items()
        if "model_type" in (_object(os.path.join(place, "config.json")) or {}) or part_of_pipeline(place) is not None
    ]
    return f" Its parts can be given by themselves: {', '.join(places[name] for name in known)}." if known else ""


def _said(folder: str, what: str, package: str, more: str) -> str:
    there = importlib.util.find_spec(package) is not None
    lacks = f", which {sys.executable} does not have (pip install {package})" if not there else ""
    return (
        f"{folder} is {what}, which the package {package} runs{lacks}. Give a script (.py) that loads it and runs what"
        f" fails, such as one step, or its module by --factory.{more}"
    )


def _object(path: str) -> Optional[dict[str, Any]]:
    try:
        found = read_json(path, limits.CONFIG_BYTES) if os.path.isfile(path) else None
    except (OSError, ValueError, limits.OverLimit):
        return None  # the steps behind say what is wrong with it
    return found if isinstance(found, dict) else None


def _word(value: Any) -> str:
    return value[:60] if isinstance(value, str) else "of no name"
