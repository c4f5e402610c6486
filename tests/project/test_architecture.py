"""The imports of every module against the table of docs/architecture.md; and proof that each guard can fail."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.hosting import ROOT

PACKAGE = ROOT / "repro"
KIT = PACKAGE / "probes"
DOCUMENT = ROOT / "docs" / "architecture.md"


def table(pattern):
    """Rows of the document's table whose first cell fits: the other cells, by room, in order."""
    rows = re.findall(
        rf"^\| `{pattern}(\w+)/` \| [^|]* \| ([^|]*) \|(?: ([^|]*) \|)?$", DOCUMENT.read_text("utf-8"), re.M
    )
    return {room: [set(re.findall(r"\w+", cell)) - {"nothing", "none"} for cell in cells] for room, *cells in rows}


ROOMS = table("repro/")
KIT_ROOMS = table("repro/probes/")
KIT_MAY_IMPORT = {
    *("torch", "functorch", "transformers", "safetensors", "huggingface_hub", "filelock", "gguf", "numpy", "probes"),
}
OLDEST_GRAMMAR = (3, 9)
CROWDED = {"repro/report/sections": 40, "repro/probes/steps": 40, "repro/cli": 20}
"""Folders that may hold more than a dozen files, with how many: each file of ``sections`` is one section of the
report, each file of ``steps`` one step of the kit, and each file of ``cli`` one command.
"""
HOST = sorted(path for path in PACKAGE.rglob("*.py") if KIT not in path.parents)


def place_of(path, base):
    """The room of a file below ``base``, or None for one that stands above the rooms."""
    parts = path.relative_to(base).parts
    return parts[0] if len(parts) > 1 else None


