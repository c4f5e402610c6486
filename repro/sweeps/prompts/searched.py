"""What the full search says of a few failing examples, against what was said of all: the search's place counts."""

from collections.abc import Mapping, Sequence
from typing import Any

from repro.core.sentences import EVERY, listed, named_mechanism, named_module
from repro.core.sweep_answers import FirstBad, Searched, SearchedExample

Key = tuple[str | None, str | None, str | None]


class Corrections:
    """Where the search knows another place, or a token that nobody else knew: that, for all that fail in the same way.

    The examples of one way of failing have the module, the kind of token and the cause in common.
    """

    def __init__(self, searched: Searched | None) -> None:
        by_key: dict[Key, list[SearchedExample]] = {}
        for sample in searched.samples if searched else ():
            if sample.found is not None:
                by_key.setdefault(_key_of(sample.said), []).append(sample)
        self._found = {key: _corrected(samples) for key, samples in by_key.items() if _is_news(samples)}

    def of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record with the place that counts."""
        if not self._found or record.get("verdict") != "bad":
            return dict(record)
        module = record.get("module") or record.get("layer")
        found = self._found.get((module, record.get("token_kind"), record.get("cause")))
        return dict(record) if found is None else {**record, **found}


def _key_of(said: FirstBad) -> Key:
    return said.module or said.layer, said.token_kind, said.cause


def _is_news(samples: Sequence[SearchedExample]) -> bool:
    return any(not sample.agrees or sample.said.token_kind == EVERY for sample in samples)


def _corrected(samples: Sequence[SearchedExample]) -> dict[str, Any]:
    """What all samples of one way of failing have in common; what differs among them is not known of the others."""
    places = [sample.found for sample in samples if sample.found is not None]
    layers = list(dict.fromkeys(place.layer for place in places))
    modules, tokens = {place.module for place in places}, {(place.token, place.token_kind) for place in places}
    token, kind = tokens.pop() if len(tokens) == 1 else (None, None)
    return {
        "layer": " or ".join(layers),
        "layer_index": None,
        "module": modules.pop() if len(modules) == 1 else None,
        "token": token,
        "token_kind": kind or samples[0].said.token_kind,
        "token_id": None,
        "token_index": None,
    }


def sentence(searched: Searched) -> str:
    """How many were searched, and whether it says the same."""
    if not searched.answered:
        why = searched.samples[0].reason if searched.samples else "none could be run"
        return f"The full search gave no answer on {_many(searched.asked)}: {why.rstrip('.')}."
    where = listed(list(dict.fromkeys(_place(sample) for sample in searched.samples if sample.found is not None)))
    of = _many(searched.answered)
    if searched.agreed == searched.answered:
        return f"The full search, run on {of}, says the same: {where}."
    if not searched.agreed:
        return (
            f"That is what the full search says, run on {of}: {where}; the pass over all of them named another place."
        )
    return f"The full search, run on {of}, says the same of {searched.agreed}; in all: {where}."


def _many(count: int) -> str:
    return "one of them" if count == 1 else f"{count} of them"


def _place(sample: SearchedExample) -> str:
    """``overflow in model.layers.7 (aten.add.Tensor, modeling_gemma3.py:416)``."""
    origin = sample.origin
    if origin is None:
        return "" if sample.found is None else sample.found.layer
    named = f"{named_mechanism(origin, None)} in {named_module(origin)}"
    if origin.tensor:
        return f"{named}: {origin.tensor}" + (f" at {list(origin.tensor_index)}" if origin.tensor_index else "")
    behind = ", ".join(part for part in (origin.op, origin.source) if part)
    token = "" if sample.found is None or sample.found.token is None else f" at {sample.found.token!r}"
    return f"{named}{token}" + (f" ({behind})" if behind else "")
