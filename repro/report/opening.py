"""The title of the report, and the two sentences below it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from repro.core.answer import Answer
from repro.core.records import Kind, Outcome
from repro.core.sentences import OUTPUT, listed, many, named_mechanism, named_module, origin_sentence, sentence
from repro.core.steps import ABLATION
from repro.report.cells import cells_of, statements
from repro.report.markdown import text

NAMED = 2
"""How many ablations that do not help are named."""
TITLES: Mapping[Kind | None, str] = {
    Kind.FILES: "damaged or incomplete files",
    Kind.WEIGHTS: "bad values in the weights",
    Kind.LOAD: "the checkpoint was not loaded correctly",
    Kind.CRASH: "the process crashed",
    Kind.DIVERGENT: "finite numbers that rounding does not explain",
}


def title(answer: Answer) -> str:
    """Model, dtype, mechanism and place as far as they are known; then how many cells, or which versions."""
    return f"{_model(answer)}: {_fault(answer)}{_where(answer)}"


def statement(answer: Answer) -> str:
    """The answer in two sentences, as Markdown."""
    said = (headline(answer), second_sentence(answer))
    return " ".join(text(line) for line in said if line)


def full_stop(line: str) -> str:
    """A sentence with its full stop."""
    return line if line.rstrip().endswith((".", "!", "?")) else f"{line.rstrip()}."


def _model(answer: Answer) -> str:
    """The model by its Hub id, or by the last part of its path and its class."""
    name = answer.model.id
    if "\\" in name or name.startswith(("/", "~", "./")):
        name = Path(name).name + (f" ({answer.model.class_})" if answer.model.class_ else "")
    return f"{name} with random weights" if answer.model.weights == "random" else name


def _fault(answer: Answer) -> str:
    origin, prompts = answer.origin, answer.prompts
    if answer.verdict is Outcome.GOOD:
        return "good"
    if answer.verdict is Outcome.SKIP:
        return TITLES[Kind.CRASH] if answer.kind is Kind.CRASH else "no verdict"
    if origin and (answer.kind is Kind.NONFINITE or answer.script):
        what = named_mechanism(origin, answer.bisect).partition(" (")[0]
        return f"{what} in {(origin.module or origin.op) if answer.script else named_module(origin)}"
    if answer.script:
        return "the script reports a fault"
    if answer.diff and answer.diff.departure:
        return f"differs from {answer.diff.way} in {answer.diff.departure.module or 'its own code'}"
    if prompts and prompts.bad:
        place = prompts.places[0] if prompts.places else None
        where = "" if place is None else "in the logits alone" if place.layer == OUTPUT else f"first in {place.layer}"
        first = where and f", {where}"
        return f"{prompts.bad:,} of {many(prompts.asked, 'prompt')} give NaN or Inf{first}"
    return TITLES.get(answer.kind, "NaN or Inf in the output")


def _where(answer: Answer) -> str:
    versions, rows = answer.versions, cells_of(answer)
    if versions and versions.last_good and versions.first_bad:
        return f" ({versions.package}: good at {versions.last_good}, bad at {versions.first_bad})"
    such = sum(row.verdict is answer.verdict for row in rows)
    return f" ({such} of {len(rows)} cells)" if rows else ""


def headline(answer: Answer) -> str:
    """The answer in one sentence."""
    said = full_stop(answer.headline)
    if answer.verdict is not Outcome.GOOD:
        return said
    among = ""
    if answer.model.weights == "random":
        among = f" with random weights (seed {answer.model.seed})"
        said = said.removeprefix(f"{among.strip().capitalize()}: ")
    return f"No fault found{among}: {said}"


def second_sentence(answer: Answer) -> str:
    """What else is known: what the fault follows, what works around it, or whether other settings are good too."""
    if answer.versions:
        changes = answer.versions.changes
        why = (changes and changes.sentence) or answer.versions.attribution
        return full_stop(why) if why else ""
    if cells_of(answer):
        said = {Outcome.GOOD: "", Outcome.BAD: statements(answer)[0], Outcome.SKIP: "No cell gave a verdict."}
        return said[answer.verdict]
    ran = {item.name: item.verdict for item in answer.ablations if item.verdict is not Outcome.SKIP}
    if answer.kind is Kind.CRASH:
        alive = [name for name, verdict in ran.items() if verdict is Outcome.GOOD]
        return f"It does not crash with {listed(alive)}." if alive else "No setting that avoids the crash is known."
    if answer.verdict is Outcome.SKIP:
        what = "script" if answer.script else "model"
        return f"This run does not show whether the {what} is sound."
    if answer.verdict is Outcome.GOOD:
        return _also_good(answer, ran)
    return _of_script(answer, ran) if answer.script else _of_model(answer, ran)


def _of_script(answer: Answer, ran: Mapping[str, Outcome]) -> str:
    """What makes it go away, where the headline says where it is born; else whose verdict it is."""
    if answer.origin:
        said = origin_sentence(answer.origin, answer.bisect)
        return (
            said if said not in answer.headline else _workarounds(answer.workarounds, ran, steady=True) if ran else ""
        )
    status = answer.script and answer.script.exit_status
    return "" if status is None else f"This is the script's own verdict (exit status {status})."


def _of_model(answer: Answer, ran: Mapping[str, Outcome]) -> str:
    forward = answer.forward
    if answer.prompts or answer.watch or answer.diff or answer.kind is Kind.DIVERGENT:
        return ""
    if forward is None:
        return "The forward pass was not run."
    if forward.verdict is Outcome.GOOD:
        return "The forward pass is still finite for the inputs below."
    if forward.verdict is Outcome.SKIP:
        return f"The forward pass gave no verdict: {full_stop(forward.reason.removeprefix('not run: '))}"
    if not ran:
        return "No ablation was run."
    steady = all(item.repeat_equal is not False for item in forward.prompts)
    return _workarounds(answer.workarounds, ran, steady=steady)


def _workarounds(workarounds: Sequence[str], ran: Mapping[str, Outcome], *, steady: bool) -> str:
    """Workarounds first and by name; what does not help only where that is short."""
    bad = [name for name, verdict in ran.items() if verdict is Outcome.BAD]
    words = [f"good with {listed(workarounds)}" if workarounds else "no workaround found"]
    if workarounds and bad:
        words.append(f"still bad with {listed(bad) if len(bad) <= NAMED else f'the other {len(bad)}'}")
    if ran.get("second_prompt") is Outcome.GOOD:
        words.append("another prompt is good")
    if not steady:
        words.append("but repeating the same input gave other numbers, so a good result may be chance")
    return f"{_counted(ran)}: {'; '.join(words)}."


def _also_good(answer: Answer, ran: Mapping[str, Outcome]) -> str:
    silent = [step.step for step in answer.steps if step.verdict is Outcome.SKIP and not step.step.startswith(ABLATION)]
    words = [f"no verdict from {listed(silent)}" if silent else "every step gave a verdict"]
    if answer.model.weights == "random" and set(silent) <= {"files", "weights"}:
        words = ["no file was read"]
    bad = [name for name, verdict in ran.items() if verdict is Outcome.BAD]
    if ran:
        words.append(f"{_counted(ran)}: " + (f"bad with {listed(bad)}" if bad else "still good"))
    return f"{sentence('; '.join(words))}."


def _counted(ran: Mapping[str, Outcome]) -> str:
    return f"{len(ran)} ablation{'s' if len(ran) > 1 else ''}"
