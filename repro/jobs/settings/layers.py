"""The files of one job merged as the job merges them, with every value that one file overrides in another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from repro.core.errors import RecordError, UsageError
from repro.jobs.settings.reading import SUFFIXES, read
from repro.jobs.settings.tree import Leaf, Tree, as_leaf, joined

BASE_KEYS = ("base", "_base_", "base_config", "extends", "inherits", "inherit_from")
"""Top-level keys that name the files that a file overrides."""
DEFAULTS = "defaults"
"""Hydra's list. Source: https://hydra.cc/docs/advanced/defaults_list/."""
ITSELF = "_self_"
DEEPEST = 20


@dataclass(frozen=True, slots=True)
class Override:
    """A value that a later file overrides."""

    path: str
    lost: Leaf
    won: Leaf


@dataclass(frozen=True, slots=True)
class Job:
    """What a job runs with. ``files`` are in order: a later one wins over an earlier one. ``own``: those that were
    named for it; the others are what these include, or bases. ``missing``: a file that it includes is not there.
    """

    name: str
    files: tuple[str, ...]
    settings: dict[str, Tree]
    overrides: tuple[Override, ...]
    notes: tuple[str, ...]
    own: frozenset[str] = frozenset()
    missing: bool = False


@dataclass(slots=True)
class _Pile:
    """The layers so far."""

    settings: dict[str, Tree] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    overrides: list[Override] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: bool = False

    def lay(self, tree: dict[str, Tree], under: Sequence[str] = ()) -> None:
        """Lay one file's settings over the others, below the keys ``under``."""
        for key in reversed(under):
            tree = {key: tree}
        self._merge(self.settings, tree, "")

    def _merge(self, below: dict[str, Tree], above: dict[str, Tree], path: str) -> None:
        for key, item in above.items():
            here, before = joined(path, key), below.get(key)
            if isinstance(before, dict) and isinstance(item, dict):
                self._merge(before, item, here)
                continue
            if before is not None:
                lost, won = as_leaf(before), as_leaf(item)
                self.overrides.append(Override(here, lost, won))
            below[key] = _copy(item)


def job_from(argument: str, bases: Sequence[Path] = ()) -> Job:
    """The job that an argument names.

    Args:
        argument: A file, or files joined by "+", of which a later one wins over an earlier one.
        bases: Files that all of these override.

    Raises:
        UsageError: a file is missing, or is not a settings file.
        RecordError: a file cannot be read, or includes itself.
    """
    names = [argument] if Path(argument).exists() else argument.split("+")
    if not all(names):
        raise UsageError(f"{argument!r} has no file before or after a '+'.")
    pile = _Pile()
    for path in [*bases, *map(Path, names)]:
        _lay(path, (), pile, ())
    own = frozenset(Path(name).name for name in names)
    notes = tuple(dict.fromkeys(pile.notes))
    return Job(argument, tuple(pile.files), pile.settings, tuple(pile.overrides), notes, own, pile.missing)


def _lay(path: Path, under: tuple[str, ...], pile: _Pile, inside: tuple[Path, ...]) -> None:
    """A file over the pile, after the files that it includes."""
    real = path.resolve()
    if real in inside or len(inside) >= DEEPEST:
        chain = " -> ".join(one.name for one in (*inside, real))
        raise RecordError(f"{path} includes itself: {chain}. Remove one of these includes.")
    found = read(path, path.name)
    pile.notes += found.notes
    own = dict(found.tree)
    below = list(_below(path, own, pile))
    if not any(step is None for step in below):
        below.append(None)
    for step in below:
        if step is None:
            pile.files += [path.name] if pile.files[-1:] != [path.name] else []  # a base that is named twice
            pile.lay(own, under)
        else:
            _lay(step[0], (*under, *step[1]), pile, (*inside, real))


def _below(path: Path, own: dict[str, Tree], pile: _Pile) -> Iterator[tuple[Path, tuple[str, ...]] | None]:
    """The files that a file includes, with the keys that each is put under; None stands for the file itself. The keys
    that name them are removed from ``own``.
    """
    for key in BASE_KEYS:
        named = [item.value for item in _leaves(own.get(key))]
        words = [word for word in named if isinstance(word, str)]
        files = [_file(path.parent, word) for word in words]
        if not words or len(words) < len(named) or not (any(files) or all(_looks_like_a_file(word) for word in words)):
            continue  # a setting like any other
        del own[key]
        for word, file in zip(words, files, strict=True):
            if file is None:
                pile.missing = True
                pile.notes.append(f"{path.name}: {key} names {word}, which does not exist: its settings are unknown")
            else:
                yield file, ()
    if isinstance(own.get(DEFAULTS), list):
        yield from _defaults(path, own, pile)


def _defaults(path: Path, own: dict[str, Tree], pile: _Pile) -> Iterator[tuple[Path, tuple[str, ...]] | None]:
    listed = own[DEFAULTS]
    assert isinstance(listed, list)
    entries = [pair for item in listed for pair in _entries(item)]
    if not any(group is None and option == ITSELF for group, option in entries) and not any(
        _file(path.parent, f"{group}/{option}" if group else str(option)) for group, option in entries
    ):
        return  # another program's key of that name
    del own[DEFAULTS]
    if (None, ITSELF) not in entries:
        pile.notes.append(
            f"{path.name}: its defaults have no {ITSELF}: here, and in Hydra 1.1 and later, the file overrides them;"
            " in Hydra 1.0 they override the file"
        )
    for group, option in entries:
        if (group, option) == (None, ITSELF):
            yield None
        elif (file := _file(path.parent, f"{group}/{option}" if group else str(option))) is not None:
            yield file, tuple(group.split("/")) if group else ()
        elif option is not None:
            named = f"{group}: {option}" if group else str(option)
            pile.missing = True
            pile.notes.append(f"{path.name}: defaults name {named}, which does not exist: its settings are unknown")


def _entries(item: Tree) -> list[tuple[str | None, str | None]]:
    """Group and option of one line of the list: ``base`` has no group."""
    if isinstance(item, Leaf):
        return [(None, None if item.value is None else str(item.value))]
    if isinstance(item, dict):
        pairs = [(key.removeprefix("override ").removeprefix("optional ").lstrip("/"), item[key]) for key in item]
        return [(group, str(leaf.value)) for group, leaf in pairs if isinstance(leaf, Leaf) and leaf.value is not None]
    return []


def _file(folder: Path, word: str) -> Path | None:
    """The file that a word stands for, beside the file that names it."""
    tried = [folder / word, *(folder / f"{word}{suffix}" for suffix in SUFFIXES)]
    return next((path for path in tried if path.suffix.lower() in SUFFIXES and path.is_file()), None)


def _looks_like_a_file(word: str) -> bool:
    return word.lower().endswith(SUFFIXES)


def _leaves(tree: Tree | None) -> list[Leaf]:
    items = tree if isinstance(tree, list) else [tree]
    return [item for item in items if isinstance(item, Leaf)]


def _copy(tree: Tree) -> Tree:
    """Objects are merged in place, and an anchor's may stand in several places."""
    return {key: _copy(item) for key, item in tree.items()} if isinstance(tree, dict) else tree
