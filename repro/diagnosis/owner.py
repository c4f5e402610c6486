"""Whose fault it is, with the reason, where a step or a verified script supports an answer. Pure.

An operator that is wrong by itself is PyTorch's. Where it is correct, the fault is in the code that calls it: that of
Transformers, of the model or of the caller. Bad bytes are the checkpoint's. A dtype that the model's documentation
excludes, or that cannot hold what the file holds, is the caller's, with advice on what to use instead. Everything else
is open, and the reason says what is missing.
"""

import math

from repro.core.answer import Answer, ScriptRecord
from repro.core.encoding import number
from repro.core.finite.diff import SIDES
from repro.core.mechanisms import BY_DEFINITION, CODE, PYTORCH, is_in_range, mechanism
from repro.core.payloads import CameIn, Cause, Load, Origin, Rounding
from repro.core.records import Kind, Outcome, Owner
from repro.core.sentences import listed, many, origin_dtype, plain, sentence
from repro.diagnosis.known import Exclusion

WIDER = frozenset({"dtype=float32", "dtype=bfloat16"})
"""Ablations with a dtype of float32's range."""
PARTS = {
    "fast_path=off": "the fused fast path of the transformer layers",
    "mkldnn=off": "oneDNN",
}
"""Ablations of a script that leave out a part of PyTorch which must not change a result."""
LAYERS = frozenset({"eager", "aot_eager", "inductor"})
"""Backends of torch.compile that are PyTorch's own."""
NAMES = 4
"""How many operators a sentence names."""
NEAR = 16.0
"""A weight within this factor of the dtype's largest number is near it. Trained weights are far smaller."""
WIDEST = 3.38e38
"""Below the largest numbers of bfloat16 and float32: no dtype that a model is loaded in reaches further."""
FUSED = "scaled_dot_product"
"""Part of the name of each operator that does a whole attention, mask included."""
ATTENTION = "torch.nn.functional.multi_head_attention_forward"
"""PyTorch's own attention in Python, which is given the mask and does the softmax."""
COMES_WITH = "transformers_modules"
"""The package under which Transformers imports code that comes with a model: its authors are not known."""
ALONE = frozenset({"operator", "operators"})
"""Levels of a script that needs PyTorch alone."""
NAMED = 3
"""Weights that are named."""
FARTHER = "is farther from float64 of the same inputs than rounding allows"
WIDE = "float32"
BYTES = 4
"""Of a number in float32."""
ADVICE = "Load the model in the dtype of its file, or in bfloat16 or float32."
OPEN = "No step of this run tells who owns the fault. Comparing versions or reducing the case further may tell."


def owner(answer: Answer, exclusion: Exclusion | None = None) -> Owner | None:
    """The owner; None where the verdict is not bad.

    Args:
        answer: Of the run, with its reproducer.
        exclusion: What the model's documentation excludes and this case does, if anything.
    """
    if answer.verdict is not Outcome.BAD:
        return None
    for rule in (
        _chance,
        _files,
        _weights,
        _load,
        _parted,
        _operator,
        _outside,
        _departed,
        _pytorch,
        _asked_narrower,
        _data,
    ):
        found = rule(answer)
        if found is not None:
            return found
    if exclusion is not None:
        reason = f"{exclusion.says.rstrip('.')} ({exclusion.source}), and this run uses {exclusion.dtype}."
        return Owner("caller", reason, exclusion.instead)
    if answer.model.weights == "random":
        return Owner(None, "The weights are random, so this says nothing about a checkpoint, and the cause is open.")
    return _rounding(answer) or _right_for_its_inputs(answer) or _code(answer) or Owner(None, OPEN)


