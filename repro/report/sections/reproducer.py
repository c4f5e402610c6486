"""The scripts that show the fault, with what they printed, and how small the case got."""

from collections.abc import Iterator, Mapping, Sequence

from repro.core.answer import Change, CheckpointFiles, ScriptRecord
from repro.core.payloads import Reduction
from repro.core.records import Owner
from repro.core.sentences import listed, many, sentence
from repro.report.markdown import block, code, text
from repro.report.opening import full_stop
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ reason }}

{% if change %}
{{ change.words }}

{{ change.lines }}

{{ change.own_words }}

{{ change.own_lines }}
{% endif %}

{{ bullets(reduction) }}

{% for script in scripts %}
{{ script.name }}. {{ script.needs }}{{ " " ~ script.checkpoint if script.checkpoint }}

{{ script.text }}

{{ script.ran if script.output }}

{{ script.output }}

{% endfor %}
"""


def fill(shown: Shown) -> Variables | None:
    first = shown.answer.reproducer
    if first is None:
        return None
    scripts = [(item, shown.scripts.get(item.path or "")) for item in (first, *first.others)]
    return {
        "reason": text(sentence(first.reason)),
        "change": _change(first.change, shown.answer.owner) if first.change else None,
        "reduction": [text(line) for line in _reduction(shown.answer.reduction or Reduction())],
        "scripts": [_script(item, content) for item, content in scripts if content is not None],
    }


def _change(change: Change, owner: Owner | None) -> Mapping[str, str | None]:
    """The lines before and after, as a difference. Where the fault is not the caller's, they only get around it."""

    def lines(before: Sequence[str], after: Sequence[str]) -> str | None:
        shown = [*(f"- {line}" for line in before), *(f"+ {line}" for line in after)]
        return block("\n".join(shown), "diff") if shown else None

    kept = f" It is kept as {change.path}." if change.path else ""
    own = lines(change.script_before, change.script_after)
    theirs = owner is not None and owner.project == "caller"
    what = "What to change" if theirs else "What gets around it in the script's own lines"
    return {
        "words": text(f"{what}: before, the fault is there; after, it is gone. {change.reason}{kept}"),
        "lines": lines(change.before, change.after),
        "own_words": text("The same in the script as it is, which is good with it:") if own else None,
        "own_lines": own,
    }


def _script(item: ScriptRecord, content: str) -> Mapping[str, str | None]:
    return {
        "name": code(item.path),
        "text": block(content.rstrip(), "python"),
        "needs": text(f"Needs {listed(item.needs) or 'only Python'}."),
        "checkpoint": _checkpoint(item.checkpoint) if item.checkpoint else None,
        "ran": text(_ran(item)),
        "output": block(item.output.rstrip()) if item.output else None,
    }


def _ran(item: ScriptRecord) -> str:
    statuses = ", ".join(map(str, item.exit_statuses)) or "none"
    if item.verified:
        return f"Run {item.runs} times in a clean interpreter (exit statuses {statuses}). Output of the last run:"
    return f"Not verified (exit statuses {statuses}). Output:"


def _checkpoint(checkpoint: CheckpointFiles) -> str:
    """Which files it needs, told apart by their hash."""
    hashes = "; ".join(f"{name} {value}" for name, value in checkpoint.sha256.items())
    revision = f"at revision {checkpoint.revision}" if checkpoint.revision else ""
    words = f"{revision} {f'(SHA-256: {hashes})' if hashes else ''}".strip()
    return f"Reads the checkpoint {code(checkpoint.id)}{f' {text(words)}' if words else ''}."


def _reduction(reduction: Reduction) -> Iterator[str]:
    """How small the case got, and in how many trials."""
    inputs, layers = reduction.inputs, reduction.layers
    if inputs and inputs.before:
        special = f", {sum(inputs.special)} of them special" if any(inputs.special) else ""
        ids = ", ".join(map(str, inputs.ids))
        before = many(inputs.before or 0, "token")
        yield f"{inputs.after} of {before} {_enough(inputs.after or 0)} (ids {ids}{special})."
    if layers:
        kept = listed([str(number) for number in layers.kept])
        which = f"layer {kept}" if len(layers.kept) == 1 else f"layers {kept}"
        enough = _enough(len(layers.kept))
        yield sentence(f"{which} of the {layers.total} in {layers.path} {enough}, fed with {layers.fed}.")
    listing = reduction.listing
    if listing is not None and not listing.whole:
        yield f"{listing.lines} of {many(listing.lines_before, 'line')} of the script {_enough(listing.lines)}."
    if reduction.trials:
        crashed = f" ({reduction.crashed_trials} killed their process)" if reduction.crashed_trials else ""
        yield f"{reduction.trials} trials{crashed}; each smaller case has the same operator and mechanism."
    yield from (full_stop(sentence(note)) for note in reduction.notes)


def _enough(count: int) -> str:
    return "is enough" if count == 1 else "are enough"


SECTION = Section("Reproducer", fill, TEMPLATE, rank=3)
