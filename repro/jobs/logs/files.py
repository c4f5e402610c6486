"""The files of ``--out``: every failure as a line of JSON, and the failed prompts as lists for people and programs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.core import paths
from repro.core.encoding import SCHEMA, encode, to_json
from repro.core.errors import EvidenceError
from repro.core.folders import check_unused
from repro.jobs.logs.answer import matched_prompts
from repro.jobs.logs.records import Failure, Prompt, Reading

RECORDS = "records.jsonl"
DOCUMENT = "logs.json"
SKIPPED = "skipped.txt"
SKIPPED_JSON = "skipped.jsonl"


def check_ours(folder: Path) -> None:
    """Refuse a folder of files that an earlier call has not written.

    Raises:
        UsageError: it is one.
    """
    if not (folder / DOCUMENT).exists():
        check_unused(folder, RECORDS, f"{RECORDS}.part", f"{DOCUMENT}.part")  # what one that was killed may leave


@contextlib.contextmanager
def records(folder: Path, logs: Sequence[str]) -> Iterator[Callable[[Failure], None]]:
    """Write a header, then each failure that is given, as it comes. Each has a "verdict", as the answers of a run have.

    Raises:
        EvidenceError: the file cannot be written.
    """
    path = folder / RECORDS
    beside = path.with_name(f"{RECORDS}.part")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(encode({"schema": SCHEMA, "record": "header", "logs": list(logs)}) + "\n")

            def give(failure: Failure) -> None:
                stream.write(_line(failure))

            yield give
        beside.replace(path)
    except OSError as error:
        raise EvidenceError(
            f"could not write {path}: {error.strerror}. Make room, or give another folder with --out."
        ) from error


def write(folder: Path, readings: Sequence[Reading], document: Mapping[str, Any]) -> None:
    """Write the answer, and the failed prompts of all logs, each once: one per line in ``skipped.txt``; in
    ``skipped.jsonl`` with their line breaks and the reasons.

    Raises:
        EvidenceError: they cannot be written.
    """
    found = _distinct(readings)
    lines = [
        {"text": prompts[0].text, "verdict": "bad", "reasons": [_reason(one) for one in prompts]}
        for prompts in found.values()
    ]
    paths.write(folder / DOCUMENT, encode(document, indent=1) + "\n")
    paths.write(folder / SKIPPED, "".join(f"{text}\n" for text in found))
    paths.write(folder / SKIPPED_JSON, "".join(f"{encode(line)}\n" for line in lines))


def _distinct(readings: Sequence[Reading]) -> dict[str, list[Prompt]]:
    """The failed prompts of all logs, each under a text that no other has: where truncated texts are the same, with the
    index.
    """
    named, matched = matched_prompts(readings)
    found: dict[str, list[Prompt]] = {}
    for name, prompts in named.items():
        for text, prompt in zip(matched.texts[name], prompts, strict=True):
            found.setdefault(text, []).append(prompt)
    return found


def _line(failure: Failure) -> str:
    verdict = "good" if failure.kind == "notice" else "bad"
    return encode({"record": "failure", "verdict": verdict, **to_json(failure)}) + "\n"


def _reason(prompt: Prompt) -> Mapping[str, Any]:
    first = to_json(prompt.first)
    keys = ("log", "line", "model", "rank", "index", "nan", "inf", "rows", "text_cut", "certain")
    return {**{key: first[key] for key in keys}, "times": prompt.times, "reason": prompt.first.said}