def _chance(answer: Answer) -> Owner | None:
    """Nobody's, where the script does not end the same way twice with nothing changed."""
    told = answer.script
    if told is None or not told.otherwise or (answer.origin is not None and not told.unseeded):
        return None
    drew = f" It draws random numbers without a seed ({listed(told.unseeded)})." if told.unseeded else ""
    advice = "Seed it, then ask again." if told.unseeded else "Make it end the same way each time, then ask again."
    return Owner(
        None,
        f"Not deterministic: {told.otherwise} of {told.further_runs} further runs of the same script ended otherwise."
        f"{drew} What goes away with a change may have gone away by chance.",
        advice,
    )


def _outside(answer: Answer) -> Owner | None:
    """What was there before the first operator ran, or was written where PyTorch cannot see it."""
    origin = answer.origin
    if origin is None:
        return None
    came, named = origin.came_in, origin.tensor or "the tensor"
    if origin.mechanism == "written_outside":
        return Owner(
            None, f"Code that is not an operator of PyTorch wrote the value; its author is not known ({origin.note})."
        )
    if origin.mechanism == "bad_weights" and answer.model.weights == "memory":
        return Owner(
            None,
            f"The parameter {named} held the value in memory before this pass. A guard on the training loop tells "
            "which step put it there (repro.Guard), and `repro weights` whether a file holds it.",
        )
    if origin.mechanism == "bad_weights" and answer.case.factory not in (None, answer.case.model):
        return Owner("checkpoint", f"{named} holds the value once the weights that were given are loaded.")
    if origin.mechanism == "bad_weights" and answer.case.factory is not None:
        return Owner(
            None,
            f"{named} holds the value when the factory gives the module. `repro weights FILE` tells whether a file that"
            " it reads does.",
        )
    if origin.mechanism == "bad_weights" and came is not None:
        return Owner("checkpoint", f"The value is in the file: {named} holds it when it is loaded.")
    if origin.mechanism == "bad_input" and came is not None and came.kind == "data":
        return _data_that_came(answer, origin, came)
    if origin.mechanism == "bad_input" and came is not None:
        return Owner(None, f"The {came.kind} {named} held the value before it was read. Who put it there is not known.")
    return None


def _data_that_came(answer: Answer, origin: Origin, came: CameIn) -> Owner:
    """The caller's, where the script's own code made the tensor, or a variable of its own holds the value. A
    library may have computed it in code that PyTorch does not see.
    """
    share = f"{came.bad:,} of {many(came.total, 'value')} of {origin.tensor or 'the tensor'}"
    if answer.case.is_script and came.entry_code != "__main__" and came.held_by is None:
        return Owner(
            None,
            f"{share} are NaN or Inf when {came.entry_code} hands them to PyTorch. Whether it was given them, or "
            "computed them outside of PyTorch, is not known.",
        )
    held = f" The script's own variable {came.held_by} holds such a value." if came.held_by else ""
    return Owner(
        "caller",
        f"The data are the cause: {share} are NaN or Inf before the first module reads them.{held}",
        "Look for the example in the data, and drop or mend it.",
    )


def _pytorch(answer: Answer) -> Owner | None:
    """PyTorch's, where the same program is good without one of its own parts, or an operator of it is not what float64
    arithmetic of the same finite inputs is.
    """
    origin = answer.origin
    part = next((name for name in answer.workarounds if name in PARTS), None)
    if answer.case.is_script and part is not None and (origin is None or origin.came_in is None):
        return Owner("pytorch", f"The same script is good with {part}: without {PARTS[part]}, a part of PyTorch's own.")
    if origin is None:
        return None
    if origin.mechanism == "compiler":
        why = (
            f"The same program is good without torch.compile; the layer is {origin.layer}. {origin.note or ''}".strip()
        )
        return Owner("pytorch" if origin.layer in LAYERS else None, why)
    if origin.layer == "fast path":
        return Owner("pytorch", "The same program is good without the fused fast path of PyTorch's transformer layers.")
    value = number(origin.reference_value)
    finite = not any(row.nan or row.posinf or row.neginf for row in origin.inputs)
    if origin.mechanism == "kernel" and value is not None and finite and is_in_range(value, number(origin.limit)):
        return Owner(
            "pytorch",
            f"{origin.op} gives {origin.value} from finite inputs where float64 arithmetic gives {plain(value)}.",
        )
    if origin.library == ATTENTION and origin.mechanism == "masked_row":
        return Owner(
            "pytorch",
            f"{ATTENTION} gives {origin.value} for a query whose mask leaves no key, by a softmax of its own. "
            "scaled_dot_product_attention, which it takes with need_weights=False, gives zero there since PyTorch 2.5 "
            "(pytorch#103749).",
        )
    if origin.library == "torch.nn.init":
        return Owner("pytorch", f"{origin.library} computes it, from arguments that are finite.")
    return None


