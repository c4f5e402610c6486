"""Batches of prompts as a pipeline runs them, and what each layer's output holds for each token of them.

The capture costs one reduction for each layer, whose result is (batch, seq) and stays on the device until the pass is
over. Counts and positions are taken in a second pass, and only for a batch in which something is bad.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..model.before.growth import too_much
from ..model.compat import CannotLoad
from ..model.forward import main_output
from ..model.inputs import accepts, positions, vocabulary
from ..model.load import Loaded
from ..protocol.failures import one_line, panics_raised
from ..values.figures import is_float, tensors_in, widen

ENDS_NAMED = 3  # bad numbers of an output of which the place is kept


@dataclass(frozen=True)
class Example:
    """One prompt: ``index`` in the file, ``side`` of its pair ("positive", "negative") if it has one. ``ids``: token
    ids in place of a text. ``messages``: those of a chat, whose contents are the text.
    """

    index: int
    side: Optional[str]
    text: Optional[str]
    ids: Optional[tuple[int, ...]] = None
    withheld: bool = False
    messages: Optional[tuple[dict[str, str], ...]] = None


@dataclass(frozen=True)
class Batch:
    """What one forward pass is given. input_ids, mask: (batch, seq); the mask is 0 on padding. decoder_ids: the same
    behind the decoder's start token, in the same columns, for an encoder-decoder.
    """

    number: int
    examples: tuple[Example, ...]
    input_ids: Tensor
    mask: Tensor
    padding_side: str
    decoder_ids: Optional[Tensor] = None

    def ids_of(self, layer: str) -> Tensor:
        """(batch, seq): the tokens whose rows a layer's output holds."""
        return self.decoder_ids if self.decoder_ids is not None and in_decoder(layer) else self.input_ids

    @property
    def own(self) -> Tensor:
        """Whether a column holds a token of the example itself: (batch, seq), on the CPU."""
        return self.mask.bool().cpu()

    @property
    def last(self) -> Tensor:
        """Position of each row's last token that is no padding: (batch,)."""
        if self.padding_side == "left":
            return torch.full((len(self.examples),), self.mask.shape[1] - 1, device=self.mask.device)
        return self.mask.sum(1) - 1


def in_decoder(layer: str) -> bool:
    """Whether a layer of an encoder-decoder is fed the decoder's tokens, by its path."""
    return "decoder" in layer.split(".")


class Enough(BaseException):
    """Ends a pass from a hook: what was asked is known. No Exception, which a model's own code might take for its."""


class NotEncodable(Exception):
    """A text cannot be turned into token ids."""


class NotSeen(RuntimeError):
    """A layer gave nothing of shape (batch, seq, hidden)."""


@dataclass(frozen=True)
class End:
    """An example's output at its last token: how many of its numbers are not finite, and the first of their places."""

    bad: int
    of: int
    first: tuple[int, ...]


@dataclass(frozen=True)
class Captured:
    """One pass. size: largest magnitude of each layer's output for each token, (layer, batch, seq), float32 on the
    CPU; NaN where a token's row holds one. output_bad: (batch,), whether the output at the last token is not finite.
    residual: each layer's output at the last token, (layer, batch, hidden), float32, where it was asked for. width:
    numbers in a token's row. ends: what is not finite in each example's output at its last token.
    """

    size: Tensor
    output_bad: Tensor
    residual: Optional[Tensor]
    width: int
    ends: tuple["End", ...] = ()

    def bad_rows(self) -> Tensor:
        """Whether a token's row holds a NaN or Inf, on padding too: (layer, batch, seq)."""
        return ~torch.isfinite(self.size)

    def failing(self, batch: Batch) -> Tensor:
        """Which examples are bad, at a token of their own or at the output: (batch,)."""
        return (self.bad_rows() & batch.own).any(-1).any(0) | self.output_bad


