"""The user's pip settings as uv's: one place says where packages come from, and both installers hold to it.

pip merges all of its indexes and takes the best version; uv by default stops at the first index that knows a package.
So pip's rule is set together with pip's indexes. Where uv has index settings of its own, they stand alone.
"""

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Mapping

OWN = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX")
"""uv's own index settings (docs.astral.sh/uv/reference/environment)."""
LINE = re.compile(r"(?P<section>[^.=]+)\.(?P<key>[\w-]+)=(?P<value>.*)")


def uv_settings() -> Mapping[str, str]:
    """Variables for uv that say what pip's configuration says; none where uv has settings of its own."""
    if any(name in os.environ for name in OWN):
        return {}
    return translated(_pip_settings())


def translated(settings: Mapping[str, str]) -> dict[str, str]:
    """pip's ``index-url``, ``extra-index-url``, ``find-links`` and ``no-index`` in uv's variables."""
    found = {}
    if settings.get("index-url"):
        found["UV_DEFAULT_INDEX"] = settings["index-url"].strip()
    if settings.get("extra-index-url"):
        found["UV_EXTRA_INDEX_URL"] = " ".join(settings["extra-index-url"].split())
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if settings.get("find-links"):
        found["UV_FIND_LINKS"] = ",".join(settings["find-links"].split())
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        found["UV_NO_INDEX"] = "1"
    return found


@functools.cache
def _pip_settings() -> Mapping[str, str]:
    """What ``pip config list`` of this interpreter says, its environment variables included."""
    command = [sys.executable, "-P", "-m", "pip", "config", "list"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if ran.returncode != 0:  # an interpreter without pip
        return {
            name.removeprefix("PIP_").lower().replace("_", "-"): value
            for name, value in os.environ.items()
            if name.startswith("PIP_")
        }
    return listed(ran.stdout)


def listed(text: str) -> dict[str, str]:
    """The lines of ``pip config list``; a variable stands over a command's section, and that over ``global``."""
    rank = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in text.splitlines():
        match = LINE.fullmatch(line.strip())
        if match and match["section"] in rank and rank[match["section"]] >= found.get(match["key"], (0, ""))[0]:
            found[match["key"]] = (rank[match["section"]], str(ast.literal_eval(match["value"])))
    return {key: value for key, (_, value) in found.items()}