def _parted(answer: Answer) -> Owner | None:
    """What a difference between two ways says of who is wrong: seldom more than what differs."""
    found = None if answer.diff is None else answer.diff.departure
    if found is None:
        return None
    if found.weights:
        named = listed([row.tensor for row in found.weights[:NAMED]])
        more = f" and {len(found.weights) - NAMED:,} more" if len(found.weights) > NAMED else ""
        return Owner(None, f"The two have other numbers in {named}{more}. Which are right, their makers know.")
    return Owner(None, sentence(SIDES.get(found.side or "", "float64 could not be asked which of the two is right")))


def _departed(answer: Answer) -> Owner | None:
    """Whose operator it is that is farther from float64 of its own inputs than rounding explains."""
    origin, reference = answer.origin, answer.reference
    if origin is None or reference is None or reference.origin is None or origin.op is None:
        return None
    if (answer.bisect is not None and answer.bisect.origin is not None) or mechanism(origin.mechanism).beyond_limit:
        return None  # that of a NaN; or of an operator that is right, and whose result the dtype does not hold
    how = "gives a number for an input that is NaN" if origin.mechanism == "swallowed_nan" else FARTHER
    said = sentence(f"{origin.op} {how}.")
    space = origin.op.partition(".")[0]
    if space in ("aten", "prims"):
        refuted, shown = _refuted(answer), _verified(answer, ALONE)
        if shown is not None:
            return Owner("pytorch", f"{said} PyTorch alone shows it ({shown.path}, run {shown.runs} times).")
        if refuted is None:
            return Owner(
                None,
                f"{said} No script of PyTorch alone was run that shows it, so a kernel of somebody else's that is "
                "registered over PyTorch's own, or a setting, is not ruled out.",
            )
        return Owner(
            None,
            f"{said} PyTorch alone does not give that from the same inputs ({refuted.path}, run {refuted.runs} times): "
            "something else in the process of this run has a part in it, such as a kernel that is registered over "
            "PyTorch's own, or a setting.",
        )
    return Owner(None, f"{said} It is no operator of PyTorch's own: the library that defines {space} owns it.")


def _asked_narrower(answer: Answer) -> Owner | None:
    """The caller's, where a checkpoint that is published in float32 was asked for in a narrower dtype, and what its
    layers give is beyond that dtype and within float32.
    """
    origin, load, weights, dtype = answer.origin, answer.load, answer.weights, answer.case.dtype
    if (
        origin is None
        or load is None
        or weights is None
        or origin.tensor
        or not mechanism(origin.mechanism).beyond_limit
    ):
        return None
    published = load.config_dtype in (None, WIDE) and (weights.bytes or 0) >= BYTES * (weights.parameters or 1)
    value, limit = number(origin.reference_value), number(origin.limit)
    asked = [item for item in answer.ablations if item.name == f"dtype={WIDE}"]
    good = f"dtype={WIDE}" in answer.workarounds
    if not published or dtype in (None, WIDE) or (asked and not good):
        return None
    if value is None or limit is None or is_in_range(value, limit) or not is_in_range(value, WIDEST):
        return None
    return Owner(
        "caller",
        f"The checkpoint is published in {WIDE}, by its file{' and its configuration' if load.config_dtype else ''}, "
        f"and {dtype} was asked for. The result of {origin.op}, {plain(value)}, exceeds {plain(limit)}, the largest "
        f"number of {dtype}{f'; with dtype={WIDE} the output is finite' if good else ''}.",
        ADVICE,
    )


