"""Why keys are missing: the file has the same tensors under other names, or the other way round in memory.

One rule explains many keys: a prefix that is put in front ("module."), one part of the path that is called otherwise,
an axis order. A rule is said only with the number of keys that it brings together, each with a tensor of its shape.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
ASKED = 64  # missing keys that propose rules, evenly over all of them: 10,000 experts need not each be asked
TRIED = 32  # proposals that are tried on all keys, the most frequent first
MOST_RULES = 8  # a file that needs more rules than these is another model's


@dataclass(frozen=True)
class Rule:
    """``file`` in the file's keys stands where the model has ``model``.

    kind: "prefix", "suffix", "renamed" (once, in the middle) or "wrapped" (a part of the path that the model does not
    have, wherever it stands: wrappers of wrappers put it there several times).
    """

    kind: str
    file: str
    model: str
    transposed: bool = False


@dataclass(frozen=True)
class Cause:
    """A rule, and the missing keys that it explains, with the file's key for each; ``of`` are missing in all.

    A rule of kind "transposed" has no names: its keys are in the file under their own.
    """

    rule: Rule
    keys: tuple[tuple[str, str], ...]
    of: int

    def record(self) -> dict[str, Any]:
        file, model = self.keys[0]
        return {
            "kind": "transposed" if self.rule.transposed else self.rule.kind,
            "file": self.rule.file,
            "model": self.rule.model,
            "transposed": self.rule.transposed,
            "keys": len(self.keys),
            "of": self.of,
            "example": {"file": file, "model": model},
        }

    @property
    def words(self) -> str:
        file, model = self.keys[0]
        verb = "is" if len(self.keys) == 1 else "are"
        count = f"{len(self.keys):,} of {self.of:,} missing keys {verb} in the file"
        turned = ", transposed" if self.rule.transposed else ""
        if self.rule.kind in ("prefix", "suffix") and not self.rule.model:
            how = f"with the {self.rule.kind} {self.rule.file!r}"
        elif self.rule.kind in ("prefix", "suffix") and not self.rule.file:
            how = f"without the {self.rule.kind} {self.rule.model!r}"
        elif self.rule.kind in ("prefix", "suffix"):
            how = f"with the {self.rule.kind} {self.rule.file!r} in place of {self.rule.model!r}"
        elif not self.rule.model or not self.rule.file:
            how = f"with {self.rule.file!r} in their names" if self.rule.file else f"without {self.rule.model!r}"
        else:
            how = f"under another name, {self.rule.file!r} in place of {self.rule.model!r}"
        return f"{count} {how}{turned}: {file} for {model}"


def causes(missing: Shapes, left: Shapes) -> list[Cause]:
    """The rules that bring missing keys together with those that are left over in the file, each key by one rule.

    A rule that only one pair follows proves little: it counts if the one name ends in the other, or if there is no
    other missing key and no other left-over one of that shape.
    """
    total = len(missing)
    free_missing, free_left = dict(missing), dict(left)
    found: list[Cause] = []
    while free_missing and free_left and len(found) < MOST_RULES:
        best = _best(free_missing, free_left)
        if best is None:
            break
        rule, pairs = best
        found.append(Cause(rule, tuple(sorted(pairs)), total))
        for file, model in pairs:
            free_left.pop(file)
            free_missing.pop(model)
    return found


def _best(missing: Shapes, left: Shapes) -> Optional[tuple[Rule, list[tuple[str, str]]]]:
    """The rule that brings the most keys together. Some missing keys propose, and all decide."""
    by_shape: dict[Shape, list[str]] = {}
    for file, shape in left.items():
        by_shape.setdefault(shape, []).append(file)
    names = sorted(missing)
    proposed: Counter[Rule] = Counter()
    for model in names[:: -(-len(names) // ASKED)]:
        shape = missing[model]
        for other in {shape, shape[::-1]}:
            for file in by_shape.get(other, ()):
                proposed.update(_rules(file, model, shape != other))
    likely = sorted(proposed, key=lambda rule: (-proposed[rule], *_order(rule)))[:TRIED]
    tried = [(rule, _brought(rule, missing, left)) for rule in likely]
    for rule, pairs in sorted(tried, key=lambda item: (-len(item[1]), *_order(item[0]))):
        if len(pairs) > 1 or (pairs and _is_certain(rule, *pairs[0], missing, left)):
            return rule, pairs
    return None


def _order(rule: Rule) -> tuple[bool, int, str, str]:
    """The plainer and shorter rule first, of those that bring as many together."""
    return rule.kind == "wrapped", len(rule.file) + len(rule.model), rule.file, rule.model


def _brought(rule: Rule, missing: Shapes, left: Shapes) -> list[tuple[str, str]]:
    """The pairs of the file's keys and missing ones that a rule brings together, each key once."""
    pairs: dict[str, str] = {}
    for file, shape in left.items():
        wanted = shape[::-1] if rule.transposed else shape
        for model in _under(rule, file):
            if missing.get(model) == wanted and model not in pairs:
                pairs[model] = file
                break
    return [(file, model) for model, file in pairs.items()]


