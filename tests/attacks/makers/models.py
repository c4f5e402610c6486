"""Tiny models: a sound one, and some that fail in a known way."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path


def sound(folder: Path) -> None:
    """A GPT-2 with a tokenizer (`w5` is token 5); finite in every dtype. It takes 64 tokens."""
    from corpus.families import build, write_tokenizer

    build("gpt2").save_pretrained(folder)
    write_tokenizer(folder)


def nan(folder: Path) -> None:
    """The same with a NaN in the last norm's weight: bad in every dtype, for every prompt."""
    import torch
    from corpus.families import build, write_tokenizer

    model = build("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.weight[3] = math.nan
    model.save_pretrained(folder)
    write_tokenizer(folder)


def rare(folder: Path) -> None:
    """A Llama that overflows in float16 for the token `w77` alone."""
    from support.prompt_models import RARE, write_llama

    write_llama(folder, RARE)


MODELS: dict[str, Callable[[Path], None]] = {"sound": sound, "nan": nan, "rare": rare}
