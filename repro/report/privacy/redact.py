"""Removes from a text where and by whom it was run, and every credential: paths, names, addresses, tokens.

``redact`` masks a text, ``redact_json`` data; numbers and structure stay as they are. What is private is read by
``machine``, and what is handed on goes through ``mask``.
"""

import functools
import html
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from repro.report.privacy.addresses import is_public, without_addresses
from repro.report.privacy.credentials import SECRET_NAME, without_credentials
from repro.report.privacy.machine import SHORTEST_SECRET, WORDS, Private
from repro.report.privacy.ordinary import words_of_programs

PATHS = re.compile(r"""\"[^"\n]*\"|[^\s"'`|]+""")
"""What may be a path: between quotes, or a word. Found in one go, however long the text."""

OF_RUN = (
    "probes.pyz", "plan.json", "plan.restart.json", "kit.log", "host.log", "evidence.jsonl", "verdict.json",
    "bundle.zip",
)  # fmt: skip
RUN = re.compile(rf"[/\\](?=(?:{'|'.join(map(re.escape, OF_RUN))})\b)")
"""Where the folder of a run ends, before the names of its files."""

LEADS_AWAY = re.compile(r"""["']?(?:[/~.\\]|[A-Za-z]:)""")
"""How a path begins that is not below the folder that it is written in."""

HOMES = re.compile(
    r"""https?://[^\s"'<>]+"""
    r"""|(?:/home|/Users|[A-Za-z]:\\{1,2}Users)[/\\]{1,2}[^/\\\s'"`|:,;)]+"""
    r"|(?:/private)?/var/folders/\w+/\w+"
)
"""Home folders and macOS's temporary ones by the places where systems keep them, whoever they belong to; or a web
address, in which ``/home`` is none.
"""

ENCODED_HOME = re.compile(
    r"(?:[A-Z](?:%(?:25)?3A|:))?(?:%(?:25)?(?:2F|5C)){1,2}(?:home|Users)(?:%(?:25)?(?:2F|5C)){1,2}"
    r"(?:(?!%(?:25)?(?:2F|5C))[^/\\\s\"'`|:,;)&#?])+",
    re.I,
)
"""A home folder as it stands in an address."""

KEPT_PARTS = frozenset({"site-packages", "dist-packages"})
KEPT_PART = re.compile(r"models--[\w.-]+")
"""Where in a path the names begin that are the same on every machine: packages, and the Hub's cache of a model."""
MOUNT_ROOTS = (
    r"(?:mnt|media|run/media|Volumes|net|nfs|afs|gpfs|lustre|lus|lfs|beegfs|ceph|cephfs|glusterfs|panfs|weka|wekafs|fsx|efs"
    r"|gcs|s3|dbfs|scratch|lscratch|gscratch|cscratch|global|work|workspaces?|data|datasets?|datastore|proj|projects?"
    r"|groups?|labs?|teams?|users|u|share|shared|storage|export|exports|srv|vol|volumes?|nas|san|raid|ssd|nvme|disks?"
    r"|tank|zpool|pool|archive|cluster|hpc)\d*"
)
"""Where people mount what is theirs, on whichever machine."""
MOUNTED = re.compile(
    r"""/(?<![\w.~$}-]/)(?<![^/]//)(?:"""
    r"""(?:run/media|media|Volumes)(?:/[^/\n"'`|:,;()<>\[\]]+)+(?=/)(?:/[^/\s"'`|:,;()<>\[\]]+)?"""
    rf"""|{MOUNT_ROOTS}(?:/[^/\s"'`|:,;()<>\[\]]+)+)"""
)
"""A path below such a place, also with blanks in the names of removable disks. In an address there is none."""
SHARE = re.compile(r"""(?<![\\\w])(?:\\\\[\w.-]{2,}\\(?!\\)[\w$.-]+|\\{4}[\w.-]{2,}\\\\(?!\\)[\w$.-]+)""")
"""A share of Windows by its server, as it stands and in a repr."""

COMMON_NAMES = WORDS | frozenset(
    {
        "root", "user", "users", "admin", "ubuntu", "debian", "runner", "runneradmin", "vagrant", "jovyan", "localhost",
        "nobody", "docker", "host", "hostname", "server", "home", "default", "guest", "test", "work", "main", "node",
        "python", "torch", "pytorch", "transformers", "model", "models", "data", "cpu", "gpu", "cuda", "repro", "local",
        "true", "false", "yes", "no", "on", "off", "none", "null",
    }
)  # fmt: skip
"""Names that identify nobody and are ordinary words."""

