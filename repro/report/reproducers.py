"""The smallest case: the scripts that show the fault with what they printed, how small the input got, and the known
faults that the run looks like.
"""

from collections.abc import Mapping
from typing import Any

from repro.core.sentences import listed, sentence
from repro.report.markdown import block, cell, code, text
from repro.report.tables import Json


def smallest(document: Json, scripts: Mapping[str, str]) -> dict[str, Any] | None:
    """The section on the script; None where there is none.

    Args:
        document: The content of verdict.json, redacted.
        scripts: The text of each script, by its file's name, redacted.
    """
    first = document.get("reproducer")
    if not first:
        return None
    shown = [item for item in (first, *(first.get("others") or ())) if item.get("path") in scripts]
    return {
        "words": text(sentence(str(first["reason"]))),
        "reduction": [text(line) for line in _reduction(document.get("reduction") or {})],
        "scripts": [_script(item, scripts[str(item["path"])]) for item in shown],
    }


def _script(item: Json, content: str) -> dict[str, str | None]:
    checkpoint = item.get("checkpoint")
    return {
        "name": code(item["path"]),
        "text": block(content.rstrip(), "python"),
        "needs": text(f"Needs {listed(list(item['needs'])) or 'Python alone'}."),
        "checkpoint": _checkpoint(checkpoint) if checkpoint else None,
        "said": _said(item),
        "output": block(str(item["output"]).rstrip()) if item.get("output") else None,
    }


def _said(item: Json) -> str:
    statuses = ", ".join(map(str, item.get("exit_statuses") or ()))
    if item.get("verified"):
        return text(f"Run {item['runs']} times in a clean interpreter; exit statuses {statuses}. The last one printed:")
    return text(f"Not verified (exit statuses {statuses or 'none'}). It printed:")


def _checkpoint(checkpoint: Json) -> str:
    """Which files it needs, told apart by their hash."""
    revision = f" at revision {checkpoint['revision']}" if checkpoint.get("revision") else ""
    hashes = "; ".join(f"{name} {value}" for name, value in (checkpoint.get("sha256") or {}).items())
    return f"It needs the checkpoint {cell(checkpoint['id'])}{text(revision)}" + (
        f" (SHA-256: {text(hashes)})." if hashes else "."
    )


def _reduction(reduction: Json) -> list[str]:
    """How small the case got, and in how many trials."""
    said = []
    inputs = reduction.get("inputs")
    if inputs:
        special = sum(bool(item) for item in inputs.get("special") or ())
        which = f", {special} of them special" if special else ""
        ids = ", ".join(map(str, inputs["ids"]))
        suffice = "suffices" if inputs["after"] == 1 else "suffice"
        said.append(f"Of {inputs['before']} tokens, {inputs['after']} {suffice} (ids {ids}{which}).")
    if reduction.get("layers"):
        layers = reduction["layers"]
        kept = list(layers["kept"])
        those = (
            f"number {kept[0]} alone shows it"
            if len(kept) == 1
            else f"{len(kept)} show it ({listed([str(item) for item in kept])})"
        )
        said.append(f"Of the {layers['total']} layers of {layers['path']}, {those}, fed with {layers['fed']}.")
    if reduction.get("trials") is not None:
        crashed = reduction.get("crashed_trials")
        died = f", of which {crashed} killed their process" if crashed else ""
        said.append(f"{reduction['trials']} trials were made{died}; each kept the same operator and mechanism.")
    return said + [sentence(note.rstrip(".")) + "." for note in reduction.get("notes") or ()]


def looks_like(document: Json) -> list[str]:
    """The known faults that the run looks like, with what the further test says."""
    return [f"{text(item['sentence'])} {item['url']}" for item in document.get("looks_like") or ()]
