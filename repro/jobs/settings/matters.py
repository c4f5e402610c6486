"""Which settings can cause NaN or hide it, from ``matters.toml``."""

import fnmatch
import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

LISTED = Path(__file__).with_name("matters.toml")


@dataclass(frozen=True, slots=True)
class Topic:
    """``keys`` are patterns of a key, or of several joined by dots; ``rank`` is the place in the list."""

    name: str
    keys: tuple[str, ...]
    why: str
    rank: int


@functools.cache
def topics() -> tuple[Topic, ...]:
    """The topics, most decisive first."""
    listed = tomllib.loads(LISTED.read_text(encoding="utf-8"))["topic"]
    return tuple(Topic(one["name"], tuple(one["keys"]), one["why"], rank) for rank, one in enumerate(listed))


def topic_of(path: str) -> Topic | None:
    """The topic of a setting by its own key, else by the nearest key around it that has one."""
    keys = [re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_") for key in re.sub(r"\[[^\]]*\]", "", path).split(".")]
    for end in range(len(keys), 0, -1):
        for topic in topics():
            if any(_fits(keys[:end], pattern) for pattern in topic.keys):
                return topic
    return None


def _fits(keys: list[str], pattern: str) -> bool:
    parts = pattern.split(".")
    return len(parts) <= len(keys) and all(map(fnmatch.fnmatchcase, keys[-len(parts) :], parts))
