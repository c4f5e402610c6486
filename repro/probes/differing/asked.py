"""What a plan asks of the diff step: another way of this process, another model, or another environment."""

from typing import Any

from ..model.inputs import Inputs
from ..model.load import Loaded
from ..protocol.failures import in_words
from ..protocol.wire import Outcome
from .compiled import compiled
from .diff import Told, answer, held_against, make
from .elsewhere import environment_beside, held_there, model_beside, recorded
from .file import against_file
from .gradients import with_gradients
from .held.hold import Way
from .ways import NoSuchWay, named, plain, several


def asked(session: Any) -> Outcome:
    """Verdict, reason and payload."""
    against = str(session.case.get("against"))
    kind, _, rest = against.partition(":")
    if kind == "record":
        return _said(against, session, recorded(session, rest))
    if kind == "held":
        verdict, reason, payload = held_there(session, rest)
        return verdict, reason, payload and {**payload, "against": against}
    if kind == "file":
        try:
            return _said(against, session, against_file(session, rest))
        except NoSuchWay as error:
            return "skip", str(error), None
    if kind == "python":
        return _said(against, session, environment_beside(session, rest))
    if kind == "model":
        name, _, revision = rest.partition("@")
        return _said(against, session, model_beside(session, name, revision or None))
    loaded, inputs = session.loaded(), tuple(session.inputs())
    told = session.emitter.progress
    if kind == "batch":
        inputs = several(loaded, inputs, session.trusted)
    try:
        if kind == "compile":
            outcome = compiled(loaded, inputs, rest, told)
        else:
            outcome = _of_loaded(loaded, inputs, named(loaded, inputs, session.case, against), told)
    except NoSuchWay as error:
        return "skip", str(error), None
    return _said(against, session, outcome, inputs)


def _of_loaded(loaded: Loaded, inputs: tuple[Inputs, ...], other: Way, told: Told) -> Outcome:
    """Of two ways in this process; where the other one trains, the gradients too.

    Raises:
        NoSuchWay: found while it ran.
    """
    this = plain(inputs)
    made = make(loaded.model, this, inputs, told)
    try:
        against_it = held_against(loaded.model, made, other, told, again=True)
    except NoSuchWay:
        raise
    except Exception as error:  # noqa: BLE001 - of the model's own code, which ran in this way
        return "skip", _does_not_run(other.words, error), None
    outcome = answer(against_it, this)
    if other.trains and outcome[0] == "good":
        return with_gradients(loaded.model, this, other, inputs, made.main, outcome)
    return outcome


def _does_not_run(words: str, error: Exception) -> str:
    """What can be done where the model runs in this way alone."""
    why = f"the model runs as it is, and does not run in the other way ({words}): {in_words(error)}"
    if "dtype" in str(error):
        why += ". Its own code makes a tensor of a dtype of its own; make it in that of the weights"
    return f"{why}; or give another --against"


def _said(against: str, session: Any, outcome: Outcome, inputs: Any = None) -> Outcome:
    """With what was asked, and of which inputs."""
    verdict, reason, payload = outcome
    if payload is None:
        return outcome
    made = session.inputs() if inputs is None else inputs
    return verdict, reason, {"prompts": [item.record() for item in made], **payload, "against": against}
