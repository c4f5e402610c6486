"""The record of each example of a batch: its verdict, where it goes bad first and at which token, and by what cause.

A token of the example itself decides the verdict. Padding that goes bad beside it is said, and is the place where the
example goes bad first only if the example is sound without it. Where all of an example's tokens go bad in one module,
no token is named: attention inside of it may have carried the value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from ..model.load import Loaded
from ..observe.screen import blocks
from .batches import Batch, Captured, Example, Tokens, alone, captured, counted, fails, in_decoder
from .inside import Call, calls_of, first_of, maker_of

OUTPUT = "output"  # the place of a bad value that no captured layer has
EVERY = "every"  # the kind of token where all of an example's tokens go bad at once
KINDS = ("nan", "posinf", "neginf")
CAUSES = {
    "own": "alone too",
    "padding": "only with the padding that it has in its batch",
    "composition": "only in its batch: alone, with the same padding, it is good",
}
NO_PLACE: dict[str, Any] = {
    **dict.fromkeys(("layer", "layer_index", "module", "token_index", "token", "token_id", "token_kind")),
    **dict.fromkeys((*KINDS, "rows"), 0),
    "at_last": None,
    "logits": None,
}

Place = tuple[int, int]  # layer and column


@dataclass(frozen=True)
class Row:
    """One example of a batch. bad: (layer, seq), on the CPU; mask: (seq,), true on its own tokens. text, filling: the
    first bad place among its own tokens and in its padding.
    """

    number: int
    mask: Tensor
    bad: Tensor
    text: Optional[Place]
    filling: Optional[Place]


def skipped(example: Example, number: int, reason: str) -> dict[str, Any]:
    """The record of an example that has no answer."""
    found = _blank(example, number)
    found.update(verdict="skip", reason=reason)
    return found


def look(loaded: Loaded, tokens: Tokens, batch: Batch, seen: Captured, layers: list[str]) -> list[dict[str, Any]]:
    """A record for each example of a batch."""
    every = seen.bad_rows()
    rows = []
    for number, mask in enumerate(batch.own):
        bad = every[:, number]
        rows.append(Row(number, mask, bad, _first(bad & mask), _first(bad & ~mask)))
    places = [place for row in rows for place in (row.text, row.filling) if place is not None]
    wanted = sorted({layer for layer, _ in places} | ({len(layers) - 1} if places else set()))
    if not wanted and not bool(seen.output_bad.any()):
        return [_record(loaded, tokens, batch, seen, layers, row, (), {}) for row in rows]
    head = any(bool(seen.output_bad[row.number]) and row.text is None for row in rows)
    calls = calls_of(loaded.model, batch, layers, sorted({layer for layer, _ in places}), head)
    before = {call.module for call in calls if call.outside and bool(call.bad.any())}
    names = [*(layers[at] for at in wanted), *sorted(before - set(layers))]
    counts = counted(loaded.model, batch, names) if wanted else {}
    return [_record(loaded, tokens, batch, seen, layers, row, calls, counts) for row in rows]


def _first(bad: Tensor) -> Optional[Place]:
    """(layer, column) of the first bad row: bad is (layer, seq)."""
    found = bad.nonzero()
    return None if found.numel() == 0 else (int(found[0, 0]), int(found[0, 1]))


def _blank(example: Example, number: int) -> dict[str, Any]:
    """Every field of a record, with nothing known."""
    return {
        "index": example.index,
        "side": example.side,
        "text": None if example.withheld else example.text,
        **dict.fromkeys(("tokens", "token_ids", "padding", "padding_side")),
        "batch": number,
        **dict.fromkeys(("row", "verdict", "reason")),
        **NO_PLACE,
        "row_size": None,
        "alone": "not_run",
        "cause": None,
        "padding_rows_bad_in": [],
        "absmax": None,
    }


def _record(
    loaded: Loaded,
    tokens: Tokens,
    batch: Batch,
    seen: Captured,
    layers: list[str],
    row: Row,
    calls: Sequence[Call],
    counts: dict[str, Tensor],
) -> dict[str, Any]:
    mask = row.mask
    padding_only = (row.bad & ~mask).any(-1) & ~(row.bad & mask).any(-1)
    sizes = seen.size[:, row.number][:, mask]
    finite = sizes[torch.isfinite(sizes)]
    is_bad = row.text is not None or bool(seen.output_bad[row.number])
    example = batch.examples[row.number]
    found = _blank(example, batch.number)
    found.update(
        tokens=int(mask.sum()),
        token_ids=None if example.withheld else batch.input_ids[row.number].cpu()[mask].tolist(),
        padding=int((~mask).sum()),
        padding_side=None if bool(mask.all()) else batch.padding_side,
        row=row.number,
        verdict="bad" if is_bad else "good",
        row_size=seen.width,
        padding_rows_bad_in=[layers[at] for at in padding_only.nonzero().flatten().tolist()],
        absmax=float(finite.max()) if finite.numel() else None,
        reason="finite in every layer that was looked at",
    )
    if is_bad:
        found.update(_alone(loaded, batch, layers, row.number))
        if found["cause"] == "own" and not bool(mask.all()) and _padding_first(row, calls):
            found.update(_without_padding(loaded, tokens, batch, layers, row.number))
        else:
            found.update(_place(loaded, tokens, batch, seen, layers, row, calls, counts, found["cause"]))
        found["reason"] = _words(found)
    return found


def _without_padding(loaded: Loaded, tokens: Tokens, batch: Batch, layers: list[str], row: int) -> dict[str, Any]:
    """Where an example goes bad first by itself: beside it, its padding was bad before."""
    own = alone(batch, row, padded=False)
    (found,) = look(loaded, tokens, own, captured(loaded.model, own, layers), layers)
    return {key: found[key] for key in NO_PLACE}


def _place(
    loaded: Loaded,
    tokens: Tokens,
    batch: Batch,
    seen: Captured,
    layers: list[str],
    row: Row,
    calls: Sequence[Call],
    counts: dict[str, Tensor],
    cause: str,
) -> dict[str, Any]:
    """Where it goes bad first, and how much of it; tokens are counted from the first that is no padding.

    A module before the layers stands in a layer's place, without a number.
    """
    mask, of_padding = row.mask, cause == "padding" and _padding_first(row, calls)
    place = row.filling if of_padding else row.text
    if place is None:
        return _behind_the_layers(loaded, tokens, batch, seen, layers, row, calls)
    layer, column = place
    last, own = layers[-1], ~mask if of_padding else mask
    name = module = layers[layer]
    rows, decoder = row.bad[layer] & own, batch.decoder_ids is not None and in_decoder(name)
    inside = first_of(calls, row.number, row.bad[layer], own)
    if inside is not None:
        call, column = calls[inside[0]], inside[1]
        rows, decoder = call.bad[row.number] & own, call.decoder
        module = maker_of(loaded.model, call, row.number, column) or loaded.class_name
        name = name if (module + ".").startswith(name + ".") or not _is_outside(module, loaded) else module
    ids = batch.decoder_ids if decoder and batch.decoder_ids is not None else batch.input_ids
    found = {
        "layer": name,
        "layer_index": layer if name == layers[layer] else None,
        "module": module,
        **_figures(counts.get(name, counts[layers[layer]])[:, row.number][:, own]),
        "at_last": {"layer": last, **_figures(counts[last][:, row.number][:, mask])},
    }
    own_ids = ids[row.number].cpu()[own]
    if not of_padding and torch.equal(rows, own) and len(set(own_ids.tolist())) > 1:
        return {**found, "token_kind": EVERY}
    token = int(ids[row.number, column])
    kind = "padding" if of_padding else "special" if token in tokens.special else "text"
    withheld = batch.examples[row.number].withheld and kind == "text"
    return {
        **found,
        "token_index": column - int(mask.nonzero()[0, 0]),
        "token": None if withheld else tokens.word(token),
        "token_id": None if withheld else token,
        "token_kind": kind,
    }


def _is_outside(module: str, loaded: Loaded) -> bool:
    """Whether a module is outside of all layers, as the model itself is."""
    return not (module + ".").startswith(tuple(name + "." for name in blocks(loaded.model)))


def _behind_the_layers(
    loaded: Loaded, tokens: Tokens, batch: Batch, seen: Captured, layers: list[str], row: Row, calls: Sequence[Call]
) -> dict[str, Any]:
    """What makes the output bad where every layer is finite: named only if no layer was left out."""
    end = seen.ends[row.number]
    some = end.of == tokens.vocabulary and end.bad < end.of
    words = [tokens.word(at) for at in end.first] if some else []
    logits = {"bad": end.bad, "of": end.of, "first": list(end.first), "tokens": [word for word in words if word]}
    found: dict[str, Any] = {"layer": OUTPUT, "logits": logits}
    if layers[-1] != blocks(loaded.model)[-1]:
        return {**found, "logits": {**logits, "layers_left_out": True}}
    last = torch.zeros_like(row.mask)
    last[int(batch.last[row.number])] = True
    inside = first_of(calls, row.number, last, last)
    if inside is not None:
        found["module"] = maker_of(loaded.model, calls[inside[0]], row.number, inside[1]) or loaded.class_name
    return found


def _padding_first(row: Row, calls: Sequence[Call]) -> bool:
    """Whether the padding goes bad before the text does: in an earlier layer, or in an earlier module."""
    if row.filling is None or row.text is None or row.filling[0] != row.text[0]:
        return row.filling is not None and (row.text is None or row.filling[0] < row.text[0])
    bad = row.bad[row.text[0]]
    text, filling = (first_of(calls, row.number, bad, own) for own in (row.mask, ~row.mask))
    return text is not None and filling is not None and filling[0] < text[0]


def _figures(counts: Tensor) -> dict[str, int]:
    """Counts over tokens, from (3, tokens): how many values are bad, and in how many rows."""
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
    return bool(fails(loaded.model, batch, layers).any())


def _words(found: dict[str, Any]) -> str:
    """One sentence about a bad example."""
    cause = CAUSES[found["cause"]]
    if found["layer"] == OUTPUT:
        logits = found["logits"]
        of = "that was looked at is" if logits.get("layers_left_out") else "is"
        head = "" if found["module"] is None else f": {found['module']} gives them"
        more = " and others" if logits["bad"] > len(logits["tokens"]) else ""
        named = f": of {', '.join(map(repr, logits['tokens']))}{more}" if logits["tokens"] else ""
        count = f" ({logits['bad']:,} of {logits['of']:,}{named})"
        return f"bad logits though every layer {of} finite{head}{count}; {cause}"
    if found["token_kind"] == EVERY:
        return f"bad first in {found['module']}, at every token; {cause}"
    token = f"token {found['token_index']}" + (f" {found['token']!r}" if found["token"] is not None else "")
    return f"bad first in {found['module']} at {token} ({found['token_kind']}); {cause}"