def _data(answer: Answer) -> Owner | None:
    """The caller's, where other labels or lengths in the same call give a finite loss; open where a weight is so large
    that any use of it overflows.
    """
    origin = answer.origin
    if origin is None:
        return None
    if origin.decided_by == "integers" and (origin.phase == "loss" or "_loss" in (origin.op or "")):
        return Owner(
            "caller",
            f"{origin.op} is correct for these inputs: with other labels or lengths the loss is finite.",
            "Leave out examples without a label, or with a target that does not fit its input.",
        )
    if origin.decided_by in ("constant", "default constant"):
        return _vanished(origin)
    return _held(origin) or _epsilon(answer, origin) or _large_weight(answer, origin)


def _held(origin: Origin) -> Owner | None:
    """The checkpoint's, where one number of it makes the operator bad whatever the module is given."""
    held = origin.held
    if held is None:
        return None
    value, instead = (plain(number(item) or 0.0) for item in (held.value, held.instead))
    reason = (
        f"{held.tensor} holds {value} at {list(held.index)}. With {instead} in its place {origin.op} gives a finite "
        "number there, and with other inputs of the module it gives none."
    )
    if not held.in_file:
        return Owner(None, f"{reason} No file that was read holds it; who set it so is not known.")
    return Owner("checkpoint", reason)


def _vanished(origin: Origin) -> Owner:
    """PyTorch's, where its own function has a default that is 0 in the dtype that it is given; else that of the script
    that gives it, or open.
    """
    why = f"A constant that keeps {origin.op} from dividing by 0 is 0 itself: {origin.note}."
    torchs = origin.decided_by == "default constant" and str(origin.library).partition(".")[0] == "torch"
    advice = "Give a constant that the dtype holds, such as eps=1e-6, or compute in float32."
    return Owner("pytorch" if torchs else "caller" if origin.code == "__main__" else None, why, advice)


def _epsilon(answer: Answer, origin: Origin) -> Owner | None:
    """The checkpoint's, where a norm divides by zero and the configuration takes its epsilon away."""
    if origin.decided_by == "epsilon" and origin.mechanism in ("divide_by_zero", "invalid"):
        return Owner(None, f"The epsilon of {origin.module or 'the norm'} is 0. Who set it so is not known.")
    where = f"{origin.module} {origin.module_class} {origin.op}".lower()
    if answer.load is None or origin.mechanism not in ("divide_by_zero", "invalid") or "norm" not in where:
        return None
    none = [name for name, value in answer.load.config.items() if "eps" in name and value == 0]
    if not none:
        return None
    reason = (
        f"The configuration sets {listed(none)} to 0, so the norm has nothing to divide by where all of its input is 0."
    )
    return Owner("checkpoint", reason)


def _large_weight(answer: Answer, origin: Origin) -> Owner | None:
    if not mechanism(origin.mechanism).beyond_limit or origin.tensor:
        return None
    limit, found = number(origin.limit), origin.largest_weight or (answer.weights and answer.weights.absmax)
    value = None if not found else number(found.value)
    if not found or limit is None or value is None or value * NEAR < limit:
        return None
    words = f"{found.tensor} holds {plain(value)}, and the largest number of the dtype is {plain(limit)}"
    if answer.case.is_script or origin.code not in ("transformers", "torch", None):
        return Owner(None, f"{words}; who made the weight so large is not known.")
    advice = "Load the model in bfloat16 or float32." if limit < WIDEST else None
    return Owner("checkpoint", f"The weights are the cause: {words}.", advice)


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


