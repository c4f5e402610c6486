"""Steps of a training as a program: forward, loss, backward, clipping, optimizer, with a loss scale where there is one.

The loop is the usual one: ``loss.backward()``, ``clip_grad_norm_``, ``AdamW.step()``; under autocast where the case has
a narrow dtype, with a GradScaler for float16; with gradient accumulation a forward and backward pass for each micro
batch, whose loss is divided by their number, before the gradients are clipped. Its ends are the losses and the
gradients' norm of each step, and the gradients, parameters and buffers that the last one leaves.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..model.compat import CannotLoad
from ..model.forward import main_output
from ..model.inputs import IDS, Inputs, accepts
from ..model.load import Loaded, own_dtype
from ..program.callable import Program
from ..protocol.failures import in_words
from ..values.nest import items_in, rebuild

SEED = 0
SECONDS = 600.0
NO_LABEL = -100  # what the losses of PyTorch and Transformers leave out
CLIP, RATE, EPSILON = 1.0, 5e-5, 1e-8  # the Trainer's own


@dataclass(frozen=True)
class Settings:
    """How it is trained. autocast: None for none. scale: the loss scale that a GradScaler begins with; None for no
    scaler. clip: the largest norm of all gradients; None where they are not clipped. eps: AdamW's. leave_out: rows of
    the batch that are not in it. accumulate: how many micro batches a step has.
    """

    steps: int = 1
    autocast: Optional[torch.dtype] = None
    scale: Optional[float] = None
    clip: Optional[float] = CLIP
    eps: Optional[float] = None
    leave_out: frozenset[int] = frozenset()
    accumulate: int = 1


def settings_for(steps: int, dtype: Optional[str], accumulate: Optional[int] = None) -> Settings:
    """Those of a case: autocast for a narrow dtype, and a GradScaler for float16, as it is usually trained."""
    if dtype not in ("float16", "bfloat16"):
        return Settings(steps, accumulate=accumulate or 1)
    scale = 2.0**16 if dtype == "float16" else None
    return Settings(steps, getattr(torch, dtype), scale, accumulate=accumulate or 1)


@dataclass(frozen=True)
class Batch:
    """What the model is trained on. rows: how many examples there are, one along the first dimension of each tensor; 1
    where they could not be told apart. positional: what the forward takes by place alone. loss: what the loss is, in
    words.
    """

    values: dict[str, Any]
    positional: tuple[Any, ...] = ()
    rows: int = 1
    loss: str = ""

    def rows_of(self, micro_batches: int) -> list[range]:
        """The examples of each micro batch, in order: as many in one as in another, or one more."""
        ends = [self.rows * number // micro_batches for number in range(micro_batches + 1)]
        return [range(begin, end) for begin, end in zip(ends, ends[1:])]

    def of(self, kept: list[int]) -> "Batch":
        """The same with these examples alone."""
        if kept == list(range(self.rows)):
            return self

        def part(tensor: Tensor) -> Tensor:
            return tensor[kept] if tensor.dim() and tensor.shape[0] == self.rows else tensor

        return replace(
            self, values=rebuild(self.values, Tensor, part), positional=rebuild(self.positional, Tensor, part)
        )


@dataclass
class Training:
    """Steps of a training of one model on one batch. own: the optimizer that a factory gave, if it gave one."""

    loaded: Loaded
    batch: Batch
    settings: Settings
    own: Optional[torch.optim.Optimizer] = None
    optimizer: Optional[torch.optim.Optimizer] = None
    scaler: Any = None
    losses: list[float] = field(default_factory=list)

    def run(self) -> dict[str, Tensor]:
        """All steps; dropout and the like from a seed of their own."""
        torch.manual_seed(SEED)
        self.loaded.model.train()
        losses: dict[str, Tensor] = {}
        norms: dict[str, Tensor] = {}
        micro_batches = self._micro_batches()
        for train_step in range(self.settings.steps):
            found, norm = self._step(train_step, micro_batches)
            losses.update(found)
            norms.update({} if norm is None else {f"gradient norm of step {train_step}": norm})
        self.losses = [float(loss) for loss in losses.values()]
        return {**losses, **norms}

    def program(self) -> Program:
        """It as something that can be run again."""
        self.optimizer = self.own
        if self.optimizer is None:
            wanted = [parameter for parameter in self.loaded.model.parameters() if parameter.requires_grad]
            if not wanted:
                raise CannotLoad(f"{self.loaded.class_name} has no parameter that is trained.")
            eps = EPSILON if self.settings.eps is None else self.settings.eps
            self.optimizer = torch.optim.AdamW(wanted, lr=RATE, eps=eps)
        if self.settings.scale is not None:
            self.scaler = scaler_for(self.loaded.device, self.settings.scale)
        state = [self.loaded.model, self.optimizer, *([self.scaler] if self.scaler is not None else [])]
        return Program(self.run, state, noun="the training", seconds=SECONDS)

    def _micro_batches(self) -> list[tuple[Optional[int], Batch]]:
        """(number, examples) of each micro batch that has any; the number is None where the batch is not split."""
        leave_out, count = self.settings.leave_out, self.settings.accumulate
        parts = [[row for row in rows if row not in leave_out] for rows in self.batch.rows_of(count)]
        return [(None if count == 1 else number, self.batch.of(rows)) for number, rows in enumerate(parts) if rows]

    def _step(
        self, train_step: int, micro_batches: list[tuple[Optional[int], Batch]]
    ) -> tuple[dict[str, Tensor], Optional[Tensor]]:
        """The losses by name, and the norm of all gradients by which they are clipped: of an infinite one nothing is
        left.
        """
        assert self.optimizer is not None  # program() has made it
        self.optimizer.zero_grad(set_to_none=True)
        losses = {}
        for number, batch in micro_batches:
            name = f"loss of step {train_step}" + ("" if number is None else f", micro batch {number}")
            losses[name] = self._back(number, batch)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm: Optional[Tensor] = None
        if self.settings.clip is not None:
            parameters = [item for group in self.optimizer.param_groups for item in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return losses, None if norm is None else norm.detach()

    def _back(self, micro_batch: Optional[int], batch: Batch) -> Tensor:
        """The loss of a batch, of which the gradients are added to those that are there.

        micro_batch: its number, which is read from this frame where the origin is told.
        """
        with self._autocast():
            output = _forward(self.loaded.model, batch)
            loss = own_loss(output)
            loss = mean_as_loss(output) if loss is None else loss
        part = loss if micro_batch is None else loss / self.settings.accumulate
        (part if self.scaler is None else self.scaler.scale(part)).backward()
        return loss.detach()

    def _autocast(self) -> Any:
        dtype = self.settings.autocast
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.loaded.device.type, dtype=dtype)


def _forward(model: nn.Module, batch: Batch) -> Any:
    return model(*batch.positional, **batch.values)


def scaler_for(device: torch.device, scale: float) -> Any:
    """A GradScaler.

    Raises:
        CannotLoad: this PyTorch has none for the device.
    """
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, init_scale=scale)
    if device.type != "cuda":
        raise CannotLoad(f"PyTorch {torch.__version__} has no GradScaler for {device.type}: train in bfloat16.")
    return torch.cuda.amp.GradScaler(init_scale=scale)


def own_loss(output: Any) -> Optional[Tensor]:
    """The loss that the model gives itself: under its name, or as the only number."""
    loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
    if isinstance(loss, Tensor):
        return loss if loss.dim() == 0 else loss.mean()
    return output if isinstance(output, Tensor) and output.dim() == 0 else None


def mean_as_loss(output: Any) -> Tensor:
    """The mean of the output that is judged, for a model that gives no loss."""
    return main_output(output)[1].mean()


def batch_of(loaded: Loaded, inputs: list[Inputs]) -> Batch:
    """All inputs as one batch, with the labels that the model takes.

    Raises:
        CannotLoad: no labels are known with which it gives a loss, and it does not run without any.
    """
    model, joined = loaded.model, _joined(loaded, inputs)
    refused = ""
    for labels, words in _labels(model, joined):
        trial = replace(joined, values={**joined.values, **labels})
        if "labels" in labels:
            trial.values.pop("decoder_input_ids", None)  # made of the labels
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                output = _forward(model, trial)
        except Exception as error:  # noqa: BLE001 - the model's own code refuses other labels in its own words
            refused = refused or in_words(error)
            continue
        if own_loss(output) is not None:
            return replace(trial, loss=words)
        if not labels:
            return replace(trial, loss=f"the mean of its {main_output(output)[0]}")
    raise CannotLoad(f"{loaded.class_name} cannot be trained on these inputs: {refused}")


def _labels(model: nn.Module, batch: Batch) -> Iterator[tuple[dict[str, Any], str]]:
    """Labels to try, and what the loss is with them; none at last."""
    ids = batch.values.get(IDS)
    if any(name in batch.values for name in ("labels", "label", "target", "targets")):
        yield {}, "the model's own, with the labels that it was given"
        return
    if accepts(model, "return_loss"):
        yield {"return_loss": True}, "the model's own"
    if accepts(model, "labels"):
        if isinstance(ids, Tensor):
            mask = batch.values.get("attention_mask")
            own = ids.clone() if mask is None else torch.where(mask.bool(), ids, torch.full_like(ids, NO_LABEL))
            yield {"labels": own}, "the model's own, with the ids as labels"
            yield {"labels": torch.zeros_like(ids)}, "the model's own, with 0 as every label"
        for zeros in (torch.zeros(batch.rows, dtype=torch.long), torch.zeros(batch.rows)):
            device = next(items_in(list(batch.values.values()), Tensor), zeros).device
            yield {"labels": zeros.to(device)}, "the model's own, with 0 as every label"
    yield {}, ""


def _joined(loaded: Loaded, inputs: list[Inputs]) -> Batch:
    """The inputs along the first dimension; shorter prompts are filled up behind their end."""
    first = inputs[0]
    dtype = own_dtype(loaded.model) if first.is_cast else None
    if len(inputs) == 1 or first.further or any(made.input_ids is None for made in inputs):
        values, positional = first.arguments(dtype), tuple(getattr(first, "positional", ()))
        return Batch(values, positional, _rows([values, positional]))
    longest = max(made.length for made in inputs)
    config = loaded.config
    filler = next(
        (item for item in (getattr(config, name, None) for name in ("pad_token_id", "eos_token_id")) if _is_id(item)), 0
    )
    ids, masks = [], []
    for made in inputs:
        assert made.input_ids is not None  # seen to above
        row, room = made.input_ids, longest - made.length
        ids.append(nn.functional.pad(row, (0, room), value=filler))
        masks.append(nn.functional.pad(torch.ones_like(row), (0, room)))
    values = {IDS: torch.cat(ids), "attention_mask": torch.cat(masks)}
    if not accepts(loaded.model, "attention_mask"):
        del values["attention_mask"]
    return Batch(values, (), len(inputs))


def _is_id(item: Any) -> bool:
    return isinstance(item, int) and item >= 0


def _rows(nest: Any) -> int:
    """How many examples there are, by the first dimension that all tensors have in common."""
    sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in items_in(nest, Tensor)}
    return sizes.pop() if len(sizes) == 1 and min(sizes) > 0 else 1
