"""Cells are built with the real uv, offline, from small wheels made here in place of torch and Transformers."""

import functools
import http.server
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest

from repro.core.errors import BuildError
from repro.core.records import Recipe
from repro.environments import store as environments
from repro.environments.store import Store, fingerprint, missing_device

PYTHON = ".".join(map(str, sys.version_info[:2]))


def wheel(folder, name, version, requires=()):
    """A wheel with one module that holds its version."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as made:
        made.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n" + "#" * 100_000)
        made.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", "")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store whose only registry is a folder of small wheels."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("2.4.1", "2.5.1"):
        wheel(wheels, "torch", version, ["companion"])
    wheel(wheels, "transformers", "4.57.3")
    for version in ("1.0", "1.1"):
        wheel(wheels, "companion", version)
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return Store(tmp_path / "cells")


def recipe(torch="2.4.1", python=PYTHON, lock=None, **more):
    pins = {"torch": torch, "transformers": "4.57.3"}
    return Recipe(id=f"torch-{torch}", python=python, device="cpu", why="a test", pins=pins, lock=lock, **more)


def versions(cell, *names):
    """What is installed, asked of the cell's own interpreter."""
    code = f"import importlib.metadata as m; print(*[m.version(n) for n in {names!r}])"
    return subprocess.run([cell.python, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_a_cell_has_its_pins_and_what_they_require(store):
    cell = store.build(recipe())
    assert versions(cell, "torch", "transformers", "companion") == ["2.4.1", "4.57.3", "1.1"]


def test_the_lock_holds_what_the_pins_require(store, tmp_path):
    (tmp_path / "lock.txt").write_text("companion==1.0\nnever-installed==9\n")
    assert versions(store.build(recipe(lock=str(tmp_path / "lock.txt"))), "companion") == ["1.0"]


def test_a_cell_that_stands_is_not_built_again(store):
    cell = store.build(recipe())
    marker = store.folder / "torch-2.4.1" / "marker"
    marker.write_text("")
    assert store.build(recipe()) == cell
    assert store.built(recipe()) == cell
    assert marker.exists()


def test_a_cell_of_another_recipe_is_built_anew(store, tmp_path):
    store.build(recipe())
    (tmp_path / "lock.txt").write_text("companion==1.0\n")
    other = recipe(lock=str(tmp_path / "lock.txt"))
    assert store.built(other) is None
    assert versions(store.build(other), "companion") == ["1.0"]


def test_a_cell_that_is_half_built_is_built_anew(store):
    store.build(recipe())
    (store.folder / "torch-2.4.1" / environments.STAMP).unlink()
    assert store.built(recipe()) is None
    assert versions(store.build(recipe()), "torch") == ["2.4.1"]


def test_a_release_that_is_not_there_is_a_reason_in_uvs_words(store):
    with pytest.raises(BuildError, match=r"torch==9\.9\.9"):
        store.build(recipe("9.9.9"))
    assert store.built(recipe("9.9.9")) is None
    assert "torch==9.9.9" in (store.folder / "torch-9.9.9.log").read_text()


def test_an_interpreter_that_is_not_there_is_a_reason(store):
    with pytest.raises(BuildError, match=r"no Python 3\.99 on this machine\. Install it"):
        store.build(recipe(python="3.99"))


def test_without_uv_the_reason_says_how_to_get_it(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match="pip install uv"):
        store.build(recipe())


def test_two_cells_share_the_files_that_they_have_in_common(store):
    for torch in ("2.4.1", "2.5.1"):
        store.build(recipe(torch))
    apart = sum(item.bytes for item in store.standing())
    assert [item.recipe.id for item in store.standing()] == ["torch-2.4.1", "torch-2.5.1"]
    # Two packages of 100 kB are in both; the logs of the builds are counted as well.
    assert store.stored_bytes() <= apart - 190_000


class Index(http.server.SimpleHTTPRequestHandler):
    """A package index (PEP 503) over a folder of wheels, which keeps what it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        """The page of a package, or a wheel."""
        name = self.path.strip("/")
        if name.endswith(".whl"):
            self.asked.append(name)
            super().do_GET()
            return
        files = [path.name for path in sorted(Path(self.directory).glob(f"{name}-*.whl"))]
        page = "".join(f'<a href="/{file}">{file}</a>' for file in files).encode()
        self.send_response(200 if files else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *args):
        """Nothing."""


@pytest.fixture
def index(store, tmp_path, monkeypatch):
    """The same wheels behind an index on this machine; yields the list of wheels that were fetched from it."""
    handler = functools.partial(Index, directory=str(tmp_path / "wheels"))
    Index.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("UV_FIND_LINKS", "UV_NO_INDEX", "UV_OFFLINE"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield Index.asked
        server.shutdown()


def test_a_second_cell_downloads_nothing_that_the_first_has_brought(store, index):
    store.build(recipe("2.4.1"))
    first = set(index)
    index.clear()
    store.build(recipe("2.5.1"))
    assert first == {f"{name}-py3-none-any.whl" for name in ("torch-2.4.1", "transformers-4.57.3", "companion-1.1")}
    assert set(index) == {"torch-2.5.1-py3-none-any.whl"}


def test_remove_takes_the_cell_and_its_log(store):
    store.build(recipe())
    store.remove(["torch-2.4.1"])
    assert list(store.folder.iterdir()) == []


def test_remove_with_cache_keeps_what_another_cell_has(store, tmp_path):
    for torch in ("2.4.1", "2.5.1"):
        store.build(recipe(torch))
    store.remove(["torch-2.4.1"], cache=True)
    assert any((tmp_path / "uv-cache").rglob("transformers/__init__.py"))
    store.remove(["torch-2.5.1"], cache=True)
    assert not any((tmp_path / "uv-cache").rglob("transformers/__init__.py"))


def test_the_fingerprint_follows_python_pins_and_lock(tmp_path):
    lock = tmp_path / "lock.txt"
    lock.write_text("a==1\n")
    one = fingerprint(recipe(lock=str(lock)))
    lock.write_text("a==2\n")
    prints = {one, fingerprint(recipe(lock=str(lock))), fingerprint(recipe()), fingerprint(recipe("2.5.1"))}
    assert len({*prints, fingerprint(recipe(python="3.10"))}) == 5
    assert fingerprint(recipe()) == fingerprint(recipe())


def test_progress_is_told_in_bytes_from_uvs_own_lines(store, monkeypatch, tmp_path):
    program = tmp_path / "uv"
    program.write_text("#!/bin/sh\necho 'Downloading torch (2.0MiB)' >&2\necho ' Downloaded torch' >&2\n")
    program.chmod(0o755)
    monkeypatch.setattr(environments, "_uv_program", lambda: str(program))
    heard = []
    environments._Uv(tmp_path, tmp_path / "log", lambda *told: heard.append(told))("pip", "install")
    assert heard == [(0, 2 << 20, "bytes"), (2 << 20, 2 << 20, "bytes")]


@pytest.mark.parametrize(("lines", "reason"), [(["GPU 0: H100"], None), ([], "no CUDA device on this machine")])
def test_a_cuda_cell_needs_a_card_that_answers(monkeypatch, tmp_path, lines, reason):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = missing_device("cuda")
    assert (found is None) if reason is None else (reason in str(found))


def test_a_cpu_cell_needs_nothing():
    assert missing_device("cpu") is None


@pytest.mark.parametrize(
    ("device", "backend", "wanted"),
    [("cpu", "auto", ["--torch-backend", "cpu"]), ("cuda", "auto", []), ("cpu", "", [])],
)
def test_cpu_cells_take_cpu_wheels_where_uv_chooses_the_index(monkeypatch, device, backend, wanted):
    monkeypatch.setenv("UV_TORCH_BACKEND", backend)
    made = Recipe(id="x", python=PYTHON, device=device, why="", pins={})
    assert environments._backend(made) == wanted


def test_every_pyenv_version_can_be_found_and_the_selected_one_stays_first(monkeypatch, tmp_path):
    for version in ("3.10.13", "3.13.0"):
        (tmp_path / "versions" / version).mkdir(parents=True)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PYENV_VERSION", "3.10.13")
    assert environments._variables()["PYENV_VERSION"] == "3.10.13:3.13.0:3.10.13"
    monkeypatch.delenv("PYENV_VERSION")
    assert environments._variables()["PYENV_VERSION"] == "3.13.0:3.10.13"


def test_a_half_built_cell_has_a_name_and_can_be_removed(store):
    (store.folder / "half" / "bin").mkdir(parents=True)
    assert (store.names(), store.standing()) == (("half",), ())
    store.remove(["half"])
    assert store.names() == ()


def test_to_remove_nothing_is_no_error(store):
    assert store.remove([]) == 0