def _all_within(answer: Answer) -> Rounding | None:
    return answer.bisect.rounding if answer.bisect is not None and answer.is_rounding else None


def _right_for_its_inputs(answer: Answer) -> Owner | None:
    """Open, where a check of the script fails and every operator is right for the inputs that it got."""
    found = None if answer.bisect is None else answer.bisect.rounding
    if found is None or not found.within or answer.origin is not None:
        return None
    unknown = sorted({*found.not_judged, *found.of_itself} - {*found.drawn})
    reason = f"Each of {found.operators} operators is right for the inputs that it got, within rounding of float64."
    if found.drawn:
        reason += f" {listed(list(found.drawn))} draw{'s' if len(found.drawn) == 1 else ''} random numbers."
    if found.is_more:
        units = plain(found.apart or 0.0, 2)
        reason += f" What is compared last differs by {units} units of rounding, more than they add up to."
    if found.wrapped is not None:
        return Owner(
            None,
            f"{reason} {sentence(found.wrapped)}: it went beyond the integers of its dtype.",
            "Cast to a wider dtype before the operation, unless it is meant.",
        )
    if unknown:
        names = unknown if len(unknown) <= NAMES else [*unknown[: NAMES - 1], many(len(unknown) - NAMES + 1, "other")]
        reason += f" Not judged, or held against themselves alone: {listed(names)}."
        return Owner(None, f"{reason} The difference comes from these, or from what the script passes in.")
    if found.nonfinite:
        return Owner(
            None,
            f"{reason} Some of these are NaN or Inf, or become so, and float64 of the same operator does not tell what "
            "is right there.",
        )
    if not found.is_more:
        return Owner(None, f"{reason} The difference comes from rounding, or from what the script passes to them.")
    return Owner(
        None,
        f"{reason} So the difference comes from what the script passes to them, and from no operator.",
        "Look at the arguments that differ between the two that are compared: masks, positions, indices that repeat, "
        "order, padding.",
    )


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
    load = answer.load
    return _keys(load) or _misplaced(answer, load) or _unset(answer, load) or _missing(answer, load)


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


def _missing(answer: Answer, load: Load) -> Owner | None:
    """The checkpoint's, where its own configuration names the class, and the tensors are no novelty of that class: the
    file has the same of another layer, or they belong to no numbered layer.
    """
    case, missing = answer.case, load.missing_keys
    if not missing or load.unexpected_keys or load.mismatched or load.class_ not in load.architectures:
        return None
    if case.trust_remote_code or answer.is_made or case.config is not None:
        return None
    numbered = [name for name in missing if any(part.isdigit() for part in name.split("."))]
    if any(name not in load.beside_missing for name in numbered):
        return None
    named = listed(list(missing[:NAMED])) + (f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else "")
    beside = load.beside_missing.get(missing[0])
    has = f" It has {beside}, the same of another layer." if beside else ""
    return Owner(
        "checkpoint",
        f"The file does not have {named}, and the class that its configuration names, {load.class_}, does.{has}",
        "Save the model again with all of its tensors.",
    )


def _operator(answer: Answer) -> Owner | None:
    """PyTorch's, where its operator alone, from finite inputs, does not give what float64 arithmetic gives."""
    program = None if answer.reduction is None else answer.reduction.program
    script = _verified(answer, ALONE)
    if program is None or script is None or program.swallows:
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
    ordinary = row.beyond_limit and _ordinary(answer, value, number(program.limit))
    if PYTORCH in row.owners or FUSED in op or ordinary:
        return Owner(
            "pytorch",
            f"{op} gives {program.seen} from finite inputs where float64 arithmetic gives {plain(value)} {shown}.",
        )
    return None


