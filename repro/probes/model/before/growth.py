"""How much a tokenizer may make of a prompt, from its rules and before it is asked.

A tokenizer of a few bytes can double a text sixty times. Its rules are those of the ``tokenizers`` library, each of
which multiplies the characters by a number that is known, so the most that can come of a prompt is arithmetic.
Source: https://github.com/huggingface/tokenizers, ``normalizers``, ``pre_tokenizers`` and ``processors``.
"""

import json
from collections.abc import Iterator
from typing import Any, Optional

from ...checkpoint import limits
from ...checkpoint.limits import OverLimit

PARTS = ("normalizer", "pre_tokenizer", "post_processor")
LISTS = ("normalizers", "pretokenizers", "processors")  # what a Sequence of each holds
# Characters made of one, at most; 1 for all others. Source of the first four: Unicode Standard Annex 15, table 8 of
# https://unicode.org/faq/normalization.html (expansion factors).
FACTORS = {"NFKD": 18, "NFKC": 18, "NFD": 4, "NFC": 3, "Lowercase": 3, "BertNormalizer": 36, "ByteLevel": 4,
           "Metaspace": 2}  # fmt: skip


def too_much(tokenizer: Any, prompt: str) -> Optional[str]:
    """Why a prompt is refused; None where it is not."""
    try:
        check_prompt(tokenizer, prompt)
    except OverLimit as error:
        return str(error)
    return None


def check_prompt(tokenizer: Any, prompt: str) -> None:
    """Refuse a prompt that is longer than any model's, or of which the tokenizer might make too much.

    Raises:
        OverLimit: with how long it is and what the limit is.
    """
    limits.check("The prompt", len(prompt), limits.PROMPT_CHARACTERS, "characters")
    most = most_made(tokenizer, len(prompt))
    if most > limits.allowed(limits.TOKENIZER_GROWTH):
        raise OverLimit(
            f"The tokenizer's rules may make {most:.1e} characters or tokens of a prompt of {len(prompt):,} characters,"
            f" and the limit is {limits.allowed(limits.TOKENIZER_GROWTH):,.0f}. {limits.remedy()}"
        )


def most_made(tokenizer: Any, length: int) -> float:
    """Characters or tokens, at most, of a prompt of so many characters; the length where the rules are not known."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    most = float(length)
    for part in PARTS:
        rules = getattr(backend, part, None)
        if rules is not None and hasattr(rules, "__getstate__"):
            for rule in _each(_state(rules)):
                most = _after(rule, most)
    return most


def _state(rules: Any) -> Any:
    """The rules as data: pickling them gives their JSON."""
    try:
        return json.loads(rules.__getstate__())
    except (TypeError, ValueError):  # one that somebody wrote in Python
        return None


def _each(rule: Any) -> Iterator[dict[str, Any]]:
    if isinstance(rule, dict):
        yield rule
        for name in LISTS:
            for inner in rule.get(name) or ():
                yield from _each(inner)


def _after(rule: dict[str, Any], most: float) -> float:
    """The most that one rule makes of the most that came before it."""
    kind = rule.get("type")
    if kind == "Replace":
        pattern = rule.get("pattern")
        text = pattern.get("String") if isinstance(pattern, dict) else None
        content = len(str(rule.get("content")))
        if text:
            return most * max(1.0, content / len(text))
        return most * (1 + content) + content  # a pattern may match nothing, between any two characters
    if kind == "Prepend":
        return most + len(str(rule.get("prepend")))
    if kind == "Precompiled":  # a table that may hold a text for each character
        return most * max(18.0, len(str(rule.get("precompiled_charsmap"))) / 10_000)
    if kind == "TemplateProcessing":
        return max(_templated(rule, side, most) for side in ("single", "pair"))
    return most * FACTORS.get(str(kind), 1)


def _templated(rule: dict[str, Any], side: str, most: float) -> float:
    pieces = [piece for piece in rule.get(side) or () if isinstance(piece, dict)]
    special = rule.get("special_tokens") or {}
    added = 0
    for piece in pieces:
        name = (piece.get("SpecialToken") or {}).get("id")
        added += len((special.get(name) or {}).get("ids") or ())
    copies = sum("Sequence" in piece for piece in pieces)
    return most * max(1, copies / (2 if side == "pair" else 1)) + added
