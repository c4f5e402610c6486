"""Folders of runs and bundles, as others hand them over: whole, and then damaged in one place."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

from . import file

MANIFEST = "MANIFEST.json"


@file
def run(path: Path) -> None:
    """The folder of a run whose fault was found, with its scripts, its evidence and its bundle."""
    from support.injected_run import MODULE, run_folder

    from repro.report.privacy.machine import Private
    from repro.run.bundle.write import bundle
    from repro.sharing.forms.folder import open_run

    folder = run_folder(path, module=MODULE, outputs={"html": "report.html", "bundle": "bundle.zip"})
    bundle(folder, open_run(folder).answer, Private())


@file
def matrix(path: Path) -> None:
    """The folder of a matrix of one cell, ``a``."""
    import pytest
    from support.hosting import BISECT, NAN_FORWARD, ask_cells, recipe

    path.parent.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        steps = {"forward": NAN_FORWARD, "bisect": {"verdict": "bad", "payload": BISECT}}
        ask_cells(path.parent, patch, recipe("a"), out=path.name, steps=steps)


@file
def damaged(path: Path, of: str, place: str, value: str = "", drop: bool = False) -> None:
    """A JSON file, which an earlier maker has written, with another value at a place such as ``owner.project``.

    Args:
        path: The file anew.
        of: The name of the file as it was, beside the new one or the same.
        place: Keys and indices with points between them.
        value: As JSON.
        drop: In place of the value, the key is gone.
    """
    data = json.loads((path.parent / of).read_text("utf-8"))
    *outer, key = place.split(".")
    inner: Any = data
    for step in outer:
        inner = inner[int(step) if isinstance(inner, list) else step]
    key = int(key) if isinstance(inner, list) else key  # type: ignore[assignment]
    if drop:
        del inner[key]
    else:
        inner[key] = json.loads(value)
    path.write_text(json.dumps(data), encoding="utf-8")


@file
def archive(path: Path, of: str, **changes: Any) -> None:
    """A bundle made anew, with one thing changed.

    Args:
        path: The new archive.
        of: The bundle, beside it.
        changes: ``add``: names and texts of further members, ``listed``: whether the manifest has them; ``without``: a
            member that is left out; ``text``: other contents, by name; ``manifest``: other values in the manifest, as
            JSON by place; ``link``: a member that is a symbolic link, with its target; ``twice``: a member that stands
            there twice; ``zeros``: MB of a member that is a bomb; ``flags``: bits of every member; ``members``: how
            many empty ones more.
    """
    with zipfile.ZipFile(path.parent / of) as old:
        members = {name: old.read(name) for name in old.namelist()}
    manifest = json.loads(members.pop(MANIFEST))
    members |= {name: text.encode() for name, text in changes.get("text", {}).items()}
    added = {name: text.encode() for name, text in changes.get("add", {}).items()}
    if changes.get("zeros"):
        added["zeros.md"] = bytes(changes["zeros"] << 20)
    added |= {f"many/{number}.md": b"" for number in range(changes.get("members", 0))}
    if changes.get("listed", True):
        manifest["files"] += [
            {"name": name, "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
            for name, text in added.items()
        ]
    for place, value in changes.get("manifest", {}).items():
        manifest[place] = json.loads(value)
    members.pop(changes.get("without"), None)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in {**members, **added, MANIFEST: json.dumps(manifest).encode()}.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.flag_bits |= changes.get("flags", 0)
            new.writestr(info, content)
        for name, target in changes.get("link", {}).items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            new.writestr(info, target)
        if changes.get("twice"):
            info = zipfile.ZipInfo(changes["twice"])
            new.filelist.append(info)
            new.filelist.pop()
            new.NameToInfo.pop(changes["twice"], None)
            new.writestr(info, b"other")


@file
def cut(path: Path, of: str, share: float) -> None:
    """The first part of a file beside it."""
    content = (path.parent / of).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@file
def pickled(path: Path, form: str) -> None:
    """A file of torch.save, or another pickle, that makes the canary where it is unpickled."""
    import pickle

    import torch

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {path.parent / 'CANARY'}",)

    held = {"w": torch.ones(3), "x": Runs()}
    if form == "zipped":
        torch.save(held, path)
    elif form == "older":
        torch.save(held, path, _use_new_zipfile_serialization=False)
    elif form == "plain":
        path.write_bytes(pickle.dumps(held))
    elif form == "behind":
        torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes() + pickle.dumps(Runs()))
    elif form == "member":
        torch.save({"w": torch.ones(3)}, path)
        with zipfile.ZipFile(path, "a") as opened:
            opened.writestr(f"{path.stem}/more.pkl", pickle.dumps(Runs()))
    elif form == "array":
        import numpy

        with path.open("wb") as stream:
            numpy.save(stream, numpy.array([Runs()], dtype=object), allow_pickle=True)
    else:
        raise ValueError(form)
