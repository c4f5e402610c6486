"""Prompt files, read the same way by every command that takes one.

A file is .txt (one prompt per line), .jsonl, .json (a list, or an object that holds one list) or .csv (with a header),
in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark; or a table that pyarrow reads (``prompt_tables``). These are
streamed, except .json. A run's ``prompts.jsonl`` is one too. A prompt is a text, or chat messages (``chats``).
"""

import codecs
import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from repro.core import paths
from repro.core.encoding import from_text
from repro.core.errors import EvidenceError, RecordError, UsageError
from repro.core.foreign import open_foreign, open_text
from repro.jobs import chats, prompt_tables
from repro.jobs.content import many

RUN = "prompts.jsonl"
"""The file of a run of many prompts: a header, then one answer per line."""
ASKED = "examples.jsonl"
"""What the run was asked, beside its answers: it has the texts that answers withhold."""
SUFFIXES = (".txt", ".jsonl", ".json", ".csv", *prompt_tables.SUFFIXES)
TEXT_FIELDS = ("prompt", "text", "question", "input", "instruction", "content")
"""Where a prompt is looked for in an entry; the first of these, else the only field there is."""
SIDES = ("positive", "negative")
ANSWERS = (SIDES, ("answer_matching_behavior", "answer_not_matching_behavior"), ("chosen", "rejected"))
"""Names of the two sides of a pair. With a question beside them, a side is the question followed by that answer."""
QUESTIONS = ("question", "prompt", "text")
MOST_NAMED = 8
"""Fields of an entry that an error lists."""
BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",  # starts like that of UTF-16, so it comes first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
Place = tuple[int, bool]
"""Where an example stands in its file: its index, and whether it is the second side of a pair."""


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt of a file, or one side of a pair.

    ``index`` counts the prompts or pairs of the file from 0; ``side`` is "positive" or "negative" in a pair. ``ids``
    replace the text where that is None, for a model without a tokenizer. ``messages`` are those of a chat, whose
    contents are the text. ``verdict`` is what the file says about the prompt, if anything.
    """

    index: int
    side: str | None
    text: str | None
    ids: tuple[int, ...] | None = None
    verdict: str | None = None
    messages: tuple[chats.Message, ...] | None = None

    @property
    def name(self) -> str:
        """The text; where there is none, the token ids; empty where both are withheld."""
        return self.text or (f"token ids {' '.join(map(str, self.ids))}" if self.ids else "")


class Answers:
    """The answers in a run's ``prompts.jsonl``: each example once, with its last answer.

    A later line about an example replaces an earlier one. A line cut short by the end of its process is left out and
    counted in ``cut``: its batch was run again.

    Raises:
        EvidenceError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each answer once.

        A process goes through the examples in order, starting at the first batch without an answer. So the lines form a
        few stretches in ascending order, one per process, and only the ends of these have to be remembered.
        """
        stretches = self._stretches()
        number, before = -1, None
        for record in self._lines():
            place = _place(record)
            if before is None or place <= before:
                number += 1
            before = place
            if not any(first <= place <= last for first, last in stretches[number + 1 :]):
                yield record

    def _stretches(self) -> list[tuple[Place, Place]]:
        """First and last place of each."""
        found: list[tuple[Place, Place]] = []
        for record in self._lines():
            place = _place(record)
            if found and place > found[-1][1]:
                found[-1] = (found[-1][0], place)
            else:
                found.append((place, place))
        return found

    def _lines(self) -> Iterator[dict[str, Any]]:
        self.cut = 0
        try:
            with open_text(self.path, errors="replace") as file:
                for line in filter(str.strip, file):
                    try:
                        record = from_text(line)
                    except RecordError:
                        self.cut += 1
                        continue
                    if isinstance(record, dict) and isinstance(record.get("index"), int):
                        yield record
        except OSError as error:
            raise EvidenceError(f"could not read {self.path}: {error.strerror}") from error


def is_run(path: Path) -> bool:
    """Whether a file holds the answers of a run: by its name, and its first line is a header or an answer."""
    if path.name != RUN:
        return False
    try:
        with open_text(path, errors="replace") as file:
            first = from_text(next(filter(str.strip, file), "null"))
    except (OSError, RecordError):
        return False
    return isinstance(first, dict) and not first.keys().isdisjoint(("record", "verdict"))


def examples(
    path: Path, field: str | None = None, *, pairs: bool = False, note: Callable[[str], None] = lambda _: None
) -> Iterator[Example]:
    """The examples of a file, in order.

    Args:
        path: The file.
        field: Where the prompt stands in each entry; ``a.b`` is the field b inside of a. By default a chat, the first
            of ``TEXT_FIELDS``, else the only field. With ``pairs``, where the question stands; by default the first of
            ``QUESTIONS``, if there is one.
        pairs: Whether each entry is a pair: a positive and a negative text, or a question with two answers.
        note: Is told what was left out.

    Raises:
        UsageError: the file cannot be read, or an entry is not what it should be; names file, line, and what was
            expected.
        EvidenceError: a run's own file cannot be read.
    """
    if is_run(path):
        answers = Answers(path)
        answered = [_answered(record) for record in answers if "verdict" in record]
        if answers.cut:
            note(f"{many(answers.cut, 'line')} cut short and left out.")
        if not all(one.name for one in answered) and path.with_name(ASKED).exists():
            asked = {(one["index"], one["side"]): one for _, one in _entries(path.with_name(ASKED))}
            answered = [_with_text(one, asked.get((one.index, one.side), {})) for one in answered]
        if pairs and any(one.side is None for one in answered):
            raise UsageError(f"{path}: expected the answers of a run with --pairs, found one without.")
        yield from sorted(answered, key=lambda one: (one.index, one.side == SIDES[1]))
        return
    if path.suffix.lower() == ".txt" and (pairs or field is not None):
        raise UsageError(f"{path}: a .txt file has no fields and no pairs. Leave out --field and --pairs.")
    for index, (place, entry) in enumerate(_entries(path)):
        if pairs:
            for side, answer in zip(SIDES, _pair(entry, field, place), strict=True):
                said, chat = answer if isinstance(answer, tuple) else (answer, None)
                yield Example(index, side, said, verdict=_verdict(entry), messages=chat)
        else:
            text, ids, messages = _prompt(entry, field, place)
            yield Example(index, None, text, ids, _verdict(entry), messages)


def sha256(path: Path) -> str:
    """The hash of a prompt file; of a folder, of the hashes of its files."""
    if not path.is_dir():
        return paths.sha256(path)
    try:
        return hashlib.sha256("\n".join(map(paths.sha256, prompt_tables.files_of(path))).encode()).hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


def asked_examples(
    path: Path, field: str | None = None, *, pairs: bool = False, chat_template: bool = True
) -> Iterator[dict[str, Any]]:
    """The examples of a file as the kit reads them. Without ``chat_template`` a chat is the text of its contents.

    Raises:
        UsageError: as ``examples``; or there is none, or one has neither a text nor token ids.
        EvidenceError: as ``examples``.
    """
    found = False
    for example in examples(path, field, pairs=pairs):
        found = True
        if example.text is None and not example.ids:
            raise UsageError(f"{path}: example {example.index} has neither a text nor token ids, so it cannot be run.")
        more: dict[str, Any] = {"ids": example.ids} if example.text is None else {}
        if chat_template and example.messages is not None:
            more["messages"] = [{"role": role, "content": content} for role, content in example.messages]
        yield {"index": example.index, "side": example.side, "text": example.text, **more}
    if not found:
        raise UsageError(f"{path} holds no prompt.")


def _place(record: Mapping[str, Any]) -> Place:
    return record["index"], record.get("side") == SIDES[1]


def _answered(record: Mapping[str, Any]) -> Example:
    text, ids = record.get("text"), record.get("token_ids")
    return Example(
        index=record["index"],
        side=record.get("side"),
        text=text if isinstance(text, str) else None,
        ids=tuple(ids) if isinstance(ids, list) else None,
        verdict=_verdict(record),
    )


def _with_text(example: Example, asked: Mapping[str, Any]) -> Example:
    """An answer with the text or token ids that the run was asked, where it has neither."""
    if example.name:
        return example
    ids = asked.get("ids")
    return replace(example, text=asked.get("text"), ids=None if ids is None else tuple(ids))


def _verdict(entry: Any) -> str | None:
    verdict = entry.get("verdict") if isinstance(entry, Mapping) else None
    return None if verdict is None else str(verdict)


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Each entry, with its place for a message."""
    kind = path.suffix.lower()
    if kind in prompt_tables.SUFFIXES or path.is_dir():
        yield from prompt_tables.rows_of(path)
        return
    if kind not in SUFFIXES:
        raise UsageError(f"{path}: expected a prompt file: {', '.join(SUFFIXES)}.")
    try:
        with open_foreign(path) as raw:
            start = raw.read(4)
        encoding = next((name for mark, name in BOMS.items() if start.startswith(mark)), "utf-8-sig")
        with open_text(path, encoding, newline="") as file:
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
                        yield place, _value(line, place) if kind == ".jsonl" else line.rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeError as error:
        raise UsageError(f"{_bad_line(path, encoding)} Save the file as UTF-8.") from error
    except csv.Error as error:
        raise UsageError(f"{path}, line {rows.line_num}: expected CSV: {error}.") from None


