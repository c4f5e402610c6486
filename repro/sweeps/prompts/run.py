"""Many prompts in one run: the file read, the batches run, each answer kept as it comes, and what they amount to.

Memory does not grow with the number of prompts: the file is streamed, the kit keeps one batch, and of the answers only
what is counted stays.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from repro.core import paths
from repro.core.encoding import encode, number
from repro.core.errors import EvidenceError, UsageError
from repro.engine.runner import Listener
from repro.jobs.prompt_files import asked_examples
from repro.run import output
from repro.run.run import Request, Result
from repro.run.run import run as run_steps
from repro.sweeps.prompts.reasons import reasons
from repro.sweeps.prompts.records import PromptRecords

HEADER = "prompts.json"
EXAMPLES = "examples.jsonl"
RECORDS = "prompts.jsonl"
SKIPPED = "skipped.jsonl"
SKIP_LIST = "skipped.txt"
VECTORS = "vectors.safetensors"
COMPARED = 10_000
"""How many failing and how many passing examples are looked at for what tells them apart; of more, the first."""
KINDS_OF_SKIP = 1000
"""How many different reasons are counted: each may name its own token."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which prompts are run, and how. ``request`` has the model and the settings."""

    request: Request
    file: Path
    field: str | None = None
    pairs: bool = False
    layers: tuple[int, ...] = ()
    batch_size: int = 8
    max_length: int | None = None
    padding_side: str | None = None
    vectors: Path | None = None
    ablations: bool = False

    def argv(self) -> tuple[str, ...]:
        """What of the command line says so, behind MODEL."""
        words = [str(self.file)]
        named = {"--field": self.field, "--max-length": self.max_length, "--padding-side": self.padding_side}
        named["--batch-size"] = self.batch_size
        for option, value in named.items():
            words += [] if value is None else [option, str(value)]
        for layer in self.layers:
            words += ["--layer", str(layer)]
        words += ["--pairs"] if self.pairs else []
        words += ["--ablations"] if self.ablations else []
        return (*words, *(["--vectors", str(self.vectors)] if self.vectors else []))


def run(asked: Asked, listener: Listener) -> Result:
    """Run the prompts, or go on where an earlier run into the folder stopped.

    Raises:
        UsageError: the file cannot be read or holds no prompt, or the folder holds another question or was begun with
            other prompts.
        EvidenceError, CellError, Stopped: as a run of one prompt.
    """
    request = dataclasses.replace(asked.request, extra=asked.argv())
    place = request.out or paths.run_folder(request.case, datetime.now(UTC), "prompts")
    total = _checked(asked)
    folder = paths.make(place)
    _claim(folder, asked, request, total)
    _write_examples(asked, folder)
    vectors = None if asked.vectors is None else str(asked.vectors.absolute())
    batches = {
        "file": str(folder / EXAMPLES),
        "total": total,
        "batch_size": asked.batch_size,
        "max_length": asked.max_length,
        "padding_side": asked.padding_side,
        "layers": list(asked.layers) or None,
        "vectors": vectors,
        "ablations": asked.ablations,
    }
    kept = PromptRecords(folder / RECORDS)
    result = run_steps(dataclasses.replace(request, out=place, batches=batches), listener, kept.append)
    answer = summary(kept)
    if not answer["asked"]:
        return result  # no model, or no layers: nothing was run
    return _conclude(folder, kept, result, request, {**answer, "total": total})


def _checked(asked: Asked) -> int:
    """How many examples the file has. Reading it once in front costs little, and a wrong line shows before the load."""
    return sum(1 for _ in asked_examples(asked.file, asked.field, pairs=asked.pairs))


def _claim(folder: Path, asked: Asked, request: Request, total: int) -> None:
    """Take the folder for this question; one that is gone on with must be about the same prompts."""
    digest = paths.sha256(asked.file)
    header = folder / HEADER
    begun = paths.claim(header, request.argv(), "the prompts of", total=total, sha256=digest)
    if begun and paths.read_object(header).get("sha256") != digest:
        raise UsageError(f"{asked.file} has changed since --out {folder} was begun with it. Give another folder.")


def _write_examples(asked: Asked, folder: Path) -> None:
    if (folder / EXAMPLES).exists():
        return
    beside = folder / f"{EXAMPLES}.part"
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.writelines(encode(item) + "\n" for item in asked_examples(asked.file, asked.field, pairs=asked.pairs))
        beside.replace(folder / EXAMPLES)
    except OSError as error:
        raise EvidenceError(f"could not write {beside}: {error.strerror}. Make room or give another --out.") from error


def _conclude(folder: Path, kept: PromptRecords, result: Result, request: Request, answer: dict[str, Any]) -> Result:
    """What the examples amount to, into the answer and the report."""
    compared = _without_censored(_write_skipped(folder, kept))
    step = result.document.get("prompts") or {}
    special = step.get("special_ids") or ()
    section = {**step, **answer, "why": reasons(compared, special_ids=special).as_json(), "lost_why": None}
    lost = set(answer["pairs_lost"])
    if lost:
        pairs = [{**item, "verdict": "bad" if item["index"] in lost else "good"} for item in compared]
        section["lost_why"] = reasons(pairs, special_ids=special).as_json()
    verdict, reason = _verdict(answer, str(result.document.get("reason")))
    headline = f"{reason} {answer['sentence']}".strip()
    content = {**result.document, "verdict": verdict, "reason": reason, "headline": headline, "prompts": section}
    content["kind"] = "nonfinite" if verdict == "bad" else None
    if verdict == "bad":
        hint = (
            f"Which operator it is, and whose fault: `repro {request.model} --prompt TEXT` with one of these prompts."
        )
        content["owner"] = {"project": None, "reason": hint, "advice": None}
    return Result(folder, output.write(folder, content, whole=request.deliver))


