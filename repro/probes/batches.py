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

from .forward import main_output
from .inputs import accepts
from .load import Loaded
from .summary import is_float, tensors_in, widen


@dataclass(frozen=True)
class Example:
    """One prompt: ``index`` in the file, ``side`` of its pair ("positive", "negative") if it has one. ``ids``: token
    ids in place of a text.
    """

    index: int
    side: Optional[str]
    text: Optional[str]
    ids: Optional[tuple[int, ...]] = None


@dataclass(frozen=True)
class Batch:
    """What one forward pass is given. input_ids, mask: (batch, seq); the mask is 0 on padding."""

    number: int
    examples: tuple[Example, ...]
    input_ids: Tensor
    mask: Tensor
    padding_side: str

    @property
    def last(self) -> Tensor:
        """Position of each row's last token that is no padding: (batch,)."""
        if self.padding_side == "left":
            return torch.full((len(self.examples),), self.mask.shape[1] - 1, device=self.mask.device)
        return self.mask.sum(1) - 1


@dataclass(frozen=True)
class Captured:
    """One pass. size: largest magnitude of each layer's output for each token, (layer, batch, seq), float32 on the
    CPU; NaN where a token's row holds one. output_bad: (batch,), whether the output at the last token is not finite.
    residual: each layer's output at the last token, (layer, batch, hidden), float32, where it was asked for. width:
    numbers in a token's row.
    """

    size: Tensor
    output_bad: Tensor
    residual: Optional[Tensor]
    width: int


class Tokens:
    """Prompts to ids, by the model's tokenizer; examples that are ids already need none.

    max_length: longer ones are cut, as the tokenizer cuts them. padding_side: "left" or "right".
    """

    def __init__(self, loaded: Loaded, tokenizer: Any, max_length: Optional[int], padding_side: Optional[str]) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._device = loaded.device
        self.side = padding_side or str(getattr(tokenizer, "padding_side", None) or "right")
        config = loaded.config
        known = [
            getattr(source, name, None) for name in ("pad_token_id", "eos_token_id") for source in (tokenizer, config)
        ]
        self.pad = next((int(item) for item in known if isinstance(item, int)), 0)
        self.special = set(getattr(tokenizer, "all_special_ids", None) or ())

    def ids(self, example: Example) -> list[int]:
        if example.ids is not None:
            return list(example.ids[: self._max_length])
        cut = {} if self._max_length is None else {"truncation": True, "max_length": self._max_length}
        return list(self._tokenizer(example.text, **cut)["input_ids"])

    def word(self, token: int) -> Optional[str]:
        return None if self._tokenizer is None else str(self._tokenizer.convert_ids_to_tokens(token))

    def batch(self, number: int, examples: Sequence[Example], length: Optional[int] = None) -> Batch:
        """The examples padded to the longest of them, or to ``length``."""
        rows = [self.ids(example) for example in examples]
        longest = max([*map(len, rows), length or 0])
        ids, mask = [], []
        for row in rows:
            gap = longest - len(row)
            padded, seen = [self.pad] * gap, [0] * gap
            left = self.side == "left"
            ids.append([*padded, *row] if left else [*row, *padded])
            mask.append([*seen, *[1] * len(row)] if left else [*[1] * len(row), *seen])
        return Batch(
            number,
            tuple(examples),
            torch.tensor(ids, device=self._device),
            torch.tensor(mask, device=self._device),
            self.side,
        )


def forward(model: nn.Module, batch: Batch) -> Any:
    """One pass over the batch, without gradients. The mask is given where it holds anything."""
    given: dict[str, Any] = {"input_ids": batch.input_ids}
    if accepts(model, "attention_mask"):
        given["attention_mask"] = batch.mask
    if getattr(model.config, "is_encoder_decoder", False):
        start = getattr(model.config, "decoder_start_token_id", None) or 0
        begin = torch.full_like(batch.input_ids[:, :1], int(start))
        given["decoder_input_ids"] = torch.cat([begin, batch.input_ids[:, :-1]], dim=1)
    with torch.no_grad():
        return model(**given)


def captured(model: nn.Module, batch: Batch, layers: Sequence[str], *, residual: bool = False) -> Captured:
    """One pass with the largest magnitude of every token's row at every layer."""
    sizes: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    widths: list[int] = [0]
    last, every = batch.last, torch.arange(len(batch.examples), device=batch.mask.device)

    def see(name: str, hidden: Tensor) -> None:
        widths.append(hidden.shape[-1])
        low, high = torch.aminmax(hidden, dim=-1)
        sizes[name] = torch.maximum(-low, high)  # NaN passes through both
        if residual:
            rows[name] = widen(hidden[every, last])

    with _hooked(model, layers, see):
        output = main_output(forward(model, batch))[1]
    ends = widen(output[every, last] if output.dim() == 3 else output).reshape(len(batch.examples), -1)
    found = [name for name in layers if name in sizes]
    return Captured(
        torch.stack([widen(sizes[name]) for name in found]).cpu(),
        (~torch.isfinite(ends)).any(-1).cpu(),
        torch.stack([rows[name] for name in found]).cpu() if residual else None,
        widths[-1],
    )


def counted(model: nn.Module, batch: Batch, layers: Sequence[str]) -> dict[str, Tensor]:
    """By layer, the counts of NaN, +inf and -inf in each token's row: (3, batch, seq), int64. One more pass."""
    counts: dict[str, Tensor] = {}

    def see(name: str, hidden: Tensor) -> None:
        wide = widen(hidden)
        kinds = (torch.isnan(wide), wide == float("inf"), wide == float("-inf"))
        counts[name] = torch.stack([kind.sum(-1) for kind in kinds]).cpu()

    with _hooked(model, layers, see):
        forward(model, batch)
    return counts


@contextlib.contextmanager
def _hooked(model: nn.Module, layers: Sequence[str], see: Any) -> Iterator[None]:
    """The first output of shape (batch, seq, hidden) of each layer's first call goes to ``see``; nothing is left."""
    modules = dict(model.named_modules())
    handles: list[Any] = []
    met: set[str] = set()

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            hidden = next((t for t in tensors_in(output) if is_float(t) and t.dim() == 3), None)
            if hidden is not None and name not in met:
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
    )