PASSWORD_KEY = re.compile("pass(?:word|wd|phrase)|pwd", re.I)
USER_KEY = re.compile("user|user_?name|login|login_?name", re.I)
"""Keys of data under which a password, and a person's name, is."""

SHORT_SECRET = 10
LONG = 4096
"""Longer texts are not cached."""
VERSIONED = frozenset({"distributions", "packages", "pins", "closures", "asked"})
"""Under these keys a text is the version of a package."""


def redact(text: str, private: Private, keep: tuple[str, ...] = ()) -> str:
    """``text`` without what is private. ``keep`` are strings that stay as they are, such as a public Hub id."""
    return _masker(private, keep)(text, False)


def redact_json(value: Any, private: Private, keep: tuple[str, ...] = ()) -> Any:
    """Data without what is private: every string of it masked, tuples as lists, everything else as it is.

    The value of a key that is the name of a secret variable (``HF_TOKEN``) is masked whole.
    """
    mask = _masker(private, keep)

    def walk(item: Any, versions: bool) -> Any:
        if isinstance(item, str):
            return mask(item, versions)
        if isinstance(item, Mapping):
            return {mask(str(key), True): under(str(key), inner, versions) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            if any(isinstance(inner, str) and "PRIVATE KEY-----" in inner for inner in item):
                return mask("\n".join(map(str, item)), versions).split("\n")  # lines of one text
            return [inner if isinstance(inner, int) else walk(inner, versions) for inner in item]
        return item

    def under(key: str, item: Any, versions: bool) -> Any:
        if isinstance(item, str) and item and SECRET_NAME.fullmatch(key):
            return "SECRET"
        if isinstance(item, str) and PASSWORD_KEY.fullmatch(key):
            return item if _is_word(item) else "SECRET"
        if isinstance(item, str) and USER_KEY.fullmatch(key):
            return item if _is_word(item) else "USER"
        return walk(item, versions or key in VERSIONED)

    return walk(value, False)


@functools.lru_cache(maxsize=16)
def _masker(private: Private, keep: tuple[str, ...]) -> Callable[[str, bool], str]:
    """A function that masks a text, told whether it is a version. Repeated texts are cached."""
    mask = _Mask(private)
    kept = [word for word in keep if word]
    public = re.compile(f"({'|'.join(re.escape(word) for word in sorted(kept, key=len, reverse=True))})")

    def parts(text: str, versions: bool) -> str:
        text = mask.known(text)
        if not kept or not public.search(text):
            return mask.rest(text, versions)
        split = public.split(text)
        return "".join(part if index % 2 else mask.rest(part, versions) for index, part in enumerate(split))

    cached = functools.lru_cache(maxsize=8192)(parts)
    return lambda text, versions: cached(text, versions) if len(text) <= LONG else parts(text, versions)


class _Mask:
    """The patterns of one ``Private``, made once."""

    def __init__(self, private: Private) -> None:
        forms = {form for secret in private.secrets if not _is_word(secret) for form in _forms(secret)}
        self._secrets = [(form, _borders(form)) for form in sorted(forms, key=len, reverse=True)]
        folders = sorted(private.folders, key=lambda pair: -len(pair[0]))
        self._folders = [
            (folder, re.compile(rf"(?<![\w.~-])(?<![^/]/){re.escape(folder)}(?![\w-]|\.\w)"), word)
            for folder, word in folders
        ]
        self._home = private.home if private.home and len(private.home) > 1 else None
        self._at_home = re.compile(rf"{re.escape(self._home or '')}(?![\w-])")
        self._commits = frozenset(private.commits)
        ordinary = words_of_programs() | frozenset(private.ordinary)
        hosts = _telling([*_parts([private.host, *private.hosts]), *private.servers, *map(_domain, private.servers)])
        users = _telling([private.user, *private.users])
        self._names = [
            (name.lower(), _pattern(name, word, ordinary), word)
            for word, names in (("HOST", hosts), ("USER", users))
            for name in names
        ]

    def known(self, text: str) -> str:
        """Without the folders and the values that are private wherever they stand. The folders first: a part of one
        may look like a credential, and masked by itself it would leave the rest.
        """
        if "/" in text or "\\" in text:
            for folder, pattern, word in self._folders:
                if folder in text:
                    text = pattern.sub(lambda _, word=word: word, text)  # type: ignore[misc]
            if self._home and self._home in text:
                text = self._at_home.sub("~", text)
        for secret, pattern in self._secrets:
            if secret in text:
                text = pattern.sub("SECRET", text)
        return text

    def rest(self, text: str, versions: bool) -> str:
        """Without everything else that is private."""
        lower = text.lower()
        text = without_credentials(text, lower, self._commits)
        if "/" in text or "\\" in text or "%" in text:
            text = self._without_paths(text)
        text = without_addresses(text, versions=versions)
        for name, pattern, word in self._names:
            if name in lower:
                text = pattern.sub(word, text)
        return text

    def _without_paths(self, text: str) -> str:
        if any(name in text for name in OF_RUN):
            text = PATHS.sub(_without_run, text)
        text = HOMES.sub(lambda found: found[0] if found[0].startswith("http") else "~", text)
        if "%" in text:
            text = ENCODED_HOME.sub("~", text)
        text = MOUNTED.sub(_without_mount, text)
        return SHARE.sub("MOUNT", text) if "\\\\" in text else text


def _without_mount(path: re.Match[str]) -> str:
    """A path from what is the same everywhere, or its last part; nothing of it where that is the mount itself."""
    root = re.match(rf"/{MOUNT_ROOTS}/", path[0])
    parts = path[0][root.end() if root else 1 :].split("/")
    kept = (place for place, part in enumerate(parts) if part in KEPT_PARTS or KEPT_PART.fullmatch(part))
    place = next(kept, len(parts) - 1)
    return "/".join(["MOUNT", *parts[place:]]) if place else "MOUNT"


def _is_word(secret: str) -> bool:
    """Whether the value of a secret variable is a word of programs: ``default``, ``float16``."""
    word = secret.lower().rstrip("0123456789")
    return word in COMMON_NAMES or word in words_of_programs()


def _borders(secret: str) -> re.Pattern[str]:
    """A secret wherever it stands; a short one not inside of a longer word, and a number not inside of another."""
    if secret.isdecimal():
        return re.compile(rf"(?<![A-Za-z0-9])(?<!\d\.){secret}(?![A-Za-z0-9]|\.\d)")
    if len(secret) < SHORT_SECRET:
        return re.compile(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])")
    return re.compile(re.escape(secret))


