"""Is what was loaded what is on disk? Keys, values, alignment, tensors without memory, buffers that no file covers,
tied weights.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..values.figures import dtype_name, same_values
from .compat import attn_argument, dtype_argument, quiet, skeleton
from .load import Loaded, file_tensor, file_tensors, named_tensors
from .settings import settings_of

LISTED = 50  # names in a list of findings; the counts are whole


def check(loaded: Loaded) -> tuple[str, str, dict[str, Any]]:
    """Verdict, reason and payload of the load step.

    Fills ``loaded.from_file``, ``unset_buffers`` and ``misaligned``.
    """
    model = loaded.model
    missing, unexpected = _keys(loaded, "missing_keys"), _keys(loaded, "unexpected_keys")
    mismatched = [_mismatch(item) for item in loaded.info.get("mismatched_keys", [])]
    meta = [name for name, tensor in named_tensors(model) if tensor.is_meta]
    values: dict[str, Any] = {"compared": 0, "differ": [], "not_compared": 0}
    if not meta:
        values = _compare_values(loaded)
    crooked = [
        (name, tensor) for name, tensor in model.named_parameters() if _address(tensor) % max(tensor.element_size(), 1)
    ]
    loaded.misaligned = len(crooked)
    unset, buffers = ([], 0) if meta else _unset_buffers(loaded)
    loaded.unset_buffers = tuple(unset)
    tied, untied = _tied(model)
    findings: list[dict[str, str]] = []
    payload: dict[str, Any] = {
        "class": loaded.class_name,
        "model_type": getattr(loaded.config, "model_type", None),
        "config": settings_of(loaded.config),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": dtype_name(loaded.dtype),
        "attn": loaded.attn,
        "device": str(loaded.device),
        "random_seed": loaded.source.seed,
        "missing_keys": missing,
        "unexpected_keys": unexpected,
        "mismatched": mismatched,
        "misaligned": len(crooked),
        "misaligned_examples": [
            {"tensor": name, "address_mod": _address(tensor) % tensor.element_size()} for name, tensor in crooked[:5]
        ],
        "meta": meta,
        "unset_buffers": unset,
        "buffers_checked": buffers,
        "tied": tied,
        "values": values,
        "findings": findings,
    }
    faults: list[str] = []
    for names, text in (
        (missing, "not in the file, so initialised at random"),
        ([item["tensor"] for item in mismatched], "in the file with another shape"),
        (meta, "left on the meta device, without values"),
        (unset, "no file covers it and two loads give it different values: unset memory"),
        (values["differ"], "other values in memory than in the file"),
        (untied, "declared tied to the input embedding, but with other values"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            faults.append(f"{names[0]}{more}: {text}")
            findings.append({"problem": "{}: {}".format(", ".join(names[:5]), text), "severity": "bad"})
    if unexpected:
        findings.append(
            {
                "problem": "the file has keys that the model does not: {}".format(", ".join(unexpected[:5])),
                "severity": "note",
            }
        )
    if crooked:
        findings.append(
            {"problem": f"{len(crooked)} parameters are not aligned to their item size", "severity": "note"}
        )
    if faults:
        return "bad", "; ".join(faults), payload
    reason = "{} with {:,} parameters in {}".format(loaded.class_name, payload["parameters"], payload["dtype"])
    if loaded.source.seed is not None:
        reason += f", random weights of seed {loaded.source.seed}"
    elif values["compared"]:
        reason += ", {} tensors equal to the file".format(values["compared"])
    if crooked:
        reason += f"; {len(crooked)} not aligned in memory (no fault by itself)"
    return "good", reason, payload


def _mismatch(item: Any) -> dict[str, Any]:
    """(name, shape in the file, shape in the model), as most releases give it; only the name in others."""
    if isinstance(item, tuple) and len(item) == 3:
        return {"tensor": str(item[0]), "file": list(item[1]), "model": list(item[2])}
    return {"tensor": str(item)}


def _keys(loaded: Loaded, which: str) -> list[str]:
    return sorted(str(key) for key in loaded.info.get(which, []))


def _address(tensor: Tensor) -> int:
    return 0 if tensor.is_meta else tensor.data_ptr()


def _compare_values(loaded: Loaded) -> dict[str, Any]:
    """Each tensor of the file, cast to the loaded dtype, against the tensor of the same name in memory.

    A name matches with or without the model's base prefix. A tensor that the library renames while loading is matched
    by its values, if exactly one tensor that is left over in memory has them; one that it fuses or splits has no match
    and is counted as not compared.
    """
    source, model = loaded.source, loaded.model
    if source.folder is None:
        return {"compared": 0, "differ": [], "not_compared": 0}
    state = model.state_dict(keep_vars=True)
    differ: list[str] = []
    renamed: list[tuple[str, str]] = []
    matched = {str(item[0] if isinstance(item, tuple) else item) for item in loaded.info.get("mismatched_keys", [])}
    for path, key, tensor in file_tensors(source.folder):
        name = next((name for name in _spellings(model, key) if name in state), None)
        if name is None or state[name].shape != tensor.shape:
            renamed.append((path, key))
            continue
        matched.add(name)
        if _holds(state[name], tensor):
            loaded.from_file[name] = (path, key)
        else:
            differ.append(name)
    absent = 0
    for path, key in renamed:
        tensor = file_tensor((path, key))
        same = [name for name in state if name not in matched and _holds(state[name], tensor)]
        if len(same) == 1:
            matched.add(same[0])
            loaded.from_file[same[0]] = (path, key)
        else:
            absent += 1
    compared = len(loaded.from_file) + len(differ)
    return {"compared": compared, "differ": differ[:LISTED], "not_compared": absent}


def _spellings(model: nn.Module, key: str) -> list[str]:
    """A file's key as it is, and with the model's base prefix put on or taken off."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    return [key, prefix + key] + ([key[len(prefix) :]] if key.startswith(prefix) else [])


def _holds(actual: Tensor, expected: Tensor) -> bool:
    """Whether a tensor in memory is the file's, rounded to its dtype."""
    if actual.shape != expected.shape:
        return False
    return same_values(actual.detach(), expected.to(device=actual.device, dtype=actual.dtype))


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


def _tied(model: nn.Module) -> tuple[list[list[str]], list[str]]:
    """Groups of parameter names that share their storage, and output embeddings that should be tied and are not."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    tied = [names for names in groups.values() if len(names) > 1]
    config = getattr(model, "config", None)
    ends: Any = model
    if not getattr(config, "tie_word_embeddings", False) or not hasattr(ends, "get_output_embeddings"):
        return tied, []
    one, two = (getattr(end, "weight", None) for end in (ends.get_output_embeddings(), ends.get_input_embeddings()))
    if one is None or two is None or one is two or one.shape != two.shape or one.is_meta:
        return tied, []
    same = same_values(one.detach(), two.detach())
    return tied, [] if same else [next(name for name, parameter in model.named_parameters() if parameter is one)]
