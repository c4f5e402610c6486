"""Prompts -> token ids, and what else the model takes. Without a tokenizer the ids are drawn from a fixed seed, as
pictures and sounds are where none are given, and the record says so.
"""

import contextlib
import functools
import inspect
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..checkpoint.resolve import first_line
from ..protocol.failures import panics_raised
from .before.growth import check_prompt
from .compat import CannotLoad, config_parts, quiet
from .kinds.choose import choose
from .kinds.draws import IDS_ALONE, Further, Takes, cast, token_types
from .kinds.facts import IDS as IDS
from .kinds.facts import Facts
from .kinds.marks import reserved
from .load import Loaded

SEED = 0
SEEDED_TOKENS = 13  # a prime, and the size of nothing in a model: a dimension of 13 is the tokens'
DEFAULT_PROMPT = "The capital of France is"
MASK = "attention_mask"
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

    input_ids: (1, seq), int64; None for a model that takes none. attention_mask: the same shape, ones, or None.
    decoder_input_ids: (1, seq) for encoder-decoder models. source: "tokenizer" or "seeded". special_first: whether the
    first token is one that the tokenizer put there by itself. options: more keyword arguments, such as use_cache.
    withheld: neither the prompt nor what it can be read from goes out; ``tokens`` then has the text of special tokens
    only. further: pictures, sounds and whatever else goes beside the ids. without: what the model takes too and runs
    without. takes: what other inputs of the same kind are made by; None for exact ones.
    """

    prompt: Optional[str]
    source: str
    input_ids: Optional[Tensor]
    attention_mask: Optional[Tensor]
    decoder_input_ids: Optional[Tensor] = None
    tokens: Optional[tuple[str, ...]] = None
    decoder_tokens: Optional[tuple[str, ...]] = None
    special_first: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    withheld: bool = False
    further: tuple[Further, ...] = ()
    without: tuple[str, ...] = ()
    takes: Optional[Takes] = None

    @property
    def length(self) -> int:
        """How many tokens there are."""
        return 0 if self.input_ids is None else int(self.input_ids.shape[-1])

    def arguments(self, dtype: Optional[torch.dtype] = None) -> dict[str, Any]:
        """By name; what is not an id in ``dtype``, for a model that was brought to another one."""
        given: dict[str, Any] = {} if self.input_ids is None else {IDS: self.input_ids}
        given.update({more.name: cast(more.tensor, dtype) for more in self.further})
        if self.attention_mask is not None:
            given[MASK] = self.attention_mask
        if self.decoder_input_ids is not None:
            given["decoder_input_ids"] = self.decoder_input_ids
        given.update(self.options)
        return given

    @property
    def is_cast(self) -> bool:
        """Whether some of them are numbers, which go into the model in the dtype that it has."""
        return bool(self.further)

    def call(self, model: nn.Module, given: Mapping[str, Any]) -> Any:
        """``model`` called with these arguments."""
        return model(**given)

    def record(self) -> dict[str, Any]:
        more = {"further": [item.record() for item in self.further], "without": list(self.without)}
        if self.withheld:
            blank = dict.fromkeys(("seed", "decoder_input_ids", "tokens"))
            return {"prompt": WITHHELD, "input_source": self.source, "input_ids": [], **blank, **more}
        return {
            "prompt": self.prompt,
            "input_source": self.source,
            "seed": SEED if self.source == "seeded" else None,
            "input_ids": [] if self.input_ids is None else self.input_ids[0].tolist(),
            "decoder_input_ids": None if self.decoder_input_ids is None else self.decoder_input_ids[0].tolist(),
            "tokens": list(self.tokens) if self.tokens is not None else None,
            **more,
        }


_LOCK = threading.Lock()
_INSIDE: list[bool] = []  # whether distributions were validated before, once for each thread that is inside


@contextlib.contextmanager
def unvalidated() -> Iterator[None]:
    """Distributions take the numbers that they are given: a forecast that ends in one of NaN gives it, where it would
    raise an error that says nothing of its origin.
    """
    module = sys.modules.get("torch.distributions.distribution")
    kind: Any = getattr(module, "Distribution", None)
    if kind is None:
        yield
        return
    with _LOCK:
        _INSIDE.append(kind._validate_args if not _INSIDE else _INSIDE[0])
        kind.set_default_validate_args(False)
    try:
        yield
    finally:
        with _LOCK:
            before = _INSIDE.pop()
            if not _INSIDE:  # the last of several threads: what was set before the first
                kind.set_default_validate_args(before)


def accepts(model: nn.Module, argument: str) -> bool:
    """Whether the model's forward has an argument of this name; not where that cannot be told, as of TorchScript."""
    try:
        return argument in inspect.signature(type(model).forward).parameters
    except (AttributeError, TypeError, ValueError):
        return False


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
            with panics_raised():
                return transformers.AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=trust_remote_code
                )
        except Exception:  # noqa: BLE001 - whatever a tokenizer class raises, its file may still be readable
            path = os.path.join(folder, "tokenizer.json")
            if not os.path.isfile(path):
                return None
            try:
                with panics_raised():
                    return transformers.PreTrainedTokenizerFast(tokenizer_file=path)
            except Exception as error:
                raise CannotLoad(
                    f"The tokenizer cannot be read: {path}: {first_line(error)}."
                    " Write it again with save_pretrained(), or remove it: the token ids are then drawn from a seed."
                ) from error


