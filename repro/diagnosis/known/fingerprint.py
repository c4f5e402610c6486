"""What of a run a known fault is recognised by, and whether the fault's conditions hold. Pure: no file, no clock."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from repro.core.answer import Answer
from repro.core.payloads import Files, Inputs, Load, Origin, Reduction
from repro.core.records import Outcome

ABSENT = "none"
"""The pattern for a missing value."""
RANGES = ("torch", "transformers")
"""Conditions that are a range of versions."""
OF_ORIGIN = (
    "mechanism", "op", "module", "module_class", "tensor", "phase", "forward_op", "layer", "library", "decided_by",
)  # fmt: skip
"""What is taken from the origin as it is."""
PADDING = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>")

Conditions = Mapping[str, Sequence[str] | str | bool]
"""By name: patterns, one of which must fit one of the values; a range of versions; whether there is a value."""


def facts(answer: Answer) -> dict[str, tuple[str, ...]]:
    """The values of one run that conditions are about; none where the run does not say.

    ``token`` is "padding", "special" or "text"; ``unset`` and ``missing`` are names of buffers and weights; ``finding``
    is every sentence in which a step says what it found. A script has no dtype, so its operator's stands for it, and
    that of the parameters, for a model in float16 computes its softmax in float32. It has no device, which is the CPU
    where PyTorch has nothing else.
    """
    cell, origin = answer.cell, answer.origin
    load, files = answer.load or Load(), answer.files or Files()
    found = [item.problem for item in (*load.findings, *files.findings)]
    found += [step.reason for step in answer.steps if step.verdict is not Outcome.GOOD]
    single: dict[str, str | None] = {
        **{key: getattr(origin, key, None) for key in OF_ORIGIN},
        **{key: getattr(cell, key) for key in ("attn", "platform", *RANGES)},
        "device": cell.device or _only_device(answer),
        "verdict": answer.verdict.value,
        "kind": None if answer.kind is None else answer.kind.value,
        "token": None if origin is None or origin.token is None else _kind_of(origin.token, answer.reduction),
        "model": answer.model.id,
        "model_class": answer.model.class_,
        "model_type": load.model_type,
        "source": files.source,
        "signal": next((step.signal for step in answer.steps if step.signal), None),
        "misaligned": "yes" if load.misaligned else None,
    }
    dtypes = (cell.dtype,) if cell.dtype else _dtypes_of(origin)
    lists = {"dtype": dtypes, "unset": load.unset_buffers, "missing": load.missing_keys, "finding": tuple(found)}
    return {**{key: () if value is None else (value,) for key, value in single.items()}, **lists}


def _dtypes_of(origin: Origin | None) -> tuple[str, ...]:
    """The dtype that the operator computed in, of its output or else of its first input of floating point; and that of
    the model's largest parameter.
    """
    tensors = () if origin is None else (origin.output, *origin.inputs)
    computed = next((one.dtype for one in tensors if one and one.dtype and "float" in one.dtype), None)
    largest = origin.largest_weight if origin else None
    held = largest.dtype if largest else None
    return tuple(dict.fromkeys(dtype for dtype in (computed, held) if dtype))


def _only_device(answer: Answer) -> str | None:
    """The CPU, where the environment says that PyTorch has no other device; None where it may have been another."""
    environment = answer.environment
    return "cpu" if environment is not None and environment.torch and not environment.accelerator else None


def _kind_of(token: str, reduction: Reduction | None) -> str:
    if token in PADDING:
        return "padding"
    inputs = (reduction and reduction.inputs) or Inputs()
    special = {text for text, is_special in zip(inputs.tokens or (), inputs.special, strict=False) if is_special}
    return "special" if token in special or (token[:1] in "<[" and token[-1:] in ">]") else "text"


def holds(conditions: Conditions, known: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether every condition fits the run. A range of versions never fits a version that is not known."""
    return all(_fits(key, wanted, known.get(key, ())) for key, wanted in conditions.items())


def _fits(key: str, wanted: Sequence[str] | str | bool, values: tuple[str, ...]) -> bool:
    if isinstance(wanted, bool):
        return bool(values) is wanted
    if isinstance(wanted, str):
        return any(in_range(wanted, value) for value in values)
    if not values:
        return ABSENT in wanted
    return any(matches(pattern, value) for pattern in wanted for value in values)


def typical(conditions: Conditions) -> dict[str, tuple[str, ...]]:
    """A run that says just what these conditions ask: the first of each of their patterns, without its stars."""
    made: dict[str, tuple[str, ...]] = {}
    for key, wanted in conditions.items():
        if isinstance(wanted, bool):
            made[key] = ("yes",) if wanted else ()
        elif isinstance(wanted, str):
            made[key] = tuple(version for version in (_version_in(wanted),) if version is not None)
        else:
            made[key] = () if wanted[0] == ABSENT else (wanted[0].replace("*", "").replace("?", "x"),)
    return made


def _version_in(specifiers: str) -> str | None:
    """A version within a range: one that it names, or one beside it."""
    named = [one.version.removesuffix(".*") for one in SpecifierSet(specifiers)]
    return next((one for name in named for one in (name, f"{name}.1", "0.1") if in_range(specifiers, one)), None)


def matches(pattern: str, value: str) -> bool:
    """Whether a pattern of ``*`` and ``?`` fits the whole value; capitals do not matter."""
    return fnmatchcase(value.lower(), pattern.lower().replace("[", "[[]"))


def in_range(specifiers: str, version: str) -> bool:
    """Whether a version, also a nightly or one with a local part, is within ``>=2.0,<2.5``."""
    try:
        return SpecifierSet(specifiers).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False