class Tokens:
    """Prompts to ids, by the model's tokenizer; examples that are ids already need none.

    max_length: longer ones are cut, as the tokenizer cuts them. padding_side: "left" or "right".
    """

    def __init__(self, loaded: Loaded, tokenizer: Any, max_length: Optional[int], padding_side: Optional[str]) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._device = loaded.device
        try:
            self.vocabulary: Optional[int] = vocabulary(loaded.model)
        except NotImplementedError:  # custom code that names no embedding
            self.vocabulary = None
        self._longest = positions(loaded.model)
        self.side = padding_side or str(getattr(tokenizer, "padding_side", None) or "right")
        config = loaded.config
        known = [
            getattr(source, name, None) for name in ("pad_token_id", "eos_token_id") for source in (tokenizer, config)
        ]
        self.pad = next((int(item) for item in known if isinstance(item, int)), 0)
        self.special = set(getattr(tokenizer, "all_special_ids", None) or ())
        self._start: Optional[int] = None
        if getattr(config, "is_encoder_decoder", False):
            starts = [getattr(config, name, None) for name in ("decoder_start_token_id", "bos_token_id")]
            self._start = next((int(item) for item in starts if isinstance(item, int)), 0)

    def ids(self, example: Example) -> list[int]:
        """The token ids of an example.

        Raises:
            CannotLoad: it is a text, and the model's folder has no tokenizer.
            NotEncodable: the tokenizer does not take it.
        """
        if example.ids is not None:
            return list(example.ids[: self._max_length])
        if self._tokenizer is None:
            raise CannotLoad("the model's folder has no tokenizer, so a text cannot be turned into token ids")
        cut = {} if self._max_length is None else {"truncation": True, "max_length": self._max_length}
        text = example.text or ""
        if example.messages is not None:
            text, cut = self._chat(example.messages), {**cut, "add_special_tokens": False}  # it writes its own
        refused = too_much(self._tokenizer, text)
        if refused is not None:
            raise NotEncodable(refused)
        try:
            with panics_raised():
                return list(self._tokenizer(text, **cut)["input_ids"])
        except Exception as error:  # noqa: BLE001 - a tokenizer may raise anything: it is this example's answer
            raise NotEncodable(f"the tokenizer raised {type(error).__name__}: {one_line(str(error))}") from None

    def _chat(self, messages: Sequence[dict[str, str]]) -> str:
        """The text that the tokenizer's chat template makes of messages, up to where the model is to answer."""
        if not getattr(self._tokenizer, "chat_template", None):
            raise NotEncodable("the tokenizer has no chat template; --no-chat-template joins the messages' contents")
        answer = messages[-1]["role"] != "assistant"
        try:
            made = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer)
        except Exception as error:  # noqa: BLE001 - a template may refuse an order of roles: it is this example's answer
            said = f"{type(error).__name__}: {one_line(str(error))}"
            raise NotEncodable(f"the chat template raised {said}; --no-chat-template joins the contents") from None
        return str(made)

    def chat_template(self) -> Optional[str]:
        """The template in use; of several, the one that is used for a plain chat."""
        found = getattr(self._tokenizer, "chat_template", None)
        return found.get("default") if isinstance(found, dict) else found

    def refusal(self, ids: Sequence[int]) -> Optional[str]:
        """Why no model can be given these ids; None where it can. An embedding asked for a row that it does not have
        raises on a CPU and takes the whole process's device down on a GPU.
        """
        if not ids:
            return "the tokenizer makes no token of it"
        if self._longest is not None and len(ids) > self._longest:
            return f"{len(ids):,} tokens, and the model takes {self._longest:,}: shorten it, or cut with --max-length"
        limit = self.vocabulary
        wrong = None if limit is None else next((token for token in ids if not 0 <= token < limit), None)
        return None if wrong is None else f"token id {wrong} is none of the model's {limit:,}"

    def word(self, token: int) -> Optional[str]:
        return None if self._tokenizer is None else str(self._tokenizer.convert_ids_to_tokens(token))

    def batch(self, number: int, examples: Sequence[Example], length: Optional[int] = None) -> Batch:
        """The examples padded to the longest of them, or to ``length``."""
        rows = [self.ids(example) for example in examples]
        longest = max([*map(len, rows), length or 0])
        ids: list[list[int]] = []
        mask: list[list[int]] = []
        decoder: list[list[int]] = []
        for row in rows:
            gap = longest - len(row)
            for lines, fill, own in (
                (ids, self.pad, row),
                (mask, 0, [1] * len(row)),
                (decoder, self.pad, [self._start or 0, *row[:-1]]),
            ):
                lines.append([*[fill] * gap, *own] if self.side == "left" else [*own, *[fill] * gap])
        given, seen, behind = (torch.tensor(lines, device=self._device) for lines in (ids, mask, decoder))
        return Batch(number, tuple(examples), given, seen, self.side, None if self._start is None else behind)