def _bad_line(path: Path, encoding: str) -> str:
    """Where a file is not in the encoding that it seems to have."""
    if encoding == "utf-8-sig":
        with open_foreign(path) as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    return f"{path}, line {number}: expected UTF-8, found the byte {line[error.start]:#04x}."
    return f"{path}: expected {encoding.upper()}, which its byte-order mark says, and it is not."


def _listed(path: Path, file: TextIO) -> Iterator[tuple[str, Any]]:
    """The entries of a .json file."""
    data = _value(file.read(), str(path))
    lists = [item for item in data.values() if isinstance(item, list)] if isinstance(data, dict) else [data]
    if len(lists) != 1 or not isinstance(lists[0], list):
        found = f"an object with {len(lists)} lists" if isinstance(data, dict) else type(data).__name__
        raise UsageError(f"{path}: expected a list of prompts, or an object with one list in it; found {found}.")
    for number, entry in enumerate(lists[0]):
        yield f"{path}, entry {number}", entry


def _value(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: expected JSON: {error}.") from None


def _prompt(
    entry: Any, field: str | None, place: str
) -> tuple[str | None, tuple[int, ...] | None, tuple[chats.Message, ...] | None]:
    """The text of an entry, or its token ids; of a chat, its messages beside the text of their contents."""
    if isinstance(entry, str):
        return entry, None, None
    if field is None and chats.is_chat(entry):
        return _chat(entry, place)
    if not isinstance(entry, Mapping):
        raise UsageError(f"{place}: expected a text or an object with one; found {type(entry).__name__}.")
    if field is None:
        ids = entry.get("ids")
        if isinstance(ids, list) and ids and all(type(item) is int for item in ids):
            return None, tuple(ids), None
        chat = next((entry[name] for name in chats.FIELDS if chats.is_chat(entry.get(name))), None)
        if chat is not None:
            return _chat(chat, place)
    only = (
        [name for name in entry if isinstance(name, str)] if len(entry) == 1 else []
    )  # a row may be longer than the head
    names = (field,) if field is not None else (*TEXT_FIELDS, *only)
    for name in names:
        value = _inside(entry, name)
        if isinstance(value, str):
            return value, None, None
        if chats.is_chat(value):
            return _chat(value, place)
    wanted = f"the field {field}" if field is not None else f"one of {', '.join(TEXT_FIELDS)}, or chat messages"
    raise UsageError(f"{place}: expected a text in {wanted}; {_fields(entry)}. Name the field with --field.")


def _chat(value: Any, place: str) -> tuple[str, None, tuple[chats.Message, ...]]:
    messages = chats.messages_in(value, place)
    return chats.joined(messages), None, messages


def _inside(value: Any, name: str) -> Any:
    """What ``name`` names in a value, or None: a field; ``a.b``, the field b inside of a; of a list, its place."""
    first, dot, rest = name.partition(".")
    if isinstance(value, Mapping):
        if name in value:  # a field may be called a.b
            return value[name]
        return _inside(value[first], rest) if dot and first in value else None
    if isinstance(value, list) and first.isdecimal() and len(first) < len(str(len(value))) + 1:
        found = value[int(first)] if int(first) < len(value) else None
        return _inside(found, rest) if dot else found
    return None


Side = str | tuple[str, tuple[chats.Message, ...]]
"""A side of a pair: a text, or that of a chat with its messages."""


def _pair(entry: Any, field: str | None, place: str) -> tuple[Side, Side]:
    """The two sides of a pair."""
    if not isinstance(entry, Mapping):
        raise UsageError(f"{place}: expected an object with the two sides of a pair; found {type(entry).__name__}.")
    question: Any = "" if field is None else _inside(entry, field)
    if not isinstance(question, str) and not chats.is_chat(question):
        raise UsageError(f"{place}: expected a text in the field {field}; {_fields(entry)}.")
    if field is None:
        values = [entry.get(name) for name in QUESTIONS]
        question = next((value for value in values if isinstance(value, str) or chats.is_chat(value)), "")
    for names in ANSWERS:
        first, second = (entry.get(name) for name in names)
        if isinstance(first, str) and isinstance(second, str) and isinstance(question, str):
            gap = "" if not question or question[-1].isspace() else " "
            return f"{question}{gap}{first}", f"{question}{gap}{second}"
        if all(isinstance(side, str) or chats.is_chat(side) for side in (first, second)):
            return _chat_side(question, first, place), _chat_side(question, second, place)
    wanted = ", or ".join(" and ".join(names) for names in ANSWERS)
    raise UsageError(f"{place}: expected a pair ({wanted}); {_fields(entry)}.")


def _chat_side(question: Any, answer: Any, place: str) -> Side:
    """A question with an answer, of which at least one is a chat. A question that the answer begins with is not said
    twice.
    """
    before = chats.messages_in(question, place) if chats.is_chat(question) else ()
    if isinstance(question, str) and question:
        before = (("user", question),)
    behind = chats.messages_in(answer, place) if chats.is_chat(answer) else (("assistant", str(answer)),)
    messages = behind if behind[: len(before)] == before else (*before, *behind)
    return chats.joined(messages), messages


def _fields(entry: Mapping[Any, Any]) -> str:
    return f"it has {', '.join(map(str, list(entry)[:MOST_NAMED])) or 'no fields'}"
