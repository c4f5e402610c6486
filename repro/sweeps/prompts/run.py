"""Many prompts in one run: the file read, the batches run, each answer kept as it comes, and what they amount to.

Memory does not grow with the number of prompts: the file is streamed, the kit keeps one batch, and of the answers only
what is counted stays.
"""

import collections
import dataclasses
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from repro.core import paths
from repro.core.answer import Answer
from repro.core.encoding import encode, number, replace
from repro.core.errors import UsageError
from repro.core.folders import Claim, claim
from repro.core.locks import folder_held
from repro.core.records import Kind, Outcome, Owner
from repro.core.sentences import BAD_LOGITS, EVERY, OUTPUT, sentence
from repro.core.sweep_answers import Counts, Place, Prompts, Skips
from repro.engine.runner import Listener
from repro.jobs.prompt_files import asked_examples, sha256
from repro.run import output
from repro.run.run import Request, Result, run_into
from repro.sweeps.prompts.reasons import reasons
from repro.sweeps.prompts.records import PromptRecords
from repro.sweeps.prompts.searched import Corrections
from repro.sweeps.prompts.searched import sentence as of_the_search

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
At = tuple[str, str | None, str, str | None]
"""Layer, token, kind of token, and the module that gives bad logits."""
LOGITS = "logits"
NOT_KNOWN = "not known"
SHOWN = 20
"""How many places, reasons and counts the answer has; the most frequent ones."""


class Header(Claim, frozen=True, kw_only=True):
    """The content of ``prompts.json``: of which file, with how many examples, the folder's answers are."""

    total: int
    sha256: str


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
    chat_template: bool = True

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
        words += [] if self.chat_template else ["--no-chat-template"]
        return (*words, *(["--vectors", str(self.vectors)] if self.vectors else []))


def run(asked: Asked, listener: Listener) -> Result:
    """Run the prompts, or resume where an earlier run into the folder stopped.

    Raises:
        UsageError: the file cannot be read or holds no prompt, or the folder holds another question or was begun with
            other prompts.
        EvidenceError, CellError, Stopped: as a run of one prompt.
    """
    request = dataclasses.replace(asked.request, extra=asked.argv())
    total = _checked(asked)
    folder = paths.make(request.out or paths.run_folder(request.case, datetime.now(UTC), "prompts"))
    with folder_held(folder, request.words, listener.note):
        return _run(folder, asked, request, total, listener)


def _run(folder: Path, asked: Asked, request: Request, total: int, listener: Listener) -> Result:
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
        "answers": str(folder / RECORDS),
    }
    kept = PromptRecords(folder / RECORDS)
    if kept.dropped:
        listener.note(f"the last line of {RECORDS} was cut off and is dropped: its batch is asked again")
    result = run_into(folder, dataclasses.replace(request, batches=batches), listener, kept.append)
    found = summary(kept, result.answer.prompts or Prompts())
    if not found.asked:
        return result  # no model, or no layers: nothing was run
    answer = _conclude(folder, kept, result.answer, request, replace(found, total=total))
    return Result(folder, output.write(folder, answer, whole=request.deliver))


def _checked(asked: Asked) -> int:
    """How many examples the file has. Reading it once in front costs little, and a wrong line shows before the load."""
    return sum(1 for _ in _examples(asked))


def _examples(asked: Asked) -> Iterator[dict[str, Any]]:
    return asked_examples(asked.file, asked.field, pairs=asked.pairs, chat_template=asked.chat_template)


def _claim(folder: Path, asked: Asked, request: Request, total: int) -> None:
    """Take the folder for this question; one that is resumed must be about the same prompts."""
    header = Header(command=request.argv(), total=total, sha256=sha256(asked.file))
    before = claim(folder / HEADER, header, "the prompts of")
    if before is not None and before.sha256 != header.sha256:
        raise UsageError(f"{asked.file} has changed since --out {folder} was begun with it. Give another folder.")


def _write_examples(asked: Asked, folder: Path) -> None:
    if (folder / EXAMPLES).exists():
        return
    beside = folder / f"{EXAMPLES}.part"
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.writelines(encode(item) + "\n" for item in _examples(asked))
        beside.replace(folder / EXAMPLES)
    except OSError as error:
        raise paths.not_written(beside, error) from error


def _conclude(folder: Path, kept: PromptRecords, answer: Answer, request: Request, found: Prompts) -> Answer:
    """The run's answer with what the examples amount to."""
    corrections = Corrections(found.searched)
    compared = _without_censored([corrections.of(record) for record in _write_skipped(folder, kept)])
    found = replace(found, why=reasons(compared, special_ids=found.special_ids))
    lost = set(found.pairs_lost)
    if lost:
        pairs = [{**item, "verdict": "bad" if item["index"] in lost else "good"} for item in compared]
        found = replace(found, lost_why=reasons(pairs, special_ids=found.special_ids))
    verdict, reason = _verdict(found, answer.reason)
    owner = answer.owner
    if verdict is Outcome.BAD:
        case = dataclasses.replace(request.case, prompts=())
        alone = dataclasses.replace(
            request, command="run", extra=(), case=case, ablations=True, reduce=True, deliver=True
        )
        again = f"{shlex.join(alone.argv())} --prompt TEXT"
        hint = f"To find the operator and the owner, run `{again}` with one of these prompts."
        owner = Owner(None, hint)
    return replace(
        answer,
        verdict=verdict,
        reason=reason,
        headline=_headline(reason, found, answer),
        kind=Kind.NONFINITE if verdict is Outcome.BAD else None,
        owner=owner,
        prompts=found,
    )