def _under(rule: Rule, key: str) -> Iterator[str]:
    """The names that a rule makes of a key of the file."""
    if rule.kind == "prefix":
        if key.startswith(rule.file):
            yield rule.model + key[len(rule.file) :]
    elif rule.kind == "wrapped":
        parts = key.split(".")
        if rule.file in parts:
            yield ".".join(part for part in parts if part != rule.file)
    elif rule.kind == "suffix":
        if key.endswith(rule.file):
            yield key[: len(key) - len(rule.file)] + rule.model
    else:
        parts, old, new = (text.split(".") if text else [] for text in (key, rule.file, rule.model))
        for at in range(1, len(parts) - len(old)):
            if parts[at : at + len(old)] == old:
                yield ".".join([*parts[:at], *new, *parts[at + len(old) :]])


def _is_certain(rule: Rule, file: str, model: str, missing: Shapes, left: Shapes) -> bool:
    if rule.kind in ("prefix", "suffix") and not (rule.file and rule.model):
        return True
    shape = missing[model]
    alike = [key for key, other in left.items() if other in (shape, shape[::-1])]
    return len(alike) == 1 and sum(other in (shape, shape[::-1]) for other in missing.values()) == 1


def _rules(file: str, model: str, transposed: bool) -> Iterator[Rule]:
    """What differs between two names: one run of parts of the path, or one part that only the file's name has."""
    one, two = file.split("."), model.split(".")
    extra = set(one) - set(two)
    if len(extra) == 1 and [part for part in one if part not in extra] == two:
        yield Rule("wrapped", extra.pop(), "", transposed)
    found = _run(one, two, transposed)
    if found is not None:
        yield found


def _run(one: list[str], two: list[str], transposed: bool) -> Optional[Rule]:
    """The one run of parts in which two names differ; None where they have nothing in common."""
    head = 0
    while head < min(len(one), len(two)) and one[head] == two[head]:
        head += 1
    tail = 0
    while tail < min(len(one), len(two)) - head and one[-1 - tail] == two[-1 - tail]:
        tail += 1
    if not head and not tail:
        return None
    ours, theirs = (".".join(parts[head : len(parts) - tail]) for parts in (one, two))
    if not head:
        return Rule("prefix", ours and ours + ".", theirs and theirs + ".", transposed)
    if not tail:
        return Rule("suffix", ours and "." + ours, theirs and "." + theirs, transposed)
    return Rule("renamed", ours, theirs, transposed)


def turned(mismatched: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tensors whose shape in the file is the model's in reverse."""
    rows = [item for item in mismatched if item.get("file") and item.get("model")]
    return [str(item["tensor"]) for item in rows if list(item["file"]) == list(item["model"])[::-1]]
