"""Removes from a text where and by whom it was run, and every credential: paths, names, addresses, tokens.

Everything that leaves this machine is masked, and only here. ``private_words`` reads what is private on this
machine, ``scope`` adds what is private in one run. ``redact`` masks a text, ``redact_json`` data, ``redact_answer`` an
answer; numbers and structure stay as they are.
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from repro.core.answer import Answer, answer_from
from repro.core.encoding import to_json
from repro.report.privacy.addresses import is_public, without_addresses
from repro.report.privacy.credentials import SECRET_NAME, without_credentials
from repro.report.privacy.machine import SHORTEST_SECRET, WORDS, Private, private_words, scope

__all__ = ["Private", "private_words", "redact", "redact_answer", "redact_json", "scope"]

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

COMMON_NAMES = WORDS | frozenset(
    {
        "root", "user", "users", "admin", "ubuntu", "debian", "runner", "runneradmin", "vagrant", "jovyan", "localhost",
        "nobody", "docker", "host", "hostname", "server", "home", "default", "guest", "test", "work", "main", "node",
        "python", "torch", "pytorch", "transformers", "model", "models", "data", "cpu", "gpu", "cuda", "repro", "local",
    }
)  # fmt: skip
"""Names that identify nobody and are ordinary words."""

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
        return walk(item, versions or key in VERSIONED)

    return walk(value, False)


def redact_answer(answer: Answer, private: Private) -> Answer:
    """The answer without what is private, on this machine and in its run."""
    return answer_from(redact_json(to_json(answer), *scope(answer, private)))


@functools.lru_cache(maxsize=16)
def _masker(private: Private, keep: tuple[str, ...]) -> Callable[[str, bool], str]:
    """A function that masks a text, told whether it is a version. Repeated texts are cached."""
    mask = _Mask(private)
    kept = [word for word in keep if word]
    public = re.compile(f"({'|'.join(re.escape(word) for word in sorted(kept, key=len, reverse=True))})")

    def parts(text: str, versions: bool) -> str:
        text = mask.secrets(text)
        if not kept or not public.search(text):
            return mask.rest(text, versions)
        split = public.split(text)
        return "".join(part if index % 2 else mask.rest(part, versions) for index, part in enumerate(split))

    known = functools.lru_cache(maxsize=8192)(parts)
    return lambda text, versions: known(text, versions) if len(text) <= LONG else parts(text, versions)


class _Mask:
    """The patterns of one ``Private``, made once."""

    def __init__(self, private: Private) -> None:
        forms = {form for secret in private.secrets for form in _forms(secret)}
        self._secrets = sorted(forms, key=len, reverse=True)
        folders = sorted(private.folders, key=lambda pair: -len(pair[0]))
        self._folders = [
            (folder, re.compile(rf"(?<![\w./~-]){re.escape(folder)}(?=[/\\])"), word) for folder, word in folders
        ]
        self._home = private.home if private.home and len(private.home) > 1 else None
        self._at_home = re.compile(rf"{re.escape(self._home or '')}(?![\w-])")
        hosts = _names([private.host, *private.hosts], domains=True)
        users = _names([private.user, *private.users], domains=False)
        # Not inside a longer word, and not as a part of a dotted name: "model.layers.7" is nobody's user name.
        self._names = [
            (name, re.compile(rf"(?<![\w.-]){_below(name, word)}{re.escape(name)}(?![\w-]|\.\w)"), word)
            for word, names in (("HOST", hosts), ("USER", users))
            for name in names
        ]

    def secrets(self, text: str) -> str:
        """Without the values that are secret wherever they stand."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "SECRET")
        return text

    def rest(self, text: str, versions: bool) -> str:
        """Without everything else that is private."""
        text = without_credentials(text)
        if "/" in text or "\\" in text:
            text = self._without_paths(text)
        text = without_addresses(text, versions=versions)
        for name, pattern, word in self._names:
            if name in text:
                text = pattern.sub(word, text)
        return text

    def _without_paths(self, text: str) -> str:
        for folder, pattern, word in self._folders:
            if folder in text:
                text = pattern.sub(lambda _, word=word: word, text)  # type: ignore[misc]
        if self._home and self._home in text:
            text = self._at_home.sub("~", text)
        if any(name in text for name in OF_RUN):
            text = PATHS.sub(_without_run, text)
        return HOMES.sub(lambda found: found[0] if found[0].startswith("http") else "~", text)


def _forms(secret: str) -> Iterator[str]:
    """A secret as it stands, in an address, in JSON and in a repr; of one with several lines, each long line."""
    yield secret
    yield quote(secret, safe="")
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    for line in secret.splitlines():
        if len(line.strip()) >= 2 * SHORTEST_SECRET:
            yield line.strip()


def _below(name: str, word: str) -> str:
    """Behind a domain's name, the hosts in it."""
    return r"(?:[\w-]{1,63}\.){0,8}" if word == "HOST" and "." in name else ""


def _without_run(path: re.Match[str]) -> str:
    """A path below the folder of a run from there on; everything else as it is."""
    parts = RUN.split(path[0])
    if not LEADS_AWAY.match(path[0]) and "repro-runs" not in path[0]:
        return path[0]  # a name inside a run's folder or its bundle
    return path[0] if len(parts) == 1 else ('"' if path[0].startswith('"') else "") + parts[-1]


def _names(given: Iterable[str | None], *, domains: bool) -> list[str]:
    """Longest first: each name and, of a full host name, its first part and its domain; only those that identify."""
    found: list[str] = []
    for name in filter(None, given):
        first, _, domain = name.partition(".")
        found += [name, first, *([domain] if domains and "." in domain else ())]
    telling = {part for part in found if len(part) > 1 and part.lower() not in COMMON_NAMES and not is_public(part)}
    return sorted((part for part in telling if re.search("[A-Za-z]{2}|[^\\x00-\\x7f]", part)), key=len, reverse=True)
