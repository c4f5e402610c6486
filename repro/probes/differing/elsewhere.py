"""The other way in another model, or in another environment: this way is recorded, let go, and held against there.

In another environment the recording lies on disk, and the kit is run there on it. Calls are aligned by module path and
call number, whatever the releases are.
"""

import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, Optional

import torch
from torch import nn

from ..machine.family import PARENT
from ..model.compat import CannotLoad
from ..model.inputs import MASK, Inputs, accepts
from ..model.session import Session
from ..protocol.wire import SCHEMA, Outcome
from .diff import Made, answer, digests, held_against, make
from .held.calls import Call, Point
from .held.deviation import Drift
from .held.hold import Entry, Recording
from .held.store import VALUES, Store, read_json
from .ways import plain

INDEX, PLAN = "index.json", "plan.json"
OF_NO_NUMBER = frozenset(
    ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "model_type", "name_or_path")
)
MOST_SETTINGS = 12
TAIL = 300  # characters of what the other environment said last


def model_beside(session: Any, model: str, revision: Optional[str]) -> Outcome:
    """Another model of the same architecture, in this process; there is never more than one of the two in memory."""
    made, settings = _made(session, None)
    case = {**session.case, "model": model, "revision": revision}
    session.let_go()
    gc.collect()
    other = Session(case, session.cache, session.emitter)
    return _held(other, made, settings, f"the weights and the configuration of {os.path.basename(model.rstrip('/'))}")


