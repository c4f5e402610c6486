"""The imports of every module against the table of docs/architecture.md; and proof that each guard can fail."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hosting import ROOT

PACKAGE = ROOT / "repro"
KIT = PACKAGE / "probes"
WORDS = {"records", "errors"}
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli"},
    "errors": set(),
    "records": {"errors"},
    "wording": {"records"},
    "folders": WORDS,
    "cases": WORDS,
    "cells": WORDS,
    "indexes": WORDS,
    "environments": WORDS | {"folders", "indexes"},
    "search": WORDS,
    "releases": WORDS,
    "versions": WORDS | {"releases", "search", "versions"},
    "changes": WORDS | {"changes", "wording"},
    "gap": WORDS,
    "differences": WORDS | {"gap", "wording"},
    "evidence": WORDS,
    "kit": WORDS,
    "process": WORDS,
    "runner": WORDS | {"evidence", "process"},
    "judge": WORDS | {"wording"},
    "report": WORDS | {"report", "wording"},
    "catalogue": WORDS | {"catalogue", "wording"},
    "scan": WORDS | {"scan", "wording"},
    "settings": WORDS | {"settings", "wording"},
    "chances": WORDS,
    "overlap": WORDS | {"chances", "wording"},
    "prompt_lists": WORDS,
    "intake": WORDS | {"cases", "folders", "intake", "overlap", "wording"},
    "prompt_sets": WORDS | {"intake", "overlap", "prompt_lists", "wording"},
    "reasons": WORDS | {"chances", "reasons", "wording"},
    "examples": WORDS,
    "prompt_records": WORDS | {"folders"},
    "ownership": WORDS | {"catalogue", "wording"},
    "reproducer": WORDS | {"folders", "process", "reproducer", "wording"},
    "manifest": WORDS,
    "masking": WORDS | {"report"},
    "bundle": WORDS | {"kit", "manifest", "masking", "report"},
    "output": WORDS | {"bundle", "folders", "report"},
    "run": WORDS
    | {
        "__init__",
        "catalogue",
        "evidence",
        "folders",
        "judge",
        "kit",
        "output",
        "ownership",
        "report",
        "reproducer",
        "runner",
    },
    "table": WORDS | {"differences", "gap", "wording"},
    "rows": WORDS,
    "joining": WORDS | {"catalogue", "folders", "report", "rows", "table", "wording"},
    "child": WORDS | {"folders", "process", "run"},
    "conversion": WORDS | {"child", "folders", "run"},
    "matrix": WORDS
    | {"__init__", "child", "conversion", "environments", "folders", "joining", "output", "rows", "run"},
    "merging": WORDS | {"__init__", "folders", "joining", "matrix", "output", "rows", "run"},
    "laboratory": WORDS
    | {"child", "environments", "evidence", "folders", "kit", "releases", "run", "runner", "versions"},
    "boundary": WORDS
    | {
        "__init__",
        "cells",
        "changes",
        "conversion",
        "environments",
        "folders",
        "joining",
        "laboratory",
        "output",
        "run",
        "versions",
    },
    "console": WORDS | {"run", "runner", "table", "wording"},
    "prompting": WORDS | {"examples", "folders", "output", "prompt_records", "reasons", "run", "runner"},
    "comparing_rows": WORDS | {"prompt_records", "prompting", "report"},
    "comparing_settings": WORDS | {"settings"},
    "comparing_threshold": WORDS | {"comparing_rows", "comparing_settings", "report", "wording"},
    "comparing": WORDS
    | {
        "__init__",
        "child",
        "comparing_rows",
        "comparing_settings",
        "comparing_threshold",
        "environments",
        "folders",
        "joining",
        "output",
        "run",
        "wording",
    },
    "unpacking": WORDS | {"folders", "manifest"},
    "identity": WORDS | {"wording"},
    "proposal": WORDS | {"cases", "cells", "folders", "kit", "reproducer", "run", "runner", "unpacking"},
    "replaying": WORDS
    | {
        "__init__",
        "folders",
        "gap",
        "identity",
        "kit",
        "proposal",
        "report",
        "reproducer",
        "run",
        "runner",
    },
    "filing": WORDS | {"folders", "report"},
    "latest": WORDS | {"environments", "filing", "folders", "releases", "report", "reproducer"},
    "lint": WORDS | {"filing", "folders", "latest", "masking", "ownership", "report", "wording"},
    "samples": WORDS | {"folders"},
    "options": WORDS | {"cases", "cells", "run", "runner"},
    "commands": WORDS | {"boundary", "cells", "console", "environments", "matrix", "merging", "options"},
    "prompts_command": WORDS | {"console", "options", "prompting"},
    "compare_command": WORDS | {"comparing", "console", "options", "prompting", "report", "run"},
    "logs_command": WORDS | {"console", "folders", "intake", "options", "prompts_command", "wording"},
    "overlap_command": WORDS | {"options", "overlap", "prompt_sets", "wording"},
    "files_commands": WORDS | {"options", "scan", "settings"},
    "replay_command": WORDS
    | {
        "cells",
        "console",
        "folders",
        "gap",
        "options",
        "proposal",
        "replaying",
        "runner",
        "unpacking",
        "wording",
    },
    "delivery": WORDS
    | {
        "bundle",
        "console",
        "environments",
        "filing",
        "latest",
        "lint",
        "options",
        "report",
        "wording",
    },
    "cli": WORDS
    | {
        "__init__",
        "commands",
        "compare_command",
        "console",
        "delivery",
        "files_commands",
        "logs_command",
        "options",
        "overlap_command",
        "prompts_command",
        "replay_command",
        "run",
        "samples",
    },
}
"""Which modules of the host a module may import."""
THIRD_PARTY = {
    "boundary": {"packaging"},
    "catalogue": {"packaging"},
    "cli": {"click"},
    "commands": {"click"},
    "compare_command": {"click"},
    "console": {"rich"},
    "delivery": {"click"},
    "differences": {"packaging"},
    "environments": {"uv"},
    "folders": {"platformdirs"},
    "files_commands": {"click"},
    "joining": {"packaging"},
    "latest": {"packaging"},
    "logs_command": {"click"},
    "options": {"click"},
    "releases": {"packaging"},
    "overlap_command": {"click"},
    "prompts_command": {"click"},
    "reasons": {"scipy"},
    "replay_command": {"click"},
    "report": {"jinja2", "markdown_it", "packaging", "vl_convert"},
    "scan": {"pyarrow"},
    "settings": {"yaml"},
    "table": {"rich"},
    "versions": {"packaging"},
}
"""Which packages outside the standard library a module may import."""
KIT_MAY_IMPORT = {"torch", "functorch", "transformers", "safetensors", "huggingface_hub", "gguf", "probes"}
OLDEST_GRAMMAR = (3, 9)
HOST = sorted(path for path in PACKAGE.rglob("*.py") if KIT not in path.parents)


def part_of(path):
    """The row of the table that a module belongs to."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(source):
    """Every module that a source text imports, also inside functions; relative imports start with a dot."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "repro" else {base}
    return found


def breaches(source, part):
    """Imports that the table does not allow to this part of the host."""
    wrong = []
    for name in imports(source):
        top, _, rest = name.partition(".")
        if top == "repro":
            inside = rest.split(".")[0]
            inside = "__init__" if inside.startswith("__version__") else inside
            if inside not in MAY_IMPORT[part]:
                wrong.append(name)
        elif top not in sys.stdlib_module_names and top not in THIRD_PARTY.get(part, set()):
            wrong.append(name)
    return wrong


def kit_breaches(source):
    """Imports that are not the standard library, the libraries under examination, or the kit itself."""
    tops = {name.split(".")[0] for name in imports(source) if not name.startswith(".")}
    return sorted(top for top in tops if top not in sys.stdlib_module_names and top not in KIT_MAY_IMPORT)


@pytest.mark.parametrize("path", HOST, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_host_module_imports_what_the_table_allows(path):
    assert breaches(path.read_text(encoding="utf-8"), part_of(path)) == []


def test_every_part_of_the_host_is_in_the_table():
    assert {part_of(path) for path in HOST} == set(MAY_IMPORT)


def test_the_documents_table_is_the_one_held_here():
    """And each row names rows above it only: there is no circle."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| `repro/(?:(\w+)\.py|(\w+)/)` \|.*\| ([^|]*) \|$", text.split("## The kit")[0], re.M)
    table = {file or folder: set(re.findall(r"\w+", names)) - {"nothing"} for file, folder, names in rows}
    held = {part: names - {"__init__", part} for part, names in MAY_IMPORT.items() if not part.startswith("__")}
    assert table == held
    parts = list(table)
    assert all(parts.index(name) < parts.index(part) for part, names in table.items() for name in names)


