"""The settings of several jobs side by side, and what differs for programs and for people."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.core.encoding import SCHEMA
from repro.jobs.content import ABSENT, Content, Table, many
from repro.jobs.settings.layers import Job, Override
from repro.jobs.settings.matters import Topic, topic_of, topics
from repro.jobs.settings.tree import Leaf, Tree, as_leaf, joined

IDENTITIES = ("name", "id", "key", "_target_", "class", "type", "path")
"""Keys by which the objects of a list are told apart, where each of them has another value there."""
MODEL = "model"
"""The topic of the keys that name the model."""
SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?[bm])(?![a-z0-9])")
"""A model's size in a name: 12b, 270m, 0.5b."""
WIDEST = 60
"""Characters of a cell in the table; a setting with a longer value is a block of its own, so that nothing is cut."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting in which the jobs are not alike.

    ``values`` has one for each job, None where it is not set. ``how`` is "value", "type" (the same word or number as
    another type) or "absent" (alike wherever it is set).
    """

    path: str
    values: tuple[Leaf | None, ...]
    how: str
    topic: Topic | None


@dataclass(frozen=True, slots=True)
class Compared:
    """All of it; ``same`` counts the settings that are alike. Differences that matter come first."""

    jobs: tuple[Job, ...]
    differences: tuple[Difference, ...]
    same: int
    notes: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether there is a difference, or a job does not run with a setting of its own; for one job by itself,
        whether a value is overridden by another one.
        """
        if len(self.jobs) > 1:
            return bool(self.differences) or any(map(overruled, self.jobs))
        return any(changes(override) for override in self.jobs[0].overrides)


def compare(jobs: Sequence[Job]) -> Compared:
    """Compare jobs, and hold the size of the model in a job's name against the model that it loads."""
    differences, same = [], 0
    for path, values in _walk("", [job.settings for job in jobs]):
        how = _how(values)
        if how is None:
            same += 1
        else:
            differences.append(Difference(path, values, how, topic_of(path)))
    differences.sort(key=lambda one: _rank(one.topic))
    notes = [note for job in jobs for note in (*job.notes, *_wrong_size(job))]
    return Compared(tuple(jobs), tuple(differences), same, tuple(dict.fromkeys(notes)))


def changes(override: Override) -> bool:
    """Whether the value that won is another one."""
    return not override.lost.same(override.won)


def overruled(job: Job) -> dict[str, Leaf]:
    """The settings of the job's own files that a file it includes overrides, with the value that won: by path."""
    last = {one.path: one.won for one in job.overrides}
    lost = dict.fromkeys(one.path for one in job.overrides if changes(one) and one.lost.file in job.own)
    return {path: last[path] for path in lost if last[path].file and last[path].file not in job.own}


def document(compared: Compared) -> dict[str, Any]:
    """The comparison for programs, with plain values."""
    return {
        "schema": SCHEMA,
        "command": "config-diff",
        "differs": compared.differs,
        "jobs": [_job(job) for job in compared.jobs],
        "differences": [_difference(one) for one in compared.differences],
        "same": compared.same,
        "notes": compared.notes,
    }


def content(compared: Compared, *, everything: bool) -> Content:
    """The comparison for a person: the jobs with their files, what differs and why it matters, overrides, notes.

    Args:
        compared: The comparison.
        everything: Whether overrides that change no value are listed too.
    """
    names = _names(compared.jobs)
    for name, job in zip(names, compared.jobs, strict=True):
        if len(job.files) > 1:
            yield f"{name}: {' < '.join(job.files)} (later files win)"
    for name, job in zip(names, compared.jobs, strict=True):
        yield from _overruled(name, job)
    shown: set[str] = set()
    if len(compared.jobs) > 1:
        yield from _differing(compared.differences, names)
        shown = set() if everything else {one.path for one in compared.differences}
    for name, job in zip(names, compared.jobs, strict=True):
        yield from _overrides(name, job, shown - set(overruled(job)), everything=everything)
    yield from (f"note: {note}" for note in compared.notes)
    if len(compared.jobs) > 1:
        count = len(compared.differences)
        yield f"{many(count, 'setting differs', 'settings differ')}, {compared.same:,} the same."
    else:
        count = len({one.path for one in compared.jobs[0].overrides if changes(one)})
        verb = "is" if count == 1 else "are"
        yield f"{count:,} of {many(compared.same, 'setting')} {verb} set to different values in more than one file."


def _overruled(name: str, job: Job) -> Content:
    """Whether the job runs with other settings than its own file says; this is often the bug itself."""
    found = overruled(job)
    for file in dict.fromkeys(won.file for won in found.values()):
        paths = [path for path, won in found.items() if won.file == file]
        verb = "setting of the job is" if len(paths) == 1 else "settings of the job are"
        yield f"{name}: {len(paths)} {verb} overridden by {file}: {', '.join(paths)}"


def _overrides(name: str, job: Job, shown: set[str], *, everything: bool) -> Content:
    """A line for each setting that stands in more than one file: what won, and each other value once.

    A setting of the table is not told again.
    """
    layers: dict[str, list[Override]] = {}
    for one in job.overrides:
        if one.path not in shown:
            layers.setdefault(one.path, []).append(one)
    for path, found in sorted(layers.items(), key=lambda item: _rank(topic_of(item[0]))):
        won = found[-1].won
        others = [one.lost for one in reversed(found) if everything or not one.lost.same(won)]
        if others:
            yield f"{name}: {path}: {_placed(won)} overrides {', '.join(dict.fromkeys(map(_placed, others)))}"


