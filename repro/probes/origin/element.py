"""Which token, head and channel an element of an operator's output belongs to, read from the output's shape."""

from typing import Any, Optional

from ..model.inputs import Inputs


def layout(shape: tuple[int, ...], length: int, heads: Optional[int]) -> Optional[tuple[str, ...]]:
    """The meaning of each dimension for a batch of one and ``length`` tokens; None where the shape does not tell.

    Known: (token, channel), (batch, token), (batch, token, channel), (head, token, channel or key),
    (batch, head, token, channel or key), (batch, token, head, channel).
    """
    last = "key" if shape and shape[-1] == length else "channel"
    if len(shape) == 2 and shape[0] == length:
        return ("token", "channel")
    if len(shape) == 2 and shape == (1, length):
        return ("batch", "token")
    if len(shape) == 3 and shape[1] == length:
        if shape[0] == 1 and (heads != 1 or last == "channel"):
            return ("batch", "token", "channel")
        if heads is not None and shape[0] == heads:
            return ("head", "token", last)
    if len(shape) == 4 and shape[2] == length and (heads is None or shape[1] == heads or shape[1] != length):
        return ("batch", "head", "token", last)
    if len(shape) == 4 and shape[1] == length:
        return ("batch", "token", "head", "channel")
    return None


def locate(shape: tuple[int, ...], index: tuple[int, ...], inputs: Inputs, model: Any, module: str) -> dict[str, Any]:
    """token_index, token, head_index and channel_index of an element; None for what the shape does not tell."""
    ids, tokens = inputs.input_ids, inputs.tokens
    if inputs.decoder_input_ids is not None and "decoder" in module.split("."):
        ids, tokens = inputs.decoder_input_ids, inputs.decoder_tokens
    config = getattr(model, "config", None)
    config = getattr(config, "text_config", None) or config
    names = None if ids is None else layout(shape, ids.shape[-1], head_count(config))
    if names is None and len(shape) == 1 and shape[0] == getattr(config, "hidden_size", None):
        names = ("channel",)
    at = {name: place for name, place, size in zip(names or (), index, shape) if name != "channel" or size > 1}
    token = at.get("token")
    return {
        "token_index": token,
        "token": tokens[token] if tokens and token is not None else None,
        "head_index": at.get("head"),
        "channel_index": at.get("channel"),
    }


def head_count(config: Any) -> Optional[int]:
    """Attention heads, under the three names that configurations have for them."""
    for name in ("num_attention_heads", "n_head", "num_heads"):
        count = getattr(config, name, None)
        if isinstance(count, int):
            return count
    return None