def vocabulary(model: nn.Module) -> int:
    """Rows of the input embedding, so that every id below it is valid; what the configuration says where the model
    names no embedding.
    """
    find: Any = getattr(model, "get_input_embeddings", None)
    try:
        weight = getattr(find() if find else None, "weight", None)
    except NotImplementedError:  # a model of two towers has no one embedding
        weight = None
    if weight is not None and weight.dim() == 2:
        return int(weight.shape[0])
    sizes = [getattr(part, "vocab_size", None) for part in config_parts(getattr(model, "config", None))]
    return min((size for size in sizes if isinstance(size, int) and size > 0), default=2)


def positions(model: nn.Module) -> Optional[int]:
    """How many tokens the model takes at most, where its positions are rows of an embedding; None where they are
    computed, so that more than it was trained for are taken as well.
    """
    parts = config_parts(getattr(model, "config", None))
    known = [getattr(part, name, None) for part in parts for name in ("max_position_embeddings", "n_positions")]
    sizes = {size for size in known if isinstance(size, int) and size > 0}
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and ("position" in last or last == "wpe"):
            # OPT and RoBERTa keep some rows in front for themselves, and their configurations differ in counting them.
            fitting = [size for size in sizes if 0 <= module.num_embeddings - size <= 2]
            if fitting:
                return max(fitting)
    return None


def texts_of(tokenizer: Any, ids: list[int]) -> tuple[str, ...]:
    """The text of each token; empty for an id that the tokenizer does not know."""
    return tuple("" if token is None else str(token) for token in tokenizer.convert_ids_to_tokens(ids))


def not_taken(model: nn.Module, made: "Inputs") -> Optional[str]:
    """Which of the inputs' ids or places the model has no row for, in words; None where it has one for each."""
    if made.input_ids is None:
        return None
    rows, longest = vocabulary(model), positions(model)
    if longest is not None and made.length > longest:
        return f"The prompt has {made.length:,} tokens, and the model takes {longest:,}: shorten it."
    beyond = (made.input_ids[0] >= rows).nonzero()
    if not len(beyond):
        return None
    at = int(beyond[0])
    if made.source == "file":
        return (
            f"The id {int(made.input_ids[0, at]):,} at place {at} was given, and the model's embedding has {rows:,}"
            f" rows: give ids from 0 to {rows - 1:,}."
        )
    word = "" if made.tokens is None or made.withheld else f" ({made.tokens[at]!r})"
    return (
        f"The tokenizer gives the id {int(made.input_ids[0, at]):,}{word}, and the model's embedding has {rows:,} rows:"
        " tokenizer and weights do not belong together, or the embedding was not resized to new tokens."
    )


