"""What the report shows of verdict.json: chosen, rounded, thinned, and safe as Markdown.

Every string that leaves this module is Markdown; the template only places it. A part that no step gave is an empty list
or None, and the template leaves its section out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.records import number
from repro.report.markdown import block, cell, code, text
from repro.wording import MECHANISMS, origin_dtype, plain

DASH = "-"
DIGITS = 6
IDS = 48
PROMPT_CHARACTERS = 400
NAMES = 8
SPREAD_ROWS = 12
FIRST_ROWS, AROUND = 3, 3

Row = list[str]
Json = Mapping[str, Any]


def view(document: Json, rows: int) -> dict[str, Any]:
    """The template's variables.

    Args:
        document: The content of verdict.json, redacted.
        rows: The most rows that a table may have.
    """
    origin, bisect = document["origin"], document["bisect"] or {}
    return {
        "title": text(_title(document)),
        "headline": text(document["headline"]),
        "second_sentence": text(_second_sentence(document)),
        "random": document["model"]["weights"] == "random",
        "seed": document["model"]["seed"],
        "model_rows": _model_rows(document),
        "digits": DIGITS,
        "origin_rows": _origin_rows(origin, bisect),
        "origin_note": text(origin["note"]) if origin and origin.get("note") else None,
        "headroom": _headroom(origin, bisect, rows),
        "spread": _spread(bisect, rows),
        "innocent": _innocent(bisect, rows),
        "bisect_note": _bisect_note(document),
        "steps": [_step_row(step) for step in document["steps"] if not step["step"].startswith("arm:")],
        "stderr": _stderr(document),
        "arms": [_arm_row(arm) for arm in document["arms"] if arm["ending"] != "not_run"],
        "cures": _list([cell(name) for name in document["cures"]]),
        "findings": _findings(document, rows),
        "tensors": _tensors(document["weights"] or {}, rows),
        "owner": _owner(document["owner"]),
        "inputs": _inputs(document["forward"] or {}, rows),
        "environment": _environment(document["environment"] or {}),
        "command": block(document["command"], "sh"),
        "tool": text(document["tool"]),
        "kit_sha256": document["kit_sha256"],
        "evidence_sha256": document["evidence_sha256"],
    }


def _name(document: Json) -> str:
    """The model by its Hub id, or by the last part of its path."""
    model = str(document["model"]["id"])
    name = Path(model).name if "\\" in model or model.startswith(("/", "~")) else model
    return f"{name} with random weights" if document["model"]["weights"] == "random" else name


def _title(document: Json) -> str:
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


def _second_sentence(document: Json) -> str:
    forward = document["forward"]
    arms = [arm for arm in document["arms"] if arm["ending"] != "not_run"]
    if document["verdict"] == "skip":
        return "Nothing follows from this run about whether the model is sound."
    if document["verdict"] == "good":
        skipped = [step["step"] for step in document["steps"] if step["verdict"] == "skip"]
        return f"{len(document['steps']) - len(skipped)} steps gave an answer" + (
            f"; skipped were {_list(skipped)}." if skipped else "; none was skipped."
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
    words.append(f"good with {_list(cures)}" if cures else "none of them cures it")
    if bad and cures:
        words.append(f"still bad with {_list(bad)}")
    if not steady:
        words.append("but a repeat of the same gave other numbers, so a good row may be chance")
    return "; ".join(words) + "."


def _list(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def _number(value: object) -> str:
    """A number as the report gives it; a dash where there is none."""
    found = number(value)
    if found is None:
        return DASH
    return f"{value:,}" if isinstance(value, int) else plain(found, DIGITS)


def _verdict(value: str) -> str:
    return {"bad": "**bad**"}.get(value, value)


def _thin(items: Sequence[Any], rows: int, keep: set[int]) -> tuple[list[Any], str | None]:
    """At most ``rows`` items in order: those to keep first, then the first, the last, and some evenly between."""
    if len(items) <= rows:
        return list(items), None
    wanted = [index for index in sorted(keep) if 0 <= index < len(items)]
    wanted += [*range(FIRST_ROWS), *range(len(items) - FIRST_ROWS, len(items))]
    wanted += [round(place * (len(items) - 1) / (rows - 1)) for place in range(rows)] if rows > 1 else []
    chosen = sorted(list(dict.fromkeys(wanted))[:rows])
    return [items[index] for index in chosen], f"{len(chosen)} of {len(items)} rows are shown; verdict.json has all."


def _first(items: Sequence[Any], rows: int, what: str) -> tuple[list[Any], str | None]:
    shown = list(items[:rows])
    return shown, f"The first {rows} of {len(items):,} {what} are shown." if len(items) > rows else None


def _model_rows(document: Json) -> list[Row]:
    model, where = document["model"], document["cell"]
    rows = [["model", cell(model["id"])]]
    for name, value in (("revision", model["revision"]), ("class", model["class"])):
        rows += [[name, cell(value)]] if value else []
    rows += [["parameters", _number(model["parameters"])]] if model["parameters"] else []
    rows.append(["weights", f"random, seed {model['seed']}" if model["weights"] == "random" else "checkpoint"])
    for name in ("dtype", "device", "attn"):
        rows += [[name, cell(where[name])]] if where[name] else []
    versions = [f"{name} {where[name]}" for name in ("torch", "transformers", "python") if where[name]]
    rows += [["versions", text(", ".join(versions))]] if versions else []
    return rows


def _origin_rows(origin: Json | None, bisect: Json) -> list[Row]:
    if not origin:
        return []
    module_class = f" ({text(origin['module_class'])})" if origin.get("module_class") else ""
    rows = [["module", cell(origin.get("module") or "the model itself") + module_class]]
    dtype = origin_dtype(origin, bisect)
    named = [
        ("call of the module", origin.get("call_index")),
        ("operator", origin.get("op")),
        ("source", origin.get("source")),
        ("mechanism", MECHANISMS.get(str(origin.get("mechanism")), origin.get("mechanism"))),
        ("dtype", dtype),
        ("weight", origin.get("tensor")),
        ("index in the weight", origin.get("tensor_index")),
    ]
    rows += [[name, cell(value)] for name, value in named if value is not None]
    if origin.get("token_index") is not None:
        token = f" {cell(origin['token'])}" if origin.get("token") is not None else ""
        rows.append(["token", f"{origin['token_index']}{token}"])
    for name, key in (("head", "head_index"), ("channel", "channel_index")):
        rows += [[name, str(origin[key])]] if origin.get(key) is not None else []
    reference = origin.get("reference") or {}
    if number(origin.get("reference_value")) is not None:
        scope = {"model": "the whole model", "operator": "this operator alone"}.get(str(reference.get("scope")))
        by = ", ".join(str(part) for part in (reference.get("dtype"), scope and f"{scope} run in it") if part)
        value = _number(origin["reference_value"])
        rows.append(["reference value there", f"{value} ({text(by)})" if by else value])
    limit = origin.get("limit") if origin.get("limit") is not None else bisect.get("limit")
    if number(limit) is not None:
        rows.append(["largest finite value of the dtype", _number(limit)])
    for index, stats in enumerate(origin.get("inputs") or []):
        rows.append([f"input {index}", _stats(stats)])
    rows += [["output", _stats(origin["output"])]] if origin.get("output") else []
    if origin.get("confirmed") is not None:
        rows.append(["operator repeated alone gives the same", "yes" if origin["confirmed"] else "no"])
    return rows


def _stats(stats: object) -> str:
    """Statistics of a tensor in one cell."""
    if not isinstance(stats, Mapping):
        return cell(stats)
    head = " ".join(str(stats[key]) for key in ("dtype", "shape") if stats.get(key) is not None)
    parts = [text(head)] if head else []
    for name, key in (("min", "min"), ("max", "max"), ("NaN", "nan"), ("+Inf", "posinf"), ("-Inf", "neginf")):
        value = stats.get(key)
        if value is not None and not (value == 0 and key in ("nan", "posinf", "neginf")):
            parts.append(f"{name} {_number(value)}")
    return ", ".join(parts) or cell(dict(stats))


def _headroom(origin: Json | None, bisect: Json, rows: int) -> dict[str, Any] | None:
    """Largest magnitude by module, in order of the forward pass, against the dtype's limit."""
    items = [item for item in bisect.get("headroom") or [] if isinstance(item, Mapping)]
    limit = number(bisect.get("limit"))
    if not items or not limit:
        return None
    place = next((i for i, item in enumerate(items) if origin and item.get("module") == origin.get("module")), None)
    around = set() if place is None else set(range(place - AROUND, place + AROUND + 1))
    known = [item for item in items if item.get("absmax") != "nan"]
    chosen, note = _thin(known, rows, around)
    if len(known) < len(items):
        words = f"{len(items) - len(known)} modules are left out, because their largest magnitude is NaN."
        note = f"{note} {words}" if note else words
    table = []
    for item in chosen:
        largest = number(item.get("absmax"))
        share = DASH if largest is None or largest != largest else _share(largest / limit)
        here = " (origin)" if origin and item.get("module") == origin.get("module") else ""
        table.append([cell(item.get("module") or "the model itself") + here, _number(item.get("absmax")), share])
    return {"rows": table, "note": note, "limit": plain(limit, DIGITS), "dtype": text(bisect.get("dtype") or "")}


