"""The project's files agree with each other: documents, sessions, locks, dependencies, configurations."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from repro.cli.main import repro as program
from repro.core.mechanisms import TABLE
from repro.core.steps import ABLATION, every

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "repro/models/README.md",
    "examples/README.md",
    "tests/corpus/README.md",
    *PAGES,
]
WITH_COMMANDS = [name for name in DOCUMENTS if name == "README.md" or name.startswith("docs/")]
EXTENDING = sorted(path.stem for path in (ROOT / "docs/extend").glob("*.md"))
RUN_PAGE = "docs/run.md"
PICTURES = {"terminal.svg", "page.png"}
PICTURE_LIMIT = 200_000
LOCKS = sorted(path.name for path in (ROOT / "envs").glob("*.txt"))
CELLS = sorted(path.stem for path in (ROOT / "envs").glob("*.toml"))

# Published counts: the safetensors metadata on the Hub (Gemma), the model cards (Pythia), the checkpoints (GPT-2).
PARAMETERS = {
    "distilgpt2": 81_912_576,
    "gemma-3-12b": 12_187_325_040,
    "gemma-3-1b": 999_885_952,
    "gemma-3-270m": 268_098_176,
    "gemma-3-27b": 27_432_406_640,
    "gemma-3-4b": 4_300_079_472,
    "gpt2": 124_439_808,
    "gpt2-large": 774_030_080,
    "gpt2-medium": 354_823_168,
    "gpt2-xl": 1_557_611_200,
    "pythia-160m": 162_322_944,
    "pythia-1b": 1_011_781_632,
    "pythia-410m": 405_334_016,
}


ALONE = [
    ("torch-2.4.1", "torch-2.5.1", "torch"),
    ("transformers-4.42.4", "transformers-4.43.0", "transformers"),
]
"""Two cells, and the one package in which they differ."""


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


def code_lines(name: str) -> list[str]:
    """The lines of the document's indented code blocks, without their trailing comments."""
    return [line.strip().split("  #")[0].rstrip() for line in read(name).splitlines() if line.startswith("    ")]


