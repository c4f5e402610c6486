"""Inputs that somebody gives, exactly as they are: names held against the forward pass, numbers as in the file."""

import os
from collections.abc import Mapping
from typing import Any, Optional

import torch
from torch import Tensor

from ...checkpoint.contents import Unreadable
from ...values.figures import dtype_name, is_float
from ..compat import CannotLoad
from ..inputs import MASK, SEED, Inputs, load_tokenizer, texts_of, with_decoder
from ..load import Loaded, own_dtype
from .draws import Further, cast
from .facts import IDS, Facts
from .tensors import read_tensors

FILE = "file"
DECODER = "decoder_input_ids"
BY_TOKEN = ("token_type_ids", "mm_token_type_ids", "position_ids", "bbox")


def exact_inputs(loaded: Loaded, path: str, trust_remote_code: bool) -> list[Inputs]:
    """The inputs of one file.

    Raises:
        CannotLoad: it cannot be read, or names what the forward pass does not take.
    """
    shown = os.path.basename(path)
    try:
        values = read_tensors(path)
    except Unreadable as error:
        raise CannotLoad(f"The inputs in {shown} cannot be read: {error}.") from None
    if not values:
        raise CannotLoad(f"{shown} holds no tensor: save one for each input, by the name of its argument.")
    check_names(loaded, values, shown)
    tokenizer = load_tokenizer(loaded.source.folder, trust_remote_code) if IDS in values else None
    made = inputs_of(loaded, values, dict.fromkeys(values, FILE), FILE, tokenizer)
    return [made if "labels" in values else with_decoder(loaded, made, SEED)]


def check_names(loaded: Loaded, named: Mapping[str, Any], shown: str) -> None:
    """Raises:
    CannotLoad: the forward pass has no argument of one of the names, or needs one that is not among them.
    """
    facts = Facts(loaded.model)
    strange = sorted(set(named) - facts.parameters)
    if strange and not (facts.open and facts.is_foreign):
        takes = ", ".join(sorted(facts.parameters))
        raise CannotLoad(f"{shown} has {', '.join(strange)}, and {loaded.class_name} takes no such input: {takes}.")
    lacking = sorted(facts.needed - set(named))
    if lacking:
        raise CannotLoad(f"{shown} has no {', '.join(lacking)}, which {loaded.class_name} needs.")


def inputs_of(
    loaded: Loaded,
    values: Mapping[str, Tensor],
    made: Mapping[str, str],
    source: str,
    tokenizer: Optional[Any] = None,
    prompt: Optional[str] = None,
) -> Inputs:
    """Tensors by name as inputs; what is not an id goes in in the model's own dtype, and the record says so.

    made: where each comes from. Ids of one example, with their mask, are ids to all steps; those of several are not
    taken apart.
    """
    left = dict(values)
    ids = _ids(left, IDS)
    mask = None
    if ids is not None and left.get(MASK) is not None and left[MASK].shape == ids.shape:
        mask = left.pop(MASK).to(loaded.device)
    decoder = _ids(left, DECODER)
    words = decoder_words = None
    if tokenizer is not None:
        words, decoder_words = (None if it is None else _words(tokenizer, it) for it in (ids, decoder))
    length = None if ids is None else ids.shape[1]
    return Inputs(
        prompt=prompt,
        source=source,
        input_ids=None if ids is None else ids.to(loaded.device),
        attention_mask=mask,
        decoder_input_ids=None if decoder is None else decoder.to(loaded.device),
        tokens=words,
        decoder_tokens=decoder_words,
        special_first=_is_special(tokenizer, ids),
        further=tuple(_further(loaded, name, value, made[name], length) for name, value in left.items()),
    )


def _further(loaded: Loaded, name: str, value: Tensor, made: str, length: Optional[int]) -> Further:
    given = cast(value, own_dtype(loaded.model)).to(loaded.device)
    by_token = length is not None and name in BY_TOKEN and value.dim() > 1 and value.shape[1] == length
    stored = None if given.dtype == value.dtype else dtype_name(value.dtype)
    return Further(name, given, None, made, by_token=by_token, stored=stored)


def _ids(left: dict[str, Tensor], name: str) -> Optional[Tensor]:
    """The ids of one example, taken out of ``left``; None where there are none, or those of several examples."""
    value = left.get(name)
    if value is None or value.dim() != 2 or value.shape[0] != 1 or is_float(value) or not value.shape[1]:
        return None
    return left.pop(name).to(torch.int64)


def _words(tokenizer: Any, ids: Tensor) -> tuple[str, ...]:
    return texts_of(tokenizer, ids[0].tolist())


def _is_special(tokenizer: Optional[Any], ids: Optional[Tensor]) -> bool:
    return tokenizer is not None and ids is not None and int(ids[0, 0]) in set(tokenizer.all_special_ids)
