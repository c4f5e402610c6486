"""What the report shows of verdict.json: chosen, rounded, thinned, and safe as Markdown.

Every string that leaves this module is Markdown; the template only places it. A part that no step gave is an empty list
or None, and the template leaves its section out.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from repro.core.sentences import listed, sentence, unused_prompt
from repro.report import cells, opening
from repro.report.markdown import block, cell, code, text
from repro.report.models import section as comparison
from repro.report.origin import bisect_note, headroom, origin_rows, ruled_out, spread
from repro.report.prompts import many
from repro.report.reproducers import looks_like, smallest
from repro.report.tables import DIGITS, Json, Row, first_of, shown_number

NOTHING: Mapping[str, str] = MappingProxyType({})
IDS = 48
PROMPT_CHARACTERS = 400
NAMES = 8
OWNERS = {
    "pytorch": "PyTorch's",
    "transformers": "Transformers'",
    "checkpoint": "The checkpoint's",
    "caller": "The caller's",
}
LISTS = {
    "missing_keys": "missing keys, not in the file and so initialised at random",
    "unexpected_keys": "unexpected keys, in the file and not in the model",
    "mismatched": "mismatched shapes",
    "meta": "tensors left without storage",
    "unset_buffers": "buffers left as unset memory",
}
"""Lists of the load step, and what they are."""
ELSEWHERE = frozenset({"executable", "distributions", "closures"})
"""What of the environment only verdict.json has: a path of this machine, and lists of everything that is installed."""


def view(document: Json, rows: int, scripts: Mapping[str, str] = NOTHING) -> dict[str, Any]:
    """The template's variables.

    Args:
        document: The content of verdict.json, redacted.
        rows: The most rows that a table may have.
        scripts: The text of each script, by its file's name, redacted.
    """
    document = cells.complete(document)
    origin, bisect, lead = document["origin"], document["bisect"] or {}, cells.lead(document)
    return {
        "title": text(opening.title(document) + cells.title_place(document)),
        "headline": text(opening.headline(document)),
        "second_sentence": text(opening.second_sentence(document) if lead is None else lead),
        "cells": cells.cells(document, rows),
        "versions": cells.versions(document, rows),
        "random": document["model"]["weights"] == "random",
        "seed": document["model"]["seed"],
        "model_rows": _model_rows(document),
        "digits": DIGITS,
        "origin_rows": origin_rows(origin, bisect),
        "headroom": headroom(origin, bisect, rows),
        "spread": spread(bisect, rows),
        "ruled_out": ruled_out(bisect, rows),
        "bisect_note": bisect_note(document),
        "steps": [_step_row(step, origin) for step in document["steps"] if not step["step"].startswith("ablation:")],
        "stderr": _stderr(document),
        "ablations": [
            _ablation_row(ablation)
            for ablation in document["ablations"]
            if ablation["ending"] != "not_run" and not _passed_over(ablation)
        ],
        "passed_over": [_why_not(ablation) for ablation in document["ablations"] if _passed_over(ablation)],
        "workarounds": listed([cell(name) for name in document["workarounds"]]),
        "findings": _findings(document, rows),
        "tensors": _tensors(document["weights"] or {}, rows),
        "smallest": smallest(document, scripts),
        "looks_like": looks_like(document),
        "many": many(document, rows),
        "comparison": comparison(document, rows),
        "owner": _owner(document["owner"]),
        "inputs": _inputs(document["forward"] or {}, rows),
        "inputs_note": text(sentence(unused_prompt(document) or "")),
        "environment": _environment(document["environment"] or {}),
        "command": block(document["command"], "sh"),
        "tool": text(document["tool"]),
        "kit_sha256": document["kit_sha256"],
        "evidence_sha256": document["evidence_sha256"],
    }


def _verdict(value: str) -> str:
    return {"bad": "**bad**"}.get(value, value)


def _model_rows(document: Json) -> list[Row]:
    model, where = document["model"], document["cell"]
    rows = [["script" if document.get("script") else "model", cell(model["id"])]]
    for name, value in (("revision", model["revision"]), ("class", model["class"])):
        rows += [[name, cell(value)]] if value else []
    rows += [["parameters", shown_number(model["parameters"])]] if model["parameters"] else []
    source = "checkpoint"
    if (document["files"] or {}).get("source") == "gguf":
        source += ", expanded by Transformers from the .gguf file"
    if not document.get("script"):
        rows.append(["weights", f"random, seed {model['seed']}" if model["weights"] == "random" else source])
    for name in ("dtype", "device", "attn"):
        rows += [[name, cell(where[name])]] if where[name] else []
    versions = [f"{name} {where[name]}" for name in ("torch", "transformers", "python") if where[name]]
    rows += [["versions", text(", ".join(versions))]] if versions else []
    return rows


def _step_row(step: Json, origin: Json | None) -> Row:
    found = "the origin, as above" if step["step"] == "bisect" and origin else text(step["reason"])
    return [cell(step["step"]), _ending(step), f"{step['seconds']:.1f}", found]


def _ending(item: Json) -> str:
    """The verdict, and how the step ended where it did not end by itself."""
    word = _verdict(item["verdict"])
    if item["ending"] == "crashed":
        return f"{word}, crashed" + (f" ({item['signal']})" if item.get("signal") else "")
    return {"timed_out": f"{word}, timed out", "not_run": f"{word}, not run"}.get(item["ending"], word)


def _stderr(document: Json) -> list[dict[str, str]]:
    """The last words of steps that crashed, once for each place."""
    said: dict[tuple[str, ...], dict[str, str]] = {}
    for step in document["steps"]:
        lines = [line for line in step["stderr_tail"][:25] if not line.startswith("Extension modules:")]
        if step["ending"] == "crashed" and lines:
            place = tuple(line for line in lines if line.lstrip().startswith("File "))[:3] or tuple(lines)
            said.setdefault(place, {"step": cell(step["step"]), "lines": block("\n".join(lines))})
    return list(said.values())[:2]


def _passed_over(ablation: Json) -> bool:
    """The change does not apply to this case; a crash or a time-out is an answer of its own."""
    return bool(ablation["verdict"] == "skip" and ablation["ending"] == "ended")


def _why_not(ablation: Json) -> str:
    return f"{code(ablation['name'])} ({text(ablation['reason'])})"


def _ablation_row(ablation: Json) -> Row:
    return [cell(ablation["name"]), _ending(ablation), text(ablation["reason"])]


def _findings(document: Json, rows: int) -> list[str]:
    """What the files, weights and load steps found, one line each."""
    found = []
    load = document["load"] or {}
    lists = {words: load.get(key) or [] for key, words in LISTS.items()}
    listed_names = [_name(names[0]) for names in lists.values() if names]
    for part in ("files", "load"):
        for item in (document[part] or {}).get("findings") or []:
            problem = str(item.get("problem"))
            if part == "load" and (any(name in problem for name in listed_names) or "not aligned" in problem):
                continue  # it is below, with a number
            where = f"{cell(item['file'])}: " if item.get("file") else ""
            note = " (a note, no fault by itself)" if item.get("severity") == "note" else ""
            found.append(f"{part}: {where}{text(problem)}{note}")
    for words, names in lists.items():
        found += _names(f"load: {words}", [_name(item) for item in names])
    found += _names("load: values that differ from the file's", (load.get("values") or {}).get("differ") or [])
    if load.get("misaligned"):
        examples = [str(item.get("tensor")) for item in load.get("misaligned_examples") or []]
        found += [
            f"load: {load['misaligned']:,} parameters are misaligned in memory"
            + (f", such as {cell(examples[0])}" if examples else "")
            + " (a precondition of some faults, no fault by itself)"
        ]
    weights = document["weights"] or {}
    found += _names("weights: tensors of zeros only", weights.get("zero_tensors") or [])
    for dtype, names in (weights.get("overflows_in") or {}).items():
        found += _names(f"weights: beyond the limit of {text(dtype)}", names)
    shown, more = first_of(found, rows, "findings")
    return shown + ([more] if more else [])


def _name(item: object) -> str:
    """A tensor's name, also where its shapes stand beside it."""
    if not isinstance(item, Mapping):
        return str(item)
    shapes = f" {item['file']} in the file, {item['model']} in the model" if "file" in item and "model" in item else ""
    return f"{item.get('tensor')}{shapes}"