def _share(ratio: float) -> str:
    if ratio == float("inf"):
        return "beyond"
    return f"{100 * ratio:.1f} %" if ratio >= 0.001 else "below 0.1 %"


def _spread(bisect: Json, rows: int) -> dict[str, Any] | None:
    items = [item for item in bisect.get("spread") or [] if isinstance(item, Mapping)]
    first = next((index for index, item in enumerate(items) if item.get("bad_tokens")), None)
    if first is None:
        return None
    items = items[max(first - 1, 0) :]
    chosen, note = _thin(items, min(rows, SPREAD_ROWS), set(range(SPREAD_ROWS // 2)))
    table = []
    for item in chosen:
        tokens = list(item.get("bad_tokens") or [])
        which = ", ".join(str(token) for token in tokens[:12]) + (", ..." if len(tokens) > 12 else "")
        total = item.get("tokens")
        all_of_them = total is not None and len(tokens) == total
        table.append(
            [
                cell(item.get("module") or "the model itself"),
                f"{len(tokens)} of {total}" if total is not None else str(len(tokens)),
                "all" if all_of_them and len(tokens) > 1 else which,
            ]
        )
    return {"rows": table, "note": note}


def _innocent(bisect: Json, rows: int) -> list[Row]:
    items = bisect.get("innocent") or []
    return [
        [cell(item.get("module") or "the model itself"), cell(item.get("op")), text(item.get("why"))]
        for item in items[: min(rows, 8)]
    ]


def _bisect_note(document: Json) -> str | None:
    """Why there is no origin although the forward pass is bad."""
    bisect, forward = document["bisect"], document["forward"]
    if document["origin"] or forward is None or forward["verdict"] != "bad":
        return None
    if bisect is None:
        return "The bisect step was not asked for."
    return text(bisect["reason"])


def _step_row(step: Json) -> Row:
    return [cell(step["step"]), _ending(step), f"{step['seconds']:.1f}", text(step["reason"])]


def _ending(item: Json) -> str:
    """The verdict, and how the step ended where it did not end by itself."""
    word = _verdict(item["verdict"])
    if item["ending"] == "crashed":
        return f"{word}, crashed" + (f" ({item['signal']})" if item.get("signal") else "")
    return {"timed_out": f"{word}, timed out", "not_run": f"{word}, not run"}.get(item["ending"], word)


def _stderr(document: Json) -> list[dict[str, str]]:
    """The last words of steps that crashed."""
    return [
        {"step": cell(step["step"]), "lines": block("\n".join(step["stderr_tail"][:25]))}
        for step in document["steps"]
        if step["ending"] == "crashed" and step["stderr_tail"]
    ][:2]


def _arm_row(arm: Json) -> Row:
    logits = arm["logits"] or {}
    infinite = [number(logits.get(key)) for key in ("posinf", "neginf")]
    return [
        cell(arm["name"]),
        _ending(arm),
        _number(logits.get("min")),
        _number(logits.get("max")),
        _number(logits.get("nan")),
        _number(int(sum(value or 0 for value in infinite))) if any(value is not None for value in infinite) else DASH,
        text(arm["reason"]),
    ]


def _findings(document: Json, rows: int) -> list[str]:
    """What the files, weights and load steps found, one line each."""
    found = []
    for part in ("files", "load"):
        for item in (document[part] or {}).get("findings") or []:
            where = f"{cell(item['file'])}: " if item.get("file") else ""
            note = " (a note, no fault by itself)" if item.get("severity") == "note" else ""
            found.append(f"{part}: {where}{text(item.get('problem'))}{note}")
    load = document["load"] or {}
    for key, words in (
        ("missing_keys", "missing keys"),
        ("unexpected_keys", "unexpected keys"),
        ("mismatched", "mismatched shapes"),
        ("meta", "tensors left without storage"),
        ("unset_buffers", "buffers left as unset memory"),
    ):
        found += _names(f"load: {words}", load.get(key) or [])
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
    shown, more = _first(found, rows, "findings")
    return shown + ([more] if more else [])


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
    chosen, note = _first(items, rows, "tensors")
    table = [
        [
            cell(item.get("tensor")),
            cell(item.get("file")),
            text(f"{item.get('dtype')} {item.get('shape')}"),
            *(_number(item.get(key)) for key in ("nan", "posinf", "neginf")),
            text(item.get("first_index")),
        ]
        for item in chosen
    ]
    return {"rows": table, "note": note}


def _owner(owner: Json | None) -> str | None:
    if owner is None:
        return None
    return f"{text(owner['project'] or 'Not known')}. {text(owner['reason'])}"


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
        if value in (None, {}, [], ""):
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
