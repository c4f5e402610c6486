"""What is said of many examples, put to the full search on a few of them: the one that ``bisect`` makes.

The pass over all examples looks at modules. The full search walks back from the output, operator by operator, and
confirms its answer by a repair. Where it names another place, its place is the answer.
"""

from collections.abc import Sequence
from typing import Any, Callable, Optional

from ..model.forward import look
from ..model.inputs import Inputs
from ..model.load import Loaded
from ..origin.search import bisect
from ..protocol.failures import one_line
from .alike import Failing, Group, place_of
from .answers import EVERY, KINDS
from .batches import Batch, Example, Tokens, given_to

SAMPLED = 2  # groups of which one is searched; of an only group, and of one with which the search disagrees, so many
# What is told of an origin where prompts are withheld: a row of an embedding is a token's id.
TOLD = (
    "module", "module_class", "op", "call_index", "occurrence", "mechanism", "source", "code", "token_index", "value",
    "tensor", "limit", "confirmed", "confirmed_by",
)  # fmt: skip
DIED = "the process died in this search"
Ask = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
"""Runs something under a name, so that a process that dies in it is known to have died there."""


def searched(
    loaded: Loaded,
    tokens: Tokens,
    failing: Failing,
    layers: Sequence[str],
    batch_of: Callable[[dict[str, Any]], list[Example]],
    ask: Ask,
) -> dict[str, Any]:
    """The samples, each with what was said of it and what the full search found."""
    samples: list[dict[str, Any]] = []
    for group in _largest(failing):
        few = group.few()
        first = _sample(loaded, tokens, few[0], layers, batch_of, ask)
        samples.append(first)
        more = SAMPLED if first["agrees"] is False or len(failing.groups) == 1 else 1
        samples += [_sample(loaded, tokens, record, layers, batch_of, ask) for record in few[1:more]]
    answered = [sample for sample in samples if sample["agrees"] is not None]
    agreed = sum(bool(sample["agrees"]) for sample in answered)
    return {"asked": len(samples), "answered": len(answered), "agreed": agreed, "samples": samples}


def _largest(failing: Failing) -> list[Group]:
    """The largest group of each place, as many as are searched."""
    found: dict[Any, Group] = {}
    for group in failing.ranked():
        found.setdefault(place_of(group.kept[0]), group)
    return list(found.values())[:SAMPLED]


def _sample(
    loaded: Loaded,
    tokens: Tokens,
    record: dict[str, Any],
    layers: Sequence[str],
    batch_of: Callable[[dict[str, Any]], list[Example]],
    ask: Ask,
) -> dict[str, Any]:
    """One failing example under the full search, as it fails: alone, with its padding, or in its batch."""
    said = {key: record[key] for key in ("layer", "module", "token_index", "token", "token_kind", "cause")}
    sample = {"index": record["index"], "side": record["side"], "said": said, "agrees": None, "found": None}

    examples = batch_of(record)
    withheld = any(example.withheld for example in examples)

    def search() -> dict[str, Any]:
        batch, skipped = _as_it_fails(tokens, record, examples)
        seen = look(loaded.model, _inputs(loaded, tokens, batch, withheld))
        verdict, reason, payload = bisect(loaded, [seen])
        origin = payload["origin"]
        place = None if origin is None else _place(origin, said, layers, tokens, batch, skipped)
        if withheld and origin is not None:
            origin, reason = {key: origin[key] for key in TOLD}, f"{origin['mechanism']} in {origin['module']}"
        return {"verdict": verdict, "reason": reason, "origin": origin, "found": place}

    try:
        found = ask(f"search {record['index']} {record['side'] or ''}".strip(), search)
    except Exception as error:  # noqa: BLE001 - the model's own code may raise anything
        why = type(error).__name__ + ("" if withheld else f": {one_line(str(error))}")
        return {**sample, "verdict": "skip", "reason": why}
    sample.update(found)
    place = sample["found"]
    return sample if place is None else {**sample, "agrees": _agrees(said, place)}


def _as_it_fails(tokens: Tokens, record: dict[str, Any], examples: list[Example]) -> tuple[Batch, Optional[int]]:
    """What is run, and how many columns of padding its tokens are behind; None for those of a whole batch."""
    own = [example for example in examples if (example.index, example.side) == (record["index"], record["side"])]
    if record["cause"] == "own":
        return tokens.batch(record["batch"], own), 0
    if record["cause"] == "padding":
        length = record["tokens"] + record["padding"]
        return tokens.batch(record["batch"], own, length), record["padding"] if tokens.side == "left" else 0
    return tokens.batch(record["batch"], examples), None


def _inputs(loaded: Loaded, tokens: Tokens, batch: Batch, withheld: bool) -> Inputs:
    given = given_to(loaded.model, batch)
    mask = given.get("attention_mask")
    more = tuple((name, value) for name, value in given.items() if name == "decoder_attention_mask")
    words = None
    if not withheld:
        known = [tokens.word(token) for token in batch.input_ids[0].tolist()]
        words = tuple(word for word in known if word is not None)
    decoder = batch.decoder_ids
    behind = None if words is None or decoder is None else [tokens.word(token) or "" for token in decoder[0].tolist()]
    single = len(batch.examples) == 1
    return Inputs(
        None,
        "tokenizer",
        batch.input_ids,
        mask,
        decoder,
        tokens=words if single and words else None,
        decoder_tokens=tuple(behind) if single and behind else None,
        options=more,
        withheld=withheld,
    )


def _place(
    origin: dict[str, Any],
    said: dict[str, Any],
    layers: Sequence[str],
    tokens: Tokens,
    batch: Batch,
    skipped: Optional[int],
) -> dict[str, Any]:
    """The origin in the words of an example's record. The token is not known in a batch of several, nor where all of
    them are bad: the origin's element is then one of many.
    """
    module, column = str(origin["module"]), origin["token_index"]
    found = {
        "layer": next((name for name in layers if (module + ".").startswith(name + ".")), module),
        "module": module,
        **dict.fromkeys(("token_index", "token", "token_kind")),
    }
    one_of_many = said["token_kind"] in (EVERY, None) and sum(origin["output"][kind] for kind in KINDS) != 1
    if column is None or skipped is None or one_of_many or column >= batch.mask.shape[1]:
        return found
    ids = batch.ids_of(module)
    token = int(ids[0, column])
    padding = not bool(batch.mask[0, column])
    kind = "padding" if padding else "special" if token in tokens.special else "text"
    return {**found, "token_index": column - skipped, "token": origin["token"], "token_kind": kind}


def _agrees(said: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether the search names the same module, or one inside of it, and the same token where both know one."""
    inside = (found["module"] + ".").startswith((said["module"] or said["layer"]) + ".")
    indexes = (said["token_index"], found["token_index"])
    return inside and (None in indexes or indexes[0] == indexes[1])