def _write_skipped(folder: Path, kept: PromptRecords) -> list[dict[str, Any]]:
    """The lists of those that are not good. Returns the examples that are compared."""
    compared: list[dict[str, Any]] = []
    room = {"good": COMPARED, "bad": COMPARED}
    with (
        (folder / SKIPPED).open("w", encoding="utf-8") as skipped,
        (folder / SKIP_LIST).open("w", encoding="utf-8") as names,
    ):
        for record in kept:
            verdict = record["verdict"]
            if room.get(verdict, 0) > 0:
                room[verdict] -= 1
                compared.append({key: value for key, value in record.items() if key not in ("text", "reason")})
            if verdict != "good":
                why = {key: record.get(key) for key in ("index", "side", "text", "verdict", "reason")}
                skipped.write(encode(why) + "\n")
                text = record.get("text")
                names.write((f"index {record['index']}" if text is None else " ".join(text.split())) + "\n")
    return compared


def _without_censored(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The examples without their greatest activations, where those of the failing ones are the smaller.

    A failing example has finite activations only in front of its fault, so that it reaches less than it would have.
    That it reaches more says something in spite of this; that it reaches less says nothing.
    """
    reached: dict[str, list[float]] = {"good": [], "bad": []}
    for record in records:
        value = number(record.get("absmax"))
        if value is not None and math.isfinite(value):
            reached[record["verdict"]].append(value)
    if reached["good"] and reached["bad"] and median(reached["bad"]) < median(reached["good"]):
        return [{**record, "absmax": None} for record in records]
    return records


def _verdict(answer: Mapping[str, Any], of_step: str) -> tuple[str, str]:
    """Verdict and reason of the whole. ``of_step``: what the step says that ran them."""
    asked, good, bad, skip = (answer[name] for name in ("asked", "good", "bad", "skip"))
    if bad:
        return "bad", f"{bad:,} of {asked:,} examples are bad."
    if asked < answer["total"]:
        return "skip", f"{asked:,} of {answer['total']:,} examples were run: {of_step}"
    if skip:
        why = answer["skips"][0]
        of = "" if why["examples"] == skip else f", {why['examples']:,} of them"
        rest = f"; the other {good:,} are good" if good else ""
        return "skip", f"{skip:,} of {asked:,} examples gave no answer{of}: {why['reason']}{rest}."
    return "good", f"All of the {good:,} examples are finite in the layers that were looked at."


def summary(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts over all examples, in the order of the file: verdicts, where the bad ones go bad first, by what cause, how
    many values, which pairs are lost.
    """
    verdicts: collections.Counter[str] = collections.Counter()
    places: collections.Counter[tuple[str, str, str]] = collections.Counter()
    causes: collections.Counter[str] = collections.Counter()
    rows: collections.Counter[tuple[int, int, int]] = collections.Counter()
    padding: collections.Counter[str] = collections.Counter()
    skips: collections.Counter[str] = collections.Counter()
    lost: list[int] = []
    pairs, pair = 0, None
    for record in records:
        verdicts[record["verdict"]] += 1
        if record.get("side") is not None:
            pairs += record["index"] != pair
            pair = record["index"]
            lost += [pair] if record["verdict"] != "good" and pair not in lost[-1:] else []
        padding.update(record.get("padding_rows_bad_in") or ())
        if record["verdict"] == "skip" and (record["reason"] in skips or len(skips) < KINDS_OF_SKIP):
            skips[record["reason"]] += 1
        if record["verdict"] == "bad":
            places[(str(record["layer"]), str(record.get("token")), str(record.get("token_kind")))] += 1
            causes[str(record.get("cause"))] += 1
            at_last = record.get("at_last") or record
            count = sum(int(at_last.get(key) or 0) for key in ("nan", "posinf", "neginf"))
            rows[(count, int(at_last.get("rows") or 0), int(record.get("row_size") or 0))] += 1
    top = places.most_common(1)
    sentence = ""
    if top:
        (layer, token, kind), times = top[0]
        each = "Each of them" if times == verdicts["bad"] else f"{times:,} of them"
        sentence = f"{each} goes bad first in {layer}" + ("" if token == "None" else f" at {token!r} ({kind})") + "."
    return {
        "asked": sum(verdicts.values()),
        **{name: verdicts[name] for name in ("good", "bad", "skip")},
        "places": [
            {"layer": layer, "token": None if token == "None" else token, "kind": kind, "examples": times}
            for (layer, token, kind), times in places.most_common(20)
        ],
        "causes": dict(causes),
        "skips": [{"reason": reason, "examples": times} for reason, times in skips.most_common(20)],
        "counts": [
            {"values": values, "rows": count, "row_size": size, "whole": values == count * size, "examples": times}
            for (values, count, size), times in rows.most_common(20)
        ],
        "padding_rows_bad_in": dict(padding),
        "pairs": pairs,
        "pairs_lost": lost,
        "sentence": sentence,
    }


def refuse_script(model: str) -> None:
    """Raises UsageError: a script has no layers to look into."""
    raise UsageError(f"{model} is a script: it runs its own prompts. Give a model.")
