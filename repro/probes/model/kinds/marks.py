"""What stands among the token ids for a picture, a video or a sound: how many tokens, of which id, between which."""

import inspect
from typing import Any, Optional

import torch

from ...values.figures import is_float, tensors_in
from .draws import Draw, Mark
from .facts import Facts

PICTURE, VIDEO, SOUND = "image", "video", "audio"
ASKED = {PICTURE: ("get_image_features",), VIDEO: ("get_video_features",), SOUND: ("get_audio_features",)}
TYPES = {PICTURE: 1, VIDEO: 2, SOUND: 3}
OPENING = {
    PICTURE: ("vision_start_token_id", "boi_token_id", "boi_token_index"),
    VIDEO: ("vision_start_token_id",),
    SOUND: ("audio_start_token_id", "boa_token_id", "boa_token_index"),
}
CLOSING = {
    PICTURE: ("vision_end_token_id", "eoi_token_id", "eoi_token_index"),
    VIDEO: ("vision_end_token_id",),
    SOUND: ("audio_end_token_id", "eoa_token_id", "eoa_token_index"),
}
COUNTED = {
    PICTURE: ("image_seq_length", "mm_tokens_per_image", "num_image_tokens", "image_seq_len", "num_query_tokens"),
    VIDEO: (),
    SOUND: ("audio_seq_length", "audio_soft_tokens_per_image"),
}


def token_of(facts: Facts, kind: str) -> Optional[int]:
    """The id of the token that stands for one kind of input."""
    return facts.token(f"{kind}_token_id", f"{kind}_token_index")


def reserved(facts: Facts) -> set[int]:
    """Ids that stand for no text: where one is among drawn ids, the model looks for a picture."""
    names = [token_of(facts, kind) for kind in ASKED]
    names += [facts.token(*table[kind]) for table in (OPENING, CLOSING) for kind in ASKED]
    return {name for name in names if name is not None}


def marks_for(
    facts: Facts, kind: str, draws: tuple[Draw, ...], guesses: tuple[int, ...] = ()
) -> list[tuple[Mark, ...]]:
    """What may stand for these inputs among the ids, the likeliest first.

    The model is asked how many rows it makes of them; where it does not say, the configuration is, and then a pass
    decides. One token alone is what releases before 4.46 took, which made room for the rest by themselves.
    """
    token = token_of(facts, kind)
    if token is None or "input_ids" not in facts.parameters:
        return [()]
    made = _rows_of(facts, kind, draws)
    configured = [facts.setting(name) for name in COUNTED[kind]]
    counts = [made, *guesses, *configured, 1]
    known = [count for count in counts if isinstance(count, int) and count > 0]
    ends = facts.token(*OPENING[kind]), facts.token(*CLOSING[kind])
    return [(Mark(token, count, *ends, kind=TYPES[kind]),) for count in dict.fromkeys(known)]


def _rows_of(facts: Facts, kind: str, draws: tuple[Draw, ...]) -> Optional[int]:
    """How many rows of the text's width the model makes of these inputs; None where it has no way to be asked."""
    width = facts.hidden()
    for name in ASKED[kind]:
        ask = getattr(facts.model, name, None)
        if ask is None or width is None:
            continue
        accepted = inspect.signature(ask).parameters
        here = next(facts.model.parameters(), torch.empty(0))
        given = {d.name: d.further(0, here.dtype, here.device, 0).tensor for d in draws if d.name in accepted}
        try:
            with torch.no_grad():
                answer = ask(**given)
        except Exception:  # noqa: BLE001 - the model's own code refuses in its own words; the pass has the last one
            continue
        return _rows(getattr(answer, "pooler_output", None), width) or _rows(answer, width)
    return None


def _rows(answer: Any, width: int) -> Optional[int]:
    if answer is None:
        return None
    found = [tensor for tensor in tensors_in(answer) if is_float(tensor) and tensor.dim() and tensor.shape[-1] == width]
    return sum(tensor.numel() // width for tensor in found) or None
