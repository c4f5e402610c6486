"""What another engine gave for the same tokens, from a file.

A .safetensors file with these tensors for each prompt, whose names end in ".0", ".1", ... (or in nothing):

    input_ids     (tokens,) integers
    logits        (tokens, vocabulary); or logprobs, of the same shape; or
    top_ids       (tokens, k) integers, and
    top_logprobs  (tokens, k): log probabilities of the k tokens that are named; a row of NaN is left out
    positions     (tokens,) integers, where the engine tells them

Its metadata may hold ``chat_template``, ``bos_token_id``, ``eos_token_id``, ``pad_token_id``, ``engine`` and ``dtype``.
Ids, positions, template and special tokens are compared before any other tensor is.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor

from ..model.forward import main_output
from ..model.inputs import Inputs, load_tokenizer
from ..protocol.wire import Outcome
from .diff import SEEDS, Made
from .ends import beside
from .held.alignment import Cut
from .held.calls import GAVE, Call, Point
from .held.deviation import Ratio, apart, wide
from .held.hold import Held, Pair, beyond, degree, hold, record
from .held.noise import Noise
from .ways import NoSuchWay, plain

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
SHOWN = 60  # characters of a template


@dataclass(frozen=True)
class Given:
    """One prompt as the engine had it, and what it gave. ids: (tokens, k) where only these tokens' are there."""

    input_ids: list[int]
    values: Tensor
    are_logits: bool
    ids: Optional[Tensor] = None
    positions: Optional[list[int]] = None


def read(path: str) -> tuple[list[Given], dict[str, str]]:
    """The prompts of a file, and its metadata.

    Raises:
        NoSuchWay: it is of another form; the message says what was expected.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
            metadata = dict(opened.metadata() or {})
    except Exception as error:
        raise NoSuchWay(f"{path} cannot be read as .safetensors: {str(error)[:200]}") from error
    suffixes = sorted(name[len("input_ids") :] for name in tensors if name.split(".")[0] == "input_ids")
    if not suffixes:
        raise NoSuchWay(f"{path} has no tensor input_ids, so nothing says what it is about")
    return [_one(path, tensors, suffix) for suffix in suffixes], metadata


def _one(path: str, tensors: dict[str, Tensor], suffix: str) -> Given:
    ids = tensors[f"input_ids{suffix}"].reshape(-1)
    positions = tensors.get(f"positions{suffix}")
    top = tensors.get(f"top_ids{suffix}")
    name = next((n for n in ("logits", "logprobs", "top_logprobs") if f"{n}{suffix}" in tensors), None)
    if name is None or (name == "top_logprobs" and top is None):
        raise NoSuchWay(f"{path} has no logits{suffix}, logprobs{suffix}, or top_ids{suffix} with top_logprobs{suffix}")
    values = tensors[f"{name}{suffix}"]
    values = values.reshape(-1, values.shape[-1])
    if len(values) != len(ids):
        raise NoSuchWay(f"{path}: {name}{suffix} has {len(values)} rows for {len(ids)} token ids")
    return Given(
        [int(item) for item in ids.tolist()],
        values,
        name == "logits",
        None if top is None or name != "top_logprobs" else top.reshape(values.shape).long(),
        None if positions is None else [int(item) for item in positions.reshape(-1).tolist()],
    )


def against_file(session: Any, path: str) -> Outcome:
    """The case's own end against the file's. Without a prompt of its own, the case is given the file's token ids."""
    given, metadata = read(path)
    loaded = session.loaded()
    words = "{} ({})".format(metadata.get("engine", "another engine"), path.replace("\\", "/").rpartition("/")[2])
    inputs = tuple(session.inputs()) if session.prompts() or session.case.get("inputs") else _of(session, given)
    payload: dict[str, Any] = {"way": words, "prompts": [made.record() for made in inputs]}
    refused = next(_other(inputs, given, metadata, session), None)
    if refused is not None:
        return "bad", refused, payload
    this = plain(inputs)
    recording, outputs = record(loaded.model, this, chosen=("",))
    main = main_output(outputs[0])[0]
    noise = Noise(SEEDS[1])
    held = Held(recording, this, forced=False, noise=noise, own=recording, paired=False)
    hold(loaded.model, this, held, noise, chosen=("",))
    made = Made(this, recording, main, inputs, ("",))
    rows = [_beside(made, held, at, item) for at, item in enumerate(given)]
    payload.update(places=len(rows), calls=len(rows), end=_end(made, rows))
    pair, ratio, values = max(rows, key=lambda row: degree(row[1]))
    times = f"{degree(ratio):.3g} times what rounding allows"
    if not beyond(ratio):
        return "good", f"{main} of {len(rows)} prompts agree with {words} within rounding: at most {times}", payload
    token = ratio.at[0] if ratio.at else 0
    payload["departure"] = _departure(made, pair, ratio, values, token)
    where = f"token {token} of input {pair.this.call.pass_}"
    return "bad", f"{main} differ from {words} beyond rounding, most at {where}: {times}", payload


