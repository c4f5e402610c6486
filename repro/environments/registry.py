"""The releases of a package and what each declares, asked of the registry through pip; and reading what they declare.

The user's own pip configuration decides which registry, mirror or folder is asked. Nothing is installed. Releases that
were withdrawn (yanked) are not listed by pip, and so are none here.
"""

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from repro.core.errors import FetchError, UsageError

# Set for pip alone, and above its configuration files: options that would hide its answer, or refuse the dry run
# because nothing may be installed there. What names a registry is left alone.
SETTINGS = {
    "PIP_QUIET": "0",
    "PIP_VERBOSE": "0",
    "PIP_NO_COLOR": "1",
    "PIP_NO_INPUT": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_USER": "0",
    "UV_SYSTEM_CERTS": "true",  # where uv brings pip: the machine's certificates, as pip takes them
}


@dataclass(frozen=True, slots=True)
class Declared:
    """What one release declares: its Requires-Dist lines as they stand, and its Requires-Python."""

    requires_dist: tuple[str, ...]
    requires_python: str | None


def releases(package: str, python_version: str, *, pre: bool = False, pip: Sequence[str] = ()) -> tuple[str, ...]:
    """The releases with a wheel for this platform and Python, oldest first; asked once in a process.

    A local version (2.13.0+cpu) is the release that it was built from (2.13.0). pip before 26.0 also lists releases
    that have a source archive alone, whatever it is asked for; such a release is found out when it does not install.

    Args:
        package: Name of the package.
        python_version: The cell's Python, such as "3.10"; not the one that runs this toolkit.
        pre: Whether pre-releases and development releases count.
        pip: The command that is pip; by default this interpreter's pip, else the one that uv brings.

    Raises:
        FetchError: pip is missing, failed, or knows no such release.
    """
    return _releases(package, python_version, pre, tuple(pip) or find_pip())


def declared(package: str, version: str, python_version: str, *, pip: Sequence[str] = ()) -> Declared:
    """What a release declares, read without installing it; asked once in a process. Arguments as for ``releases``.

    Where the registry serves metadata by itself, pip fetches only that. Where it does not, pip downloads the wheel:
    seconds for transformers, but some 800 MB for torch, which is why nothing here asks it of torch.

    Raises:
        FetchError: pip is missing, failed, or knows no such release.
    """
    return _declared(package, version, python_version, tuple(pip) or find_pip())


def requirements(package: str, version: str, python_version: str, *, pip: Sequence[str] = ()) -> tuple[str, ...]:
    """The Requires-Dist lines of a release; see ``declared``."""
    return declared(package, version, python_version, pip=pip).requires_dist


@functools.cache
def find_pip() -> tuple[str, ...]:
    """The command that is pip.

    Raises:
        FetchError: neither pip nor uv is there.
    """
    own = (sys.executable, "-P", "-m", "pip")  # nothing of the current folder is imported
    if _run((*own, "--version")).returncode == 0:
        return own
    beside = str(Path(sys.executable).parent)
    uv = shutil.which("uv", path=os.pathsep.join((beside, os.environ.get("PATH", os.defpath))))
    if uv is not None:
        return (uv, "tool", "run", "pip")
    raise FetchError(
        f"{sys.executable} has no pip, and uv was not found; one of them must ask the registry. "
        f"Add pip with: {sys.executable} -m ensurepip --upgrade"
    )


@functools.cache
def _releases(package: str, python_version: str, pre: bool, pip: tuple[str, ...]) -> tuple[str, ...]:
    command = (*pip, "index", "versions", package, "--python-version", python_version, "--only-binary", ":all:")
    command += ("--pre",) if pre else ()
    ran = _run((*command, "--json"))
    if ran.returncode != 0 and "no such option: --json" in ran.stderr:  # pip before 25: only text
        ran = _run(command)
    if ran.returncode != 0:
        raise _failed(f"pip found no release of {package} for Python {python_version}", ran)
    found = ordered(_listed(ran), pre=pre)
    if not found:
        raise FetchError(
            f"{package} has only pre-releases for Python {python_version}; they count only where asked for."
        )
    return found


def _listed(ran: subprocess.CompletedProcess[str]) -> list[str]:
    """The versions in pip's answer, JSON or text."""
    text = re.search(r"^Available versions: (.+)$", ran.stdout, re.MULTILINE)
    if text:
        return text[1].split(", ")
    try:
        return [str(version) for version in json.loads(ran.stdout)["versions"]]
    except (ValueError, KeyError, TypeError):
        raise _failed("pip's list of releases could not be read", ran) from None


