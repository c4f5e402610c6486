"""The title of the report and its two sentences."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from repro.core.sentences import listed, named_mechanism, named_module, origin_sentence, sentence
from repro.report.tables import Json

NAMED = 2
"""How many changes that do not help are named."""


def _name(document: Json) -> str:
    """The model by its Hub id, or by the last part of its path and its class."""
    model = str(document["model"]["id"])
    name = model
    if "\\" in model or model.startswith(("/", "~", "./")):
        name = Path(model).name
        name += f" ({document['model']['class']})" if document["model"]["class"] else ""
    return f"{name} with random weights" if document["model"]["weights"] == "random" else name


def first_sentence(sentence: str) -> str:
    """A sentence with its full stop."""
    return sentence if sentence.rstrip().endswith((".", "!", "?")) else f"{sentence.rstrip()}."


def title(document: Json) -> str:
    """Model, dtype, mechanism and place, as far as they are known."""
    name, origin, kind = _name(document), document["origin"], document["kind"]
    if document["verdict"] == "good":
        return f"{name}: good"
    if document["verdict"] == "skip":
        return f"{name}: the process crashed" if kind == "crash" else f"{name}: no verdict"
    if origin and (kind == "nonfinite" or document.get("script")):
        what = named_mechanism(origin, document["bisect"] or {}).partition(" (")[0]
        where = origin.get("module") or origin.get("op") if document.get("script") else named_module(origin)
        return f"{name}: {what} in {where}"
    if document.get("script"):
        return f"{name}: bad, as the script says itself"
    many = document.get("prompts") or {}
    if many.get("asked"):
        where = (many.get("places") or [{}])[0].get("layer")
        return f"{name}: {many['bad']:,} of {many['asked']:,} prompts give NaN or Inf" + (
            f", first in {where}" if where else ""
        )
    titles = {
        "files": "the files are not whole",
        "weights": "the weights hold bad values",
        "load": "what was loaded is not sound",
        "crash": "the process crashed",
    }
    return f"{name}: {titles.get(str(kind), 'NaN or Inf in the output')}"


def headline(document: Json) -> str:
    """The answer in one sentence."""
    said = first_sentence(document["headline"])
    if document["verdict"] != "good":
        return said
    among, model = "", document["model"]
    if model["weights"] == "random":
        among = f" with random weights (seed {model['seed']})"
        said = said.removeprefix(f"{among.strip().capitalize()}: ")
    return f"No fault was found{among}: {said}"


def second_sentence(document: Json) -> str:
    """What else is known: of a good run whether other settings are good too, of a bad one what works around it."""
    forward, ablations = document["forward"], _tried(document)
    if document["kind"] == "crash":
        alive = [name for name, verdict in ablations.items() if verdict == "good"]
        return f"It does not crash with {listed(alive)}." if alive else "No setting without a crash is known."
    if document["verdict"] == "skip":
        return "Nothing follows from this run about whether the model is sound."
    if document["verdict"] == "good":
        return _also_good(document, ablations)
    if document.get("script"):
        if document["origin"]:
            return origin_sentence(document["origin"], document["bisect"] or {})
        status = document["script"].get("exit_status")
        return "" if status is None else f"This is the script's own answer: it ended with exit status {status}."
    if document.get("prompts"):
        return ""
    if forward is None:
        return "The forward pass was not asked for."
    if forward["verdict"] == "good":
        return "The forward pass of the inputs below is finite all the same."
    if forward["verdict"] == "skip":
        return f"The forward pass gave no answer: {first_sentence(forward['reason'].removeprefix('not run: '))}"
    if not ablations:
        return "No other setting was tried."
    repeats = [item.get("repeat_equal") for item in forward.get("prompts") or []]
    return _workarounds(document["workarounds"], ablations, steady=False not in repeats)


def _tried(document: Json) -> dict[str, str]:
    """Verdict by name of the changes that gave an answer."""
    return {
        ablation["name"]: ablation["verdict"] for ablation in document["ablations"] if ablation["verdict"] != "skip"
    }


def _also_good(document: Json, ablations: Mapping[str, str]) -> str:
    silent = [
        step["step"]
        for step in document["steps"]
        if step["verdict"] == "skip" and not step["step"].startswith("ablation:")
    ]
    words = [f"no answer came from {listed(silent)}" if silent else "every step gave an answer"]
    if document["model"]["weights"] == "random" and set(silent) <= {"files", "weights"}:
        words = ["no file was read"]
    bad = [name for name, verdict in ablations.items() if verdict == "bad"]
    if ablations:
        tried = "one single change was tried" if len(ablations) == 1 else f"{len(ablations)} single changes were tried"
        words.append(f"{tried}, and " + (f"the output is bad with {listed(bad)}" if bad else "the output stays good"))
    return f"{sentence('; '.join(words))}."


def _workarounds(workarounds: Sequence[str], ablations: Mapping[str, str], *, steady: bool) -> str:
    """Cures first and by name; what does not help only where that is short."""
    bad = [name for name, verdict in ablations.items() if verdict == "bad"]
    words = [f"{len(ablations)} single changes were tried" if len(ablations) > 1 else "One single change was tried"]
    words.append(
        f"good with {listed(workarounds)}"
        if workarounds
        else "none of them cures it"
        if len(ablations) > 1
        else "still bad"
    )
    if workarounds and bad:
        words.append(f"still bad with {listed(bad) if len(bad) <= NAMED else f'the other {len(bad)}'}")
    if ablations.get("second_prompt") == "good":
        words.append("another prompt is good")
    if not steady:
        words.append("but a repeat of the same gave other numbers, so a good row may be chance")
    return "; ".join(words) + "."