def test_the_document_names_every_module_of_the_kit():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = text.split("## The kit")[1].split("\n\n")[2]
    named = re.findall(r"`(\w+)`", "".join(line.split(" | ")[0] for line in table.splitlines()))
    modules = {path.stem for path in KIT.glob("*.py")} - {"__init__", "__main__"}
    assert (set(named), len(named)) == (modules, len(modules))


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("import torch", "runner"),
        ("def f():\n    import transformers.utils", "cli"),
        ("from repro import cli", "records"),
        ("from repro.report.view import view", "judge"),
        ("import repro.runner", "report"),
        ("import jinja2", "cli"),
        ("from repro.probes import wire", "run"),
    ],
)
def test_the_guard_of_the_host_can_fail(source, part):
    assert breaches(source, part) != []


@pytest.mark.parametrize("path", sorted(KIT.rglob("*.py")), ids=lambda path: path.name)
def test_a_module_of_the_kit_imports_no_host_and_parses_on_the_oldest_python(path):
    source = path.read_text(encoding="utf-8")
    assert kit_breaches(source) == []
    ast.parse(source, feature_version=OLDEST_GRAMMAR)


@pytest.mark.parametrize("source", ["import repro.records", "from repro import errors", "import click", "import numpy"])
def test_the_guard_of_the_kit_can_fail(source):
    assert kit_breaches(source) != []


def test_the_guard_of_the_grammar_can_fail():
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n    case 1: pass", feature_version=OLDEST_GRAMMAR)


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
"""


def run_blocked(code):
    """Run code in a process in which torch and transformers cannot be imported."""
    command = [sys.executable, "-c", f"{BLOCKED}\n{code}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def module_name(path):
    """``repro.report.view`` for repro/report/view.py."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_every_host_module_can_be_imported_without_torch():
    names = [module_name(path) for path in HOST]
    ran = run_blocked("\n".join(f"import {name}" for name in names))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_block_can_fail():
    assert "torch is blocked" in run_blocked("import torch").stderr


def test_help_loads_nothing_that_it_does_not_need():
    code = "import sys; from repro.cli import main; main(['--help']); print(*sorted(sys.modules), file=sys.stderr)"
    loaded = set(run_blocked(code).stderr.split())
    assert not loaded & {"rich", "jinja2", "platformdirs", "importlib.metadata", "repro.records", "repro.run"}
    assert "click" in loaded


def test_the_diagram_names_modules_that_exist():
    import repro

    for name in ("cases", "cells", "runner", "probes", "kit", "cli", "run", "judge", "report"):
        assert name in repro.__doc__
        assert (PACKAGE / f"{name}.py").exists() or Path(PACKAGE / name).is_dir()
