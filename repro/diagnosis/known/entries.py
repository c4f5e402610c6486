"""The entries of the catalogue as records, read from their files strictly: an error names the file and the key.

The shipped files must be right, or nothing is said. The user's own (``own_folder``) are read one by one: what cannot be
used is named among the problems, and the others are used.
"""

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from msgspec import Meta, field
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from repro.core.encoding import Record, decode, replace, to_json
from repro.core.errors import RecordError
from repro.core.foreign import read_foreign
from repro.core.paths import config_folder
from repro.diagnosis.known.fingerprint import RANGES, Conditions

KNOWN = Path(__file__).with_name("data")
OUTCOMES = ("bug", "not a bug")
ANSWERS = ("good", "bad")
WAYS = ("ablation", "cell", "key", "by_hand")
"""How a test is answered: by an ablation, another environment, a value of verdict.json, a person."""

Texts = tuple[Annotated[str, Meta(min_length=1)], ...]
ISSUE = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+#[0-9]+")
SEEN_IN = re.compile(r"(?P<package>[a-z][a-z0-9_.-]*) (?P<version>[0-9][0-9A-Za-z.+]*)")
"""One part of an environment in which a check was run: "torch 2.4.1"."""
LARGEST = 1_000_000
"""Bytes that are read of one file."""
E = TypeVar("E", "Fault", "Documented")


class Fingerprint(Record, frozen=True, forbid_unknown_fields=True):
    """What a run of this fault looks like: lists of patterns, one of which must fit; ranges of versions; a flag."""

    verdict: Texts = ("bad",)
    kind: Texts | None = None
    mechanism: Texts | None = None
    op: Texts | None = None
    module: Texts | None = None
    module_class: Texts | None = None
    model: Texts | None = None
    model_class: Texts | None = None
    model_type: Texts | None = None
    dtype: Texts | None = None
    attn: Texts | None = None
    device: Texts | None = None
    platform: Texts | None = None
    signal: Texts | None = None
    source: Texts | None = None
    tensor: Texts | None = None
    token: Texts | None = None
    phase: Texts | None = None
    forward_op: Texts | None = None
    layer: Texts | None = None
    library: Texts | None = None
    decided_by: Texts | None = None
    unset: Texts | None = None
    missing: Texts | None = None
    finding: Texts | None = None
    torch: str | None = None
    transformers: str | None = None
    misaligned: bool | None = None

    @property
    def conditions(self) -> Conditions:
        """What is asked of a run, by name."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in given.items() if value is not None}


class OtherCell(Record, frozen=True, forbid_unknown_fields=True):
    """Another environment: ranges of versions, and patterns."""

    torch: str | None = None
    transformers: str | None = None
    device: str | None = None
    platform: str | None = None

    @property
    def conditions(self) -> Conditions:
        """What is asked of a cell, by name."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value if name in RANGES else (value,) for name, value in given.items() if value is not None}


class FurtherTest(Record, frozen=True, forbid_unknown_fields=True):
    """The test that tells a fault from its neighbours, with one of WAYS to answer it.

    ``verdict``: what the ablation or the cell gives if the fault is this one; ``is_``: what the key holds then.
    """

    question: str
    neighbours: Texts
    command: str | None = None
    ablation: str | None = None
    cell: OtherCell | None = None
    key: str | None = None
    by_hand: str | None = None
    verdict: str | None = None
    is_: str | None = field(default=None, name="is")


class Check(Record, frozen=True, forbid_unknown_fields=True):
    """The fault as a script that fails by an assertion while it is there, and what it gave where it was run.

    ``seen``: "good" or "bad" by environment, such as "torch 2.4.1, transformers 4.42.4"; on the CPU.
    """

    script: Annotated[str, Meta(min_length=1)]
    seen: Annotated[dict[str, str], Meta(min_length=1)]


class Fault(Record, frozen=True, forbid_unknown_fields=True):
    """One known fault. ``id`` is the stem of its file; ``title`` is its thread's own, where that was read.

    ``issues`` may be empty in an entry of the user's own that no thread is about yet.
    """

    issues: Texts
    what: str
    fingerprint: Fingerprint
    test: FurtherTest
    title: str | None = None
    outcome: str = OUTCOMES[0]
    check: Check | None = None
    id: str = ""

    @property
    def project(self) -> str:
        """The repository of its first thread, without the owner; empty without a thread."""
        return self.issues[0].partition("#")[0].rpartition("/")[2] if self.issues else ""

    @property
    def links(self) -> tuple[str, ...]:
        """The addresses of its threads."""
        return tuple("https://github.com/{}/issues/{}".format(*issue.split("#")) for issue in self.issues)


class Documented(Record, frozen=True, forbid_unknown_fields=True):
    """What one model's documentation rules out: patterns of the model's id and type, and dtypes."""

    dtype: Texts
    source: str
    says: str
    instead: str
    model: Texts = ()
    model_type: Texts = ()
    id: str = ""


@functools.cache
def faults(folder: Path = KNOWN / "faults") -> tuple[Fault, ...]:
    """The catalogue, in order of the files' names.

    Raises:
        RecordError: naming file and key, for what is unknown, missing or of another kind.
    """
    found = {path.stem: _checked(path, _read(path, Fault)) for path in sorted(folder.glob("*.toml"))}
    for fault in found.values():
        _check_neighbours(folder / f"{fault.id}.toml", fault, found)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every fault that a run is held against, and what could not be used of the user's own files."""

    faults: tuple[Fault, ...]
    problems: tuple[str, ...] = ()
    own: frozenset[str] = frozenset()

    @property
    def by_id(self) -> dict[str, Fault]:
        """The faults by their names."""
        return {fault.id: fault for fault in self.faults}