def _forms(secret: str) -> Iterator[str]:
    """A secret as it stands, in addresses, JSON, a repr, a shell, HTML; of one with several lines, each long line."""
    yield secret
    yield quote(secret, safe="")
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    yield shlex.quote(f" {secret}")[2:-1]
    yield html.escape(secret)
    for line in secret.splitlines():
        if len(line.strip()) >= 2 * SHORTEST_SECRET:
            yield line.strip()


def _pattern(name: str, word: str, ordinary: frozenset[str]) -> re.Pattern[str]:
    """A name not inside of a longer word. What programs use in names is nobody's there: the user ``layers`` is not
    in "model.layers.7", nor the host ``mask`` in "attention_mask".
    """
    whole = f"{_below(name, word)}{re.escape(name)}"
    if name.lower() in ordinary:
        return re.compile(rf"(?<![\w.-]){whole}(?![\w-]|\.\w)")
    return re.compile(rf"(?<![A-Za-z0-9]){whole}(?![A-Za-z0-9])", re.I)


def _below(name: str, word: str) -> str:
    """Behind a domain's name, the hosts in it."""
    return r"(?:[\w-]{1,63}\.){0,8}" if word == "HOST" and "." in name else ""


def _without_run(path: re.Match[str]) -> str:
    """A path below the folder of a run from there on; everything else as it is."""
    parts = RUN.split(path[0])
    if not LEADS_AWAY.match(path[0]) and "repro-runs" not in path[0]:
        return path[0]  # a name inside a run's folder or its bundle
    return path[0] if len(parts) == 1 else ('"' if path[0].startswith('"') else "") + parts[-1]


def _parts(hosts: Iterable[str | None]) -> Iterator[str | None]:
    """Each name of a machine and, of a full one, its first part and its domain."""
    for host in hosts:
        yield host
        if host and not is_public(host):
            yield host.partition(".")[0]
            yield _domain(host)


def _domain(host: str) -> str | None:
    """The domain that a host is in, where its name has one."""
    domain = host.partition(".")[2]
    return domain if "." in domain else None


def _telling(names: Iterable[str | None]) -> list[str]:
    """The names that identify somebody, the longest first."""
    named = {name for name in names if name and len(name) > 1 and not re.search(r"[/:@\[\]]", name)}
    telling = {name for name in named if name.lower() not in COMMON_NAMES and not is_public(name)}
    return sorted((name for name in telling if re.search("[A-Za-z]{2}|[^\\x00-\\x7f]", name)), key=len, reverse=True)
