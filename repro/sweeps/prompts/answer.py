"""What the answers to many prompts amount to: counts, places, the verdict, and the lists of those that failed."""

import collections
import dataclasses
import math
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from repro.core import paths
from repro.core.answer import Answer
from repro.core.encoding import encode, number, replace
from repro.core.records import Kind, Outcome, Owner
from repro.core.sentences import BAD_LOGITS, EVERY, OUTPUT, many, sentence
from repro.core.sweep_answers import Counts, Place, Prompts, Skips
from repro.run.run import Request
from repro.sweeps.prompts.reasons import reasons
from repro.sweeps.prompts.records import PromptRecords
from repro.sweeps.prompts.searched import Corrections
from repro.sweeps.prompts.searched import sentence as of_the_search

SKIPPED = "skipped.jsonl"
SKIP_LIST = "skipped.txt"
COMPARED = 10_000
"""How many failing and how many passing examples are looked at for what tells them apart; of more, the first."""
KINDS_OF_SKIP = 1000
"""How many different reasons are counted: each may name its own token."""
SHOWN = 20
"""How many places, reasons and counts the answer has; the most frequent ones."""
At = tuple[str, str | None, str, str | None]
"""Layer, token, kind of token, and the module that gives bad logits."""
LOGITS = "logits"
NOT_KNOWN = "not known"


def concluded(folder: Path, kept: PromptRecords, answer: Answer, request: Request, found: Prompts) -> Answer:
    """The run's answer with what the examples amount to."""
    corrections = Corrections(found.searched)
    compared = _without_censored([corrections.of(record) for record in _write_skipped(folder, kept)])
    found = replace(found, why=reasons(compared, special_ids=found.special_ids))
    lost = set(found.pairs_lost)
    if lost:
        pairs = [{**item, "verdict": "bad" if item["index"] in lost else "good"} for item in compared]
        found = replace(found, lost_why=reasons(pairs, special_ids=found.special_ids))
    verdict, reason = _verdict(found, answer.reason)
    owner, kind = answer.owner, None
    if found.bad and not _in_the_file(found, answer):
        case = dataclasses.replace(request.case, prompts=())
        alone = dataclasses.replace(
            request, command="run", extra=(), case=case, ablations=True, reduce=True, deliver=True
        )
        again = f"{shlex.join(alone.argv())} --prompt TEXT"
        hint = f"To find the operator and the owner, run `{again}` with one of these prompts."
        owner, kind = Owner(None, hint), Kind.NONFINITE
    elif found.bad:
        kind = Kind.WEIGHTS
    elif answer.verdict is Outcome.BAD:  # by a step before: the prompts do not meet what it found, others may
        verdict, kind, reason = Outcome.BAD, answer.kind, f"{reason} But not all is well: {_whole(answer.reason)}"
    return replace(
        answer,
        verdict=verdict,
        reason=reason,
        headline=_headline(reason, found, answer),
        kind=kind,
        owner=owner,
        prompts=found,
    )


def _whole(reason: str) -> str:
    """A reason as a sentence."""
    return f"{sentence(reason).rstrip('.')}."


def _weights(answer: Answer) -> str | None:
    """What the weights step says, where it is bad."""
    return next((row.reason for row in answer.steps if row.step == "weights" and row.verdict is Outcome.BAD), None)


def _in_the_file(found: Prompts, answer: Answer) -> bool:
    """Whether each example that was searched fails by a bad value that the file holds."""
    origins = [sample.origin for sample in found.searched.samples] if found.searched else []
    held = [item is not None and item.mechanism == "bad_weights" for item in origins]
    return _weights(answer) is not None and bool(held) and all(held)


def _headline(reason: str, found: Prompts, answer: Answer) -> str:
    """The answer in sentences: how many, where, what the full search says, and the tensors that hold bad values."""
    said = [reason, found.sentence, found.searched.sentence if found.searched else ""]
    weights = _weights(answer)
    if weights is not None and found.bad:
        said.append(f"The weights: {_whole(weights)}")
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
        return Outcome.BAD, f"{found.bad:,} of {many(found.asked, 'example')} {'is' if found.bad == 1 else 'are'} bad."
    if found.asked < found.total:
        return Outcome.SKIP, f"{found.asked:,} of {many(found.total, 'example')} were run: {of_step}"
    if found.skip:
        why = found.skips[0]
        of = "" if why.examples == found.skip else f", {why.examples:,} of them"
        rest = f"; the other {found.good:,} are good" if found.good else ""
        return Outcome.SKIP, f"{found.skip:,} of {many(found.asked, 'example')} gave no answer{of}: {why.reason}{rest}."
    of_all = "The one example is" if found.good == 1 else f"All of the {found.good:,} examples are"
    return Outcome.GOOD, f"{of_all} finite in the layers that were looked at."


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
            if record["layer"] != OUTPUT:  # else no layer has any
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
