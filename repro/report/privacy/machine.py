"""What is private on this machine, in this process's environment and in one run."""

import contextlib
import dataclasses
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from repro.core.answer import Answer
from repro.core.encoding import to_json
from repro.core.records import Ending, Fault, Kind, Outcome
from repro.core.sweep_answers import WhyOutcome
from repro.report.privacy.credentials import SECRET_NAME

USER_VARIABLE = re.compile(r"(?:\w+_)?(?:USER|USERNAME|LOGNAME|LOGIN|ACTOR)|GIT_(?:AUTHOR|COMMITTER)_NAME")
HOST_VARIABLE = re.compile(
    r"(?:\w+_)?(?:HOST|HOSTNAME|COMPUTERNAME|NODENAME|NODE_NAME|CLUSTER_NAME|MASTER_ADDR|MASTER_ADDRESS)"
)
"""Variables that name users and hosts."""
NETWORK_VARIABLE = re.compile(r"\w*(?:PROXY|URL|URLS|ENDPOINT|TRUSTED_HOST|FIND_LINKS|REGISTRY|MIRROR)", re.I)
"""Variables that name hosts of the network that this machine is in."""
FOLDER_VARIABLES = ("REPRO_CACHE_DIR", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "VIRTUAL_ENV", "CONDA_PREFIX")
"""Variables that name folders; each stands for its folder where that is not below the home."""
SHORTEST_SECRET = 7
"""A shorter value of a secret variable is more likely an ordinary word ("true", "none")."""
LOGIN = re.compile(r"://([^\s/@]+)@")
"""Who logs in to an address, and with which password."""
ENUMS = (Outcome, Kind, Ending, Fault, WhyOutcome)
WORDS = frozenset({"nan", "inf", "-inf"}.union(word.value for words in ENUMS for word in words))
"""Words that have a meaning in verdict.json: with one of them masked, it could not be read again."""
PUBLIC = frozenset({"/", "/usr", "/usr/local"})
"""Folders that are the same on every machine."""
MOUNTS = Path("/proc/self/mounts")
OCTAL = re.compile(r"\\([0-7]{3})")
VOLUMES = Path("/Volumes")
"""Where Linux says what is mounted, with blanks as octal numbers; and where macOS mounts it."""
OF_THE_SYSTEM = re.compile(
    r"/(?:(?:bin|boot|dev|etc|lib\w*|proc|root|run(?!/media)|sbin|snap|sys|tmp|usr|var|home|Users|System|private)(?:/.*)?)?"
)
"""Places at which every machine has file systems of its own. Homes have a rule of their own."""

COMMIT_KEYS = frozenset({"revision", "torch_git"})
COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Private:
    """What must not be in a report: the home folder, the names of the user and the host, and other folders, each with
    the word that stands for it; more names of users and hosts; and values that are secret wherever they stand.

    ``servers`` are hosts of the network that this machine is in, ``ordinary`` words in the names of
    its hardware, and ``commits`` names of public commits, which stay.
    """

    home: str | None = None
    user: str | None = None
    host: str | None = None
    folders: tuple[tuple[str, str], ...] = ()
    users: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    ordinary: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()


def private_words(environment: Mapping[str, str] = os.environ) -> Private:
    """The private words of this machine and of this process's environment."""
    try:
        home: str | None = str(Path.home())
    except RuntimeError:
        home = None
    users = [value for name, value in environment.items() if value and USER_VARIABLE.fullmatch(name)]
    users += _account()
    if home is not None:
        users.append(Path(home).name)
    hosts = [value for name, value in environment.items() if value and HOST_VARIABLE.fullmatch(name)]
    mounts, servers = _mounts()
    secrets = [value for name, value in environment.items() if SECRET_NAME.fullmatch(name.upper())]
    secrets += [part for value in environment.values() for part in _logins(value)]
    return Private(
        home=home,
        user=users[0] if users else None,
        host=platform.node() or None,
        folders=(*_named_folders(environment, home), *((folder, "MOUNT") for folder in mounts)),
        users=tuple(users[1:]),
        hosts=tuple(hosts),
        servers=(*_network(environment), *servers),
        secrets=tuple(value for value in secrets if len(value) >= SHORTEST_SECRET),
    )


def _account() -> Iterator[str]:
    """The account's name and the person's, where the system knows them."""
    if sys.platform != "win32":
        import pwd

        with contextlib.suppress(KeyError):
            account = pwd.getpwuid(os.getuid())
            yield account.pw_name
            person = account.pw_gecos.split(",")[0].strip()
            if " " in person:  # one word may be the account's purpose
                yield person


def _logins(value: str) -> Iterator[str]:
    """The passwords, and users with their passwords, of the addresses in a value."""
    for login in LOGIN.findall(value):
        _, colon, password = login.partition(":")
        yield from (login, password) if colon else (login,)


def _mounts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where file systems are mounted that are not the system's own, and the servers that they come from."""
    folders, servers = [], []
    with contextlib.suppress(OSError):
        for line in MOUNTS.read_text("utf-8", "surrogateescape").splitlines():
            device, folder = (OCTAL.sub(lambda code: chr(int(code[1], 8)), part) for part in line.split()[:2])
            if not OF_THE_SYSTEM.fullmatch(folder):
                folders.append(folder)
                server = re.match(r"//([\w.-]+)/|([\w.-]+):/", device)
                servers += [server[1] or server[2]] if server else []
    with contextlib.suppress(OSError):
        folders += [str(folder) for folder in VOLUMES.iterdir()]
    return tuple(dict.fromkeys(folders)), tuple(dict.fromkeys(servers))


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

    The folders of a local model, of its inputs and of an environment are replaced by ``.`` and ``ENV``.

    Args:
        answer: Of the run.
        private: What is private anyway.
    """
    model = Path(answer.model.id)
    keep = (answer.model.id,) if not model.is_absolute() and "/" in answer.model.id else ()
    base = [] if answer.files is None or answer.files.adapter is None else [answer.files.folder]
    places = [model, *map(Path, [*answer.case.given.values(), *filter(None, base)])]
    pairs = [(place.parent, ".") for place in places if place.is_absolute()]
    rows = [row.environment.executable for row in answer.cells or () if row.environment]
    for executable in map(Path, filter(None, (answer.cell.executable, *rows))):
        pairs += [(executable.parent.parent, "ENV")] if executable.is_absolute() else []
    folders = tuple((str(folder), word) for folder, word in pairs if str(folder) not in PUBLIC)
    data = to_json(answer)
    return dataclasses.replace(
        private,
        folders=(*folders, *private.folders),
        ordinary=(*private.ordinary, *_hardware(answer)),
        commits=(*private.commits, *sorted(set(_commits(data)))),
    ), keep


def _hardware(answer: Answer) -> Iterator[str]:
    """The words in the names of processors: a host may be called after its cards."""
    for found in (answer.environment, *(row.environment for row in answer.cells or ())):
        if found is not None:
            named = [found.cpu.get("model"), found.machine, *(card.get("name") for card in found.accelerators or ())]
            yield from (word.lower() for name in named for word in re.findall("[A-Za-z0-9]+", str(name or "")))


def _commits(data: object) -> Iterator[str]:
    """The commits that an answer names as such: of a model at the Hub, and of a package."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key in COMMIT_KEYS and isinstance(value, str) and COMMIT.fullmatch(value):
                yield value
            yield from _commits(value)
    elif isinstance(data, list | tuple):
        for item in data:
            if isinstance(item, dict | list | tuple):
                yield from _commits(item)