def _headline(reason: str, found: Prompts, answer: Answer) -> str:
    """The answer in sentences: how many, where, what the full search says, and the tensors that hold bad values."""
    said = [reason, found.sentence, found.searched.sentence if found.searched else ""]
    weights = next((row for row in answer.steps if row.step == "weights"), None)
    if weights is not None and weights.verdict is Outcome.BAD:
        without = "" if found.bad else " No prompt of the file meets it."
        said.append(f"The weights: {sentence(weights.reason)}{without}")
    return " ".join(filter(None, said))


def _write_skipped(folder: Path, kept: PromptRecords) -> list[dict[str, Any]]:
    """The lists of those that are not good. Returns the examples that are compared.

    Raises:
        EvidenceError: they cannot be written.
    """
    try:
        return _skipped(folder, kept)
    except OSError as error:
        raise paths.not_written(folder / SKIPPED, error) from error


def _skipped(folder: Path, kept: PromptRecords) -> list[dict[str, Any]]:
    compared: list[dict[str, Any]] = []
    room = {"good": COMPARED, "bad": COMPARED}
    with (
        (folder / SKIPPED).open("w", encoding="utf-8") as skipped,
        (folder / SKIP_LIST).open("w", encoding="utf-8", errors="backslashreplace") as names,
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


def _verdict(found: Prompts, of_step: str) -> tuple[Outcome, str]:
    """Verdict and reason of the whole. ``of_step``: what the step says that ran them."""
    if found.bad:
        return Outcome.BAD, f"{found.bad:,} of {found.asked:,} examples are bad."
    if found.asked < found.total:
        return Outcome.SKIP, f"{found.asked:,} of {found.total:,} examples were run: {of_step}"
    if found.skip:
        why = found.skips[0]
        of = "" if why.examples == found.skip else f", {why.examples:,} of them"
        rest = f"; the other {found.good:,} are good" if found.good else ""
        return Outcome.SKIP, f"{found.skip:,} of {found.asked:,} examples gave no answer{of}: {why.reason}{rest}."
    return Outcome.GOOD, f"All of the {found.good:,} examples are finite in the layers that were looked at."


def summary(records: Iterable[Mapping[str, Any]], step: Prompts | None = None) -> Prompts:
    """Counts over all examples, in the order of the file: verdicts, where the bad ones go bad first, by what cause, how
    many values, which pairs are lost; beside what the step itself said.
    """
    verdicts: collections.Counter[str] = collections.Counter()
    places: collections.Counter[At] = collections.Counter()
    corrections = Corrections(step.searched if step else None)
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
            places[_at(corrections.of(record))] += 1
            causes[str(record.get("cause"))] += 1
            at_last = record.get("at_last") or record
            count = sum(int(at_last.get(key) or 0) for key in ("nan", "posinf", "neginf"))
            rows[(count, int(at_last.get("rows") or 0), int(record.get("row_size") or 0))] += 1
    searched = step.searched if step else None
    return replace(
        step or Prompts(),
        searched=None if searched is None else replace(searched, sentence=of_the_search(searched)),
        asked=verdicts.total(),
        good=verdicts["good"],
        bad=verdicts["bad"],
        skip=verdicts["skip"],
        places=tuple(
            Place(layer=layer, token=token, kind=kind, examples=times, module=module)
            for (layer, token, kind, module), times in places.most_common(SHOWN)
        ),
        causes=dict(causes),
        skips=tuple(Skips(reason=reason, examples=times) for reason, times in skips.most_common(SHOWN)),
        counts=tuple(
            Counts(values=values, rows=count, row_size=size, whole=values == count * size, examples=times)
            for (values, count, size), times in rows.most_common(SHOWN)
        ),
        padding_rows_bad_in=dict(padding),
        pairs=pairs,
        pairs_lost=tuple(lost),
        sentence=_most_often(places),
    )


def _at(record: Mapping[str, Any]) -> At:
    """Where a bad example goes bad first: layer, token, kind of token; of bad logits the module that gives them."""
    layer, kind = str(record["layer"]), record.get("token_kind")
    if layer == OUTPUT:
        return layer, None, LOGITS, record.get("module")
    return layer, record.get("token"), str(kind or NOT_KNOWN), None


def _most_often(places: collections.Counter[At]) -> str:
    """Where most examples go bad first; empty where none does."""
    if not places:
        return ""
    ((layer, token, kind, module), times), total = places.most_common(1)[0], places.total()
    each, alone = "Each of them" if times == total else f"{times:,} of them", times in (1, total)
    if layer == OUTPUT:
        said = f"{each} {'has' if alone else 'have'} {BAD_LOGITS}"
        return said + (f": {module} gives them." if module else ".")
    at = {EVERY: ", at every token"}.get(kind, "") if token is None else f" at {token!r} ({kind})"
    return f"{each} {'goes' if alone else 'go'} bad first in {layer}{at}."


def refuse_script(model: str) -> None:
    """Raises UsageError: a script has no layers to look into."""
    raise UsageError(f"{model} is a script: it runs its own prompts. Give a model.")
