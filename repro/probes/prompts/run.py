"""Many prompts in batches: which fail, in which layer and token first, alone too or only in their batch.

Each batch is announced before it is run. A process that goes on behind one that died leaves out the batches that are
done, and says of the examples of the one that killed it that they were not answered. A batch whose pass raises is
skipped with the reason, and the others go on. What is said of those that fail is put to the full search on a few.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

from torch import Tensor

from ..model.compat import CannotLoad
from ..model.inputs import load_tokenizer, what_it_takes
from ..model.load import Loaded
from ..observe.screen import blocks
from ..protocol.failures import one_line
from ..protocol.wire import Emitter, Outcome
from .ablations import Asked, measure
from .alike import Failing
from .answers import look, skipped
from .batches import Example, NotEncodable, Tokens, captured, passed
from .earlier import Earlier
from .search import DIED as DIED_IN_SEARCH
from .search import searched
from .vectors import Steering

Answer = tuple[dict[str, Any], Optional[Tensor]]
"""The record of an example, and its residual where that is wanted."""
STEP = "prompts"
BATCH_SIZE = 8
TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
DIED = "the process died in this batch"


def examples_in(path: str, withheld: bool = False) -> Iterator[Example]:
    """The examples of a file of the host's: one JSON object a line. withheld: their texts must not go out."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            data = json.loads(line)
            ids = data.get("ids")
            own, messages = None if ids is None else tuple(ids), data.get("messages")
            chat = None if messages is None else tuple(messages)
            yield Example(data["index"], data.get("side"), data.get("text"), own, withheld, chat)


def run(
    loaded: Loaded, options: dict[str, Any], emitter: Emitter, known: dict[str, Optional[bool]], trust_remote_code: bool
) -> Outcome:
    """Verdict, reason and payload of the prompts step; a record for each example goes out as an event.

    options: file (path of the examples), total, batch_size, max_length, padding_side, layers (numbers, or None for
    all), vectors (path, or None), withheld (texts must not go out), answers (path of what earlier processes answered,
    or None). known: batches and searches of earlier processes.
    """
    _check_takes_prompts(loaded)
    tokenizer = load_tokenizer(loaded.source.folder, trust_remote_code)
    tokens = Tokens(loaded, tokenizer, options.get("max_length"), options.get("padding_side"))
    layers = chosen_layers(loaded, tokens, options.get("layers"))
    steering = Steering(layers) if options.get("vectors") else None
    # What a batch gives the vectors is not kept: then all of them are run again.
    done_before = set() if steering is not None else _done(known)
    earlier, failing = Earlier(options.get("answers"), done_before), Failing()
    earlier.take_failing(failing)
    counts, done, chats = {"good": 0, "bad": 0, "skip": 0}, 0, 0
    for number, examples in enumerate(_batched(options)):
        name = f"batch {number}"
        chats += sum(example.messages is not None for example in examples)
        done += len(examples)
        before = earlier.counts.get(number, ())
        if sum(before) == len(examples):
            counts = {verdict: counts[verdict] + more for verdict, more in zip(counts, before)}
            continue
        residuals: list[Optional[Tensor]] = [None] * len(examples)
        if name in known and known[name] is None:
            records = [skipped(example, number, DIED) for example in examples]
        else:
            emitter.event("trial", step=STEP, trial=name, holds=None)
            records, residuals = _answers(loaded, tokens, number, examples, layers, steering is not None)
        for example, record, residual in zip(examples, records, residuals):
            counts[record["verdict"]] += 1
            if record["verdict"] == "bad":
                failing.take(record)
            if steering is not None:
                steering.take(example, residual if record["verdict"] == "good" else None)
            emitter.event("example", step=STEP, record=record)
        emitter.event("trial", step=STEP, trial=name, holds=all(record["verdict"] != "bad" for record in records))
        emitter.progress(done, options["total"], "prompts")
    payload: dict[str, Any] = {"layers": layers, "padding_side": tokens.side, "pad_token_id": tokens.pad, **counts}
    payload["special_ids"] = sorted(tokens.special)
    payload["chat_template"] = _chat_template(loaded, tokens, chats) if chats else None
    if len(failing):
        asked = Asked(loaded, tokenizer, tokens, options, layers, lambda: _batched(options))
        ask = _Trials(emitter, known)
        payload["searched"] = searched(loaded, tokens, failing, layers, asked.batch_of, ask)
        if options.get("ablations"):
            payload["ablations"] = measure(asked, failing, emitter)
    if steering is not None:
        payload["vectors"] = steering.save(options["vectors"])
    total = sum(counts.values())
    if counts["bad"]:
        return "bad", f"{counts['bad']:,} of {total:,} examples are bad", payload
    return "good" if counts["good"] else "skip", f"{counts['good']:,} of {total:,} are good", payload


def _chat_template(loaded: Loaded, tokens: Tokens, examples: int) -> Optional[dict[str, Any]]:
    """Which template made texts of messages; None where there is none."""
    text, folder = tokens.chat_template(), loaded.source.folder
    if not text:
        return None
    files = () if folder is None else TEMPLATES
    file = next((name for name in files if os.path.isfile(os.path.join(str(folder), name))), None)
    return {"file": file, "sha256": hashlib.sha256(text.encode()).hexdigest(), "examples": examples}


