"""Whose fault it is, with the reason: from the content of verdict.json, where a step or a verified script supports an
answer. Pure.

An operator that is wrong by itself is PyTorch's. Right operators that modelling code feeds beyond a dtype's range, or
with a row that is masked throughout, are Transformers'. Bad bytes are the checkpoint's. A dtype that the model's own
documentation excludes, or that cannot hold what the file holds, is the caller's, and then the advice says how to call
it. Everything else is open, and the reason says what is missing.
"""

from collections.abc import Mapping
from typing import Any

from repro.core.encoding import number
from repro.core.records import Owner
from repro.core.sentences import listed, origin_dtype, plain
from repro.diagnosis.known import Exclusion

Json = Mapping[str, Any]

WIDER = frozenset({"dtype=float32", "dtype=bfloat16"})
"""Ablations with a dtype of float32's range."""
FUSED = "scaled_dot_product"
"""Part of the name of each operator that does a whole attention, mask included."""
ALONE = frozenset({"operator", "operators"})
"""Levels of a script that needs PyTorch alone."""
HOLDS_NONE = "No step of this run tells whose fault it is: versions and a minimal script would be needed."


def owner(document: Json, exclusion: Exclusion | None = None) -> Owner | None:
    """The owner; None where the verdict is not bad.

    Args:
        document: The content of verdict.json, with its reproducer.
        exclusion: What the model's documentation excludes and this case does, if anything.
    """
    if document["verdict"] != "bad":
        return None
    for rule in (_files, _weights, _load, _operator):
        found = rule(document)
        if found is not None:
            return found
    if exclusion is not None:
        said = f"{exclusion.says.rstrip('.')} ({exclusion.source}), and {exclusion.dtype} was asked for."
        return Owner("caller", said, exclusion.instead)
    if (document["model"] or {}).get("weights") == "random":
        return Owner(None, "The weights are random, so this says nothing about a checkpoint, and the cause is open.")
    return _rounding(document) or _code(document) or Owner(None, HOLDS_NONE)


def _rounding(document: Json) -> Owner | None:
    """Nobody's: what differs is what the dtype's own rounding leaves."""
    found = (document.get("bisect") or {}).get("rounding") or {}
    if not is_rounding(document):
        return None
    return Owner(
        None,
        f"This is not a bug: each of {found['operators']} operators is within its dtype's own rounding of float64 on "
        f"the same inputs; the farthest, {found['op']}, by {plain(found['ratio'], 2)} of the {plain(found['allowed'])} "
        f"units that are allowed. What adds up is rounding.",
        "Compare with a tolerance that fits the dtype, or compute in a wider one.",
    )


def is_rounding(document: Json) -> bool:
    """Whether every operator of the script was held against float64, and is within what its dtype allows."""
    found = (document.get("bisect") or {}).get("rounding") or {}
    return bool(found.get("within")) and not found.get("not_judged")


def _files(document: Json) -> Owner | None:
    if document["kind"] != "files":
        return None
    hashes = [item.get("sha256") for item in document["files"].get("files") or () if isinstance(item, Mapping)]
    if "differs" in hashes:
        return Owner(
            "caller",
            "The copy on this machine is not the published file: its SHA-256 differs from its name.",
            "Remove the file from the cache and download it again.",
        )
    if hashes and all(value == "match" for value in hashes):
        return Owner("checkpoint", "The files are as published: the SHA-256 of each is the one that the Hub names.")
    return Owner(None, "There is no published hash to tell a damaged copy from a damaged original.")


def _weights(document: Json) -> Owner | None:
    if (document["weights"] or {}).get("verdict") == "bad":
        return Owner(
            "checkpoint", "The values are in the file already: they were counted before any model was built from it."
        )
    return None


def _load(document: Json) -> Owner | None:
    if document["kind"] != "load" or not document["load"].get("unset_buffers"):
        return None
    if document["case"].get("trust_remote_code"):
        return Owner(None, "A buffer is left as unset memory, and the model's own code was allowed to run.")
    return Owner("transformers", "from_pretrained leaves a buffer of one of its own model classes as unset memory.")