def table(name: str, head: str) -> list[list[str]]:
    """The rows of the document's table whose first column has this head, as cells."""
    rows = read(name).split(f"\n| {head} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def spans(cell: str) -> list[str]:
    """What is in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def repro_help(*command: str) -> str:
    """What `repro COMMAND --help` prints."""
    code = "import sys; from repro.cli.main import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, *command, "--help"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def sessions() -> set[str]:
    return set(re.findall(r"^@nox\.session.*\n(?:@.*\n)*def (\w+)\(", read("noxfile.py"), re.M))


# Documents


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", read(name)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.M)
            assert anchor in map(slug, headings), f"{name}: {target}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_files_exist(name: str) -> None:
    tops = (
        "repro/",
        "envs/",
        "tests/",
        "docs/",
        "bench/",
        ".ci/",
        "noxfile.py",
        "pyproject.toml",
        "REPORT_TEMPLATE.md",
        "examples/",
        ".github/",
    )
    for quoted in re.findall(r"`([^`\s]+)`", read(name)):
        if quoted.startswith(tops) and "*" not in quoted:
            assert (ROOT / quoted).exists(), f"{name}: {quoted}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_named_sessions_exist(name: str) -> None:
    named = re.findall(r"(?:nox|noxfile\.py) -s (\w+)", read(name))
    assert set(named) <= sessions()
    assert named or name == "CHANGELOG.md"


def test_sessions_table_is_whole() -> None:
    table = read("CONTRIBUTING.md").split("| session |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) == sessions()


def test_first_screen_has_the_two_commands() -> None:
    first_screen = "\n".join(read("README.md").splitlines()[:24])
    assert f'python noxfile.py -s "repro({project()["tool"]["repro"]["cell"]})"' in first_screen
    assert "python noxfile.py -s repro" in first_screen
    assert "python noxfile.py -s tests" in first_screen


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= 150


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_are_understood(name: str) -> None:
    """Every option of a `repro` command in a document is in the help of the command that it is given to."""
    commands = [line for line in code_lines(name) if line.startswith("repro ")]
    commands += ["repro " + line.split(" -- ")[1] for line in code_lines(name) if " -s repro -- " in line]
    commands += [span for span in spans(read(name)) if re.match(r"repro [a-z-]+ .*--", span)]
    for command in commands:
        words = shlex.split(command)[1:]
        named = words[:2] if words[0] == "cells" else words[:1] if words[0] in program.commands else ["run"]
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"{option}\b", repro_help(*named)), command


def test_every_command_is_in_the_table() -> None:
    assert sorted(name for row in table(RUN_PAGE, "command | what it does") for name in spans(row[0])) == sorted(
        program.commands
    )


def test_the_options_are_those_of_the_program() -> None:
    named = {option for row in table(RUN_PAGE, "option") for option in re.findall(r"--[a-z0-9-]+", row[0])}
    offered = {name for option in program.commands["run"].params for name in (*option.opts, *option.secondary_opts)}
    assert named == {name for name in offered if name.startswith("--")}


def test_the_exit_statuses_are_those_of_the_help() -> None:
    """A row has a text where the help of its commands names that status, and every command with statuses has a row."""
    shown: dict[str, set[str]] = {}
    for row in table(RUN_PAGE, "command | 0"):
        found = {status for status, text in zip(("0", "1", "125"), row[1:], strict=True) if text}
        shown |= dict.fromkeys(spans(row[0]), found)
    for name, command in program.commands.items():
        said = " ".join((command.epilog or "").split()).partition("Exit status: ")[2]
        if said:
            assert shown[name] == set(re.findall(r"(?:^|, )(0|1|125) ", said)), name


def test_the_steps_are_those_of_the_kit() -> None:
    """Each row has the kit's own question, in the order of running; a step may wait for its row."""
    known = {step.name.removeprefix(ABLATION): step.question for step in every()}
    for head, of_ablations in (("step", False), ("ablation", True)):
        rows = [(spans(name)[0], question) for name, question in table(RUN_PAGE, head)]
        names = [name for name, _ in rows]
        assert rows == [(name, known[name]) for name in names]
        assert names == [name for name in known if name in names]
        assert {step.is_ablation for step in every() if step.name.removeprefix(ABLATION) in names} == {of_ablations}


def test_the_mechanisms_are_those_of_the_table() -> None:
    named = [row[0] for row in table("docs/architecture.md", "mechanism | meaning")]
    assert named == [row.name for row in TABLE if row.name in named]


def test_the_glossary_is_in_order_and_says_each_term_in_one_sentence() -> None:
    rows = table("docs/glossary.md", "term")
    terms = [term for term, _ in rows]
    assert terms == sorted(terms)
    assert [term for term, text in rows if not text.endswith(".") or ". " in text] == []


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_small_and_names_no_folder_of_a_machine(name: str) -> None:
    data = (ROOT / "docs/pictures" / name).read_bytes()
    assert len(data) < PICTURE_LIMIT
    assert not re.search(rb"/home/|/root/|/tmp/|/Users/", data)


# Pages on adding something


def diff_of(page: str) -> str:
    """The example of a page."""
    return read(f"docs/extend/{page}.md").split("```diff\n")[1].split("\n```\n")[0] + "\n"


@pytest.mark.parametrize("page", EXTENDING)
def test_the_example_of_a_page_still_applies(page: str, tmp_path: Path) -> None:
    """To copies of the files that it touches, of which there are three at most."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    diff = diff_of(page)
    touched = re.findall(r"^diff --git a/(\S+) b/\1$", diff, re.M)
    assert 1 <= len(touched) <= 3
    for name in touched:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "example.diff").write_text(diff, "utf-8")
    # The folder may lie inside of a repository, to whose root git would apply it.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    command = ["git", "apply", "--verbose", "example.diff"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in touched:
        text = (tmp_path / name).read_text("utf-8")
        if name.endswith(".py"):
            compile(text, name, "exec")
        elif name.endswith(".toml"):
            tomllib.loads(text)
        elif name.endswith(".json"):
            json.loads(text)


def test_every_page_on_adding_something_is_named() -> None:
    named = set(re.findall(r"docs/extend/([\w-]+)\.md", read("CONTRIBUTING.md")))
    assert named == set(EXTENDING)


@pytest.mark.parametrize("name", [*DOCUMENTS, "noxfile.py", "pyproject.toml", ".ci/run"])
def test_lines_are_not_too_long(name: str) -> None:
    if name.startswith("docs/examples/"):
        pytest.skip("a command wrote it")
    text = re.sub(r"```diff\n.*?\n```\n", "", read(name), flags=re.DOTALL)
    prose = (line for line in text.splitlines() if not line.startswith(("|", "    ")))
    assert [line for line in prose if len(line) > 120 and "](http" not in line and not line.startswith("desc")] == []


# Packaging


def test_every_dependency_has_its_reason() -> None:
    data = project()
    declared = [*data["project"]["dependencies"]]
    for extra in data["project"]["optional-dependencies"].values():
        declared += extra
    for group in data["dependency-groups"].values():
        declared += group
    tables = read("CONTRIBUTING.md").split("## Why each dependency is here")[1]
    explained = re.findall(r"^\| ([\w-]+) \| \S", tables, re.M)
    names = {canonicalize_name(Requirement(line).name) for line in declared}
    assert names == {canonicalize_name(name) for name in explained if name != "package"}


def test_version_comes_from_the_package() -> None:
    import repro

    assert project()["tool"]["hatch"]["version"]["path"] == "repro/__init__.py"
    assert re.search(rf"^## {re.escape(repro.__version__)}\b", read("CHANGELOG.md"), re.M)


def test_licence_is_the_whole_text() -> None:
    text = read("LICENSE")
    assert text.lstrip().startswith("Apache License")
    assert "END OF TERMS AND CONDITIONS" in text
    assert project()["project"]["license"] == "Apache-2.0"


# Sessions and cells


def test_noxfile_has_no_version_literal() -> None:
    assert re.findall(r"\d+\.\d+", read("noxfile.py")) == []


def test_session_cell_exists() -> None:
    assert project()["tool"]["repro"]["cell"] in CELLS


@pytest.mark.parametrize("cell", CELLS)
def test_cell_has_its_lock(cell: str) -> None:
    data, lines = tomllib.loads(read(f"envs/{cell}.toml")), read(f"envs/{cell}.txt").splitlines()
    assert set(data) == {"python", "device", "why", "pins"}
    for package, version in data["pins"].items():
        assert f"{package}=={version}" in lines


@pytest.mark.parametrize("name", LOCKS)
def test_lock_is_exact_and_names_no_host(name: str) -> None:
    for line in read(f"envs/{name}").splitlines():
        assert not re.search(r"://|--|@", line), line
        if not line.startswith("#"):
            requirement = Requirement(line)
            assert [specifier.operator for specifier in requirement.specifier] == ["=="], line


def test_tools_agree_with_the_session_cell() -> None:
    """The sessions install with both locks as constraints, so a package may not have two versions."""

    def pins(name: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for line in read(f"envs/{name}").splitlines():
            if not line.startswith("#"):
                requirement = Requirement(line)
                found.setdefault(requirement.name, set()).add(str(requirement.specifier))
        return found

    tools, cell = pins("tools.txt"), pins(project()["tool"]["repro"]["cell"] + ".txt")
    assert {name for name in tools.keys() & cell.keys() if not tools[name] <= cell[name]} == set()


@pytest.mark.parametrize("name", ["tools.txt", "CELL"])
def test_lock_holds_what_is_declared(name: str) -> None:
    data = project()
    if name == "CELL":
        name = data["tool"]["repro"]["cell"] + ".txt"
        declared = data["project"]["dependencies"] + data["project"]["optional-dependencies"]["gguf"]
    else:
        declared = [tool for group in data["dependency-groups"].values() for tool in group]
    locked = {Requirement(line).name for line in read(f"envs/{name}").splitlines() if not line.startswith("#")}
    assert {canonicalize_name(Requirement(line).name) for line in declared} <= locked


def test_the_matrix_has_a_session_for_each_cell() -> None:
    """As nox itself lists them."""
    command = [sys.executable, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), "-s", "repro", "--list", "--json"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    names = {session["session"] for session in listed if session["name"] == "repro"}
    assert names == {f"repro({cell})" for cell in CELLS}


def test_one_cell_has_the_newest_of_both() -> None:
    """The one that a maintainer asks for first."""
    newest = {
        package: max(Version(cell_pins(cell)[package]) for cell in CELLS) for package in ("torch", "transformers")
    }
    assert newest in [{package: Version(cell_pins(cell)[package]) for package in newest} for cell in CELLS]


@pytest.mark.parametrize(("first", "second", "package"), ALONE)
def test_neighbouring_cells_differ_in_one_package_and_what_it_brings(first: str, second: str, package: str) -> None:
    """Their locks have the same version of everything that does not come with torch or is the package itself."""
    data = [tomllib.loads(read(f"envs/{name}.toml")) for name in (first, second)]
    assert data[0]["python"] == data[1]["python"]
    locks = [set(read(f"envs/{name}.txt").splitlines()) for name in (first, second)]
    names = {Requirement(line).name for line in locks[0] ^ locks[1]}
    brought = {"torch", "triton", "sympy", "setuptools"} if package == "torch" else {package}
    assert {name for name in names if not name.startswith("nvidia-")} <= brought
    assert package in names


def cell_pins(name: str) -> dict[str, str]:
    return dict(tomllib.loads(read(f"envs/{name}.toml"))["pins"])


# Configurations that ship with the package


def test_every_configuration_is_known() -> None:
    files = {path.stem for path in (ROOT / "repro/models").glob("*.json")}
    assert files == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_configuration_has_the_published_parameter_count(name: str) -> None:
    """Built on the meta device: full size, no memory."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(ROOT / f"repro/models/{name}.json")
    assert config.model_type == json.loads(read(f"repro/models/{name}.json"))["model_type"]
    (architecture,) = config.architectures
    with torch.device("meta"):
        model = getattr(transformers, architecture)(config)
    model.tie_weights()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert f"{PARAMETERS[name]:,}" in read("repro/models/README.md")