def make_inputs(loaded: Loaded, prompts: list[str], trust_remote_code: bool, withheld: bool = False) -> list[Inputs]:
    """One Inputs for each prompt. Without a tokenizer there is one set of seeded ids, whatever the prompts; a model
    that takes no ids is given none.

    withheld: the texts of the prompts must not go out.

    Raises:
        CannotLoad: the model takes something that cannot be made here.
    """
    takes = what_it_takes(loaded)
    tokenizer = load_tokenizer(loaded.source.folder, trust_remote_code) if takes.ids else None
    if tokenizer is None:
        return [seeded(loaded, SEED, takes)]
    if not prompts:
        return [tokenized(loaded, tokenizer, DEFAULT_PROMPT, takes=takes)]
    return [tokenized(loaded, tokenizer, prompt, withheld, takes) for prompt in prompts]


def second_inputs(loaded: Loaded, first: Inputs, trust_remote_code: bool) -> Inputs:
    """Other inputs of the same kind: another prompt, or numbers from another seed."""
    takes = what_it_takes(loaded) if first.takes is None else first.takes
    tokenizer = load_tokenizer(loaded.source.folder, trust_remote_code) if takes.ids else None
    if tokenizer is None:
        return seeded(loaded, SEED + 1, takes)
    prompt = SECOND_PROMPT if first.prompt != SECOND_PROMPT else DEFAULT_PROMPT
    return tokenized(loaded, tokenizer, prompt, takes=takes)


def what_it_takes(loaded: Loaded, fewest: bool = False) -> Takes:
    """What the model is given: token ids, its main input, and whatever else it runs with; or the fewest inputs.

    A pass decides, and is made only where there is a choice: that of a model of token ids alone has none.

    Raises:
        CannotLoad: it takes something that cannot be made here, or runs with none of what can.
    """

    def runs(takes: Takes) -> Optional[str]:
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), unvalidated():
                loaded.model(**seeded(loaded, SEED, takes).arguments())
        except Exception as error:  # noqa: BLE001 - the model's own code refuses in its own words
            return f"{type(error).__name__}: {first_line(error)}"
        return None

    return choose(Facts(loaded.model), loaded.class_name, runs, widest=not fewest)


def seeded(loaded: Loaded, seed: int, takes: Takes = IDS_ALONE) -> Inputs:
    """SEEDED_TOKENS ids, uniform over the vocabulary, from a generator of its own; further inputs likewise."""
    if not takes.ids:
        return _finish(loaded, Inputs(None, "seeded", None, None), takes, seed)
    ids = _drawn_ids(loaded, seed)
    if takes.parts or takes.without:
        ids = _without_special(loaded, ids)
    return _finish(loaded, Inputs(None, "seeded", ids, torch.ones_like(ids)), takes, seed)


def _drawn_ids(loaded: Loaded, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary(loaded.model), (1, SEEDED_TOKENS), generator=generator)


def _without_special(loaded: Loaded, ids: Tensor) -> Tensor:
    """With other ids in place of those that stand for a picture or a sound."""
    special = reserved(Facts(loaded.model))
    plain = next((id_ for id_ in range(1, vocabulary(loaded.model)) if id_ not in special), 0)
    return torch.tensor([[plain if id_ in special else id_ for id_ in ids[0].tolist()]])


def tokenized(loaded: Loaded, tokenizer: Any, prompt: str, withheld: bool = False, takes: Takes = IDS_ALONE) -> Inputs:
    check_prompt(tokenizer, prompt)
    encoded = tokenizer(prompt, return_tensors="pt")
    ids = encoded["input_ids"]
    if ids.shape[-1] == 0:
        shown = WITHHELD if withheld else repr(prompt)
        raise ValueError(f"The tokenizer makes no token of the prompt {shown}. Give another --prompt.")
    tokens = texts_of(tokenizer, ids[0].tolist())
    if withheld:
        tokens = veiled(tokenizer, tokens)
    plain = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    special = ids.shape[-1] > len(plain) and int(ids[0, 0]) in set(tokenizer.all_special_ids)
    made = Inputs(prompt, "tokenizer", ids, encoded.get("attention_mask"), tokens=tokens, special_first=special)
    return _finish(loaded, replace(made, withheld=withheld), takes, SEED)