def _done(known: dict[str, Optional[bool]]) -> set[int]:
    """The numbers of the batches that have their answers."""
    names = [name.partition(" ") for name, holds in known.items() if holds is not None]
    return {int(number) for kind, _, number in names if kind == "batch" and number.isdigit()}


class _Trials:
    """Runs each search announced, so that one in which the process died is not begun again."""

    def __init__(self, emitter: Emitter, known: dict[str, Optional[bool]]) -> None:
        self._emitter = emitter
        self._known = known

    def __call__(self, name: str, search: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if name in self._known and self._known[name] is None:
            return {"verdict": "skip", "reason": DIED_IN_SEARCH, "origin": None}
        self._emitter.event("trial", step=STEP, trial=name, holds=None)
        try:
            return search()
        finally:
            self._emitter.event("trial", step=STEP, trial=name, holds=True)


def _check_takes_prompts(loaded: Loaded) -> None:
    """Raises:
    CannotLoad: token ids are not all that the model takes. Beside a picture for each, prompts would not be judged
        one by one: such a model compares each with each.
    """
    takes = what_it_takes(loaded, fewest=True)
    if not takes.ids or takes.parts:
        wanted = " and ".join([*(["input_ids"] if takes.ids else []), *takes.names])
        raise CannotLoad(f"{loaded.class_name} takes {wanted}; only models of token ids alone can be given prompts.")


def _answers(
    loaded: Loaded, tokens: Tokens, number: int, examples: list[Example], layers: list[str], residual: bool
) -> tuple[list[dict[str, Any]], list[Optional[Tensor]]]:
    """A record for each example of one batch, and its residuals, (layer, hidden), where they are wanted.

    An example that cannot be encoded, or that the model cannot be given, takes no other along: it gets its reason, and
    the others are one batch. Where their pass raises all the same, each is asked alone; those that can be answered are
    a batch again, and where that raises too, what each said alone counts.

    Raises:
        CannotLoad: an example is a text, and there is no tokenizer.
    """
    refused = {place: why for place, why in enumerate(_refusals(tokens, examples)) if why is not None}

    def asked(places: Sequence[int]) -> dict[int, Answer]:
        batch = tokens.batch(number, [examples[place] for place in places])
        seen = captured(loaded.model, batch, layers, residual=residual)
        records = look(loaded, tokens, batch, seen, layers)
        rows = [None] * len(records) if seen.residual is None else list(seen.residual.unbind(1))
        return dict(zip(places, zip(records, rows)))

    left, found = [place for place in range(len(examples)) if place not in refused], {}
    try:
        found = asked(left) if left else {}
    except Exception as error:  # noqa: BLE001 - the model's own code may raise anything
        failure = _raised(error)
        if len(left) == 1:
            refused[left[0]] = failure
            left = []
        for place in left:
            try:
                found.update(asked([place]))
            except Exception as own:  # noqa: BLE001
                refused[place] = _raised(own)
        if left and len(found) > 1:
            # Together they are closer to what failed; each alone is an answer as well.
            with contextlib.suppress(Exception):
                found = asked(sorted(found))
    answers = [
        found.get(place) or (skipped(example, number, refused[place]), None) for place, example in enumerate(examples)
    ]
    return [record for record, _ in answers], [row for _, row in answers]


def _refusals(tokens: Tokens, examples: Sequence[Example]) -> Iterator[Optional[str]]:
    """Why each example cannot be given to the model; None where it can."""
    for example in examples:
        try:
            yield tokens.refusal(tokens.ids(example))
        except NotEncodable as error:
            yield str(error)


def _raised(error: Exception) -> str:
    return f"the forward pass raised {type(error).__name__}: {one_line(str(error))}"


def chosen_layers(loaded: Loaded, tokens: Tokens, numbers: Optional[list[int]]) -> list[str]:
    """The paths of the layers to look at. A negative number counts from the last one.

    Raises:
        CannotLoad: there is no such layer.
    """
    every = blocks(loaded.model)
    with contextlib.suppress(Exception):  # a model that two tokens do not suit: then a batch says so
        every = passed(loaded.model, tokens.batch(0, [Example(0, None, None, (tokens.pad,) * 2)]), every)
    if not every:
        raise CannotLoad(f"{loaded.class_name} has no repeated layers, so there is no residual stream to look at")
    if not numbers:
        return every
    wrong = [number for number in numbers if not -len(every) <= number < len(every)]
    if wrong:
        raise CannotLoad(f"there is no layer {wrong[0]}: the model has {len(every)}, 0 to {len(every) - 1}")
    return [every[number] for number in sorted({number % len(every) for number in numbers})]


def _batched(options: dict[str, Any]) -> Iterator[list[Example]]:
    size = int(options.get("batch_size") or BATCH_SIZE)
    held: list[Example] = []
    for example in examples_in(options["file"], bool(options.get("withheld"))):
        held.append(example)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held
