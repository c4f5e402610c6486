"""Each tensor of the file against the tensor in memory that should hold it, and those in memory that hold another's.

A file's tensor is found in memory by its name, by the library's own inverse of what it renames and fuses while loading,
or, where that is not to be had, by its values. A quantised one is compared through its own arithmetic, if that can be
told from the tensors themselves, and else not at all.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ...values.figures import is_float, same_values
from ..load import Loaded, file_tensors, opened
from .quantised import (
    Arithmetic,
    arithmetics,
    close,
    dequantised,
    groups,
    is_narrow,
    is_plain,
    method_in,
    module_of,
    scale_key,
)

SEARCHED = 20  # tensors with other values whose true owner is looked for; the list of them is whole

Place = tuple[str, str]  # path and key


@dataclass(frozen=True)
class Misplaced:
    """A tensor in memory that holds the values of ``holds``, a tensor of the file, and should hold those of
    ``belongs``.
    """

    tensor: str
    holds: str
    belongs: str

    def record(self) -> dict[str, str]:
        return {"tensor": self.tensor, "holds": self.holds, "belongs": self.belongs}


@dataclass
class Comparison:
    """What was found.

    compared: tensors of the file that are in memory. differ: names in memory with other values than the file's
    tensor. untied: names that should share values with another and do not. left: tensors of the file that nothing
    in memory was held against, with their shapes. quantised: weights that are so in the file and not in memory;
    dequantised: those of them that were compared through their arithmetic; unscaled: those that memory holds as
    they stand in the file, without what scales them; stored: tensors that are as narrow in memory as in the file,
    and equal; untaken: quantised weights in whose module keys are missing. method: how they were quantised.
    """

    compared: int = 0
    equal: dict[str, Place] = field(default_factory=dict)
    differ: list[str] = field(default_factory=list)
    misplaced: list[Misplaced] = field(default_factory=list)
    untied: list[str] = field(default_factory=list)
    left: dict[str, tuple[int, ...]] = field(default_factory=dict)
    method: Optional[str] = None
    quantised: int = 0
    dequantised: int = 0
    unscaled: list[str] = field(default_factory=list)
    stored: int = 0
    untaken: int = 0

    @property
    def packed(self) -> int:
        """Quantised weights that were not compared."""
        return self.quantised - self.dequantised - len(self.unscaled)


def compare(loaded: Loaded) -> Comparison:
    """The files against memory, and memory against the files."""
    if loaded.source.folder is None:
        return Comparison()
    work = _Work(loaded)
    work.by_name()
    work.by_arithmetic()
    work.by_the_library()
    work.by_values()
    work.set_quantised_apart()
    found = work.found
    for name in found.differ[:SEARCHED]:
        holds = work.holder(name)
        if holds is not None:
            found.misplaced.append(Misplaced(name, holds, work.names[name]))
    for misplaced in work.wrongly_tied():
        found.misplaced.append(misplaced)
    found.untied = work.untied()
    return found


class _Work:
    """One comparison. names: of what is in memory, the file's key that it was held against. left: what is left over of
    the file.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded, self.model = loaded, loaded.model
        self.state = {
            name: tensor
            for name, tensor in loaded.model.state_dict(keep_vars=True).items()
            if isinstance(tensor, Tensor)
        }
        self.found = Comparison(method=method_in(loaded.quantisation))
        self.names: dict[str, str] = {}
        self.files: dict[str, Place] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.left: list[str] = []
        self.narrow: dict[str, str] = {}  # narrow in the file and wide in memory: the file's key, the name in memory
        self.odd = {
            str(item[0] if isinstance(item, tuple) else item) for item in loaded.info.get("mismatched_keys", [])
        }
        self.missing = {str(key) for key in loaded.info.get("missing_keys", [])}
        self.tied = _tied_names(loaded.model, self.state)
        self._opened: dict[str, Any] = {}

    def by_name(self) -> None:
        """A name matches with or without the model's base prefix."""
        for path, key, tensor in file_tensors(self.loaded.source.folder or ""):
            self.files[key], self.shapes[key] = (path, key), tuple(tensor.shape)
            name = next((name for name in _spellings(self.model, key) if name in self.state), None)
            ours = None if name is None else self.state[name]
            if name is None or ours is None or ours.shape != tensor.shape or not is_plain(ours) or name in self.missing:
                self.left.append(key)
            elif is_narrow(tensor) and not is_narrow(ours) and is_float(ours):
                self.narrow[key] = name
                self.names[name] = key
            else:
                self._judge(name, key, tensor)

    def _judge(self, name: str, key: str, tensor: Tensor) -> None:
        self.names[name] = key
        if holds(self.state[name], tensor):
            self.found.compared += 1
            self.found.equal[name] = self.files[key]
            self.found.stored += self.found.method is not None and is_narrow(tensor) and tensor.dim() > 1
        else:
            self.found.differ.append(name)

    def by_the_library(self) -> None:
        """What the library renamed, split or fused while loading, by its own way back: the one of saving.

        A quantised model is quantised again on that way, which need not give the same digits: there, only equal ones
        tell.
        """
        exact = self.found.method is None and not self.found.quantised
        if not self.left:
            return
        back = _reverted(self.model, self.state)
        aliases = {(tensor.data_ptr(), tensor.shape): name for name, tensor in self.state.items() if tensor.numel()}
        left, self.left = self.left, []
        for key in left:
            there = back.get(key)
            if there is None or key in self.state or there.shape != self.shapes[key]:
                self.left.append(key)
                continue
            tensor, name = self._tensor(key), aliases.get((there.data_ptr(), there.shape))
            if name is not None and name not in self.names:
                self._judge(name, key, tensor)
            elif holds(there, tensor) or close(there, tensor):
                self.found.compared += 1
            elif exact:
                self.found.differ.append(key)
            else:
                self.left.append(key)

    def by_arithmetic(self) -> None:
        """Quantised tensors that are a model's plain weights in memory.

        How they are scaled is found by trying: what makes most of them equal is the file's arithmetic, and one that it
        does not make equal has other values.
        """
        block = self.loaded.quantisation.get("weight_block_size")
        votes: dict[Arithmetic, list[str]] = {}
        beside: dict[str, list[str]] = {}
        for near in self.left if self.narrow else ():
            beside.setdefault(module_of(near), []).append(near)
        for key, name in self.narrow.items():
            stored = self._tensor(key)
            for how in arithmetics(key, beside.get(module_of(key), ())):
                value = dequantised(stored, self._tensor(scale_key(key, how)), how, block)
                if value is not None and close(self.state[name].detach().cpu(), value):
                    votes.setdefault(how, []).append(key)
                    break
        equal = {key for keys in votes.values() for key in keys}
        other = [key for key in self.narrow if key not in equal]
        raw = [key for key in other if holds(self.state[self.narrow[key]], self._tensor(key))]
        alone = {key for key in raw if not beside.get(module_of(key))}  # plain numbers that happen to be narrow
        self.found.unscaled = [self.narrow[key] for key in raw if key not in alone]
        other = [key for key in other if key not in raw]
        known = max(votes.values(), key=len, default=[])
        self.found.quantised += len(self.narrow) - len(alone)
        self.found.compared += len(alone)
        self.found.dequantised += len(equal)
        self.found.compared += len(equal)
        if len(known) > len(other):
            self.found.differ += [self.narrow[key] for key in other]
            self.found.dequantised += len(other)
        scales = {scale_key(key, how) for how, keys in votes.items() for key in keys}
        self.left = [key for key in self.left if key not in scales]

    def by_values(self) -> None:
        """By values, if they are those of as many tensors of the file as are left over in memory with them."""
        if not self.left:
            return
        free: dict[tuple[int, ...], list[str]] = {}
        taken = {*self.names, *self.odd, *self.missing}  # a missing one has its own, if only ones or zeros
        for name, tensor in self.state.items():
            if name not in taken and is_plain(tensor):
                free.setdefault(tuple(tensor.shape), []).append(name)
        of_shape: dict[tuple[int, ...], list[str]] = {}
        for key in self.left:
            of_shape.setdefault(self.shapes[key], []).append(key)
        self.left = []
        for shape, keys in of_shape.items():
            unclaimed = free.get(shape, [])
            while keys:
                stored = self._tensor(keys[0])
                same = [] if is_narrow(stored) else [name for name in unclaimed if holds(self.state[name], stored)]
                twins = keys[:1] + [key for key in keys[1:] if same and same_values(self._tensor(key), stored)]
                if len(same) == len(twins):
                    for name, twin in zip(same, twins):
                        self._judge(name, twin, stored)
                    unclaimed = [name for name in unclaimed if name not in same]
                else:
                    self.left += twins
                keys = [key for key in keys if key not in twins]

    def set_quantised_apart(self) -> None:
        """Of what is left over, the parts of quantised weights: narrow tensors, and what stands beside them."""
        lacking = {module_of(name) for name in self.missing}
        stored = [key for key in self.left if self.shapes[key] and _may_be_packed(self._tensor(key))]
        if self.found.method is None:  # whole numbers that no configuration explains may be anything else
            stored = [key for key in stored if module_of(key) in lacking]
        packed = list(groups(stored))
        modules = {module_of(key) for key in (*self.narrow, *(key for group in packed for key in group))}
        self.found.quantised += len(packed)
        if self.found.quantised and self.found.method is None:
            self.found.method = "packed"
        self.found.untaken = sum(any(module_of(key) in lacking for key in group) for group in packed)
        self.found.left = {
            key: self.shapes[key] for key in self.left if module_of(key) not in modules and key not in self.odd
        }

    def holder(self, name: str) -> Optional[str]:
        """The file's tensor whose values ``name`` holds, if it is one."""
        ours = self.state.get(name)
        if ours is None or not is_plain(ours):
            return None
        keys = [key for key, shape in self.shapes.items() if shape == tuple(ours.shape) != ()]
        same = [key for key in keys if key != self.names.get(name) and holds(ours, self._tensor(key))]
        return same[0] if len(same) == 1 else None

    def wrongly_tied(self) -> Iterator[Misplaced]:
        """Embeddings that the file does not name, tied to the output projection where the decoder's embedding is not.

        The output projection shares with what the decoder embeds its tokens with. Where the file has other values for
        that, they are what another embedding shares.
        """
        modules = dict(self.model.named_modules())
        decoder = _decoder_path(self.model)
        for name in sorted(self.tied, key=list(self.state).index):
            if not isinstance(modules.get(name.rpartition(".")[0]), nn.Embedding) or name in self.names:
                continue
            ours = self.state[name]
            shared = [other for other in self.names if self.state[other].data_ptr() == ours.data_ptr()]
            if not shared or any(isinstance(modules[other.rpartition(".")[0]], nn.Embedding) for other in shared):
                continue
            others = [
                other
                for other in sorted(self.tied)
                if other in self.names
                and self.state[other].shape == ours.shape
                and isinstance(modules.get(other.rpartition(".")[0]), nn.Embedding)
            ]
            if len(others) != 1 or decoder is None or not others[0].startswith(decoder + "."):
                continue
            if not same_values(self.state[others[0]].detach(), ours.detach()):
                yield Misplaced(name, self.names[shared[0]], self.names[others[0]])

    def untied(self) -> list[str]:
        """Parameters that should share another's values, that the file has no tensor for, and that have none of its
        values.
        """
        output = _output_embedding(self.model)
        wanted = self.tied | ({output} if output else set())
        held = {self.state[name].data_ptr() for name in self.names if name in self.state}
        found = []
        for name in sorted(wanted):
            ours = self.state.get(name)
            if ours is None or name in self.names or name in self.missing or ours.is_meta or ours.data_ptr() in held:
                continue
            twins = [other for other in self.names if self.state[other].shape == ours.shape]
            if twins and not any(same_values(self.state[other].detach(), ours.detach()) for other in twins):
                found.append(name)
        return found

    def _tensor(self, key: str) -> Tensor:
        """One tensor of the file; each file is opened once, for its header may have 100,000 entries."""
        path, name = self.files[key]
        if path not in self._opened:
            self._opened[path] = opened(path)
        found: Tensor = self._opened[path](name)
        return found