def imports(source, package=()):
    """Every module that a source text imports, also inside functions.

    Relative imports are resolved in ``package``; without one they start with a dot.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            above = package[: len(package) - node.level + 1]
            base = ".".join(filter(None, [*above, module])) if node.level and package else "." * node.level + module
            found |= {f"{base}.{alias.name}" for alias in node.names} if base in ("repro", "repro.probes") else {base}
    return found


def breaches(source, room):
    """Imports that the table does not allow to this room of the host."""
    rooms, packages = ROOMS[room]
    wrong = []
    for name in imports(source):
        top, _, rest = name.partition(".")
        if top == "repro":
            inside = rest.split(".")[0]
            if inside not in rooms | {room, "__version__"}:
                wrong.append(name)
        elif top not in sys.stdlib_module_names and top not in packages:
            wrong.append(name)
    return wrong


def kit_room_breaches(source, package):
    """Imports from other rooms of the kit that the table does not allow to this one."""
    (room, *_) = package[2:]
    inside = {name.split(".")[2] for name in imports(source, package) if name.startswith("repro.probes.")}
    return sorted(inside - KIT_ROOMS[room][0] - {room})


def kit_breaches(source):
    """Imports that are not the standard library, the libraries under examination, or the kit itself."""
    tops = {name.split(".")[0] for name in imports(source) if not name.startswith(".")}
    return sorted(top for top in tops if top not in sys.stdlib_module_names and top not in KIT_MAY_IMPORT)


@pytest.mark.parametrize("path", [path for path in HOST if place_of(path, PACKAGE)], ids=lambda path: str(path))
def test_a_host_module_imports_what_the_table_allows(path):
    assert breaches(path.read_text(encoding="utf-8"), place_of(path, PACKAGE)) == []


@pytest.mark.parametrize("path", [path for path in sorted(KIT.rglob("*.py")) if place_of(path, KIT)], ids=str)
def test_a_module_of_the_kit_imports_from_rooms_that_the_table_allows(path):
    package = path.relative_to(ROOT).parent.parts
    assert kit_room_breaches(path.read_text(encoding="utf-8"), package) == []


def test_every_room_is_in_the_table_and_none_that_is_not_there():
    assert {place_of(path, PACKAGE) for path in HOST} - {None} == set(ROOMS)
    assert {place_of(path, KIT) for path in KIT.rglob("*.py")} - {None} == set(KIT_ROOMS)


def test_only_the_entry_points_stand_outside_of_the_rooms():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", "lightning", "transformers"}
    assert {path.stem for path in KIT.glob("*.py")} == {"__init__", "__main__", "main"}


@pytest.mark.parametrize("rooms", [ROOMS, KIT_ROOMS], ids=["host", "kit"])
def test_each_row_names_rooms_above_it_only(rooms):
    """So there is no circle."""
    order = ["probes", *rooms]  # of the host, one room may import the kit
    assert order
    assert all(order.index(name) < order.index(room) for room, (names, _) in rooms.items() for name in names)


def is_for_types(node):
    """``if TYPE_CHECKING:``, which no program runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def modules():
    """Every module of the host and the kit by its name, with the modules that it imports."""
    files = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    found = {}
    for name, path in files.items():
        package = tuple(name.split(".") if path.name == "__init__.py" else name.split(".")[:-1])
        found[name] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = {id(inner) for node in tree.body if is_for_types(node) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in for_types:
                above = package[: len(package) - node.level + 1] if node.level else ()
                base = ".".join(filter(None, [*above, node.module or ""]))
                named = {f"{base}.{alias.name}" for alias in node.names}
                found[name] |= {one if one in files else base for one in named} & set(files) - {name}
    return found


def test_no_module_imports_itself_by_way_of_others():
    imported = modules()
    assert "repro.core.records" in imported["repro.core.encoding"]
    graphlib.TopologicalSorter(imported).prepare()  # raises CycleError, which names the circle


def test_a_circle_would_be_seen():
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({**modules(), "repro.core.records": {"repro.core.encoding"}}).prepare()


def test_a_room_has_at_most_a_dozen_files_on_one_level():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    crowded = {str(folder.relative_to(ROOT)): len(list(folder.glob("[!_]*.py"))) for folder in folders}
    assert {name: count for name, count in crowded.items() if count > CROWDED.get(name, 12)} == {}


@pytest.mark.parametrize(
    ("source", "room"),
    [
        ("import torch", "engine"),
        ("def f():\n    import transformers.utils", "cli"),
        ("from repro import cli", "core"),
        ("from repro.report.render import render", "diagnosis"),
        ("import repro.engine.runner", "report"),
        ("import jinja2", "cli"),
        ("from repro.probes.protocol import wire", "run"),
    ],
)
def test_the_guard_of_the_host_can_fail(source, room):
    assert breaches(source, room) != []


@pytest.mark.parametrize(
    "source", ["from ..origin import walk", "from repro.probes.origin.walk import x", "from .. import main"]
)
def test_the_guard_of_the_kits_rooms_can_fail(source):
    assert kit_room_breaches(source, ("repro", "probes", "observe")) != []


@pytest.mark.parametrize("path", sorted(KIT.rglob("*.py")), ids=lambda path: path.name)
def test_a_module_of_the_kit_imports_no_host_and_parses_on_the_oldest_python(path):
    source = path.read_text(encoding="utf-8")
    assert kit_breaches(source) == []
    ast.parse(source, feature_version=OLDEST_GRAMMAR)


@pytest.mark.parametrize(
    "source", ["import repro.core.records", "from repro import core", "import click", "import pandas"]
)
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
    """``repro.report.render`` for repro/report/render.py."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_every_host_module_can_be_imported_without_torch():
    """Not the room that runs in the user's own process, and what leads into it."""
    names = [
        module_name(path)
        for path in HOST
        if not {"inprocess", "lightning.py", "transformers.py"} & set(path.parts[-2:])
    ]
    ran = run_blocked("\n".join(f"import {name}" for name in names))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_block_can_fail():
    assert "torch is blocked" in run_blocked("import torch").stderr


def test_help_loads_nothing_that_it_does_not_need():
    code = "import sys; from repro.cli.main import main; main(['--help']); print(*sorted(sys.modules), file=sys.stderr)"
    loaded = set(run_blocked(code).stderr.split())
    assert not loaded & {"rich", "jinja2", "platformdirs", "importlib.metadata", "repro.core.records", "repro.run.run"}
    assert "click" in loaded


def test_what_both_sides_of_the_wire_have_is_the_same_on_both():
    """Neither may import the other, so these are written twice."""
    from repro.core import case
    from repro.core.foreign import limits, opening
    from repro.core.processes import family
    from repro.probes.checkpoint import limits as kit_limits
    from repro.probes.checkpoint import opening as kit_opening
    from repro.probes.checkpoint import resolve
    from repro.probes.machine import family as kit_family

    assert opening.KINDS == kit_opening.KINDS
    assert limits.VARIABLE == kit_limits.VARIABLE
    assert family.PARENT_VARIABLE == kit_family.PARENT
    assert case.READ == resolve.READ
    assert set(case.MAIN) == set(resolve.MAIN)


def test_the_diagram_names_modules_that_exist():
    import repro

    for place in re.findall(r"repro/([\w/]+)", repro.__doc__):
        assert (PACKAGE / f"{place}.py").exists() or Path(PACKAGE / place).is_dir(), place
