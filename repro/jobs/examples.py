"""A file of prompts, or of contrastive pairs, as examples: one object for each, in the order of the file.

An entry may have ``ids``, a list of token ids, in place of a text: for a model without a tokenizer. Nothing is held
but the line that is read, except of .json, which is one value.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from repro.core.errors import UsageError

TEXT_FIELDS = ("prompt", "text", "question", "input", "instruction", "content")
"""Where a prompt stands when nobody says where, the first that is there."""
SIDES = ("positive", "negative")
ANSWERS = (
    ("positive", "negative"),
    ("answer_matching_behavior", "answer_not_matching_behavior"),
    ("chosen", "rejected"),
)
"""Names of the two sides of a pair. With a question beside them, a side is the question with that answer."""
QUESTIONS = ("question", "prompt", "text")
SUFFIXES = (".txt", ".jsonl", ".json", ".csv")


def examples(path: Path, field: str | None, *, pairs: bool) -> Iterator[dict[str, Any]]:
    """The examples of a file: ``index`` (of the prompt or the pair), ``side`` (None, or of a pair), ``text``.

    Args:
        path: .txt (a prompt a line), .jsonl, .json (a list) or .csv (with a header).
        field: Where the prompt stands; by default the first of ``TEXT_FIELDS``. With ``pairs``, where the question
            does; by default the first of ``QUESTIONS``, if there is one.
        pairs: Whether each entry is a pair: a positive and a negative text, or a question with two answers.

    Raises:
        UsageError: the file cannot be read, or an entry has no text where it should.
    """
    number = 0
    for place, entry in _entries(path):
        sides = _pair(entry, field, place) if pairs else [(None, *_text(entry, field, place))]
        for side, text, ids in sides:
            yield {"index": number, "side": side, "text": text, **({} if ids is None else {"ids": ids})}
        number += 1
    if number == 0:
        raise UsageError(f"{path} holds no prompt.")


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """(place for a message, entry) of each entry."""
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise UsageError(f"{path}: prompts are read from {', '.join(SUFFIXES)} files.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if kind == ".csv":
                rows = csv.DictReader(file, strict=True)
                for row in rows:
                    yield f"{path}, line {rows.line_num}", row
            elif kind == ".json":
                yield from _listed(path, file)
            else:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        place = f"{path}, line {number}"
                        yield place, _object(line, place) if kind == ".jsonl" else line.rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 ({error}). Save it as UTF-8.") from None
    except csv.Error as error:
        raise UsageError(f"{path}, line {rows.line_num} is no CSV: {error}.") from None


def _listed(path: Path, file: TextIO) -> Iterator[tuple[str, Any]]:
    """The entries of a .json file."""
    data = _object(file.read(), str(path))
    if not isinstance(data, list):
        raise UsageError(f"{path} holds one value of type {type(data).__name__}, and a list of prompts is needed.")
    for number, entry in enumerate(data):
        yield f"{path}, entry {number}", entry


def _object(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: no JSON: {error}.") from None


def _text(entry: Any, field: str | None, place: str) -> tuple[str | None, list[int] | None]:
    """The text of an entry, or its token ids."""
    if isinstance(entry, str) and field is None:
        return entry, None
    if not isinstance(entry, Mapping):
        raise UsageError(f"{place}: no object, so it has no {field or 'prompt'}. It is of type {type(entry).__name__}.")
    ids = entry.get("ids")
    if field is None and isinstance(ids, list) and ids and all(type(item) is int for item in ids):
        return None, ids
    name = field or next((name for name in TEXT_FIELDS if isinstance(entry.get(name), str)), None)
    text = entry.get(name) if name is not None else None
    if not isinstance(text, str):
        known = ", ".join(map(str, list(entry)[:8]))
        raise UsageError(
            f"{place}: no text in {name or ' or '.join(TEXT_FIELDS)}. It has {known}; name one with --field."
        )
    return text, None


def _pair(entry: Any, field: str | None, place: str) -> list[tuple[str, str, None]]:
    """The two sides of a pair."""
    if not isinstance(entry, Mapping):
        raise UsageError(f"{place}: no object, so it is no pair. It is of type {type(entry).__name__}.")
    known = ", ".join(map(str, list(entry)[:8]))
    if field is not None and not isinstance(entry.get(field), str):
        raise UsageError(f"{place}: no text in {field}. It has {known}.")
    for names in ANSWERS:
        answers = [entry.get(name) for name in names]
        if all(isinstance(answer, str) for answer in answers):
            asked = (field,) if field is not None else QUESTIONS
            question = next((entry[name] for name in asked if isinstance(entry.get(name), str)), "")
            gap = "" if not question or question[-1].isspace() else " "
            return [(side, f"{question}{gap}{answer}", None) for side, answer in zip(SIDES, answers, strict=True)]
    raise UsageError(f"{place}: no pair. Give {' or '.join(' and '.join(names) for names in ANSWERS)}. It has {known}.")
