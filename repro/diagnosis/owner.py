"""Whose fault it is, with the reason, where a step or a verified script supports an answer. Pure.

An operator that is wrong by itself is PyTorch's. Where it is correct, the fault is in the code that calls it: that of
Transformers, of the model or of the caller. Bad bytes are the checkpoint's. A dtype that the model's documentation
excludes, or that cannot hold what the file holds, is the caller's, with advice on what to use instead. Everything else
is open, and the reason says what is missing.
"""

from repro.core.answer import Answer, ScriptRecord
from repro.core.encoding import number
from repro.core.mechanisms import BY_DEFINITION, CODE, PYTORCH, is_in_range, mechanism
from repro.core.payloads import Cause, Load, Origin, Rounding
from repro.core.records import Kind, Outcome, Owner
from repro.core.sentences import listed, origin_dtype, plain
from repro.diagnosis.known import Exclusion

WIDER = frozenset({"dtype=float32", "dtype=bfloat16"})
"""Ablations with a dtype of float32's range."""
FUSED = "scaled_dot_product"
"""Part of the name of each operator that does a whole attention, mask included."""
ALONE = frozenset({"operator", "operators"})
"""Levels of a script that needs PyTorch alone."""
OPEN = "No step of this run tells who owns the fault. Comparing versions or reducing the case further may tell."


def owner(answer: Answer, exclusion: Exclusion | None = None) -> Owner | None:
    """The owner; None where the verdict is not bad.

    Args:
        answer: Of the run, with its reproducer.
        exclusion: What the model's documentation excludes and this case does, if anything.
    """
    if answer.verdict is not Outcome.BAD:
        return None
    for rule in (_files, _weights, _load, _operator):
        found = rule(answer)
        if found is not None:
            return found
    if exclusion is not None:
        reason = f"{exclusion.says.rstrip('.')} ({exclusion.source}), and this run uses {exclusion.dtype}."
        return Owner("caller", reason, exclusion.instead)
    if answer.model.weights == "random":
        return Owner(None, "The weights are random, so this says nothing about a checkpoint, and the cause is open.")
    return _rounding(answer) or _code(answer) or Owner(None, OPEN)


def _rounding(answer: Answer) -> Owner | None:
    """Nobody's: the difference is the dtype's own rounding."""
    found = _all_within(answer)
    if found is None:
        return None
    ratio, allowed = number(found.ratio), found.allowed
    farthest = "" if ratio is None or allowed is None else f" ({plain(ratio, 2)} of {plain(allowed)} units allowed)"
    return Owner(
        None,
        f"This is not a bug: each of {found.operators} operators is within its dtype's own rounding of float64 on the "
        f"same inputs; the farthest is {found.op}{farthest}. The difference is accumulated rounding.",
        "Compare with a tolerance that fits the dtype, or compute in a wider one.",
    )


def is_rounding(answer: Answer) -> bool:
    """Whether every operator of the script was held against float64, and is within what its dtype allows."""
    return _all_within(answer) is not None


def _all_within(answer: Answer) -> Rounding | None:
    found = None if answer.bisect is None else answer.bisect.rounding
    return found if found is not None and found.within and not found.not_judged else None


def _files(answer: Answer) -> Owner | None:
    if answer.kind is not Kind.FILES or answer.files is None:
        return None
    hashes = [item.sha256 for item in answer.files.files]
    if "differs" in hashes:
        return Owner(
            "caller",
            "The copy on this machine is not the published file: its SHA-256 differs.",
            "Remove the file from the cache and download it again.",
        )
    if hashes and all(value == "match" for value in hashes):
        return Owner("checkpoint", "The files are as published: their SHA-256 are those on the Hub.")
    return Owner(None, "There is no published hash to tell a damaged copy from a damaged original.")


def _weights(answer: Answer) -> Owner | None:
    if answer.weights is not None and answer.weights.verdict is Outcome.BAD:
        return Owner("checkpoint", "The values are in the file itself: they were found before any model was loaded.")
    return None


def _load(answer: Answer) -> Owner | None:
    if answer.kind is not Kind.LOAD or answer.load is None:
        return None
    return _keys(answer.load) or _misplaced(answer, answer.load) or _unset(answer, answer.load)


def _keys(load: Load) -> Owner | None:
    """The checkpoint's, where it has the missing tensors in another way than its configuration's class asks for."""
    cause = load.cause
    if cause is None or 2 * cause.explained <= cause.of:
        return None
    how = {
        "prefix": f"with {_named(cause)} at the start of their names",
        "suffix": f"with {_named(cause)} at the end of their names",
        "renamed": f"with {_named(cause)} in their names",
        "wrapped": f"with {_named(cause)} in their names",
        "transposed": "transposed",
    }.get(cause.kind)
    if how is None:
        return Owner("checkpoint", "The file's weights are quantised, and its configuration does not say so.")
    reason = f"The file has {cause.keys:,} of the {cause.of:,} tensors that do not fit, {how}."
    return Owner("checkpoint", reason, "Save the tensors under the names and in the shapes of the model's class.")


