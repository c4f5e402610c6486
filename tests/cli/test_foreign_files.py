"""Files from elsewhere, damaged or of another version: each is refused in one line, or the change is harmless."""

import hashlib
import json
import zipfile
from functools import cache

import pytest
from support.injected_run import MODULE, NEWEST, run_folder

from repro.cli import main
from repro.core.encoding import encode
from repro.report.privacy.machine import Private
from repro.run.bundle.write import bundle
from repro.sharing import lint as lint_module
from repro.sharing.forms.folder import open_run

pytestmark = pytest.mark.wrong_verdicts

GONE = object()
DAMAGE = {
    "dropped": GONE,
    "null": None,
    "a text": "\x1b[2Jx",
    "a list": [1, [2]],
    "a number": -3.5,
    "an object": {"a": 1},
}
HARMLESS = {0, 1}
"""Exit statuses of a command that read the file: the verdict, or that the report was made."""


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(lint_module, "newest", lambda package: NEWEST[package])


@pytest.fixture
def run(tmp_path):
    """A whole run, with every part that a single run has."""
    known = {"id": "pytorch-1", "issue": "pytorch/pytorch#1", "outcome": "bug"}
    row = {"id": "a", "verdict": "bad", "reason": "a test", "torch": "2.4.1", "environment": {"torch": "2.4.1"}}
    release = {"version": "2.4.1", "verdict": "bad", "reason": "a test", "pins": {"torch": "2.4.1"}}
    more = {
        "looks_like": [known], "cells": [row], "differences": {}, "versions": {"package": "torch", "probes": [release]},
        "outputs": {"html": "report.html", "bundle": "bundle.zip"},
    }  # fmt: skip
    folder = run_folder(tmp_path / "run", module=MODULE, **more)
    bundle(folder, open_run(folder).answer, Private())
    return folder


def places(value, depth=3, path=()):
    """Every key, and every key of what is below it: the shape that a reader stands on."""
    if isinstance(value, dict) and depth:
        for key, inner in value.items():
            yield (*path, key)
            yield from places(inner, depth - 1, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], depth, (*path, 0))


def damaged(whole, path, value):
    """The data with another value at a place."""
    data = json.loads(json.dumps(whole))
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return data


def told(capsys, *args):
    """(exit status, lines on stderr) of the command."""
    capsys.readouterr()
    status = main.main([*map(str, args)])
    return status, capsys.readouterr().err.splitlines()


@cache
def arguments(command):
    return {"report": ("--for", "transformers"), "lint": ("--for", "transformers"), "replay": ("--out", "again")}[
        command
    ]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", ["report", "lint", "replay"])
def test_a_verdict_of_another_shape_is_refused_in_one_line_or_read(run, capsys, monkeypatch, command, damage):
    monkeypatch.chdir(run.parent)
    whole = json.loads((run / "verdict.json").read_text(encoding="utf-8"))
    refused = 0
    for path in places(whole, depth=1 if command == "replay" else 2):
        (run / "verdict.json").write_text(json.dumps(damaged(whole, path, DAMAGE[damage])), encoding="utf-8")
        status, lines = told(capsys, command, run, *arguments(command))
        said = "\n".join(lines)
        assert "please report it" not in said, (path, said)
        if status in HARMLESS or "there is no terminal to ask on" in said:
            continue
        assert status in (2, 125), (path, status, said)
        assert len(lines) == 1, (path, lines)
        if "verdict.json" in said:
            refused += 1
            assert any(str(key) in said for key in path), (path, said)
            assert "expected" in said or "missing" in said or "schema" in said, (path, said)
    assert refused > 5


FILES = {
    "of schema 1": b'{"schema": 1, "tool": "0.1.0", "verdict": "bad", "reason": "r"}',
    "without a schema": b"{}",
    "no UTF-8": b'{"schema": 2, "reason": "\xff"}',
    "no JSON": b"{'schema': 2}",
    "cut off": b'{"schema": 2, "verdict": "ba',
    "empty": b"",
    "a list": b"[]",
    "a text": b'"verdict"',
    "nested too deeply": b"[" * 100_000,
    "a number too long": b'{"schema": ' + b"9" * 5000 + b"}",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("command", ["report", "lint", "replay"])
def test_a_verdict_that_is_none_is_refused_in_one_line(run, capsys, command, what):
    (run / "verdict.json").write_bytes(FILES[what])
    status, lines = told(capsys, command, run)
    assert (status, len(lines)) == (125 if command == "replay" else 2, 1)
    assert "verdict.json" in lines[0]


def test_a_file_of_another_schema_says_which_and_what_to_do(run, capsys):
    (run / "verdict.json").write_bytes(FILES["of schema 1"])
    _, (line,) = told(capsys, "lint", run)
    assert "it has schema 1, written by repro 0.1.0, and this version reads schema 2. Run it again" in line


def test_a_latest_json_of_another_shape_is_refused_by_name(run, capsys):
    (run / "latest.json").write_text('{"schema": 2, "package": "torch", "version": 3}')
    for command in ("report", "lint"):
        status, (line,) = told(capsys, command, run, "--for", "pytorch")
        assert status == 125
        assert "latest.json" in line
        assert "version: expected str, got int" in line


def repacked(archive, manifest):
    """The bundle with another manifest."""
    with zipfile.ZipFile(archive) as old:
        members = {name: old.read(name) for name in old.namelist()}
    path = archive.with_name("other.zip")
    with zipfile.ZipFile(path, "w") as new:
        for name, content in {**members, "MANIFEST.json": manifest}.items():
            new.writestr(name, content)
    return path


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_manifest_of_another_shape_is_refused_in_one_line_or_read(run, capsys, monkeypatch, tmp_path, damage):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(run / "bundle.zip") as archive:
        whole = json.loads(archive.read("MANIFEST.json"))
    whole["left_out"] = [{"name": "a", "bytes": 1, "why": "b"}]
    whole["masked"] = [{"name": "a", "original_bytes": 1, "original_sha256": hashlib.sha256().hexdigest()}]
    for number, path in enumerate(places(whole)):
        archive = repacked(run / "bundle.zip", encode(damaged(whole, path, DAMAGE[damage])).encode())
        status, lines = told(capsys, "replay", archive, "--out", f"out-{number}")
        said = "\n".join(lines)
        assert status in (2, 125)
        assert "please report it" not in said
        if "there is no terminal to ask on" not in said:
            assert len(lines) == 1
            assert "MANIFEST.json" in said or "manifest" in said
            assert any(str(key) in said for key in path), (path, said)


@pytest.mark.parametrize("what", FILES)
def test_a_manifest_that_is_none_is_refused_in_one_line(run, capsys, monkeypatch, tmp_path, what):
    monkeypatch.chdir(tmp_path)
    status, lines = told(capsys, "replay", repacked(run / "bundle.zip", FILES[what]), "--out", "out")
    assert (status, len(lines)) == (125, 1)
    assert "its MANIFEST.json cannot be read" in lines[0]