def own_folder() -> Path:
    """Where the user's own entries are, one TOML file each; it need not be there."""
    return config_folder() / "known"


def catalogue(own: Path | None = None) -> Catalogue:
    """The shipped faults with the user's own behind them. A file of the user's own that cannot be used is told.

    Args:
        own: The folder of the user's own; by default ``own_folder``.
    """
    folder = own_folder() if own is None else own
    shipped = {fault.id: fault for fault in faults()}
    found: dict[str, Fault] = {}
    problems: list[str] = []
    for path in _files(folder, problems):
        try:
            if path.stem in shipped:
                raise RecordError(f"{path}: {path.stem} is the name of an entry that ships with repro.")
            found[path.stem] = _checked(path, _read(path, Fault))
        except RecordError as error:
            problems.append(_to_do(error))
    for name in list(found):
        try:
            _check_neighbours(folder / f"{name}.toml", found[name], {**shipped, **found})
        except RecordError as error:
            problems.append(_to_do(error))
            del found[name]
    return Catalogue((*shipped.values(), *found.values()), tuple(problems), frozenset(found))


def _files(folder: Path, problems: list[str]) -> Iterable[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".toml")
    except FileNotFoundError:
        return ()
    except OSError as error:
        problems.append(f"{folder} cannot be listed: {error.strerror or error}. Own entries are left out.")
        return ()


def _to_do(error: RecordError) -> str:
    return f"{str(error).rstrip('.')}. This entry is left out: mend the file, or remove it."


def one(path: Path) -> Fault:
    """The fault in a file, whose neighbours are not looked up.

    Raises:
        RecordError: as ``faults``.
    """
    return _checked(path, _read(path, Fault))


@functools.cache
def documented(folder: Path = KNOWN / "documented") -> tuple[Documented, ...]:
    """What models' own documentation rules out.

    Raises:
        RecordError: as ``faults``.
    """
    found = {path: _read(path, Documented) for path in sorted(folder.glob("*.toml"))}
    for path, one in found.items():
        if not one.model and not one.model_type:
            raise RecordError(f"{path}: 'model' or 'model_type' must say which models it is about.")
    return tuple(found.values())


def _read(path: Path, kind: type[E]) -> E:
    try:
        data = tomllib.loads(read_foreign(path, LARGEST).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read as TOML: {error}.") from None
    try:
        return replace(decode(kind, data), id=path.stem)
    except RecordError as error:
        raise RecordError(f"{path}: {error}.") from None


def _checked(path: Path, fault: Fault) -> Fault:
    """The fault, if it says what its types alone do not demand."""
    test = fault.test
    for issue in fault.issues:
        if not ISSUE.fullmatch(issue):
            raise RecordError(f"{path}: 'issues' must name threads such as 'pytorch/pytorch#103749', got {issue!r}.")
    if fault.outcome not in OUTCOMES:
        raise RecordError(f"{path}: 'outcome' must be one of {', '.join(OUTCOMES)}, got {fault.outcome!r}.")
    if fault.fingerprint == Fingerprint():
        raise RecordError(f"{path}: 'fingerprint' must have a condition: this one fits every run.")
    ways = [way for way in WAYS if getattr(test, way) is not None]
    if len(ways) != 1:
        raise RecordError(f"{path}: 'test' must have one of {', '.join(WAYS)}, got {', '.join(ways) or 'none'}.")
    if ways == ["key"] and test.is_ is None:
        raise RecordError(f"{path}: 'test.is' is missing: what the key holds if the fault is this one.")
    if ways[0] in ("ablation", "cell") and test.verdict not in ANSWERS:
        raise RecordError(f"{path}: 'test.verdict' must be {' or '.join(ANSWERS)}, got {test.verdict!r}.")
    _check_ranges(path, "fingerprint", to_json(fault.fingerprint))
    _check_ranges(path, "test.cell", to_json(test.cell or OtherCell()))
    if fault.check is not None:
        _check_seen(path, fault.check)
    return fault


def _check_neighbours(path: Path, fault: Fault, known: Mapping[str, Fault]) -> None:
    for name in fault.test.neighbours:
        if name not in known:
            raise RecordError(f"{path}: 'test.neighbours' names {name!r}, and there is no such file.")


def _check_seen(path: Path, check: Check) -> None:
    for place, verdict in check.seen.items():
        if not all(SEEN_IN.fullmatch(part) for part in place.split(", ")):
            raise RecordError(f"{path}: 'check.seen' must name versions such as 'torch 2.4.1', got {place!r}.")
        if verdict not in ANSWERS:
            raise RecordError(f"{path}: 'check.seen' must say {' or '.join(ANSWERS)} of {place}, got {verdict!r}.")


def _check_ranges(path: Path, place: str, values: Mapping[str, str | None]) -> None:
    for key in RANGES:
        try:
            SpecifierSet(values[key] or "")
        except InvalidSpecifier:
            raise RecordError(
                f"{path}: '{place}.{key}' must be a range such as '>=2.0,<2.5', got {values[key]!r}."
            ) from None
