"""Takes out of a text what says where and by whom it was run: home paths, user and host names, tokens."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

TOKEN = re.compile(
    r"\b(hf_|api_org_|ghp_|gho_|github_pat_|glpat-|sk-|xox[abp]-)[A-Za-z0-9_-]{8,}"
    r"|(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"
    r"|(?i:(?<=bearer )[A-Za-z0-9._~+/-]{8,})"
)
"""Access tokens by their published prefixes, a password inside a URL, and a bearer header."""

PATHS = re.compile(r"""\"[^"\n]*\"|[^\s"'`|]+""")
"""What may be a path: between quotes, or a word. Found in one go, however long the text."""

RUN = re.compile(r"[/\\](?=(?:probes\.pyz|plan\.json|kit\.log)\b)")
"""Where the folder of a run ends, before the names of its files."""

HOMES = re.compile(r"(?:/home|/Users|[A-Za-z]:\\Users)[/\\][^/\\\s'\"`|:,;)]+")
"""Home folders by the places where systems keep them, whoever they belong to."""

COMMON_NAMES = frozenset({"root", "user", "admin", "ubuntu", "runner", "localhost", "nobody", "docker"})
"""Names that tell nothing about anybody, and are words of ordinary text."""


@dataclass(frozen=True, slots=True)
class Private:
    """What must not be in a report: the home folder, the names of the user and the host, and other folders, each with
    the word that stands for it.
    """

    home: str | None = None
    user: str | None = None
    host: str | None = None
    folders: tuple[tuple[str, str], ...] = ()


def private_words() -> Private:
    """The private words of this machine."""
    try:
        home: str | None = str(Path.home())
    except RuntimeError:
        home = None
    user = next((os.environ[name] for name in ("USER", "LOGNAME", "USERNAME") if os.environ.get(name)), None)
    if user is None and home is not None:
        user = Path(home).name
    return Private(home=home, user=user, host=platform.node() or None)


def redact(text: str, private: Private, keep: tuple[str, ...] = ()) -> str:
    """``text`` without what is private. ``keep`` are strings that stay as they are, such as a public Hub id."""
    kept = [word for word in keep if word]
    if kept:
        pattern = "|".join(re.escape(word) for word in sorted(kept, key=len, reverse=True))
        parts = re.split(f"({pattern})", text)
        return "".join(part if index % 2 else redact(part, private) for index, part in enumerate(parts))
    for folder, word in sorted(private.folders, key=lambda pair: -len(pair[0])):
        text = re.sub(rf"(?<![\w./~-]){re.escape(folder)}(?=[/\\])", word, text)
    if private.home and len(private.home) > 1:
        text = re.sub(rf"{re.escape(private.home)}(?![\w-])", "~", text)
    text = HOMES.sub("~", PATHS.sub(_without_run, text))
    text = TOKEN.sub("TOKEN", text)
    for name, word in ((private.host, "HOST"), (private.user, "USER")):
        for part in _names(name):
            # Not inside a longer word, and not as a part of a dotted name: "model.layers.7" is nobody's user name.
            text = re.sub(rf"(?<![\w.-]){re.escape(part)}(?![\w-]|\.\w)", word, text)
    return text


def _without_run(path: re.Match[str]) -> str:
    """A path below the folder of a run from there on; everything else as it is."""
    parts = RUN.split(path[0])
    return path[0] if len(parts) == 1 else ('"' if path[0].startswith('"') else "") + parts[-1]


def _names(name: str | None) -> list[str]:
    """The name and, of a full host name, its first part; none of the names that tell nothing."""
    parts = [] if name is None else [name, name.partition(".")[0]]
    return [part for part in dict.fromkeys(parts) if len(part) > 1 and part.lower() not in COMMON_NAMES]