def _named(cause: Cause) -> str:
    if not cause.model:
        return f"{cause.file!r}"
    return f"{cause.file!r} in place of {cause.model!r}" if cause.file else f"no {cause.model!r}"


def _misplaced(answer: Answer, load: Load) -> Owner | None:
    """The library's, where it fills a tensor that the file does not name with the values of the wrong one."""
    wrong = next((item for item in load.misplaced if item.belongs != item.tensor), None)
    if wrong is None or answer.case.trust_remote_code:
        return None
    return Owner(
        "transformers",
        f"from_pretrained gives {wrong.tensor}, which the file does not name, the values of {wrong.holds}, and not "
        f"those of {wrong.belongs}.",
    )


def _unset(answer: Answer, load: Load) -> Owner | None:
    if not load.unset_buffers:
        return None
    if answer.case.trust_remote_code:
        return Owner(None, "A buffer is left as unset memory, and the model's own code was allowed to run.")
    return Owner("transformers", "from_pretrained leaves a buffer of one of its own model classes as unset memory.")


def _operator(answer: Answer) -> Owner | None:
    """PyTorch's, where its operator alone, from finite inputs, does not give what float64 arithmetic gives."""
    program = None if answer.reduction is None else answer.reduction.program
    script = _verified(answer, ALONE)
    if program is None or script is None:
        return None
    op, row = str(answer.origin and answer.origin.op), mechanism(program.mechanism)
    shown = f"({script.path}, with PyTorch alone, run {script.runs} times)"
    if FUSED in op and PYTORCH in row.owners and row.correct == BY_DEFINITION:
        return Owner(
            "pytorch",
            f"{op} gives {program.seen} for a query whose mask leaves no key, from finite queries, keys and values "
            f"{shown}. Since PyTorch 2.5 the result for such a query is zero (pytorch#103749).",
        )
    value = None if program.expected is None else number(program.expected.value)
    if value is None or not is_in_range(value, number(program.limit) or 0.0):
        return None
    if PYTORCH in row.owners or FUSED in op:
        return Owner(
            "pytorch",
            f"{op} gives {program.seen} from finite inputs where float64 arithmetic gives {plain(value)} {shown}.",
        )
    return None


def _code(answer: Answer) -> Owner | None:
    """The code that gives a correct operator inputs that it has no finite answer to."""
    origin = answer.origin
    if origin is None:
        return None
    row = mechanism(origin.mechanism)
    if origin.tensor:
        return _cast(answer, origin, origin.tensor) if row.beyond_limit else None
    if CODE not in row.owners or any(
        part is not None and part.verdict is Outcome.BAD for part in (answer.files, answer.weights, answer.load)
    ):
        return None
    why = f"{origin.op} is correct for these inputs: {_cause(answer, origin)}."
    at = f" ({origin.source})" if origin.source else ""
    if origin.code == "transformers":
        return Owner("transformers", f"{why} The cause is in the modeling code of Transformers{at}.")
    if origin.code == "__main__":
        return Owner("caller", f"{why} The cause is in the script's own code{at}.")
    if origin.code not in (None, "torch"):
        return Owner(None, f"{why} The cause is in the model's own code{at}. Report it to the model's authors.")
    return None


def _cause(answer: Answer, origin: Origin) -> str:
    row = mechanism(origin.mechanism)
    cause = row.cause.format(dtype=origin_dtype(origin, answer.bisect) or "the dtype")
    if not row.beyond_limit:
        return cause
    value, limit = number(origin.reference_value), number(origin.limit)
    if value is not None and limit is not None and abs(value) > limit:
        cause += f" ({plain(value)} exceeds {plain(limit)})"
    wider = [name for name in answer.workarounds if name in WIDER]
    return cause + (f"; the output is finite with {listed(wider)}" if wider else "")


def _cast(answer: Answer, origin: Origin, tensor: str) -> Owner | None:
    """A weight that the file holds and the dtype that was asked for does not."""
    value, limit, dtype = number(origin.reference_value), number(origin.limit), answer.case.dtype
    if value is None or limit is None or dtype is None:
        return None
    return Owner(
        "caller",
        f"The file holds {plain(value)} in {tensor}, and the largest number of {dtype}, which was asked for, is "
        f"{plain(limit)}.",
        "Load the model in the dtype of its file, or in bfloat16 or float32.",
    )


def _verified(answer: Answer, levels: frozenset[str]) -> ScriptRecord | None:
    """The verified script of one of these levels."""
    first = answer.reproducer
    scripts = () if first is None else (first, *first.others)
    return next((script for script in scripts if script.verified and script.level in levels), None)