def _may_be_packed(tensor: Tensor) -> bool:
    """Whether a weight may be packed into it; what counts or points has 64 bits."""
    return is_narrow(tensor) and tensor.dtype != torch.int64


def _tied_names(model: nn.Module, state: dict[str, Tensor]) -> set[str]:
    """Names that the model's class declares tied to one another: its keys are names or patterns, and its values, where
    it has any, are what they are tied to.
    """
    declared = getattr(model, "_tied_weights_keys", None) or ()
    patterns = [*declared, *(declared.values() if isinstance(declared, dict) else ())]
    return {name for name in state if any(_matches(str(pattern), name) for pattern in patterns)}


def _matches(pattern: str, name: str) -> bool:
    try:
        return name == pattern or re.fullmatch(pattern, name) is not None
    except re.error:
        return False


def _decoder_path(model: nn.Module) -> Optional[str]:
    """The path of an encoder-decoder's decoder; None where the model has none, or does not say."""
    find: Any = getattr(model, "get_decoder", None)
    if find is None or not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return None
    decoder = find()
    return next((name for name, module in model.named_modules() if name and module is decoder), None)


def _output_embedding(model: nn.Module) -> Optional[str]:
    """The name of the output projection's weight where the configuration ties it to the input embedding."""
    ends: Any = model
    if not getattr(getattr(model, "config", None), "tie_word_embeddings", False):
        return None
    if not hasattr(ends, "get_output_embeddings"):
        return None
    try:
        one, two = (getattr(end, "weight", None) for end in (ends.get_output_embeddings(), ends.get_input_embeddings()))
    except NotImplementedError:  # a model of two towers names neither
        return None
    if one is None or two is None or one is two or one.shape != two.shape:
        return None
    return next((name for name, parameter in model.named_parameters() if parameter is one), None)


def _reverted(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state under the names and in the shapes of the file, as the library would save it; empty where this release
    cannot.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # before transformers 5: what it renames, it renames in place
        return {}
    back: Any = revert_weight_conversion
    try:
        with torch.no_grad():
            found: dict[str, Any] = back(model, {name: tensor.detach() for name, tensor in state.items()})
    except Exception:  # noqa: BLE001 - a conversion that has no way back; the values may still tell
        return {}
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}


def _spellings(model: nn.Module, key: str) -> list[str]:
    """A file's key as it is, and with the model's base prefix put on or taken off."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    return [key, prefix + key] + ([key[len(prefix) :]] if key.startswith(prefix) else [])


def holds(actual: Tensor, expected: Tensor) -> bool:
    """Whether a tensor in memory is the file's, rounded to its dtype."""
    if actual.shape != expected.shape or not is_plain(actual):
        return False
    if is_narrow(actual) and is_narrow(expected) and actual.dtype == expected.dtype and actual.numel():
        one, two = actual.detach().cpu().contiguous(), expected.contiguous()
        return torch.equal(one.reshape(-1).view(torch.uint8), two.reshape(-1).view(torch.uint8))
    return same_values(actual.detach(), expected.to(device=actual.device, dtype=actual.dtype))
