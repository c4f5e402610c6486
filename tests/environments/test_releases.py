"""The registry through pip: a fake pip for what pip may answer, a real pip on a local folder for how it is asked."""

import json
import os
import shlex
import sys
import zipfile
from importlib import metadata

import pytest

from repro.core.errors import FetchError, UsageError
from repro.environments import registry as module
from repro.environments.registry import between, declared, excluding, find_pip, ordered, releases, requirements

# Each call is noted; the answers are files beside the script: "json", "text" and "report".
FAKE_PIP = """
import os, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
(here / "settings").write_text("\\n".join(f"{key}={value}" for key, value in os.environ.items()))
name = "report" if sys.argv[1] == "install" else "json" if "--json" in sys.argv else "text"
if not (here / name).exists():
    sys.exit("no such option: --json" if name == "json" else "ERROR: No matching distribution found for demo")
print("WARNING: chatter", file=sys.stderr)
print((here / name).read_text())
"""
TEXT = "demo (2.0)\nAvailable versions: 2.0, 1.10, 1.9\n  INSTALLED: 1.9\n  LATEST:    2.0"


@pytest.fixture
def fake(tmp_path):
    """Makes a pip that gives these answers; returns its command."""

    def make(**answers):
        for name, text in answers.items():
            (tmp_path / name).write_text(text, "utf-8")
        script = tmp_path / "pip.py"
        script.write_text(FAKE_PIP, "utf-8")
        return (sys.executable, str(script))

    return make


def calls(tmp_path):
    return (tmp_path / "calls").read_text("utf-8").splitlines()


def report(**metadata):
    return json.dumps({"version": "1", "install": [{"metadata": {"name": "demo", **metadata}}]})


def test_the_list_of_a_new_pip_is_read_from_json(fake):
    pip = fake(json=json.dumps({"name": "demo", "versions": ["2.0", "1.10", "1.9"]}))
    assert releases("demo", "3.10", pip=pip) == ("1.9", "1.10", "2.0")


def test_the_list_of_an_old_pip_is_read_from_its_text(fake, tmp_path):
    assert releases("demo", "3.10", pip=fake(text=TEXT)) == ("1.9", "1.10", "2.0")
    assert [call.endswith("--json") for call in calls(tmp_path)] == [True, False]


def test_pip_is_asked_for_wheels_of_the_cells_python_alone(fake, tmp_path):
    releases("demo", "3.10", pip=fake(text=TEXT))
    assert calls(tmp_path)[-1] == "index versions demo --python-version 3.10 --only-binary :all:"


def test_nothing_names_a_registry(fake, tmp_path):
    pip = fake(text=TEXT, report=report())
    releases("demo", "3.10", pip=pip)
    declared("demo", "2.0", "3.10", pip=pip)
    assert not [word for call in calls(tmp_path) for word in call.split() if "index-url" in word or "://" in word]


def test_settings_that_would_hide_the_answer_are_put_aside_and_the_others_kept(fake, tmp_path, monkeypatch):
    for name, value in {"PIP_QUIET": "2", "PIP_USER": "1", "PIP_INDEX_URL": "https://example.invalid/simple"}.items():
        monkeypatch.setenv(name, value)
    releases("demo", "3.10", pip=fake(text=TEXT))
    settings = (tmp_path / "settings").read_text("utf-8").splitlines()
    assert {"PIP_QUIET=0", "PIP_USER=0", "PIP_INDEX_URL=https://example.invalid/simple"} <= set(settings)


def test_a_question_is_put_once_in_a_process(fake, tmp_path):
    pip = fake(text=TEXT, report=report())
    for _ in range(3):
        releases("demo", "3.10", pip=pip)
        declared("demo", "2.0", "3.10", pip=pip)
    assert len(calls(tmp_path)) == 3


def test_a_failure_is_not_remembered(fake, tmp_path):
    with pytest.raises(FetchError):
        releases("demo", "3.10", pip=fake())
    assert releases("demo", "3.10", pip=fake(text=TEXT)) == ("1.9", "1.10", "2.0")


def test_the_requirements_are_the_lines_of_the_report(fake):
    lines = ['torch>=2.2; extra == "torch"', "numpy"]
    pip = fake(report=report(requires_dist=lines, requires_python=">=3.9"))
    assert requirements("demo", "2.0", "3.10", pip=pip) == tuple(lines)
    assert declared("demo", "2.0", "3.10", pip=pip).requires_python == ">=3.9"


def test_the_metadata_is_asked_in_a_dry_run_that_old_pips_take_as_well(fake, tmp_path):
    """Before 23.1 pip takes --python-version only beside --target."""
    declared("demo", "2.0", "3.10", pip=fake(report=report()))
    (call,) = calls(tmp_path)
    assert call.startswith("install --dry-run ")
    assert call.endswith(" --python-version 3.10 --only-binary :all: demo==2.0")
    assert " --target " in call