def _ordinary(answer: Answer, value: float, limit: float | None) -> bool:
    """Whether an operator was given numbers whose squares the dtype holds, and its result is far from the limit: then
    what it computes on the way need not be beyond that.
    """
    origin = answer.origin
    if origin is None or limit is None or not origin.inputs or abs(value) * NEAR > limit:
        return False
    ends = [number(end) for row in origin.inputs for end in (row.min, row.max)]
    return all(end is not None and abs(end) < math.sqrt(limit) for end in ends)


def _code(answer: Answer) -> Owner | None:
    """The code that gives a correct operator inputs that it has no finite answer to."""
    origin = answer.origin
    if origin is None:
        return None
    row = mechanism(origin.mechanism)
    if origin.tensor and origin.mechanism not in ("literal", "unset_memory", "bad_input"):
        return _cast(answer, origin, origin.tensor) if row.beyond_limit else None
    if CODE not in row.owners or any(
        part is not None and part.verdict is Outcome.BAD for part in (answer.files, answer.weights, answer.load)
    ):
        return None
    value, limit = number(origin.reference_value), number(origin.limit)
    if row.beyond_limit and value is not None and is_in_range(value, limit):
        return Owner(
            None,
            f"The result of {origin.op}, {plain(value)}, fits the dtype, and a partial result inside of it does not. "
            "Whether its inputs are too large or the operator adds too narrowly is not known; PyTorch's triage takes "
            "numbers near the limits of a dtype for an edge case.",
        )
    why = f"{origin.op} is correct for these inputs: {_cause(answer, origin)}."
    source = origin.forward_source or origin.cause_source or origin.source
    at = f" ({source})" if source else ""
    if origin.code == "transformers" and row.beyond_limit and _draws_its_weights(answer):
        return Owner(
            None,
            f"{why} The script draws the model's weights itself, so this says nothing of a checkpoint: with larger "
            "weights any model leaves the dtype.",
        )
    if origin.code == "transformers":
        return Owner("transformers", f"{why} The cause is in the modeling code of Transformers{at}.")
    if origin.code == "__main__":
        return Owner("caller", f"{why} The cause is in the script's own code{at}.")
    package = None if answer.case.trust_remote_code else _package(answer, origin)
    if package is not None:
        return Owner(package, f"{why} The cause is in the code of the package {package}{at}.")
    if origin.code not in (None, "torch"):
        return Owner(None, f"{why} The cause is in the model's own code{at}. Report it to the model's authors.")
    return None


def _draws_its_weights(answer: Answer) -> bool:
    """Whether a script makes its model without a file, so that nobody's weights are in it."""
    listing = None if answer.reduction is None else answer.reduction.listing
    return answer.case.is_script and listing is not None and not listing.reads and "from_pretrained" not in listing.text


def _package(answer: Answer, origin: Origin) -> str | None:
    """The package that the code belongs to, by the name under which it is installed; None where the run's environment
    lists none, as for a file of somebody's own.
    """
    if origin.code in (None, "torch", COMES_WITH) or answer.environment is None:
        return None
    name = answer.environment.distribution(origin.code)
    return name if answer.environment.version(name) else None


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
        ADVICE,
    )


def _refuted(answer: Answer) -> ScriptRecord | None:
    """The script of PyTorch alone that ran to its end each time and did not show the fault, where none did show it."""
    first = answer.reproducer
    scripts = [script for script in (() if first is None else (first, *first.others)) if script.level in ALONE]
    if any(script.verified for script in scripts):
        return None
    ended = (script for script in scripts if script.exit_statuses and set(script.exit_statuses) == {0})
    return next(ended, None)


def _verified(answer: Answer, levels: frozenset[str]) -> ScriptRecord | None:
    """The verified script of one of these levels."""
    first = answer.reproducer
    scripts = () if first is None else (first, *first.others)
    return next((script for script in scripts if script.verified and script.level in levels), None)


RULES = (
    _chance, _files, _weights, _load, _parted, _operator, _outside, _departed, _pytorch, _asked_narrower, _data
)  # fmt: skip
"""The first that answers is taken."""