def _of(session: Any, given: list[Given]) -> tuple[Inputs, ...]:
    """Inputs of the file's token ids, in the form of the case's own."""
    like = session.inputs()[0]
    if like.input_ids is None:
        raise NoSuchWay("the model takes no token ids")
    made = []
    for item in given:
        ids = torch.tensor([item.input_ids], device=like.input_ids.device)
        mask = None if like.attention_mask is None else torch.ones_like(ids)
        tokenizer = load_tokenizer(session.source().folder, session.trusted) if not session.has_factory else None
        words = None if tokenizer is None else tuple(map(str, tokenizer.convert_ids_to_tokens(item.input_ids)))
        made.append(replace(like, prompt=None, source="file", input_ids=ids, attention_mask=mask, tokens=words))
    return tuple(made)


def _other(inputs: tuple[Inputs, ...], given: list[Given], metadata: dict[str, str], session: Any) -> Iterator[str]:
    """What the two were not given alike."""
    if len(inputs) != len(given):
        yield f"there are {len(inputs)} prompts here and {len(given)} in the file"
        return
    for number, (made, item) in enumerate(zip(inputs, given)):
        own = [] if made.input_ids is None else made.input_ids[0].tolist()
        if own != item.input_ids:
            at = next(
                (at for at, (a, b) in enumerate(zip(own, item.input_ids)) if a != b),
                min(map(len, (own, item.input_ids))),
            )
            one, two = (row[at] if at < len(row) else "no token" for row in (own, item.input_ids))
            yield f"token {at} of prompt {number} is {one} here and {two} in the file"
        if item.positions is not None and item.positions != list(range(len(own))):
            at = next((at for at, place in enumerate(item.positions) if place != at), len(own))
            yield f"the position of token {at} of prompt {number} is {at} here and not in the file"
    tokenizer = load_tokenizer(session.source().folder, session.trusted) if not session.has_factory else None
    template = metadata.get("chat_template")
    own_template = getattr(tokenizer, "chat_template", None)
    if template is not None and isinstance(own_template, str) and template.strip() != own_template.strip():
        yield f"the chat template in the file is another one: it begins with {template.strip()[:SHOWN]!r}"
    for name in SPECIAL:
        known = getattr(tokenizer, name, None)
        if name in metadata and isinstance(known, int) and metadata[name] != str(known):
            yield f"{name} is {known} here and {metadata[name]} in the file"


def _beside(made: Made, held: Held, number: int, item: Given) -> tuple[Pair, Ratio, tuple[Tensor, Tensor]]:
    point = Point(Call("", number, 0), GAVE, made.main)
    ours = wide(made.recording.tensor(point))
    ours = ours.reshape(-1, ours.shape[-1])
    unit = float(torch.finfo(made.recording.tensor(point).dtype).eps)
    theirs = wide(item.values)
    if not item.are_logits:
        ours = ours.log_softmax(-1)
    if item.ids is not None:
        ours = ours.gather(-1, item.ids)
        left = torch.isnan(theirs).any(-1, keepdim=True)
        theirs = torch.where(left, ours, theirs)
    elif theirs.shape != ours.shape:
        size = min(ours.shape[-1], theirs.shape[-1])  # an engine may pad its vocabulary
        ours, theirs = ours[..., :size], theirs[..., :size]
    found = apart(ours, theirs)
    drift = held.drift.get(point)
    if drift is not None:
        rows = drift.rows.reshape(-1, 1)
        scale = found.scale if rows.shape == found.scale.shape else drift.scale
        drift = replace(drift, rows=rows, scale=scale)
    pair = Pair(point, point, 0, None, found, unit, Cut((None, None), (None, None)))
    return pair, pair.ratio(drift), (ours, theirs)


def _end(made: Made, rows: list[tuple[Pair, Ratio, tuple[Tensor, Tensor]]]) -> dict[str, Any]:
    values = [row[2] for row in rows]
    whole = all(this.shape[-1] == values[0][0].shape[-1] for this, _ in values)
    pair, ratio, _ = max(rows, key=lambda row: degree(row[1]))
    figures = beside(values, [row[0].found for row in rows], whole and made.main.endswith("logits"))
    return {
        "output": made.main, **figures, "deviation": pair.found.whole, "drift": ratio.drift, "whole": ratio.whole,
        "row": ratio.row, "column": ratio.column, "mismatched": ratio.mismatched, "degree": degree(ratio),
    }  # fmt: skip


def _departure(made: Made, pair: Pair, ratio: Ratio, values: tuple[Tensor, Tensor], token: int) -> dict[str, Any]:
    this, other = (item[token] for item in values)
    channel = int((this - other).abs().nan_to_num(math.inf).argmax())
    words = made.inputs[pair.this.call.pass_].tokens
    return {
        "module": "", "module_class": made.recording.classes.get(""), "what": GAVE, "path": made.main,
        "prompt": pair.this.call.pass_, "element": [token, channel], "token_index": token,
        "token": None if words is None or token >= len(words) else words[token], "channel_index": channel,
        "this": float(this[channel]), "other": float(other[channel]), "deviation": pair.found.whole,
        "drift": ratio.drift, "whole": ratio.whole, "row": ratio.row, "column": ratio.column,
        "mismatched": ratio.mismatched,
        "note": "a file holds what the other engine ends with: where in the model the two part is not in it",
    }  # fmt: skip
