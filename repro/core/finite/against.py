"""What a model may be held against, as the command line names it."""

from collections.abc import Mapping

from repro.core.errors import UsageError

WAYS: Mapping[str, str] = {
    "float64": "the same weights in float64",
    "float32": "in float32",
    "bfloat16": "in bfloat16",
    "float16": "in float16",
    "eager": "with eager attention",
    "sdpa": "with scaled_dot_product_attention",
    "cache": "a prefill, then token by token with the key-value cache",
    "batch": "in one batch, padded on the left",
    "batch:right": "in one batch, padded on the right",
    "training": "in training mode, with every dropout at 0",
    "training:checkpointing": "the same, with gradient checkpointing",
    "cpu": "on the CPU",
    "cuda": "on a CUDA GPU",
    "mps": "on Apple's GPU",
}
"""The ways of running a loaded model, and what each is."""


def against_from(text: str) -> str:
    """The other way, as the kit reads it.

    Raises:
        UsageError: there is no such way, file or folder.
    """
    name = {"batch:left": "batch"}.get(text, text)
    if name in WAYS:
        return name
    raise UsageError(f"--against {text!r}: expected one of {', '.join(WAYS)}.")