def _differing(differences: Sequence[Difference], names: Sequence[str]) -> Content:
    """A row for each difference, a block for each with a long value, and a reason for each topic."""
    rows = [
        (one.path, *(_value(leaf, typed=one.how == "type") for leaf in one.values), one.topic.name if one.topic else "")
        for one in differences
    ]
    short = [row for row in rows if max(map(len, row)) <= WIDEST]
    yield Table(("setting", *names, "matters for"), tuple(short))
    for path, *values, topic in (row for row in rows if row not in short):
        yield f"{path}  ({topic})" if topic else path
        yield from (f"  {name}: {value}" for name, value in zip(names, values, strict=True))
    for reason in dict.fromkeys(one.topic for one in differences if one.topic):
        yield f"{reason.name}: {reason.why}"


def _walk(path: str, trees: Sequence[Tree | None]) -> Iterator[tuple[str, tuple[Leaf | None, ...]]]:
    """Every end of the trees, with the values there; a part that is an object in one job and a value in another is one
    end.
    """
    there = [tree for tree in trees if tree is not None]
    if all(isinstance(tree, dict) and (tree or not path) for tree in there):
        for key in dict.fromkeys(key for tree in there if isinstance(tree, dict) for key in tree):
            yield from _walk(joined(path, key), [tree.get(key) if isinstance(tree, dict) else None for tree in trees])
        return
    aligned = _aligned(there) if all(isinstance(tree, list) and tree for tree in there) else None
    if aligned is None:
        yield path, tuple(None if tree is None else as_leaf(tree) for tree in trees)
        return
    rows = [{} if tree is None else aligned.pop(0) for tree in trees]
    for key in dict.fromkeys(key for row in rows for key in row):
        yield from _walk(f"{path}[{key}]", [row.get(key) for row in rows])


def _aligned(lists: Sequence[Tree]) -> list[dict[str, Tree]] | None:
    """The items of lists by what they have in common: the value of an identity, else their place. None for lists of
    plain values, which are compared whole: one value more in front would make all others differ.
    """
    items = [tree for tree in lists if isinstance(tree, list)]
    if not any(isinstance(item, (dict, list)) for tree in items for item in tree):
        return None
    for identity in IDENTITIES:
        named = [[_identity(item, identity) for item in tree] for tree in items]
        if all(None not in names and len(set(names)) == len(names) for names in named):
            return [
                {f"{identity}={name}": item for name, item in zip(names, tree, strict=True)}
                for names, tree in zip(named, items, strict=True)
            ]
    return [{str(index): item for index, item in enumerate(tree)} for tree in items]


def _identity(item: Tree, key: str) -> str | None:
    found = item.get(key) if isinstance(item, dict) else None
    return str(found.value) if isinstance(found, Leaf) and found.value is not None else None


def _how(values: Sequence[Leaf | None]) -> str | None:
    """How the values differ; None where they are alike."""
    there = [value for value in values if value is not None]
    if all(value.same(there[0]) for value in there):
        return None if len(there) == len(values) else "absent"
    if len({_bare(value) for value in there}) == 1:
        return "type"
    return "value"


def _bare(value: Leaf) -> object:
    """The value without its type: "384", 384 and 384.0 are one number, "True" and true one word."""
    try:
        return float(str(value.value))
    except ValueError:
        return str(value.value).lower()


def _wrong_size(job: Job) -> Iterator[str]:
    """A job that by its name is about a model of one size, and loads one of another."""
    stems = " ".join(re.split(r"[/\\]", part)[-1] for part in job.name.split("+"))
    expected = set(SIZE.findall(_words(stems)))
    for path, (leaf,) in _walk("", [job.settings]):
        topic = topic_of(path)
        if leaf is None or leaf.kind != "text" or topic is None or topic.name != MODEL:
            continue
        found = set(SIZE.findall(_words(str(leaf.value))))
        if expected and found and not expected & found:
            yield f"{job.name}: named for {' '.join(sorted(expected))}, but {path} is {leaf.shown} ({leaf.place})"


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def _rank(topic: Topic | None) -> int:
    return len(topics()) if topic is None else topic.rank


def _names(jobs: Sequence[Job]) -> list[str]:
    """The jobs without their folders, where that tells them apart."""
    short = ["+".join(Path(part).name for part in job.name.split("+")) for job in jobs]
    return short if len(set(short)) == len(jobs) else [job.name for job in jobs]


def _value(leaf: Leaf | None, *, typed: bool) -> str:
    """A value; with its type where that is all that differs."""
    if leaf is None:
        return ABSENT
    return f"{leaf.shown} ({leaf.kind})" if typed else leaf.shown


def _placed(leaf: Leaf) -> str:
    return f"{leaf.shown} ({leaf.place})" if leaf.file else leaf.shown


def _job(job: Job) -> dict[str, Any]:
    overrides = [
        {"path": one.path, "won": _leaf(one.won), "lost": _leaf(one.lost), "changes": changes(one)}
        for one in job.overrides
    ]
    lost = list(overruled(job))
    return {"name": job.name, "files": job.files, "overruled": lost, "overrides": overrides, "notes": job.notes}


def _difference(one: Difference) -> dict[str, Any]:
    return {
        "path": one.path,
        "how": one.how,
        "topic": one.topic.name if one.topic else None,
        "why": one.topic.why if one.topic else None,
        "values": [None if leaf is None else _leaf(leaf) for leaf in one.values],
    }


def _leaf(leaf: Leaf) -> dict[str, Any]:
    """The value itself where JSON has a word for it, else as it is shown."""
    plain = leaf.kind in ("text", "whole number", "number", "boolean", "null")
    return {"value": leaf.value if plain else leaf.shown, "kind": leaf.kind, "file": leaf.file, "line": leaf.line}