def _names(what: str, names: Sequence[object]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(cell(name) for name in names[:NAMES])
    return [f"{what}: {len(names):,} ({shown}{', ...' if len(names) > NAMES else ''})"]


def _tensors(weights: Json, rows: int) -> dict[str, Any] | None:
    """Tensors with NaN or Inf."""
    items = weights.get("findings") or []
    if not items:
        return None
    chosen, note = first_of(items, rows, "tensors")
    table = [
        [
            cell(item.get("tensor")),
            cell(item.get("file")),
            text(f"{item.get('dtype')} {item.get('shape')}"),
            *(shown_number(item.get(key)) for key in ("nan", "posinf", "neginf")),
            text(item.get("first_index")),
        ]
        for item in chosen
    ]
    return {"rows": table, "note": note}


def _owner(owner: Json | None) -> str | None:
    if owner is None:
        return None
    advice = owner.get("advice")
    mend = f" To mend the call: {text(advice)}." if advice else ""
    return f"{OWNERS.get(owner['project'], 'Not known')}. {text(owner['reason'])}{mend}"


def _inputs(forward: Json, rows: int) -> list[str]:
    lines = []
    prompts = forward.get("prompts") or []
    for item in prompts[:rows]:
        prompt, ids, tokens = item.get("prompt"), item.get("input_ids") or [], item.get("tokens") or []
        if item.get("input_source") == "seeded" or prompt is None:
            head = f"token ids drawn from seed {text(item.get('seed'))} (no tokenizer was used)"
        else:
            cut = str(prompt)[:PROMPT_CHARACTERS]
            more = f" (the first {len(cut)} of {len(str(prompt)):,} characters)" if len(cut) < len(str(prompt)) else ""
            head = code(cut) + more
        more = f", ... ({len(ids):,} in all)" if len(ids) > IDS else ""
        line = f"{head}: {text(item.get('verdict') or 'no verdict')}. Ids: {', '.join(map(str, ids[:IDS]))}{more}."
        if tokens and len(tokens) <= IDS:
            line += f" Tokens: {' '.join(code(token) for token in tokens)}"
        lines.append(line)
    if len(prompts) > rows:
        lines.append(f"The first {rows} of {len(prompts)} inputs are shown.")
    return lines


def _environment(environment: Json) -> list[Row]:
    """What changes numbers, one row each; nested settings as name=value."""
    rows = []
    for key, value in environment.items():
        if value in (None, {}, [], "") or key in ELSEWHERE:
            continue
        if isinstance(value, Mapping):
            shown = ", ".join(f"{name}={_plain(item)}" for name, item in value.items() if item is not None)
        elif isinstance(value, list):
            shown = "; ".join(_plain(item) for item in value)
        else:
            shown = _plain(value)
        rows += [[text(key.replace("_", " ")), cell(shown)]] if shown else []
    return rows


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={item}" for name, item in value.items() if item is not None)
    return str(value)
