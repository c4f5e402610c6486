"""One settings file as a tree, with notes on what its reader does silently: duplicate keys, and words that YAML 1.1 and
1.2 read differently.

YAML is read by PyYAML, as in Transformers, Hydra and OmegaConf, so a value here is the one that the job got. Only its
graph of nodes is used; a tag such as ``!!python/object`` creates nothing.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core.errors import RecordError, UsageError
from repro.core.foreign import read_foreign
from repro.jobs.settings.tree import Leaf, Tree, as_leaf, joined, kind_of

SUFFIXES = (".yaml", ".yml", ".json", ".toml")
MOST_BYTES = 16 * 1024 * 1024
MOST_NODES = 200_000
"""Of one file with its anchors expanded: a few lines can stand for billions of values."""
TAG = "tag:yaml.org,2002:"
PLAIN = {f"{TAG}{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "binary")}
DEEPEST = 100
"""Levels of nested objects and lists."""
TOO_DEEP = f"it is nested deeper than {DEEPEST} levels"
NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|0o[0-7]+")
"""A number of YAML 1.2. Source: https://yaml.org/spec/1.2.2/, section 10.3.2 (core schema)."""


@dataclass(frozen=True, slots=True)
class Read:
    """The settings of one file, and notes on them."""

    tree: dict[str, Tree]
    notes: tuple[str, ...]


