"""The examples are whole, stand alone, and answer in this environment as their known boundaries say."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
BOUNDARIES: dict[str, dict[str, Any]] = tomllib.loads((EXAMPLES / "boundaries.toml").read_text("utf-8"))
KEYS = {"package", "good", "bad", "last_good", "first_bad", "python", "with", "issue", "why"}


def source(name: str) -> str:
    return (EXAMPLES / f"{name}.py").read_text("utf-8")


def docstring(name: str) -> str:
    return ast.get_docstring(ast.parse(source(name))) or ""


def versions(name: str, *keys: str) -> list[Version]:
    return [Version(BOUNDARIES[name][key]) for key in keys]


def implied_status(name: str, release: Version) -> int:
    """The exit status that the boundary implies for a release of the package: 0 on its good side, 1 on its bad side."""
    good, last_good, first_bad = versions(name, "good", "last_good", "first_bad")
    on_good_side = release <= last_good if good <= last_good < first_bad else release >= last_good
    return 0 if on_good_side else 1


def short_issue(url: str) -> str:
    """`https://.../transformers/pull/31771` as it is written in prose: `transformers PR#31771`."""
    repository, kind, number = url.split("/")[-3:]
    return f"{repository}{' PR' if kind == 'pull' else ''}#{number}"


def foreign_imports(text: str) -> set[str]:
    """What a script imports beside the standard library and the libraries under examination."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add("." * node.level or str(node.module).split(".")[0])
    return imported - sys.stdlib_module_names - {"torch", "transformers", "safetensors"}


def run(name: str, folder: Path, **variables: str) -> tuple[int, str]:
    """The exit status of the script, run in an empty folder, and the last line that it printed."""
    argv, environment = [sys.executable, str(EXAMPLES / f"{name}.py")], {**os.environ, **variables}
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, done.stdout.splitlines()[-1]


@cache
def readme_rows() -> dict[str, str]:
    """The rows of the README's table, by script."""
    text = (EXAMPLES / "README.md").read_text("utf-8")
    return {row.split("`")[1].removesuffix(".py"): row for row in re.findall(r"^\| `\w+\.py` .*$", text, re.M)}


# The list of boundaries


def test_every_script_has_its_boundary_and_its_row() -> None:
    assert SCRIPTS == sorted(BOUNDARIES) == sorted(readme_rows())
    assert len(SCRIPTS) == 5


@pytest.mark.parametrize("name", SCRIPTS)
def test_boundary_has_exactly_the_known_keys(name: str) -> None:
    assert set(BOUNDARIES[name]) == KEYS
    assert all(isinstance(value, dict if key == "with" else str) for key, value in BOUNDARIES[name].items())


@pytest.mark.parametrize("name", SCRIPTS)
def test_boundary_lies_between_its_ends(name: str) -> None:
    path = versions(name, "good", "last_good", "first_bad", "bad")
    assert path in (sorted(path), sorted(path, reverse=True))
    assert path[1] != path[2]


@pytest.mark.parametrize("name", SCRIPTS)
def test_pins_are_exact_and_never_of_the_package_that_moves(name: str) -> None:
    pins = BOUNDARIES[name]["with"]
    assert BOUNDARIES[name]["package"] in {"torch", "transformers"} - set(pins)
    assert [str(Version(pin)) for pin in pins.values()] == list(pins.values())


@pytest.mark.parametrize("name", SCRIPTS)
def test_readme_and_docstring_name_the_issue_and_the_boundary(name: str) -> None:
    entry, row = BOUNDARIES[name], readme_rows()[name]
    assert f"[{short_issue(entry['issue'])}]({entry['issue']})" in row
    assert short_issue(entry["issue"]) in docstring(name)
    for key in ("package", "last_good", "first_bad"):
        assert entry[key] in row
        assert entry[key] in docstring(name)


@pytest.mark.parametrize(
    ("name", "release", "status"),
    [
        ("pytorch_103749", "2.4.1", 1),
        ("pytorch_103749", "2.5.0", 0),
        ("misaligned_weights", "4.42.4", 0),
        ("misaligned_weights", "4.43.0", 1),
    ],
)
def test_status_is_read_off_the_boundary(name: str, release: str, status: int) -> None:
    assert implied_status(name, Version(release)) == status


# The scripts


@pytest.fixture(scope="module", params=SCRIPTS)
def answered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int, str, Path]:
    """A script that was run once: its name, exit status, last line, and the folder that it had for temporary files."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, *run(request.param, folder, TMPDIR=str(folder)), folder


def test_script_answers_as_its_boundary_implies_here(answered: tuple[str, int, str, Path]) -> None:
    name, status, line, _ = answered
    assert status == implied_status(name, Version(version(BOUNDARIES[name]["package"]))), line


def test_script_ends_with_what_was_expected_and_seen(answered: tuple[str, int, str, Path]) -> None:
    name, _, line, _ = answered
    package = BOUNDARIES[name]["package"]
    assert re.fullmatch(rf".*\b{package} {re.escape(version(package))}\b.*; expected: \S.*; seen: \S.*", line)


def test_script_leaves_no_file(answered: tuple[str, int, str, Path]) -> None:
    # torch makes the folder of its compiler by itself.
    assert [path for path in answered[3].iterdir() if not path.name.startswith("torchinductor_")] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_that_cannot_ask_says_why_and_ends_with_125(name: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "raise RuntimeError('\"some_kernel\" not implemented\\nfor \\'Half\\'')", "utf-8"
    )
    status, line = run(name, tmp_path, PYTHONPATH=str(tmp_path))
    assert (status, line) == (125, "could not ask: RuntimeError \"some_kernel\" not implemented for 'Half'")


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_self_contained(name: str) -> None:
    assert foreign_imports(source(name)) == set()


@pytest.mark.parametrize(
    "line", ["import repro", "from repro.engine.kit import pack", "import numpy as np", "from . import x"]
)
def test_foreign_import_is_noticed(line: str) -> None:
    assert len(foreign_imports(f"import torch.nn\ndef main():\n    {line}\n")) == 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_parses_on_the_oldest_python(name: str) -> None:
    """The grammar of Python 3.9, as the kit's own modules."""
    ast.parse(source(name), feature_version=(3, 9))


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_short(name: str) -> None:
    assert 15 <= len(source(name).splitlines()) <= 60


# The README


def test_readme_command_asks_for_a_known_boundary() -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    (command,) = re.findall(r"^    (repro versions .*)$", text, re.M)
    _, _, script, *options = shlex.split(command)
    asked = dict(zip(options[::2], options[1::2], strict=True))
    entry = BOUNDARIES[Path(script).stem]
    assert (ROOT / script).exists()
    assert asked == {"--package": entry["package"], "--good": entry["good"], "--bad": entry["bad"]}


def test_readme_shows_the_line_that_the_script_prints(tmp_path: Path) -> None:
    """Apart from the versions and from what is seen, which depend on where it runs."""
    text = (EXAMPLES / "README.md").read_text("utf-8")
    (shown,) = re.findall(r"^    torch .*; (expected: .*; seen: ).*$", text, re.M)
    assert shown in run("pytorch_103749", tmp_path)[1]