def environment_beside(session: Any, python: str) -> Outcome:
    """The same case in another environment."""
    folder = tempfile.mkdtemp(prefix="repro-diff-")
    try:
        made, settings = _made(session, folder)
        save(made, settings, folder)
        session.let_go()
        gc.collect()
        return _asked_there(session, python, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def recorded(session: Any, folder: str) -> Outcome:
    """This environment's way into a folder, against which others are held."""
    os.makedirs(folder, exist_ok=True)
    others = sorted(set(os.listdir(folder)) - {INDEX, VALUES})
    if others:
        return (
            "skip",
            f"{folder} holds something else ({others[0]}): nothing is recorded there. Give a new folder",
            None,
        )
    for name in os.listdir(folder):  # of a recording that was stopped, or of another one
        os.remove(os.path.join(folder, name))
    made, settings = _made(session, folder)
    save(made, settings, folder)
    count = len(made.recording.entries)
    return "good", f"{count:,} inputs and outputs of module calls were recorded", {"way": versions()}


def held_there(session: Any, folder: str) -> Outcome:
    """In the other environment: what lies in the folder, held against."""
    if not os.path.isfile(os.path.join(folder, INDEX)):
        return "skip", f"there is no recording in {folder}", None
    made, settings = opened(folder)
    by = str(read_json(os.path.join(folder, INDEX))["by"])
    verdict, reason, payload = _held(session, made, settings, by)
    notes = [f'"here" is what was recorded with {by}; "there" is {versions()}', *(payload or {}).get("notes", ())]
    return verdict, reason, {**(payload or {}), "notes": notes}


def versions() -> str:
    """What this environment runs, as a part of a sentence."""
    library = getattr(sys.modules.get("transformers"), "__version__", None)
    return f"Python {platform.python_version()}, torch {torch.__version__}, transformers {library}"


def _made(session: Any, folder: Optional[str]) -> tuple[Made, dict[str, Any]]:
    loaded, inputs = session.loaded(), tuple(session.inputs())
    made = make(loaded.model, plain(inputs), inputs, session.emitter.progress, folder)
    made.weights.update(digests(loaded.model))
    return made, settings_of(loaded.config)


def _held(session: Any, made: Made, settings: dict[str, Any], words: str) -> Outcome:
    """The session's own model against what was made of the other one. Token ids are compared before any tensor is."""
    model = session.loaded().model
    notes = list(differing(settings, settings_of(session.loaded().config)))
    there = digests(model)
    if is_another_architecture(made.weights, there):
        both = f"{made.recording.classes.get('', 'the model')} here and {type(model).__name__} there"
        return "skip", f"{both} are two architectures: most weights have no counterpart by name", None
    try:
        inputs = tuple(session.inputs())
    except CannotLoad as error:
        inputs = _recorded(model, made.inputs)
        notes.append(f"the token ids are those of here, for there they could not be made: {error}")
    why = other_ids(made.inputs, inputs)
    notes += other_weights(made.weights, there)
    if why is not None:
        return "bad", why, {"way": words, "notes": notes}
    way = plain(inputs)
    way = type(way)(words, way.passes, way.run)
    verdict, reason, payload = answer(held_against(model, made, way, session.emitter.progress))
    if verdict == "good" and notes:
        reason = f"{reason}; {'; '.join(notes)}"
    return verdict, reason, {**(payload or {}), "notes": notes}


def _recorded(model: nn.Module, inputs: tuple[Inputs, ...]) -> tuple[Inputs, ...]:
    """Inputs of the very ids that were recorded."""
    found = []
    for made in inputs:
        assert made.input_ids is not None  # a tokenizer made them
        ids = made.input_ids.to(next(model.parameters()).device)
        found.append(
            replace(made, input_ids=ids, attention_mask=torch.ones_like(ids) if accepts(model, MASK) else None)
        )
    return tuple(found)


def other_ids(these: tuple[Inputs, ...], those: tuple[Inputs, ...]) -> Optional[str]:
    """Where the token ids of the two are not the same; None where they are."""
    if len(these) != len(those):
        return f"there are {len(these)} inputs here and {len(those)} there"
    for number, (this, other) in enumerate(zip(these, those)):
        one, two = ([] if ids is None else ids[0].tolist() for ids in (this.input_ids, other.input_ids))
        if one == two:
            continue
        if len(one) != len(two):
            return f"input {number} has {len(one)} token ids here and {len(two)} there: the tokenizers differ"
        at = next(at for at, (a, b) in enumerate(zip(one, two)) if a != b)
        return f"token {at} of input {number} is {one[at]} here and {two[at]} there: the tokenizers differ"
    return None


def is_another_architecture(these: Mapping[str, str], those: Mapping[str, str]) -> bool:
    """Whether most weights and buffers, of the model that has fewer, have none of their name in the other one.

    Such models have at most a head or an embedding in common, and whatever stands between would be one difference.
    """
    return 2 * len(these.keys() & those.keys()) < min(len(these), len(those))


def other_weights(these: Mapping[str, str], those: Mapping[str, str]) -> Iterator[str]:
    """How many weights and buffers are others, and which are there on one side alone."""
    both = [name for name in these if name in those]
    others = [name for name in both if these[name] != those[name]]
    if others:
        yield f"{len(others)} of {len(both)} weights and buffers are others: {', '.join(others[:MOST_SETTINGS])}"
    for where, here, there in (("here", these, those), ("there", those, these)):
        alone = [name for name in here if name not in there]
        if alone:
            yield f"{len(alone)} weights and buffers are {where} alone: {', '.join(alone[:MOST_SETTINGS])}"


def settings_of(config: Any) -> dict[str, Any]:
    """The configuration as plain data, its nested parts by dotted names."""
    plainly = getattr(config, "to_dict", None)
    return dict(_flat(plainly(), "")) if plainly is not None else {}


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key in OF_NO_NUMBER:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.loads(json.dumps(value, default=str))


def differing(this: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """The settings that both configurations have, with another value."""
    names = [name for name in this if name in other and this[name] != other[name]]
    for name in names[:MOST_SETTINGS]:
        yield f"the configuration's {name} is {this[name]} here and {other[name]} there"


def save(made: Made, settings: dict[str, Any], folder: str) -> None:
    """What was made, beside the values that lie in the folder already."""
    recording = made.recording
    points = {point: number for number, point in enumerate(recording.entries)}
    put = recording.store.put
    drifts = {
        name: [
            [points[point], *map(put, (drift.rows, drift.columns, drift.scale)), drift.whole, drift.mismatched]
            for point, drift in found.items()
            if point in points
        ]
        for name, found in (("forced", recording.forced), ("free", recording.free))
    }
    rows = []
    for point, entry in recording.entries.items():
        caller = None if entry.caller is None else _call(entry.caller)
        rows.append([*_call(point.call), point.side, point.path, entry.number, caller])
    index = {
        "entries": rows,
        **drifts,
        "classes": recording.classes,
        "main": made.main,
        "chosen": list(made.chosen),
        "weights": made.weights,
        "settings": settings,
        "by": versions(),
        "ids": [None if made.input_ids is None else made.input_ids.tolist() for made in made.inputs],
        "values": recording.store.save(),
    }
    with open(os.path.join(folder, INDEX), "w", encoding="utf-8") as file:
        json.dump(index, file, default=str)


def _call(call: Call) -> list[Any]:
    return list(asdict(call).values())


def opened(folder: str) -> tuple[Made, dict[str, Any]]:
    """What was saved."""
    index = read_json(os.path.join(folder, INDEX))
    recording = Recording(Store.opened(folder, index["values"]), classes=dict(index["classes"]))
    points = []
    for order, (module, pass_, call, side, path, number, caller) in enumerate(index["entries"]):
        point = Point(Call(module, pass_, call), side, path)
        points.append(point)
        recording.entries[point] = Entry(number, order, None if caller is None else Call(*caller))
    for name, found in (("forced", recording.forced), ("free", recording.free)):
        for point, rows, columns, scale, whole, mismatched in index[name]:
            rows, columns, scale = (recording.store.get(number) for number in (rows, columns, scale))
            found[points[point]] = Drift(float(whole), rows, columns, scale, int(mismatched))
    ids = [None if row is None else torch.tensor(row) for row in index["ids"]]
    inputs = tuple(Inputs(None, "recorded", row, None) for row in ids)
    return Made(plain(inputs), recording, index["main"], inputs, tuple(index["chosen"]), dict(index["weights"])), dict(
        index["settings"]
    )


def _asked_there(session: Any, python: str, folder: str) -> Outcome:
    """The kit, run in the other environment on what lies in the folder."""
    kit = os.path.abspath(sys.argv[0])
    plan = os.path.join(folder, PLAN)
    case = {**session.case, "against": f"held:{folder}"}
    asked = {"schema": SCHEMA, "steps": ["environment", "load", "diff"], "case": case, "cache": session.cache}
    with open(plan, "w", encoding="utf-8") as file:
        json.dump(asked, file)
    variables = {**os.environ, PARENT: str(os.getpid())}
    variables.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, "-X", "faulthandler", kit, "run", plan],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=variables,
        check=False,
    )
    ended = {}
    for line in done.stdout.splitlines():
        event = json.loads(line)
        if event.get("event") == "end":
            ended[event["step"]] = event
    found = ended.get("diff")
    if found is None:
        said = " ".join(done.stderr.split())[-TAIL:]
        last = next((row["reason"] for row in reversed(list(ended.values())) if row["verdict"] != "good"), said)
        return "skip", f"{python} gave no answer (exit status {done.returncode}): {last}", None
    there = (ended.get("environment") or {}).get("payload") or {}
    payload = dict(found.get("payload") or {})
    payload["elsewhere"] = {name: there.get(name) for name in ("python", "torch", "transformers", "executable")}
    there_runs = "Python {python}, torch {torch}, transformers {transformers}".format(**payload["elsewhere"])
    reason = found["reason"].replace(payload.get("way") or "\0", there_runs)
    if found["verdict"] == "skip" and (ended.get("load") or {}).get("verdict") == "skip":
        reason = ended["load"]["reason"]
    payload["way"] = there_runs
    payload["notes"] = list(payload.get("notes") or ())[1:]  # the first is for those who ask there
    return found["verdict"], reason, payload
