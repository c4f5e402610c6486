"""Prompts -> token ids. Without a tokenizer the ids are drawn from a fixed seed, and the record says so."""

import functools
import inspect
import os
import re
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from .compat import CannotLoad, quiet
from .load import Loaded

SEED = 0
SEEDED_TOKENS = 12
DEFAULT_PROMPT = "The capital of France is"
WITHHELD, TOKEN = "(withheld)", "(token)"  # what stands for a prompt, and for a token of its text
SECOND_PROMPT = "The quick brown fox jumps over the lazy dog. 12 + 30 ="


# Files that hold a vocabulary. Without one of them AutoTokenizer of transformers 5 makes an empty tokenizer of the
# model's type, which turns every prompt into nothing, or into unknown tokens.
VOCABULARY = re.compile(
    r"tokenizer\.json|vocab\.(json|txt|model)|.*\.(model|tiktoken|spm|vocab)|tekken\.json|sentencepiece.*|.*bpe.*"
)


@dataclass(frozen=True)
class Inputs:
    """What one forward pass is given.

    input_ids: (1, seq), int64. attention_mask: the same shape, ones, or None. decoder_input_ids: (1, seq) for
    encoder-decoder models. source: "tokenizer" or "seeded". special_first: whether the first token is one that the
    tokenizer put there by itself. options: further keyword arguments, such as use_cache. withheld: neither the prompt
    nor what it can be read from goes out; ``tokens`` then has the text of special tokens only.
    """

    prompt: Optional[str]
    source: str
    input_ids: Tensor
    attention_mask: Optional[Tensor]
    decoder_input_ids: Optional[Tensor] = None
    tokens: Optional[tuple[str, ...]] = None
    decoder_tokens: Optional[tuple[str, ...]] = None
    special_first: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    withheld: bool = False

    def arguments(self) -> dict[str, Any]:
        given: dict[str, Any] = {"input_ids": self.input_ids}
        if self.attention_mask is not None:
            given["attention_mask"] = self.attention_mask
        if self.decoder_input_ids is not None:
            given["decoder_input_ids"] = self.decoder_input_ids
        given.update(self.options)
        return given

    def record(self) -> dict[str, Any]:
        if self.withheld:
            blank = dict.fromkeys(("seed", "decoder_input_ids", "tokens"))
            return {"prompt": WITHHELD, "input_source": self.source, "input_ids": [], **blank}
        return {
            "prompt": self.prompt,
            "input_source": self.source,
            "seed": SEED if self.source == "seeded" else None,
            "input_ids": self.input_ids[0].tolist(),
            "decoder_input_ids": None if self.decoder_input_ids is None else self.decoder_input_ids[0].tolist(),
            "tokens": list(self.tokens) if self.tokens is not None else None,
        }


def accepts(model: nn.Module, argument: str) -> bool:
    """Whether the model's forward has an argument of this name."""
    return argument in inspect.signature(type(model).forward).parameters


@functools.lru_cache(maxsize=1)  # a large tokenizer takes seconds, and an ablation wants it again
def load_tokenizer(folder: Optional[str], trust_remote_code: bool) -> Optional[Any]:
    """The tokenizer of a model folder, or None.

    A folder written by transformers 5 names a class that 4.x does not have; its tokenizer.json is readable all the
    same.
    """
    if folder is None or not any(VOCABULARY.fullmatch(name) for name in os.listdir(folder)):
        return None
    import transformers

    with quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
        except Exception:  # noqa: BLE001 - whatever a tokenizer class raises, its file may still be readable
            path = os.path.join(folder, "tokenizer.json")
            if not os.path.isfile(path):
                return None
            return transformers.PreTrainedTokenizerFast(tokenizer_file=path)


def vocabulary(model: nn.Module) -> int:
    """Rows of the input embedding, so that every id below it is valid."""
    find: Any = getattr(model, "get_input_embeddings", None)
    table = find() if find else None
    weight = getattr(table, "weight", None)
    if weight is not None:
        return int(weight.shape[0])
    return int(getattr(model.config, "vocab_size", 2))


