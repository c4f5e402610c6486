"""What is private on this machine, in this process's environment and in one run."""

import contextlib
import dataclasses
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from repro.core.answer import Answer
from repro.core.records import Ending, Fault, Kind, Outcome
from repro.core.sweep_answers import WhyOutcome
from repro.report.privacy.credentials import SECRET_NAME

USER_VARIABLES = ("USER", "LOGNAME", "USERNAME", "SUDO_USER")
HOST_VARIABLES = ("HOSTNAME", "HOST", "COMPUTERNAME", "SLURMD_NODENAME", "MASTER_ADDR")
NETWORK_VARIABLE = re.compile(r"\w*(?:PROXY|URL|URLS|ENDPOINT|TRUSTED_HOST|FIND_LINKS|REGISTRY|MIRROR)", re.I)
"""Variables that name hosts of the network that this machine is in."""
FOLDER_VARIABLES = ("REPRO_CACHE_DIR", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "VIRTUAL_ENV", "CONDA_PREFIX")
"""Variables that name folders; each stands for its folder where that is not below the home."""
SHORTEST_SECRET = 8
"""A shorter value of a secret variable is more likely an ordinary word ("true", "none")."""
ENUMS = (Outcome, Kind, Ending, Fault, WhyOutcome)
WORDS = frozenset({"nan", "inf", "-inf"}.union(word.value for words in ENUMS for word in words))
"""Words that have a meaning in verdict.json: with one of them masked, it could not be read again."""
PUBLIC = frozenset({"/", "/usr", "/usr/local"})
"""Folders that are the same on every machine."""


@dataclass(frozen=True, slots=True)
class Private:
    """What must not be in a report: the home folder, the names of the user and the host, and other folders, each with
    the word that stands for it; more names of users and hosts; and values that are secret wherever they stand.
    """

    home: str | None = None
    user: str | None = None
    host: str | None = None
    folders: tuple[tuple[str, str], ...] = ()
    users: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


def private_words(environment: Mapping[str, str] = os.environ) -> Private:
    """The private words of this machine and of this process's environment."""
    try:
        home: str | None = str(Path.home())
    except RuntimeError:
        home = None
    users = [environment[name] for name in USER_VARIABLES if environment.get(name)]
    if home is not None:
        users.append(Path(home).name)
    hosts = [environment[name] for name in HOST_VARIABLES if environment.get(name)]
    return Private(
        home=home,
        user=users[0] if users else None,
        host=platform.node() or None,
        folders=tuple(_named_folders(environment, home)),
        users=tuple(users[1:]),
        hosts=(*hosts, *_network(environment)),
        secrets=tuple(
            value
            for name, value in environment.items()
            if SECRET_NAME.fullmatch(name.upper()) and len(value) >= SHORTEST_SECRET
        ),
    )


def _named_folders(environment: Mapping[str, str], home: str | None) -> Iterator[tuple[str, str]]:
    """Folders that variables name, and the current one, where they are not below the home."""
    named = [(environment[name].rstrip("/\\"), name) for name in FOLDER_VARIABLES if environment.get(name)]
    with contextlib.suppress(OSError):  # the current folder may be gone
        named.append((str(Path.cwd()), "."))
    for folder, word in named:
        inside = home is not None and len(home) > 1 and Path(folder).is_relative_to(home)
        if Path(folder).is_absolute() and not inside and folder not in PUBLIC:
            yield folder, word
    if home is not None and (real := os.path.realpath(home)) != home:
        yield real, "~"


def _network(environment: Mapping[str, str]) -> Iterator[str]:
    """Hosts that the environment names: proxies, indexes, mirrors. A bare word of such a list is none."""
    for name, value in environment.items():
        if NETWORK_VARIABLE.fullmatch(name):
            for part in re.split(r"[\s,;]+", value):
                host = re.sub(r"^[\w+.-]+://|^[^@/]*@", "", re.sub(r"://[^@/]*@", "://", part))
                host = re.split(r"[:/?]", host)[0].lstrip("*.")
                if "." in host and re.search(r"[A-Za-z]", host):
                    yield host


def scope(answer: Answer, private: Private) -> tuple[Private, tuple[str, ...]]:
    """What is private in this run, and what stays in it: the public id of its model.

    The folders of a local model and of an environment are replaced by ``.`` and ``ENV``.

    Args:
        answer: Of the run.
        private: What is private anyway.
    """
    model = Path(answer.model.id)
    keep = (answer.model.id,) if not model.is_absolute() and "/" in answer.model.id else ()
    pairs = [(model.parent, ".")] if model.is_absolute() else []
    rows = [row.environment.executable for row in answer.cells or () if row.environment]
    for executable in map(Path, filter(None, (answer.cell.executable, *rows))):
        pairs += [(executable.parent.parent, "ENV")] if executable.is_absolute() else []
    folders = tuple((str(folder), word) for folder, word in pairs if str(folder) not in PUBLIC)
    return dataclasses.replace(private, folders=(*folders, *private.folders)), keep