def read(path: Path, name: str | None = None) -> Read:
    """The settings in a file.

    Args:
        path: A .yaml, .yml, .json or .toml file.
        name: Its name in the answer; by default the file's name.

    Raises:
        UsageError: there is no such file, or it has another suffix.
        RecordError: it cannot be read as what its suffix says.
    """
    name = name or path.name
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: expected a settings file: {', '.join(SUFFIXES)}.")
    try:
        raw = read_foreign(path, MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    if len(raw) > MOST_BYTES:
        raise RecordError(f"{path}: expected a settings file, found more than {MOST_BYTES:,} bytes.")
    try:
        text = raw.decode("utf-8-sig")
        tree, notes = _READERS[path.suffix.lower()](text, name)
    except (ValueError, RecursionError) as error:
        reason = TOO_DEEP if isinstance(error, RecursionError) else re.sub(r"\s+", " ", str(error))
        raise RecordError(f"{path} cannot be read: {reason}. Correct the file, or leave it out.") from None
    if not isinstance(tree, dict):
        what = "a list" if isinstance(tree, list) else "a single value"
        raise RecordError(f"{path}: expected settings by key, found {what}.")
    return Read(tree, tuple(notes))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all of its keys, so that duplicates are seen."""


def _json(text: str, name: str) -> tuple[Tree, list[str]]:
    notes: list[str] = []
    return _plain(json.loads(text, object_pairs_hook=_Pairs), name, "", notes), notes


def _toml(text: str, name: str) -> tuple[Tree, list[str]]:
    return _plain(tomllib.loads(text), name, "", []), []


def _plain(value: Any, name: str, path: str, notes: list[str], depth: int = 0) -> Tree:
    """Plain data as a tree. The last of two equal keys wins, as in all common JSON readers."""
    if depth > DEEPEST:
        raise ValueError(TOO_DEEP)
    if isinstance(value, (dict, _Pairs)):
        tree: dict[str, Tree] = {}
        for key, item in value.items() if isinstance(value, dict) else value:
            here = joined(path, key)
            if key in tree:
                notes.append(f"{name}: {here} is set twice; the later one wins")
            tree[key] = _plain(item, name, here, notes, depth + 1)
        return tree
    if isinstance(value, list):
        return [_plain(item, name, f"{path}[{index}]", notes, depth + 1) for index, item in enumerate(value)]
    return Leaf(value, kind_of(value), name)


def _yaml(text: str, name: str) -> tuple[Tree, list[str]]:
    try:
        import yaml
    except ImportError:
        raise ValueError("PyYAML is not installed (pip install pyyaml)") from None
    try:
        loader = _bounded(yaml.SafeLoader(text))
        documents = []
        while loader.check_node():
            documents.append(loader.get_node())
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    graph = _Graph(loader, yaml.YAMLError, name)
    if len(documents) == 1:
        return graph.tree(documents[0], ""), graph.notes
    # Each by its number: no rule says that a later one wins.
    return {f"document {n}": graph.tree(node, f"document {n}") for n, node in enumerate(documents, 1)}, graph.notes


def _bounded(loader: Any) -> Any:
    """A loader that refuses deep lists and objects as they open: its work grows with the square of the depth."""
    opened = loader.fetch_flow_collection_start

    def open_if_not_too_deep(token: Any) -> None:
        if loader.flow_level >= DEEPEST:
            raise ValueError(TOO_DEEP)
        opened(token)

    loader.fetch_flow_collection_start = open_if_not_too_deep
    return loader


class _Graph:
    """PyYAML's nodes as a tree: anchors followed, merge keys merged, tags left alone."""

    def __init__(self, loader: Any, error: type[Exception], name: str) -> None:
        self.loader = loader
        self.error = error
        self.name = name
        self.notes: list[str] = []
        self._nodes = 0
        self._open: set[int] = set()

    def tree(self, node: Any, path: str) -> Tree:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise ValueError(f"its anchors expand to more than {MOST_NODES:,} values")
        if node.id == "scalar":
            return self._leaf(node, path)
        if id(node) in self._open:
            raise ValueError(f"the anchor on line {node.start_mark.line + 1} contains itself")
        self._open.add(id(node))
        try:
            if len(self._open) > DEEPEST:
                raise ValueError(TOO_DEEP)
            if node.id == "sequence":
                items = [self.tree(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
                if node.tag == f"{TAG}seq":
                    return items
                return Leaf(f"{node.tag} {as_leaf(items).shown}", "tagged", self.name, node.start_mark.line + 1)
            return self._mapping(node, path)
        finally:
            self._open.remove(id(node))

    def _mapping(self, node: Any, path: str) -> dict[str, Tree]:
        own: dict[str, Tree] = {}
        merged: dict[str, Tree] = {}
        lines: dict[str, int] = {}
        if node.tag != f"{TAG}map":
            own["(tag)"] = Leaf(node.tag, "tagged", self.name, node.start_mark.line + 1)
        for key_node, value in node.value:
            if key_node.tag == f"{TAG}merge":
                for mapping in value.value if value.id == "sequence" else [value]:
                    for key, item in self._merged(mapping, path).items():
                        merged.setdefault(key, item)  # the first one named wins, and the mapping's own over both
                continue
            key = str(key_node.value) if key_node.id == "scalar" else f"(a {key_node.id})"
            here, line = joined(path, key), key_node.start_mark.line + 1
            if key in lines:
                self.notes.append(
                    f"{self.name}: {here} is set twice, on lines {lines[key]} and {line}; the later one wins"
                )
            lines[key] = line
            own[key] = self.tree(value, here)
        return {**merged, **own}

    def _merged(self, node: Any, path: str) -> dict[str, Tree]:
        found = self.tree(node, path)
        if not isinstance(found, dict):
            raise ValueError(f"line {node.start_mark.line + 1}: << takes a mapping, or a list of them")
        return found

    def _leaf(self, node: Any, path: str) -> Leaf:
        line = node.start_mark.line + 1
        try:
            value = self.loader.construct_object(node) if node.tag in PLAIN else None
        except (ValueError, KeyError, AttributeError, IndexError, self.error):  # such as !!bool maybe, !!timestamp x
            value = None
        if value is None and node.tag != f"{TAG}null":
            return Leaf(f"{node.tag} {node.value}", "tagged", self.name, line)
        if node.style is None:
            self.notes += [
                f"{self.name}:{line}: {path or 'the value'}: {said}" for said in _ambiguous(node.value, value)
            ]
        return Leaf(value, kind_of(value), self.name, line)


def _ambiguous(word: str, value: object) -> Iterator[str]:
    """How YAML 1.2 reads an unquoted word that PyYAML, which is 1.1, reads differently."""
    if isinstance(value, str) and NUMBER.fullmatch(word):
        better = "1.0e-3" if "e" in word.lower() else "the number in decimal digits"
        yield f"{word} is text in YAML 1.1 (PyYAML) and a number in YAML 1.2; write it as {better}, or in quotes"
    elif isinstance(value, bool) and word.lower() not in ("true", "false"):
        yield f"{word} is a boolean in YAML 1.1 (PyYAML) and text in YAML 1.2; write {str(value).lower()}, or quotes"
    elif isinstance(value, (int, float)) and ":" in word:
        yield f"{word} is {value} in YAML 1.1 (PyYAML, base 60) and text in YAML 1.2; put it in quotes"
    elif type(value) is int and re.fullmatch(r"[-+]?0\d+", word):
        yield f"{word} is {value} in YAML 1.1 (PyYAML, octal) and {int(word)} in YAML 1.2"


_READERS = {".yaml": _yaml, ".yml": _yaml, ".json": _json, ".toml": _toml}