def make_inputs(loaded: Loaded, prompts: list[str], trust_remote_code: bool, withheld: bool = False) -> list[Inputs]:
    """One Inputs for each prompt. Without a tokenizer there is one set of seeded ids, whatever the prompts.

    withheld: the texts of the prompts must not go out.

    Raises:
        CannotLoad: the model takes no token ids.
    """
    main = getattr(loaded.model, "main_input_name", "input_ids")
    if main != "input_ids" and not accepts(loaded.model, "input_ids"):
        raise CannotLoad(f"{loaded.class_name} takes {main}, not token ids; only models of token ids can be run.")
    tokenizer = load_tokenizer(loaded.source.folder, trust_remote_code)
    if tokenizer is None:
        return [seeded(loaded, SEED)]
    if not prompts:
        return [tokenized(loaded, tokenizer, DEFAULT_PROMPT)]
    return [tokenized(loaded, tokenizer, prompt, withheld) for prompt in prompts]


def second_inputs(loaded: Loaded, first: Inputs, trust_remote_code: bool) -> Inputs:
    """Other inputs of the same kind: another prompt, or ids from another seed."""
    tokenizer = load_tokenizer(loaded.source.folder, trust_remote_code)
    if tokenizer is None:
        return seeded(loaded, SEED + 1)
    return tokenized(loaded, tokenizer, SECOND_PROMPT if first.prompt != SECOND_PROMPT else DEFAULT_PROMPT)


def seeded(loaded: Loaded, seed: int) -> Inputs:
    """SEEDED_TOKENS ids, uniform over the vocabulary, from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary(loaded.model), (1, SEEDED_TOKENS), generator=generator)
    return _finish(loaded, Inputs(None, "seeded", ids, torch.ones_like(ids)))


def tokenized(loaded: Loaded, tokenizer: Any, prompt: str, withheld: bool = False) -> Inputs:
    encoded = tokenizer(prompt, return_tensors="pt")
    ids = encoded["input_ids"]
    if ids.shape[-1] == 0:
        shown = WITHHELD if withheld else repr(prompt)
        raise ValueError(f"The tokenizer makes no token of the prompt {shown}. Give another --prompt.")
    tokens = tuple(str(token) for token in tokenizer.convert_ids_to_tokens(ids[0].tolist()))
    if withheld:
        known = set(tokenizer.all_special_ids)
        tokens = tuple(token if id_ in known else TOKEN for token, id_ in zip(tokens, ids[0].tolist()))
    plain = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    special = ids.shape[-1] > len(plain) and int(ids[0, 0]) in set(tokenizer.all_special_ids)
    made = Inputs(prompt, "tokenizer", ids, encoded.get("attention_mask"), tokens=tokens, special_first=special)
    return _finish(loaded, replace(made, withheld=withheld))


def _finish(loaded: Loaded, made: Inputs) -> Inputs:
    """On the model's device, with only what its forward takes, and with decoder ids where it is an encoder-decoder.

    The decoder is fed the same ids, shifted right behind its start token.
    """
    model, device = loaded.model, loaded.device
    mask = made.attention_mask if made.attention_mask is not None and accepts(model, "attention_mask") else None
    decoder = decoder_tokens = None
    if getattr(model.config, "is_encoder_decoder", False):
        start = getattr(model.config, "decoder_start_token_id", None)
        if start is None:
            start = getattr(model.config, "bos_token_id", None) or 0
        decoder = torch.cat([torch.full((1, 1), int(start)), made.input_ids[:, :-1]], dim=1).to(device)
        decoder_tokens = None if made.tokens is None else ("<decoder start>", *made.tokens[:-1])
    return replace(
        made,
        input_ids=made.input_ids.to(device),
        attention_mask=mask.to(device) if mask is not None else None,
        decoder_input_ids=decoder,
        decoder_tokens=decoder_tokens,
    )


def without_first(made: Inputs) -> Inputs:
    """The same inputs without their first token."""
    return replace(
        made,
        input_ids=made.input_ids[:, 1:],
        attention_mask=None if made.attention_mask is None else made.attention_mask[:, 1:],
        tokens=None if made.tokens is None else made.tokens[1:],
        special_first=False,
    )