def _operator(document: Json) -> Owner | None:
    """PyTorch's, where its operator alone, from finite inputs, is not what its own arithmetic in float64 is."""
    origin, program = document["origin"] or {}, (document.get("reduction") or {}).get("program")
    script = _verified(document, ALONE)
    if not program or script is None:
        return None
    op, mechanism = str(origin.get("op")), program.get("mechanism")
    where = f"{op} alone, with PyTorch and nothing else ({script['path']}, run {script['runs']} times),"
    value = number((program.get("expected") or {}).get("value"))
    if FUSED in op and mechanism == "masked_row":
        return Owner(
            "pytorch",
            f"{where} gives NaN for a query whose mask leaves no key, from finite queries, keys and values. "
            "Since PyTorch 2.5 its own answer to such a query is zeros (pytorch#103749).",
        )
    if value is None or not abs(value) <= (number(program.get("limit")) or 0.0):
        return None
    if mechanism == "kernel" or FUSED in op:
        return Owner(
            "pytorch",
            f"{where} gives {program['seen']} from finite inputs, where float64 arithmetic has {plain(value)}.",
        )
    return None


def _code(document: Json) -> Owner | None:
    """Whose code feeds a right operator with what it cannot take."""
    origin = document["origin"] or {}
    mechanism = origin.get("mechanism")
    if mechanism == "overflow" and origin.get("tensor"):
        return _cast(document, origin)
    if mechanism not in ("overflow", "invalid", "divide_by_zero", "masked_row", "unset_memory") or origin.get("tensor"):
        return None
    if any((document[step] or {}).get("verdict") == "bad" for step in ("files", "weights", "load")):
        return None
    why = _what_it_does(document, origin)
    source = f" ({origin['source']})" if origin.get("source") else ""
    code = origin.get("code")
    if code == "transformers":
        return Owner("transformers", f"{why}: the modelling code of Transformers{source} leads there.")
    if code == "__main__":
        return Owner("caller", f"{why}: the script's own code{source} leads there.", None)
    if code is not None and code != "torch":
        return Owner(
            None, f"{why}: the code that leads there{source} came with the model, so it is its makers' to mend."
        )
    return None


def _what_it_does(document: Json, origin: Json) -> str:
    op, mechanism = origin.get("op"), origin.get("mechanism")
    dtype = origin_dtype(origin, document["bisect"] or {}) or "the dtype"
    if mechanism == "masked_row":
        return f"{op} is right (the softmax of a row that is -inf throughout is 0 / 0), and a whole row is masked"
    if mechanism == "unset_memory":
        return f"{op} hands out memory as it is, and it is read before anything is written to it"
    if mechanism != "overflow":
        return f"{op} is right (float64 arithmetic gives no number either), and its inputs ask for the impossible"
    value, limit = number(origin.get("reference_value")), number(origin.get("limit"))
    numbers = f": {plain(value)} is beyond {plain(limit)}" if value is not None and limit is not None else ""
    wider = [name for name in document["workarounds"] if name in WIDER]
    cured = f"; the output is finite with {listed(wider)}" if wider else ""
    return f"{op} is right{numbers if abs(value or 0) > (limit or 0) else ''}, and its inputs exceed {dtype}{cured}"


def _cast(document: Json, origin: Json) -> Owner | None:
    """A weight that the file holds and the dtype that was asked for does not."""
    value, limit = number(origin.get("reference_value")), number(origin.get("limit"))
    dtype = document["case"].get("dtype")
    if value is None or limit is None or dtype is None:
        return None
    return Owner(
        "caller",
        f"The file holds {plain(value)} in {origin['tensor']}; {dtype}, which was asked for, ends at {plain(limit)}.",
        "Load the model in the dtype of its file, or in bfloat16 or float32.",
    )


def _verified(document: Json, levels: frozenset[str]) -> Json | None:
    """The verified script of one of these levels."""
    first: Json = document.get("reproducer") or {}
    scripts: tuple[Json, ...] = (first, *(first.get("others") or ()))
    for script in scripts:
        if script.get("verified") and script.get("level") in levels:
            return script
    return None
