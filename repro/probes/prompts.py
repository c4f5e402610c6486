"""Many prompts in batches: which fail, in which layer and token first, alone too or only in their batch.

Each batch is announced before it is run. A process that goes on behind one that died leaves out the batches that are
done, and says of the examples of the one that killed it that they were not answered.
"""

import json
from collections.abc import Iterator
from typing import Any, Optional

import torch
from torch import Tensor

from .batches import Batch, Captured, Example, Tokens, alone, captured, counted
from .build import CannotLoad
from .inputs import load_tokenizer
from .load import Loaded
from .mitigations import MOST, measure
from .screen import blocks
from .steering import Steering
from .wire import Emitter

STEP = "prompts"
BATCH_SIZE = 8
OUTPUT = "output"  # the place of a bad value that no captured layer has
KINDS = ("nan", "posinf", "neginf")

Outcome = tuple[str, str, Optional[dict[str, Any]]]


def examples_in(path: str) -> Iterator[Example]:
    """The examples of a file of the host's: one JSON object a line."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            data = json.loads(line)
            ids = data.get("ids")
            yield Example(data["index"], data.get("side"), data.get("text"), None if ids is None else tuple(ids))


def run(
    loaded: Loaded, options: dict[str, Any], emitter: Emitter, known: dict[str, Optional[bool]], trust_remote_code: bool
) -> Outcome:
    """Verdict, reason and payload of the prompts step; a record for each example goes out as an event.

    options: file (path of the examples), total, batch_size, max_length, padding_side, layers (numbers, or None for
    all), vectors (path, or None). known: batches of earlier processes.
    """
    tokenizer = load_tokenizer(loaded.source.folder, trust_remote_code)
    layers = chosen_layers(loaded, options.get("layers"))
    tokens = Tokens(loaded, tokenizer, options.get("max_length"), options.get("padding_side"))
    steering = Steering(layers) if options.get("vectors") else None
    counts = {"good": 0, "bad": 0, "skip": 0}
    failing: list[tuple[Example, dict[str, Any]]] = []
    for number, examples in enumerate(_batched(options["file"], int(options.get("batch_size") or BATCH_SIZE))):
        name = f"batch {number}"
        if known.get(name) and steering is None and not options.get("mitigate"):
            continue
        if name in known and not known[name]:
            records = [_died(example, number, row) for row, example in enumerate(examples)]
        else:
            emitter.event("trial", step=STEP, trial=name, holds=None)
            if tokenizer is None and any(example.ids is None for example in examples):
                raise CannotLoad("the model's folder has no tokenizer, so a text cannot be turned into token ids")
            batch = tokens.batch(number, examples)
            seen = captured(loaded.model, batch, layers, residual=steering is not None)
            records = look(loaded, tokens, batch, seen, layers)
            if steering is not None:
                steering.take(batch.examples, [record["verdict"] for record in records], seen)
        for record in records:
            counts[record["verdict"]] += 1
            if options.get("mitigate") and record["verdict"] == "bad" and len(failing) < MOST:
                failing.append((examples[record["row"]], record))
            emitter.event("example", step=STEP, record=record)
        emitter.event("trial", step=STEP, trial=name, holds=True)
        emitter.progress(min((number + 1) * len(examples), options["total"]), options["total"], "prompts")
    payload: dict[str, Any] = {"layers": layers, "padding_side": tokens.side, "pad_token_id": tokens.pad, **counts}
    payload["special_ids"] = sorted(tokens.special)
    if failing:
        payload["mitigations"] = measure(loaded, tokenizer, failing, options, layers, emitter)
        payload["mitigated"] = len(failing)
    if steering is not None:
        payload["vectors"] = steering.save(options["vectors"])
    failed, asked = counts["bad"], sum(counts.values())
    if failed:
        return "bad", f"{failed:,} of {asked:,} examples are bad", payload
    return ("good" if counts["good"] or not asked else "skip"), f"{counts['good']:,} of {asked:,} are good", payload


def chosen_layers(loaded: Loaded, numbers: Optional[list[int]]) -> list[str]:
    """The paths of the layers to look at. A negative number counts from the last one.

    Raises:
        CannotLoad: there is no such layer.
    """
    every = blocks(loaded.model)
    if not every:
        raise CannotLoad(f"{loaded.class_name} has no repeated layers, so there is no residual stream to look at")
    if not numbers:
        return every
    wrong = [number for number in numbers if not -len(every) <= number < len(every)]
    if wrong:
        raise CannotLoad(f"there is no layer {wrong[0]}: the model has {len(every)}, 0 to {len(every) - 1}")
    return [every[number] for number in sorted({number % len(every) for number in numbers})]


def _batched(path: str, size: int) -> Iterator[list[Example]]:
    held: list[Example] = []
    for example in examples_in(path):
        held.append(example)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


def look(loaded: Loaded, tokens: Tokens, batch: Batch, seen: Captured, layers: list[str]) -> list[dict[str, Any]]:
    """A record for each example of a batch."""
    bad, real = ~torch.isfinite(seen.size), batch.mask.bool().cpu()
    firsts = [_first(bad[:, row] & real[row]) for row in range(len(batch.examples))]
    wanted = sorted({place[0] for place in firsts if place is not None} | ({len(layers) - 1} if bad.any() else set()))
    counts = counted(loaded.model, batch, [layers[at] for at in wanted]) if wanted else {}
    return [_record(loaded, tokens, batch, seen, layers, row, place, counts) for row, place in enumerate(firsts)]


def _first(bad: Tensor) -> Optional[tuple[int, int]]:
    """(layer, token) of the first bad row: bad is (layer, seq)."""
    found = bad.nonzero()
    return None if found.numel() == 0 else (int(found[0, 0]), int(found[0, 1]))


def _record(
    loaded: Loaded,
    tokens: Tokens,
    batch: Batch,
    seen: Captured,
    layers: list[str],
    row: int,
    place: Optional[tuple[int, int]],
    counts: dict[str, Tensor],
) -> dict[str, Any]:
    example, mask = batch.examples[row], batch.mask[row].bool().cpu()
    ids = batch.input_ids[row].cpu()
    output_bad = place is None and bool(seen.output_bad[row])
    bad_rows = ~torch.isfinite(seen.size[:, row])
    padding_only = (bad_rows & ~mask).any(-1) & ~(bad_rows & mask).any(-1)
    finite = seen.size[:, row][:, mask]
    finite = finite[torch.isfinite(finite)]
    found: dict[str, Any] = {
        "index": example.index,
        "side": example.side,
        "text": example.text,
        "tokens": int(mask.sum()),
        "token_ids": ids[mask].tolist(),
        "padding": int((~mask).sum()),
        "padding_side": batch.padding_side if not bool(mask.all()) else None,
        "batch": batch.number,
        "row": row,
        "verdict": "bad" if place is not None or output_bad else "good",
        "layer": None,
        "layer_index": None,
        **dict.fromkeys(("token_index", "token", "token_id", "token_kind")),
        **dict.fromkeys((*KINDS, "rows"), 0),
        "row_size": seen.width,
        "at_last": None,
        "alone": "not_run",
        "cause": None,
        "padding_rows_bad_in": [layers[at] for at in padding_only.nonzero().flatten().tolist()],
        "absmax": float(finite.max()) if finite.numel() else None,
        "reason": "finite in every layer that was looked at",
    }
    if found["verdict"] == "good":
        return found
    found.update(_place(tokens, ids, mask, layers, place, counts, row))
    found.update(_alone(loaded, batch, layers, row))
    found["reason"] = _words(found)
    return found


def _place(
    tokens: Tokens,
    ids: Tensor,
    mask: Tensor,
    layers: list[str],
    place: Optional[tuple[int, int]],
    counts: dict[str, Tensor],
    row: int,
) -> dict[str, Any]:
    """Where it goes bad first, and how much of it; tokens are counted from the first that is no padding."""
    if place is None:
        return {"layer": OUTPUT}
    layer, token = place
    first = int(mask.nonzero()[0, 0])
    token_id = int(ids[token])
    return {
        "layer": layers[layer],
        "layer_index": layer,
        "token_index": token - first,
        "token": tokens.word(token_id),
        "token_id": token_id,
        "token_kind": "special" if token_id in tokens.special else "text",
        **_figures(counts[layers[layer]][:, row][:, mask]),
        "at_last": {"layer": layers[-1], **_figures(counts[layers[-1]][:, row][:, mask])},
    }


def _figures(counts: Tensor) -> dict[str, int]:
    """Counts over the tokens of one example, from (3, seq): how many values are bad, and in how many rows."""
    rows = counts.sum(0) > 0
    return {**{kind: int(counts[at].sum()) for at, kind in enumerate(KINDS)}, "rows": int(rows.sum())}


def _alone(loaded: Loaded, batch: Batch, layers: list[str], row: int) -> dict[str, Any]:
    """Whether the example fails by itself; if not, whether the padding that it had suffices."""
    own = alone(batch, row, padded=False)
    if (len(batch.examples) == 1 and bool(batch.mask.all())) or _is_bad(loaded, own, layers):
        return {"alone": "bad", "cause": "own"}
    padded = alone(batch, row, padded=True)
    return {"alone": "good", "cause": "padding" if _is_bad(loaded, padded, layers) else "composition"}


def _is_bad(loaded: Loaded, batch: Batch, layers: list[str]) -> bool:
    seen = captured(loaded.model, batch, layers)
    rows = ~torch.isfinite(seen.size) & batch.mask.bool().cpu()
    return bool(rows.any()) or bool(seen.output_bad.any())


def _words(found: dict[str, Any]) -> str:
    """One sentence about a bad example."""
    causes = {
        "own": "alone too",
        "padding": "only with the padding that it has in its batch",
        "composition": "only in its batch: alone, with the same padding, it is good",
    }
    if found["layer"] == OUTPUT:
        return f"the output is not finite, though every layer is; {causes[found['cause']]}"
    token = f"token {found['token_index']}" + (f" {found['token']!r}" if found["token"] is not None else "")
    return f"bad first in {found['layer']} at {token} ({found['token_kind']}); {causes[found['cause']]}"


def _died(example: Example, number: int, row: int) -> dict[str, Any]:
    return {
        "index": example.index,
        "side": example.side,
        "text": example.text,
        "batch": number,
        "row": row,
        "verdict": "skip",
        "reason": "the process died in this batch",
    }