def test_a_release_that_declares_nothing_has_no_requirements(fake):
    pip = fake(report=report())
    assert (declared("demo", "2.0", "3.10", pip=pip)) == module.Declared((), None)


@pytest.mark.parametrize(
    "ask", [lambda pip: releases("demo", "3.10", pip=pip), lambda pip: declared("demo", "2", "3.10", pip=pip)]
)
def test_what_pip_refuses_is_an_error_that_says_what_to_do(fake, ask):
    pip = fake()
    with pytest.raises(FetchError) as caught:
        ask(pip)
    message = str(caught.value)
    assert "pip said: No matching distribution found for demo. Check the name, the network" in message
    assert shlex.join(pip) in message


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"versions": 3}', "Available versions:"])
def test_a_list_that_cannot_be_read_is_an_error(fake, answer):
    with pytest.raises(FetchError, match="list of releases could not be read"):
        releases("demo", "3.10", pip=fake(json=answer))


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"install": []}', '{"install": [{"metadata": 3}]}'])
def test_a_report_that_cannot_be_read_is_an_error(fake, answer):
    with pytest.raises(FetchError, match=r"report on demo==2\.0 could not be read"):
        declared("demo", "2.0", "3.10", pip=fake(report=answer))


def test_only_pre_releases_are_an_error_that_says_so(fake):
    with pytest.raises(FetchError, match="only pre-releases"):
        releases("demo", "3.10", pip=fake(json='{"versions": ["1.0rc1"]}'))


def test_a_pip_that_does_not_start_is_an_error(tmp_path):
    with pytest.raises(FetchError, match="could not be started"):
        releases("demo", "3.10", pip=(str(tmp_path / "nothing"),))


@pytest.fixture
def no_cache():
    find_pip.cache_clear()
    yield
    find_pip.cache_clear()


def interpreter(tmp_path, monkeypatch, *, has_pip):
    """Stands a script in for this interpreter, so that it has pip or has none."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nexit {0 if has_pip else 1}\n", "utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return str(script)


posix = pytest.mark.skipif(os.name == "nt", reason="stands a shell script in for the interpreter")


@posix
def test_the_hosts_own_pip_comes_first(tmp_path, monkeypatch, no_cache):
    python = interpreter(tmp_path, monkeypatch, has_pip=True)
    assert find_pip() == (python, "-P", "-m", "pip")


@posix
def test_uv_brings_pip_where_the_interpreter_has_none(tmp_path, monkeypatch, no_cache):
    interpreter(tmp_path, monkeypatch, has_pip=False)
    (tmp_path / "uv").write_text("#!/bin/sh\n", "utf-8")
    (tmp_path / "uv").chmod(0o755)
    assert find_pip() == (str(tmp_path / "uv"), "tool", "run", "pip")


@posix
def test_without_pip_and_uv_the_error_says_how_to_get_pip(tmp_path, monkeypatch, no_cache):
    interpreter(tmp_path, monkeypatch, has_pip=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="-m ensurepip --upgrade"):
        find_pip()


def wheel(folder, version, *headers):
    """A wheel of nothing but its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"demo-{version}.dist-info"
    metadata = "\n".join(["Metadata-Version: 2.1", "Name: demo", f"Version: {version}", *headers, ""])
    with zipfile.ZipFile(folder / f"demo-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


NEEDS_TORCH = 'Requires-Dist: torch>=2.2; extra == "torch"'


@pytest.fixture(params=["find-links", "index"])
def registry(request, tmp_path, monkeypatch):
    """The real pip, configured by the user for a folder on this machine: a list of files, or an index."""
    # To look for the module pip would turn setuptools' own distutils off for every later test of this process.
    if not any(metadata.distributions(name="pip")):
        pytest.skip("this environment has no pip")
    folder = tmp_path / "simple" / "demo"
    for version in ("1.9", "1.10", "1.10+cpu", "2.0rc1"):
        wheel(folder, version)
    wheel(folder, "2.0", "Requires-Python: >=3.11", NEEDS_TORCH, "Provides-Extra: torch")
    limits = {"demo-2.0-py3-none-any.whl": ' data-requires-python="&gt;=3.11"'}
    names = sorted(path.name for path in folder.iterdir())
    links = "".join(f'<a href="{name}"{limits.get(name, "")}>{name}</a>' for name in names)
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>", "utf-8")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    place = {
        "find-links": f"no-index = true\nfind-links = {folder}\n",
        "index": f"index-url = {folder.parent.as_uri()}\n",
    }
    (tmp_path / "pip.conf").write_text(f"[global]\n{place[request.param]}", "utf-8")
    module._releases.cache_clear()
    module._declared.cache_clear()
    return request.param


def test_the_real_pip_lists_each_release_with_a_wheel_once(registry):
    assert releases("demo", "3.12") == ("1.9", "1.10", "2.0")


def test_the_real_pip_lists_pre_releases_where_asked(registry):
    assert releases("demo", "3.12", pre=True) == ("1.9", "1.10", "2.0rc1", "2.0")


