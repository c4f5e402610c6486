"""Reads texts of prompts, with their verdicts where there are any, from .txt, .json, .jsonl and .csv files."""

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.core.encoding import from_text
from repro.core.errors import RecordError, UsageError

RUN = "prompts.jsonl"
"""The file of a run of many prompts: a header, then an object for each example."""
FIELDS = ("text", "prompt", "question", "input")
"""Where the text of a prompt is looked for in an object or a table, in this order."""
LISTS = (".txt", ".json", ".jsonl", ".csv")
BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as that of UTF-16 does, so it is asked first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def examples_of(file: Path) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Each example of a ``prompts.jsonl`` once, by its last line, and notes.

    A line that is cut short, at the end or where a killed run went on, is left out: that example was run again.
    """
    last: dict[tuple[object, object], Mapping[str, Any]] = {}
    cut = 0
    for line in _text_of(file)[0].split("\n"):
        try:
            row = from_text(line) if line.strip() else None
        except RecordError:
            cut += 1
            continue
        if isinstance(row, Mapping) and "verdict" in row:
            last[(row.get("index"), row.get("side"))] = row
    return list(last.values()), [f"{cut} lines are cut short and were left out."] if cut else []


def text_of(example: Mapping[str, Any]) -> str:
    """The text of an example; one that was given as token ids is named by these."""
    text = example.get("text")
    return text if isinstance(text, str) and text else "token ids " + " ".join(map(str, example.get("token_ids") or ()))


def rows_of(file: Path, field: str | None = None) -> tuple[list[tuple[str, str | None]], list[str]]:
    """The texts of a list, each with its verdict where the list has one, and notes on how it was read."""
    text, notes = _text_of(file)
    suffix = file.suffix.lower()
    if suffix == ".txt":
        return [(line, None) for line in re.split(r"\r\n|\r|\n", text)], notes
    if suffix == ".csv":
        rows = _table(file, text)
    elif suffix == ".jsonl":
        rows = _json_lines(file, text)
    else:
        rows = _json_list(file, text)
    objects = [row for row in rows if isinstance(row, Mapping)]
    key = _field(file, objects, field) if objects else ""
    return [_row(file, row, key) for row in rows], notes


def _row(file: Path, row: object, key: str) -> tuple[str, str | None]:
    text, verdict = (row.get(key), row.get("verdict")) if isinstance(row, Mapping) else (row, None)
    if not isinstance(text, str):
        raise RecordError(f"{file}: expected the text of a prompt, found {text!r:.60}. Name its field with --field.")
    return text, None if verdict is None else str(verdict)


def _field(file: Path, rows: Sequence[Mapping[str, Any]], field: str | None) -> str:
    """The field with the text: the one that was named, one of those known, or the only one."""
    found = set(rows[0]).intersection(*rows)
    wanted = FIELDS if field is None else (field,)
    for name in wanted:
        if name in found:
            return name
    if field is None and len(found) == 1:
        return str(next(iter(found)))
    raise UsageError(
        f"{file}: no field {' or '.join(wanted)} in every entry; there are {', '.join(sorted(map(str, found)))}. "
        "Name the one with the prompt by --field."
    )


def _json_lines(file: Path, text: str) -> list[Any]:
    """The value of each line."""
    rows: list[Any] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append(from_text(line))
            except RecordError as error:
                raise RecordError(f"{file}, line {number}: {error}") from None
    return rows


def _json_list(file: Path, text: str) -> list[Any]:
    """A list, or the only list in an object."""
    try:
        data = from_text(text)
    except RecordError as error:
        raise RecordError(f"{file}: {error}") from None
    lists = [value for value in data.values() if isinstance(value, list)] if isinstance(data, dict) else [data]
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise RecordError(f"{file}: expected a list of prompts, or an object with one list in it.")
    return lists[0]


def _table(file: Path, text: str) -> list[Any]:
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise RecordError(f"{file}: no CSV table: {error}.") from None


def _text_of(file: Path) -> tuple[str, list[str]]:
    """The text of a file: by its byte order mark, else UTF-8, else Latin-1, which takes any bytes, with a note."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise RecordError(f"could not read {file}: {error.strerror}.") from None
    encoding = next((name for mark, name in BOMS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding), []
    except UnicodeDecodeError:
        return data.decode("latin-1"), [f"it is no {encoding.upper()}, and was read as Latin-1."]