def veiled(tokenizer: Any, tokens: tuple[str, ...]) -> tuple[str, ...]:
    """The special tokens, and a placeholder for each other one."""
    known = set(tokenizer.all_special_tokens)
    return tuple(token if token in known else TOKEN for token in tokens)


def _finish(loaded: Loaded, made: Inputs, takes: Takes, seed: int) -> Inputs:
    """On the model's device, with all that it takes and no more, and with decoder ids where it has a decoder."""
    model, device = loaded.model, loaded.device
    if made.input_ids is not None and takes.marks:
        made = _marked(made, takes)
    mask = made.attention_mask if made.attention_mask is not None and accepts(model, MASK) else None
    if MASK in takes.names:
        mask = None
    draws = [draw for part in takes.parts for draw in part.draws]
    further = [draw.further(seed, loaded.dtype, device, made.length) for draw in draws]
    if made.input_ids is not None and takes.marks:
        further += [token_types(name, made.input_ids.to(device), takes.marks) for name in takes.types]
    fed = with_decoder(loaded, made, seed)
    return replace(
        fed,
        input_ids=None if made.input_ids is None else made.input_ids.to(device),
        attention_mask=mask.to(device) if mask is not None else None,
        further=tuple(further),
        without=takes.without,
        takes=takes,
    )


def with_decoder(loaded: Loaded, made: Inputs, seed: int) -> Inputs:
    """With ids for the decoder, where the model has one and they are not there yet: the same ids, or seeded ones where
    there are none, shifted right behind its start token.
    """
    given = {"decoder_input_ids", "decoder_inputs_embeds", "decoder_input_values"}
    if made.decoder_input_ids is not None or given & {more.name for more in made.further}:
        return made
    if not getattr(loaded.config, "is_encoder_decoder", False) or not accepts(loaded.model, "decoder_input_ids"):
        return made
    start = getattr(loaded.config, "decoder_start_token_id", None)
    if start is None:
        start = getattr(loaded.config, "bos_token_id", None) or 0
    ids = _drawn_ids(loaded, seed) if made.input_ids is None else made.input_ids.cpu()
    decoder = torch.cat([torch.full((1, 1), int(start)), ids[:, :-1]], dim=1).to(loaded.device)
    words = None if made.tokens is None else ("<decoder start>", *made.tokens[:-1])
    return replace(made, decoder_input_ids=decoder, decoder_tokens=words)


def _marked(made: Inputs, takes: Takes) -> Inputs:
    """With the tokens that stand for pictures and sounds in front of the text, behind its first special token."""
    assert made.input_ids is not None
    more = torch.tensor([[id_ for mark in takes.marks for id_ in mark.ids]])
    at = 1 if made.special_first else 0
    words = None
    if made.tokens is not None:
        shown = [word for mark in takes.marks for word in mark.words]
        words = (*made.tokens[:at], *shown, *made.tokens[at:])

    def put(tensor: Tensor, between: Tensor) -> Tensor:
        return torch.cat([tensor[:, :at], between, tensor[:, at:]], dim=1)

    mask = made.attention_mask
    return replace(
        made,
        input_ids=put(made.input_ids, more),
        attention_mask=None if mask is None else put(mask, torch.ones_like(more)),
        tokens=words,
    )


def without_first(made: Inputs) -> Inputs:
    """The same inputs without their first token."""
    return replace(
        made,
        input_ids=None if made.input_ids is None else made.input_ids[:, 1:],
        attention_mask=None if made.attention_mask is None else made.attention_mask[:, 1:],
        further=tuple(more.at(slice(1, None)) for more in made.further),
        tokens=None if made.tokens is None else made.tokens[1:],
        special_first=False,
    )