def given_to(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """The arguments of one pass over the batch, by name. The masks are given where the model takes them."""
    given: dict[str, Any] = {"input_ids": batch.input_ids}
    if accepts(model, "attention_mask"):
        given["attention_mask"] = batch.mask
    if batch.decoder_ids is not None:
        given["decoder_input_ids"] = batch.decoder_ids
        if accepts(model, "decoder_attention_mask"):
            given["decoder_attention_mask"] = batch.mask
    return given


def forward(model: nn.Module, batch: Batch) -> Any:
    """One pass over the batch, without gradients."""
    with torch.no_grad():
        return model(**given_to(model, batch))


def largest(rows: Tensor) -> Tensor:
    """Largest magnitude along the last dimension; NaN where there is one."""
    try:
        low, high = torch.aminmax(rows, dim=-1)
    except RuntimeError:  # torch 2.0 has no such kernel for bfloat16 on the CPU
        low, high = torch.aminmax(widen(rows), dim=-1)
    return torch.maximum(-low, high)


def captured(model: nn.Module, batch: Batch, layers: Sequence[str], *, residual: bool = False) -> Captured:
    """One pass with the largest magnitude of every token's row at every layer.

    Raises:
        NotSeen: a layer gives no such rows.
    """
    sizes: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    widths: list[int] = [0]
    last, every = batch.last, torch.arange(len(batch.examples), device=batch.mask.device)

    def see(name: str, hidden: Tensor) -> None:
        widths.append(hidden.shape[-1])
        sizes[name] = largest(hidden)
        if residual:
            rows[name] = widen(hidden[every, last])

    with _hooked(model, layers, batch, see):
        output = main_output(forward(model, batch))[1]
    missing = [name for name in layers if name not in sizes]
    if missing:
        raise NotSeen(f"{missing[0]} gave no output of shape (batch, seq, hidden)")
    ends = widen(output[every, last] if output.dim() == 3 else output).reshape(len(batch.examples), -1)
    return Captured(
        torch.stack([widen(sizes[name]) for name in layers]).cpu(),
        (~torch.isfinite(ends)).any(-1).cpu(),
        torch.stack([rows[name] for name in layers]).cpu() if residual else None,
        widths[-1],
        tuple(_end(row) for row in ~torch.isfinite(ends)),
    )


def _end(bad: Tensor) -> End:
    places = bad.nonzero().flatten()[:ENDS_NAMED] if bool(bad.any()) else bad.new_zeros(0)
    return End(int(bad.sum()), bad.numel(), tuple(int(place) for place in places))


def fails(model: nn.Module, batch: Batch, layers: Sequence[str], asked: Optional[Tensor] = None) -> Tensor:
    """Which examples are bad, at a token of their own or at the output: (batch,), as ``Captured.failing`` says. The
    pass ends where every example that is asked about is bad: what follows changes nothing. asked: (batch,), or all.

    Raises:
        NotSeen: a layer gives no rows of tokens.
    """
    bad = torch.zeros(len(batch.examples), dtype=torch.bool, device=batch.mask.device)
    wanted = torch.ones_like(bad) if asked is None else asked.to(bad.device)
    own, met = batch.mask.bool(), set[str]()

    def see(name: str, hidden: Tensor) -> None:
        met.add(name)
        bad.logical_or_((~torch.isfinite(widen(largest(hidden))) & own.to(hidden.device)).any(-1).to(bad.device))
        if bool((bad | ~wanted).all()):
            raise Enough

    try:
        with _hooked(model, layers, batch, see):
            output = main_output(forward(model, batch))[1]
    except Enough:
        return bad.cpu()
    missing = [name for name in layers if name not in met]
    if missing:
        raise NotSeen(f"{missing[0]} gave no output of shape (batch, seq, hidden)")
    every = torch.arange(len(batch.examples), device=output.device)
    ends = widen(output[every, batch.last.to(output.device)] if output.dim() == 3 else output)
    return bad.cpu() | (~torch.isfinite(ends.reshape(len(batch.examples), -1))).any(-1).cpu()


def counted(model: nn.Module, batch: Batch, layers: Sequence[str]) -> dict[str, Tensor]:
    """By layer, the counts of NaN, +inf and -inf in each token's row: (3, batch, seq), int64. One more pass, which ends
    behind the last of these layers.
    """
    counts: dict[str, Tensor] = {}
    left = set(layers)

    def see(name: str, hidden: Tensor) -> None:
        wide = widen(hidden)
        kinds = (torch.isnan(wide), wide == float("inf"), wide == float("-inf"))
        counts[name] = torch.stack([kind.sum(-1) for kind in kinds]).cpu()
        left.discard(name)
        if not left:
            raise Enough

    with _hooked(model, layers, batch, see), contextlib.suppress(Enough):
        forward(model, batch)
    return counts


def passed(model: nn.Module, batch: Batch, layers: Sequence[str]) -> list[str]:
    """Those of the layers that the tokens go through: not those of an image or audio tower."""
    met: set[str] = set()
    with _hooked(model, layers, batch, lambda name, hidden: met.add(name)):
        forward(model, batch)
    return [name for name in layers if name in met]


@contextlib.contextmanager
def _hooked(model: nn.Module, layers: Sequence[str], batch: Batch, see: Any) -> Iterator[None]:
    """The first output of shape (batch, seq, hidden) of each layer goes to ``see``; nothing is left."""
    modules = dict(model.named_modules())
    handles: list[Any] = []
    met: set[str] = set()
    shape = batch.mask.shape

    def fits(tensor: Tensor) -> bool:
        return is_float(tensor) and tensor.dim() == 3 and tensor.shape[:2] == shape

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            hidden = None if name in met else next(filter(fits, tensors_in(output)), None)
            if hidden is not None:
                met.add(name)
                see(name, hidden.detach())

        return hook

    try:
        handles.extend(modules[name].register_forward_hook(hook_for(name)) for name in layers)
        yield
    finally:
        for handle in handles:
            handle.remove()


def alone(batch: Batch, row: int, *, padded: bool) -> Batch:
    """One example of a batch by itself: with the padding that it had there, or without any."""
    keep = batch.mask[row].bool() if not padded else torch.ones_like(batch.mask[row]).bool()
    return replace(
        batch,
        examples=(batch.examples[row],),
        input_ids=batch.input_ids[row : row + 1, keep],
        mask=batch.mask[row : row + 1, keep],
        decoder_ids=None if batch.decoder_ids is None else batch.decoder_ids[row : row + 1, keep],
    )