def test_the_real_pip_tells_what_a_release_declares(registry):
    assert declared("demo", "2.0", "3.12") == module.Declared((NEEDS_TORCH.removeprefix("Requires-Dist: "),), ">=3.11")


@pytest.mark.parametrize("registry", ["index"], indirect=True)  # a mere folder does not tell which Python a file is for
def test_a_release_for_another_python_is_none_for_this_one(registry):
    assert releases("demo", "3.10") == ("1.9", "1.10")
    with pytest.raises(FetchError, match=r"could not read what demo==2\.0 declares"):
        declared("demo", "2.0", "3.10")


def test_a_release_without_a_wheel_is_none(registry, tmp_path):
    if int(metadata.version("pip").split(".")[0]) < 26:
        pytest.skip("pip before 26.0 lists releases without a wheel too")
    (tmp_path / "simple" / "demo" / "demo-1.0.tar.gz").write_bytes(b"no wheel")
    with (tmp_path / "simple" / "demo" / "index.html").open("a") as index:
        index.write('<a href="demo-1.0.tar.gz">demo-1.0.tar.gz</a>')
    assert releases("demo", "3.12") == ("1.9", "1.10", "2.0")


def test_a_package_that_is_not_there_is_an_error(registry):
    with pytest.raises(FetchError, match=r"no release of absent for Python 3\.12 \(exit status 1\)"):
        releases("absent", "3.12")


def test_releases_are_ordered_as_versions_and_local_ones_fall_together():
    found = ("2.10.0", "2.9.1", "2.13.0+cpu", "2.13.0", "2.9.1+cu128", "not-a-version", "2.9.1.post1", "2.11.0rc1")
    assert ordered(found) == ("2.9.1", "2.9.1.post1", "2.10.0", "2.13.0")
    assert ordered(["1.0", "2.0.dev1", "2.0a1"], pre=True) == ("1.0", "2.0.dev1", "2.0a1")


KNOWN = ("2.0.0", "2.0.1", "2.1.0", "2.4.1", "2.5.0")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("2.0.1", "2.4.1", ("2.0.1", "2.1.0", "2.4.1")),
        ("2.4.1", "2.0.1", ("2.0.1", "2.1.0", "2.4.1")),
        ("2.4.1+cpu", "2.5", ("2.4.1", "2.5.0")),
        ("2.0.0", "2.5.0", KNOWN),
    ],
)
def test_a_range_has_both_ends_and_is_ordered(one, other, expected):
    assert between(KNOWN, one, other) == expected


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("2.2.0", "2.5.0", "2.2.0 is not among the releases .* The nearest: 2.1.0 and 2.4.1"),
        ("2.5.0", "1.13.1", "1.13.1 is not .* The nearest: 2.0.0"),
        ("2.0.0", "9.9", "9.9 is not .* The nearest: 2.5.0"),
        ("2.0.0", "2.5.0rc1", "pre-releases count only where asked for.* nearest: 2.4.1 and 2.5.0"),
        ("2.0.0", "newest", "'newest' is no version. Known releases: 2.0.0 to 2.5.0"),
        ("2.5.0", "2.5.0+cpu", "both ends are 2.5.0"),
    ],
)
def test_an_end_that_is_no_release_is_refused_with_the_nearest(one, other, words):
    with pytest.raises(UsageError, match=words):
        between(KNOWN, one, other)


@pytest.mark.parametrize(
    ("line", "version", "expected"),
    [
        ('torch>=2.2; extra == "torch"', "2.1.2", "torch>=2.2"),
        ('torch>=2.2; extra == "torch"', "2.2.0+cpu", None),
        ("torch (!=1.12.0,>=1.9) ; extra == 'torch'", "1.12.0", "torch!=1.12.0,>=1.9"),
        ("torch<2.2", "2.4.1", "torch<2.2"),
        ("Torch==2.4.1", "2.4.1+cu121", None),
        ("torch>=2.0", "2.5.0rc1", None),
        ('torch>=2.6; extra == "serving"', "2.1.2", None),
        ('torch>=2.6; python_version >= "3.13" and extra == "torch"', "2.1.2", None),
        ('torch>=2.6; python_version < "3.11"', "2.1.2", "torch>=2.6"),
        ('torch>=2.6; python_full_version >= "3.10.1"', "2.1.2", "torch>=2.6"),
        ("torchvision>=9", "2.1.2", None),
        ("torch >= two", "2.1.2", None),
        ("torch", "2.1.2", None),
    ],
)
def test_the_requirement_that_excludes_a_version_is_told(line, version, expected):
    assert excluding(["numpy", line], "torch", version, "3.10.13") == expected


def test_the_first_python_of_a_line_stands_for_it():
    assert excluding(['torch>=9; python_full_version < "3.10.1"'], "torch", "2.0", "3.10") == "torch>=9"
