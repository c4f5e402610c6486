"""The bug forms of other projects, read from ``data/*.toml``; and a filled form as text and back.

A submitted form becomes ``### LABEL``, a blank line and the text, for each field in order.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from repro.core.encoding import Record, decode, replace
from repro.core.errors import RecordError, UsageError
from repro.report.markdown import outside_code
from repro.sharing.forms import FOLDER, projects

R = TypeVar("R")

OF_NO_PROJECT = ("caller", "checkpoint")
"""Owners that no form is for."""
PACKAGE = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
"""A package's name as registries compare it. It becomes a file's name and an argument of pip."""
NO_RESPONSE = "_No response_"
"""What GitHub writes for a field that was left empty."""


class Field(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field of a form.

    ``content`` is what fills it: ``fill.py`` has a text for each but the last two. ``id`` is its URL parameter,
    ``rendered`` the language of the block that GitHub itself puts around the text, and ``ticked`` those of its
    ``boxes`` that can be ticked without asking the reporter.
    """

    label: str
    content: Literal["everything", "reproduction", "expected", "environment", "output", "boxes", "nothing"]
    required: bool
    id: str | None = None
    rendered: str | None = None
    boxes: tuple[str, ...] = ()
    ticked: tuple[str, ...] = ()


class Rules(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a project's triage asks of a script, and where and when that was read.

    ``lines`` and ``seconds`` are the most that it reads and waits for; ``packages`` all that it may import beside the
    standard library, where it says so; ``imports`` one that it must import, and ``own`` whether that is the form's own
    package, whatever its modules are called. ``avoids`` are modules and functions at which its triage stops.
    ``assertion``: it wants one that fails while the fault is there. ``normal_range``: it takes no values near the
    limits of their dtype, neither given nor as the right result. ``links``: whether the body may name files and models
    to download.
    """

    source: str
    date: str
    lines: int | None = None
    seconds: float | None = None
    packages: tuple[str, ...] | None = None
    imports: str | None = None
    own: bool = False
    avoids: tuple[str, ...] = ()
    assertion: bool = False
    normal_range: bool = False
    links: bool = True


class Form(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One form of one project; ``project`` is the name of its file.

    ``name`` is how the project writes its name, ``owner`` the owner of a fault that this form is for, if that is not
    the project's own name, and ``package`` the one whose latest release must be tried. ``prefill`` says what a URL can
    fill: fields by their ids, a plain issue's body, or nothing. ``own_words`` is the label of the field that begins
    with the reporter's own words, ``environment`` the block in ``data/blocks`` that describes the environment, and
    ``asks`` what the project asks for besides. A form that is ``self_contained`` takes no script that downloads.
    ``rules`` are what `repro lint` holds the script against. One without a ``template`` is for any package: a plain
    issue wherever its makers take one.
    """

    project: str
    package: str
    repository: str
    template: str
    prefill: Literal["ids", "body", "nothing"]
    environment: str
    own_words: str
    fields: tuple[Field, ...]
    name: str | None = None
    owner: str | None = None
    title: str = ""
    self_contained: bool = False
    asks: tuple[str, ...] = ()
    rules: Rules | None = None

    def is_for(self, owner: str | None) -> bool:
        """Whether a fault of this owner is reported with this form."""
        return owner == (self.owner or self.project)


class Line(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of an environment block: a format string over facts; for which releases of transformers it is."""

    text: str
    since: str | None = None
    until: str | None = None
    apart: bool = False


class Block(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An environment block: the language of the code block around it ("" for none), and its lines."""

    language: str
    lines: tuple[Line, ...]


@cache
def forms() -> Mapping[str, Form]:
    """Every form by its project's name, in order of the names.

    Raises:
        UsageError: naming file and key, for what is unknown, missing or of another type.
    """
    return {name: read_form(FOLDER / f"{name}.toml") for name in projects()}


def read_form(path: Path) -> Form:
    """One form.

    Raises:
        UsageError: naming file and key.
    """
    form = _read(Form, path, project=path.stem)
    if form.own_words not in {field.label for field in form.fields}:
        raise UsageError(f"{path}: own_words names {form.own_words!r}, and no field has that label.")
    return form


def form_of(owner: str | None) -> Form | None:
    """The form for a fault of this owner: its own, else that of any package for what may be one's name."""
    if owner in forms() or owner is None:
        return None if owner is None else forms()[owner]
    if owner in OF_NO_PROJECT or not PACKAGE.fullmatch(owner):
        return None
    return replace(_of_any_package(), project=owner, package=owner, repository=owner)


@cache
def _of_any_package() -> Form:
    return read_form(FOLDER / "any" / "package.toml")


def named(package: str) -> str:
    """A package by the name that its project writes."""
    return next((form.name for form in forms().values() if form.package == package and form.name), package)


@cache
def block(name: str) -> Block:
    """An environment block by its name.

    Raises:
        UsageError: it cannot be read.
    """
    return _read(Block, FOLDER / "blocks" / f"{name}.toml")


def body(form: Form, texts: Sequence[str]) -> str:
    """The form as GitHub makes it an issue's body; ``texts`` are those of its fields, in order."""
    parts = [f"### {field.label}\n\n{_submitted(field, said)}" for field, said in zip(form.fields, texts, strict=True)]
    return "\n\n".join(parts) + "\n"


def boxes(field: Field) -> str:
    """The check boxes of a field as a list."""
    return "\n".join(f"- [{'x' if box in field.ticked else ' '}] {box}" for box in field.boxes)


def parse(form: Form, text: str) -> dict[str, str]:
    """The texts of a filled form by label, without the fence that GitHub adds; what has no heading is missing.

    A heading counts outside of code blocks only, and only in the form's own order.
    """
    found: dict[str, list[str]] = {}
    waiting = [field.label for field in form.fields]
    lines: list[str] = []
    for line, outside in outside_code(text):
        label = line.removeprefix("### ")
        if outside and line.startswith("### ") and label in waiting:
            waiting = waiting[waiting.index(label) + 1 :]
            lines = found.setdefault(label, [])
        else:
            lines.append(line)
    by_label = {field.label: field for field in form.fields}
    return {label: _unwrapped(by_label[label], "\n".join(said).strip()) for label, said in found.items()}


def _submitted(field: Field, text: str) -> str:
    if not text:
        return NO_RESPONSE
    return f"```{field.rendered}\n{text}\n```" if field.rendered else text


def _unwrapped(field: Field, text: str) -> str:
    if text == NO_RESPONSE:
        return ""
    return text.removeprefix(f"```{field.rendered}\n").removesuffix("\n```") if field.rendered else text


def _read(record: type[R], path: Path, **more: str) -> R:
    """The record that a TOML file stands for.

    Raises:
        UsageError: naming file and key.
    """
    try:
        return decode(record, {**tomllib.loads(path.read_text(encoding="utf-8")), **more})
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {error}.") from None
    except RecordError as error:
        raise UsageError(f"{path}: {error}.") from None
