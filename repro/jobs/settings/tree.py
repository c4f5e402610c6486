"""Settings as a tree: objects by key, lists, and at the ends a ``Leaf`` that knows its type and its line."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value.

    ``kind`` is "text", "whole number", "number", "boolean", "null", "time", "bytes" or "tagged": a value with a tag of
    its own, which is not executed and is kept as its text. ``line`` is None where the format's reader does not say it.
    """

    value: object
    kind: str
    file: str
    line: int | None = None

    def same(self, other: "Leaf") -> bool:
        """The same value of the same type; two NaN are the same."""
        if self.kind != other.kind:
            return False
        return self.value == other.value or (_is_nan(self.value) and _is_nan(other.value))

    @property
    def place(self) -> str:
        """``base.yaml:3``."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def shown(self) -> str:
        """As JSON would have it: texts in quotes, so that "384" is not 384."""
        words = {"text": f'"{self.value}"', "null": "null", "boolean": str(self.value).lower()}
        return words.get(self.kind, str(self.value))


Tree = dict[str, "Tree"] | list["Tree"] | Leaf


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def as_leaf(tree: Tree) -> Leaf:
    """A list or an object as one value, for where it stands against something else; an empty one has no place."""
    if isinstance(tree, Leaf):
        return tree
    parts: list[Tree] = list(tree.values()) if isinstance(tree, dict) else list(tree)
    first = as_leaf(parts[0]) if parts else Leaf(None, "null", "")
    if isinstance(tree, list):
        return Leaf(f"[{', '.join(as_leaf(part).shown for part in parts)}]", "list", first.file, first.line)
    pairs = ", ".join(f"{key}: {as_leaf(part).shown}" for key, part in tree.items())
    return Leaf(f"{{{pairs}}}", "object", first.file, first.line)


def joined(path: str, key: str) -> str:
    """``model.name``; a key with a dot or a bracket of its own is put in quotes."""
    word = f'"{key}"' if not key or set(".[]") & set(key) else key
    return f"{path}.{word}" if path else word


def kind_of(value: object) -> str:
    """The type of a plain value, in words."""
    if value is None:
        return "null"
    kinds = ((bool, "boolean"), (int, "whole number"), (float, "number"), (str, "text"), (bytes, "bytes"))
    return next((word for kind, word in kinds if isinstance(value, kind)), "time")
