"""Is what was loaded what is on disk? Keys, values, alignment, tensors without memory, buffers that no file covers,
tied weights.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..values.figures import dtype_name, same_values
from .compared.keys import Cause, causes, turned
from .compared.quantised import held_narrow
from .compared.values import Comparison, compare
from .compat import attn_argument, dtype_argument, quiet, skeleton
from .load import Loaded, named_tensors
from .settings import settings_of

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a layer, in a name
LISTED = 50  # names in a list of findings; the counts are whole


def check(loaded: Loaded) -> tuple[str, str, dict[str, Any]]:
    """Verdict, reason and payload of the load step.

    Fills ``loaded.from_file``, ``unset_buffers``, ``misaligned`` and ``quantised``.
    """
    model = loaded.model
    missing, unexpected = _keys(loaded, "missing_keys"), _keys(loaded, "unexpected_keys")
    mismatched = sorted(map(_mismatch, loaded.info.get("mismatched_keys", [])), key=lambda item: str(item["tensor"]))
    meta = [name for name, tensor in named_tensors(model) if tensor.is_meta]
    found = Comparison() if meta else compare(loaded)
    loaded.from_file.update(found.equal)
    loaded.quantised = held_narrow(model, loaded.quantisation)
    crooked = [
        (name, tensor) for name, tensor in model.named_parameters() if _address(tensor) % max(tensor.element_size(), 1)
    ]
    loaded.misaligned = len(crooked)
    unset, buffers = ([], 0) if meta else _unset_buffers(loaded)
    loaded.unset_buffers = tuple(unset)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    why = causes({name: shapes[name] for name in missing if name in shapes}, found.left)
    findings: list[dict[str, Any]] = []
    payload: dict[str, Any] = {
        "class": loaded.class_name,
        "model_type": getattr(loaded.config, "model_type", None),
        "config": settings_of(loaded.config),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": dtype_name(loaded.dtype),
        "attn": loaded.attn,
        "device": str(loaded.device),
        "random_seed": loaded.source.seed,
        "config_dtype": loaded.config_dtype,
        "architectures": list(loaded.architectures),
        "missing_keys": missing,
        "beside_missing": _beside(missing, found.equal),
        "unexpected_keys": unexpected,
        "mismatched": mismatched,
        "cause": _cause(loaded, missing, mismatched, why, found),
        "misaligned": len(crooked),
        "misaligned_examples": [
            {"tensor": name, "address_mod": _address(tensor) % tensor.element_size()} for name, tensor in crooked[:5]
        ],
        "meta": meta,
        "unset_buffers": unset,
        "buffers_checked": buffers,
        "tied": _tied(model),
        "values": {
            "compared": found.compared,
            "differ": found.differ[:LISTED],
            "not_compared": len(found.left) + found.packed,
        },
        "misplaced": [item.record() for item in found.misplaced],
        "quantised": {
            "method": found.method,
            "tensors": found.quantised + found.stored,
            "compared": found.dequantised + found.stored,
        },
        "findings": findings,
    }
    faults = _faults(found, why, payload)
    findings += [{"problem": text, "severity": "bad", **({"cause": kind} if kind else {})} for _, text, kind in faults]
    if unexpected:
        text = "the file has keys that the model does not: {}".format(", ".join(unexpected[:5]))
        findings.append({"problem": text, "severity": "note"})
    if found.packed:
        findings.append({"problem": _not_compared(found), "severity": "note"})
    if crooked:
        text = f"{len(crooked)} parameters are not aligned to their item size"
        findings.append({"problem": text, "severity": "note"})
    if faults:
        return "bad", "; ".join(short for short, _, _ in faults), payload
    return "good", _sound(loaded, found, payload), payload


def _beside(missing: list[str], there: Iterable[str]) -> dict[str, str]:
    """By missing tensor, the same of another layer that the file does have: it shows that such layers have one."""
    first: dict[str, str] = {}
    for name in there:
        first.setdefault(NUMBER.sub("*", name), name)
    alike = {name: first.get(NUMBER.sub("*", name)) for name in missing[:LISTED] if NUMBER.search(name)}
    return {name: other for name, other in alike.items() if other is not None}


def _sound(loaded: Loaded, found: Comparison, payload: dict[str, Any]) -> str:
    """What is said of a model in which nothing was found."""
    reason = "{} with {:,} parameters in {}".format(loaded.class_name, payload["parameters"], payload["dtype"])
    if loaded.source.seed is not None:
        reason += f", random weights of seed {loaded.source.seed}"
    elif found.compared:
        reason += f", {found.compared} tensors equal to the file"
    if found.dequantised:
        reason += f", {found.dequantised} of them {found.method}, dequantised"
    if found.stored:
        reason += f", {found.stored} of them {found.method}, as they are stored"
    if found.packed:
        reason += f"; {_not_compared(found)}"
    if loaded.misaligned:
        reason += f"; {loaded.misaligned} not aligned in memory (no fault by itself)"
    return reason


def _faults(found: Comparison, why: list[Cause], payload: dict[str, Any]) -> list[tuple[str, str, Optional[str]]]:
    """Each fault in short, with the first few names, and with the kind of its cause where it says why."""
    faults: list[tuple[str, str, Optional[str]]] = []
    misplaced = {item.tensor for item in found.misplaced}
    for names, text in (
        (payload["missing_keys"], "not in the file, so initialised at random"),
        ([item["tensor"] for item in payload["mismatched"]], "in the file with another shape"),
        (payload["meta"], "left on the meta device, without values"),
        (payload["unset_buffers"], "no file covers it and two loads give it different values: unset memory"),
        ([name for name in found.differ if name not in misplaced], "other values in memory than in the file"),
        (found.unscaled, "quantised in the file, and loaded without its scale"),
        (found.untied, "declared tied to another weight, but with other values"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            faults.append((f"{names[0]}{more}: {text}", "{}: {}".format(", ".join(names[:5]), text), None))
    for item in found.misplaced:
        own = "its own" if item.belongs == item.tensor else f"{item.belongs}'s"
        text = f"{item.tensor} holds {item.holds}'s values, not {own}"
        faults.append((text, text, "misplaced"))
    faults += [(text, text, kind) for text, kind in _because(found, why, payload)]
    return faults


def _not_compared(found: Comparison) -> str:
    one = found.packed == 1
    return f"{found.packed} tensor{' is' if one else 's are'} quantised ({found.method}): not compared"


def _cause(
    loaded: Loaded, missing: list[str], mismatched: list[dict[str, Any]], why: list[Cause], found: Comparison
) -> Optional[dict[str, Any]]:
    """Why keys are missing or do not fit: what explains the most of them; None where nothing does."""
    if why:
        return {**why[0].record(), "explained": sum(len(cause.keys) for cause in why)}
    across = turned(mismatched)
    blank = {"file": "", "model": "", "transposed": bool(across)}
    if across:
        example = {"file": across[0], "model": across[0]}
        counts = {"keys": len(across), "explained": len(across), "of": len(mismatched)}
        return {"kind": "transposed", **blank, **counts, "example": example}
    if (found.untaken or found.unscaled) and not loaded.quantisation:
        lost = found.untaken + len(found.unscaled)
        counts = {"keys": lost, "explained": lost, "of": len(missing) + len(found.unscaled)}
        return {"kind": "quantised", **blank, **counts, "example": None}
    return None


def _because(found: Comparison, why: list[Cause], payload: dict[str, Any]) -> list[tuple[str, str]]:
    """What explains missing and mismatched keys, in words, each with its kind."""
    said = [(cause.words, str(cause.record()["kind"])) for cause in why]
    mismatched = payload["mismatched"]
    across = turned(mismatched)
    if across:
        words = f"{len(across)} of {len(mismatched)} tensors of another shape are transposed in the file: {across[0]}"
        said.append((words, "transposed"))
    if found.untaken:
        words = f"the file has {found.untaken} quantised weights ({found.method}) that the model did not take"
        said.append((words, "quantised"))
    return said


def _mismatch(item: Any) -> dict[str, Any]:
    """(name, shape in the file, shape in the model), as most releases give it; only the name in others."""
    if isinstance(item, tuple) and len(item) == 3:
        return {"tensor": str(item[0]), "file": list(item[1]), "model": list(item[2])}
    return {"tensor": str(item)}


def _keys(loaded: Loaded, which: str) -> list[str]:
    return sorted(str(key) for key in loaded.info.get(which, []))


def _address(tensor: Tensor) -> int:
    return 0 if tensor.is_meta else tensor.data_ptr()


@contextlib.contextmanager
def poisoned_memory() -> Iterator[bool]:
    """Memory that ``torch.empty`` hands out holds NaN (the largest integer, for integers). Yields whether this
    PyTorch can do that.

    Two loads would often find the same old bytes in unset memory, so "equal twice" alone proves nothing.
    Source: torch.utils.deterministic.fill_uninitialized_memory, since torch 2.2.
    """
    settings = getattr(torch.utils, "deterministic", None)
    before = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = getattr(settings, "fill_uninitialized_memory", None)
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        if settings is not None:
            settings.fill_uninitialized_memory = True
        yield fill is not None
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warn)
        if settings is not None and fill is not None:
            settings.fill_uninitialized_memory = fill


def _unset_buffers(loaded: Loaded) -> tuple[list[str], int]:
    """Buffers that no file covers and that a second load gives other values: (names, how many were checked).

    The second load goes the library's own way, but is handed the parameters that are in memory already, so it costs
    neither time nor memory in proportion to the model. In it, memory that nobody sets holds NaN.
    """
    model = loaded.model
    ours = {name: buffer for name, buffer in model.named_buffers() if name not in loaded.from_file}
    if not ours:
        return [], 0
    with quiet(), poisoned_memory(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            second = _second_load(loaded)
        except Exception:  # noqa: BLE001
            return [], 0  # this release has no such way in; "buffers_checked": 0 says that nothing was asked
    theirs = dict(second.named_buffers())
    unset = [name for name, buffer in ours.items() if name in theirs and not _same_on_cpu(buffer, theirs[name])]
    return unset, sum(name in theirs for name in ours)


def _same_on_cpu(one: Tensor, two: Tensor) -> bool:
    if one.is_meta or two.is_meta:
        return one.is_meta == two.is_meta
    return same_values(one.detach().cpu(), two.detach().cpu().to(one.dtype))


def _second_load(loaded: Loaded) -> nn.Module:
    model = loaded.model
    if loaded.source.folder is None:
        return skeleton(model, loaded.dtype, loaded.attn)
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name in loaded.from_file or name in _parameter_names(model)
    }
    options = {**dtype_argument(loaded.dtype), **attn_argument(loaded.attn)}
    library_class: Any = type(model)
    second, _ = library_class.from_pretrained(
        None, config=model.config, state_dict=state, output_loading_info=True, **options
    )
    return second


def _parameter_names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters(remove_duplicate=False)]


def _tied(model: nn.Module) -> list[list[str]]:
    """Groups of parameter names that share their storage."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]
