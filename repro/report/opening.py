"""The title of the report and its two sentences."""

from collections.abc import Sequence
from pathlib import Path

from repro.report.tables import Json, listed
from repro.wording import MECHANISMS, origin_dtype


def _name(document: Json) -> str:
    """The model by its Hub id, or by the last part of its path."""
    model = str(document["model"]["id"])
    name = Path(model).name if "\\" in model or model.startswith(("/", "~")) else model
    return f"{name} with random weights" if document["model"]["weights"] == "random" else name


def first_sentence(sentence: str) -> str:
    """A sentence with its full stop."""
    return sentence if sentence.rstrip().endswith((".", "!", "?")) else f"{sentence.rstrip()}."


def title(document: Json) -> str:
    name, origin, kind = _name(document), document["origin"], document["kind"]
    if document["verdict"] == "good":
        return f"{name}: good"
    if document["verdict"] == "skip":
        return f"{name}: the process crashed" if kind == "crash" else f"{name}: no verdict"
    if kind == "nonfinite" and origin:
        what = MECHANISMS.get(origin.get("mechanism"), "first bad value").partition(" (")[0]
        dtype = origin_dtype(origin, document["bisect"] or {})
        return f"{name}: {dtype + ' ' if dtype else ''}{what} in {origin.get('module') or 'the model itself'}"
    titles = {
        "files": "the files are not whole",
        "weights": "the weights hold bad values",
        "load": "what was loaded is not sound",
        "crash": "the process crashed",
    }
    return f"{name}: {titles.get(str(kind), 'NaN or Inf in the output')}"


def second_sentence(document: Json) -> str:
    forward = document["forward"]
    arms = [arm for arm in document["arms"] if arm["ending"] != "not_run"]
    if document["verdict"] == "skip":
        return "Nothing follows from this run about whether the model is sound."
    if document["verdict"] == "good":
        skipped = [step["step"] for step in document["steps"] if step["verdict"] == "skip"]
        return f"{len(document['steps']) - len(skipped)} steps gave an answer" + (
            f"; skipped were {listed(skipped)}." if skipped else "; none was skipped."
        )
    if forward is None:
        return "The forward pass was not asked for."
    if forward["verdict"] == "good":
        return "The forward pass of the inputs below is finite all the same."
    if forward["verdict"] == "skip":
        return f"The forward pass gave no answer: {forward['reason']}"
    if not arms:
        return "No other setting was tried."
    repeats = [item.get("repeat_equal") for item in forward.get("prompts") or []]
    bad = [arm["name"] for arm in arms if arm["verdict"] == "bad"]
    return _cured(document["cures"], bad, len(arms), steady=False not in repeats)


def _cured(cures: Sequence[str], bad: Sequence[str], tried: int, *, steady: bool) -> str:
    words = [f"{tried} single changes were tried" if tried > 1 else "One single change was tried"]
    words.append(f"good with {listed(cures)}" if cures else "none of them cures it")
    if bad and cures:
        words.append(f"still bad with {listed(bad)}")
    if not steady:
        words.append("but a repeat of the same gave other numbers, so a good row may be chance")
    return "; ".join(words) + "."
