"""Many prompts in batches: which fail, in which layer and token first, alone too or only in their batch.

Each batch is announced before it is run. A process that goes on behind one that died leaves out the batches that are
done, and says of the examples of the one that killed it that they were not answered. A batch whose pass raises is
skipped with the reason, and the others go on.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from torch import Tensor

from ..model.compat import CannotLoad
from ..model.inputs import load_tokenizer, what_it_takes
from ..model.load import Loaded
from ..observe.screen import blocks
from ..protocol.failures import one_line
from ..protocol.wire import Emitter, Outcome
from .ablations import MOST, measure
from .answers import look, skipped
from .batches import Example, NotEncodable, Tokens, captured, passed
from .vectors import Steering

Answer = tuple[dict[str, Any], Optional[Tensor]]
"""The record of an example, and its residual where that is wanted."""
STEP = "prompts"
BATCH_SIZE = 8
DIED = "the process died in this batch"


def examples_in(path: str, withheld: bool = False) -> Iterator[Example]:
    """The examples of a file of the host's: one JSON object a line. withheld: their texts must not go out."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            data = json.loads(line)
            ids = data.get("ids")
            yield Example(
                data["index"], data.get("side"), data.get("text"), None if ids is None else tuple(ids), withheld
            )


def run(
    loaded: Loaded, options: dict[str, Any], emitter: Emitter, known: dict[str, Optional[bool]], trust_remote_code: bool
) -> Outcome:
    """Verdict, reason and payload of the prompts step; a record for each example goes out as an event.

    options: file (path of the examples), total, batch_size, max_length, padding_side, layers (numbers, or None for
    all), vectors (path, or None), withheld (texts must not go out). known: batches of earlier processes.
    """
    _check_takes_prompts(loaded)
    tokenizer = load_tokenizer(loaded.source.folder, trust_remote_code)
    tokens = Tokens(loaded, tokenizer, options.get("max_length"), options.get("padding_side"))
    layers = chosen_layers(loaded, tokens, options.get("layers"))
    steering = Steering(layers) if options.get("vectors") else None
    again = steering is not None or bool(options.get("ablations"))  # what a batch gives these is not kept
    counts, done = {"good": 0, "bad": 0, "skip": 0}, 0
    failing: list[tuple[Example, dict[str, Any]]] = []
    for number, examples in enumerate(_batched(options)):
        name = f"batch {number}"
        done += len(examples)
        if known.get(name) is not None and not again:
            continue
        residuals: list[Optional[Tensor]] = [None] * len(examples)
        if name in known and known[name] is None:
            records = [skipped(example, number, DIED) for example in examples]
        else:
            emitter.event("trial", step=STEP, trial=name, holds=None)
            records, residuals = _answers(loaded, tokens, number, examples, layers, steering is not None)
        for example, record, residual in zip(examples, records, residuals):
            counts[record["verdict"]] += 1
            if options.get("ablations") and record["verdict"] == "bad" and len(failing) < MOST:
                failing.append((example, record))
            if steering is not None:
                steering.take(example, residual if record["verdict"] == "good" else None)
            emitter.event("example", step=STEP, record=record)
        emitter.event("trial", step=STEP, trial=name, holds=all(record["verdict"] != "bad" for record in records))
        emitter.progress(done, options["total"], "prompts")
    payload: dict[str, Any] = {"layers": layers, "padding_side": tokens.side, "pad_token_id": tokens.pad, **counts}
    payload["special_ids"] = sorted(tokens.special)
    if failing:
        payload["ablations"] = measure(loaded, tokenizer, failing, options, layers, emitter)
    if steering is not None:
        payload["vectors"] = steering.save(options["vectors"])
    earlier = [] if again else [holds for holds in known.values() if holds is not None]
    behind = f", behind {len(earlier):,} batches of an earlier process" if earlier else ""
    failed, asked = counts["bad"], sum(counts.values())
    if failed or not all(earlier):
        return "bad", f"{failed:,} of {asked:,} examples are bad{behind}", payload
    verdict = "good" if counts["good"] or earlier else "skip"
    return verdict, f"{counts['good']:,} of {asked:,} are good{behind}", payload


def _check_takes_prompts(loaded: Loaded) -> None:
    """Raises:
    CannotLoad: token ids are not all that the model takes. Beside a picture for each, prompts would not be judged
        one by one: such a model compares each with each.
    """
    takes = what_it_takes(loaded)
    if not takes.ids or takes.further:
        wanted = " and ".join([*(["input_ids"] if takes.ids else []), *(name for name, _ in takes.further)])
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