@functools.cache
def _declared(package: str, version: str, python_version: str, pip: tuple[str, ...]) -> Declared:
    wanted = f"{package}=={version}"
    # pip before 23.1 takes --python-version only beside --target; a dry run writes nothing there.
    target = str(Path(tempfile.gettempdir()) / "repro-dry-run")
    options = ["--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-", "--target", target]
    ran = _run((*pip, "install", *options, "--python-version", python_version, "--only-binary", ":all:", wanted))
    if ran.returncode != 0:
        raise _failed(f"pip could not read what {wanted} declares", ran)
    try:
        metadata = json.loads(ran.stdout)["install"][0]["metadata"]
        lines = tuple(str(line) for line in metadata.get("requires_dist") or ())
        return Declared(lines, metadata.get("requires_python"))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _failed(f"pip's report on {wanted} could not be read", ran) from None


def _run(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """One call of pip. It never asks a question, and it keeps its own deadlines."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **SETTINGS},
            check=False,
        )
    except OSError as error:
        raise FetchError(f"{command[0]} could not be started: {error.strerror or error}.") from error


def _failed(what: str, ran: subprocess.CompletedProcess[str]) -> FetchError:
    """The error with pip's own last words, and what to do."""
    lines = [line for line in f"{ran.stdout}\n{ran.stderr}".splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines
    said = errors[-1].removeprefix("ERROR: ").rstrip(".") if errors else "nothing"
    return FetchError(
        f"{what} (exit status {ran.returncode}). pip said: {said}. Check the name, the network and pip's configuration "
        f"('pip config list'), and try again: {shlex.join(ran.args)}"
    )


def ordered(found: Iterable[str], *, pre: bool = False) -> tuple[str, ...]:
    """Releases, oldest first, each once: local versions fall together, and what is no version is left out."""
    known: dict[Version, str] = {}
    for text in found:
        public = text.strip().partition("+")[0]
        try:
            version = Version(public)
        except InvalidVersion:
            continue
        if pre or not version.is_prerelease:
            known[version] = public
    return tuple(known[version] for version in sorted(known))


def between(known: Sequence[str], one: str, other: str) -> tuple[str, ...]:
    """The releases from one end to the other, both included, oldest first.

    Args:
        known: Releases, oldest first.
        one: An end; either may be the older.
        other: The other end.

    Raises:
        UsageError: an end is not among the releases, or both are the same one.
    """
    places = sorted((_place(known, one), _place(known, other)))
    if places[0] == places[1]:
        raise UsageError(f"both ends are {known[places[0]]}: give two releases, one good and one bad.")
    return tuple(known[places[0] : places[1] + 1])


def _place(known: Sequence[str], wanted: str) -> int:
    """Where a release stands among the others."""
    try:
        version = Version(Version(wanted).public)
    except InvalidVersion:
        raise UsageError(f"{wanted!r} is no version. Known releases: {known[0]} to {known[-1]}.") from None
    versions = [Version(text) for text in known]
    if version in versions:
        return versions.index(version)
    above = sum(item < version for item in versions)
    near = " and ".join(known[max(above - 1, 0) : above + 1])
    raise UsageError(
        f"{wanted} is not among the releases that this Python can install (pre-releases count only where asked for, "
        f"withdrawn ones never). The nearest: {near}."
    )


def excluding(requires_dist: Iterable[str], package: str, version: str, python_version: str) -> str | None:
    """The requirement on ``package`` that ``version`` does not fulfil, such as "torch>=2.2"; None where all are.

    Requirements count that hold for this Python, also those of the extra that bears the package's name: transformers
    declares its torch as ``torch>=2.2; extra == "torch"``. A line that cannot be parsed excludes nothing: the installer
    has the last word.
    """
    short = ".".join(python_version.split(".")[:2])
    full = python_version if python_version.count(".") > 1 else f"{python_version}.0"
    for line in requires_dist:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if canonicalize_name(requirement.name) != canonicalize_name(package):
            continue
        holds = requirement.marker is None or any(
            requirement.marker.evaluate({"python_version": short, "python_full_version": full, "extra": extra})
            for extra in ("", package)
        )
        if holds and not requirement.specifier.contains(version, prereleases=True):
            return f"{requirement.name}{requirement.specifier}"
    return None
