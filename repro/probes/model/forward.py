"""Run the model: does the output hold NaN or Inf, is it nearly uniform, is it the same twice?"""

import math
import time
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..observe.screen import Call, in_plain_memory, screened, spread_of
from ..observe.written import written_down
from ..values.figures import describe, digest, is_bad, is_float, same_values, tensors_in, widen
from ..values.nest import opened
from .compat import CannotLoad
from .inputs import Inputs, not_taken, unvalidated
from .load import own_dtype

# Entropy of the next-token distribution as a part of log(vocabulary). Measured: real Gemma 3 270M gives 0.11 to 0.36 on
# five prompts; GPT-2, Pythia and Gemma shapes with random weights give 0.986 to 0.990.
UNIFORM_RATIO = 0.98
OUTPUTS = (
    "sentence_embedding",
    "logits",
    "prediction_logits",
    "logits_per_image",
    "last_hidden_state",
    "image_embeds",
    "pooler_output",
)


@dataclass(frozen=True)
class Pass:
    """The forward passes of one prompt: what was put in, and what was seen.

    written: by the name of an output, how many infinities in it the code writes there itself.
    """

    inputs: Inputs
    output_name: str
    output: Tensor
    figures: dict[str, Any]
    entropy_ratio: Optional[float]
    repeat_equal: Optional[bool]
    calls: tuple[Call, ...]
    spread: tuple[dict[str, Any], ...]
    seconds: float
    written: dict[str, int] = field(default_factory=dict)

    @property
    def bad(self) -> bool:
        return is_bad_figures(self.figures) and self.output_name not in self.written

    @property
    def uniform(self) -> bool:
        return self.entropy_ratio is not None and self.entropy_ratio > UNIFORM_RATIO


def is_bad_figures(figures: dict[str, Any]) -> bool:
    return bool(figures.get("nan", 0) or figures.get("posinf", 0) or figures.get("neginf", 0))


def run(model: nn.Module, inputs: Inputs) -> Any:
    """One plain forward pass, without gradients."""
    with torch.no_grad(), unvalidated():
        return inputs.call(model, arguments_of(model, inputs))


def arguments_of(model: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """What the model is called with: pictures and sounds in the dtype that the weights have now, if there are any."""
    return inputs.arguments(own_dtype(model) if inputs.is_cast else None)


def main_output(output: Any, name: Optional[str] = None) -> tuple[str, Tensor]:
    """The output that is judged: the one of that name where it is given and there, else the logits where there are any,
    else the last hidden state, else the first floating tensor.
    """
    named = named_outputs(output)
    for wanted in (name, *OUTPUTS):
        if wanted is not None and wanted in named:
            return wanted, named[wanted]
    for found in named.items():
        return found
    raise ValueError(f"The model's output has no floating tensor to judge: it is a {type(output).__name__}.")


def judged_output(output: Any, written: Container[str] = ()) -> tuple[str, Tensor]:
    """The same; where it is finite, and another of the model's outputs is not, that one: boxes beside classes, a loss
    beside logits.

    written: outputs whose infinities are written there on purpose, which count as finite.
    """
    main = main_output(output)
    candidates = (main, *named_outputs(output).items())
    return next(((name, value) for name, value in candidates if name not in written and is_bad(value)), main)


def named_outputs(output: Any) -> dict[str, Tensor]:
    """The floating tensors of a model's output, by the key or the place under which it gives them: "loss", "logits",
    "output", "output[1]".
    """
    output = opened(output, Tensor)
    parts = output.items() if isinstance(output, dict) else enumerate([output] if _is_one(output) else output or ())
    found: dict[str, Tensor] = {}
    for key, part in parts:
        name = key if isinstance(key, str) else f"output[{key}]" if key else "output"
        tensors = [plain for tensor in tensors_in(part) if is_float(tensor) and (plain := _plain(tensor)) is not None]
        found.update((f"{name}[{at}]" if at else name, tensor) for at, tensor in enumerate(tensors))
    return found


def _plain(tensor: Tensor) -> Optional[Tensor]:
    """The numbers of a nested or sparse tensor; None where they cannot be read."""
    return None if tensor.is_meta or tensor.is_quantized else in_plain_memory(tensor)


def _is_one(output: Any) -> bool:
    return not isinstance(output, (list, tuple))


def entropy_ratio(logits: Tensor) -> Optional[float]:
    """Mean entropy of softmax over the last dimension, divided by the log of its size; None where the logits are not
    all finite.

    1.0 means that the model prefers nothing. In float32, over at most 64 positions.
    """
    if logits.dim() < 2 or logits.shape[-1] < 2 or logits.is_complex():
        return None
    rows = widen(logits.detach().reshape(-1, logits.shape[-1])[-64:])
    if not bool(torch.isfinite(rows).all()):
        return None
    logp = torch.log_softmax(rows, dim=-1)
    return float(-(logp.exp() * logp).sum(-1).mean()) / math.log(logits.shape[-1])


def look(model: nn.Module, inputs: Inputs, repeats_good: bool = True) -> Pass:
    """Two forward passes: one under the screen, one plain, compared.

    Where the first was bad, the second also counts bad tokens by layer.

    repeats_good: whether a pass that was good is repeated, too.

    Raises:
        CannotLoad: the model has no row for an id or a place of the inputs.
    """
    with screened(model, outline=True) as screen:
        try:
            ran = run(model, inputs)
        except IndexError as error:  # an embedding's, which names no token
            refused = not_taken(model, inputs)
            if refused is None:
                raise
            raise CannotLoad(refused) from error
    name, output, written = judged_pass(model, inputs, ran)
    calls = screen.calls()
    figures = describe(output)
    rows: list[dict[str, Any]] = []
    begin = time.monotonic()
    again = None
    if is_bad_figures(figures) and name not in written:
        with spread_of(model) as rows, screened(model) as whole:
            _, again = main_output(run(model, inputs), name)
        within = whole.calls()
        calls = within if any(call.bad for call in within) else calls
    elif repeats_good:
        _, again = main_output(run(model, inputs), name)
    seconds = time.monotonic() - begin
    ratio = entropy_ratio(output) if name.endswith("logits") else None
    equal = None if again is None else same_values(output, again)
    return Pass(inputs, name, output, figures, ratio, equal, tuple(calls), tuple(rows), seconds, written)


def judged_pass(model: nn.Module, inputs: Inputs, ran: Any) -> tuple[str, Tensor, dict[str, int]]:
    """Name and output that are judged of a pass that gave ``ran``; by the names of the outputs whose infinities the
    code writes there itself, how many these are. Only where an output is not finite the pass is made again.
    """
    name, output = judged_output(ran)
    if not is_bad(output):
        return name, output, {}
    outputs, main = named_outputs(ran), main_output(ran)[0]
    names = written_down(model, lambda: named_outputs(run(model, inputs)), outputs, main)
    written = {other: int(torch.isinf(outputs[other]).sum()) for other in outputs if other in names}
    return (*judged_output(ran, written), written)


def record(seen: Pass) -> dict[str, Any]:
    """One row of the forward step's payload."""
    return {
        **seen.inputs.record(),
        "output": seen.output_name,
        "logits": seen.figures,
        "entropy_ratio": seen.entropy_ratio,
        "uniform": seen.uniform,
        "repeat_equal": seen.repeat_equal,
        "verdict": "bad" if seen.bad else "good",
        "digest": digest(seen.output),
        "absorbed": sum(call.bad for call in seen.calls) if not seen.bad else 0,
    }


def bad_words(figures: dict[str, Any]) -> str:
    """ "3 NaN, 1 +inf among 64 values": the counts of what is not finite."""
    kinds = (("nan", "NaN"), ("posinf", "+inf"), ("neginf", "-inf"))
    counts = ", ".join(f"{figures[key]:,} {word}" for key, word in kinds if figures[key])
    return f"{counts} among {math.prod(figures['shape']):,} values"


def judge(passes: list[Pass], random_weights: bool) -> tuple[str, str, dict[str, Any]]:
    """Verdict, reason and payload of the forward step."""
    rows = [record(seen) for seen in passes]
    bad = [seen for seen in passes if seen.bad]
    worst = max(passes, key=lambda seen: sum(seen.figures.get(key, 0) for key in ("nan", "posinf", "neginf")))
    payload = {
        "output": worst.output_name,
        "prompts": rows,
        "logits": worst.figures,
        "plain_seconds": min(seen.seconds for seen in passes),
    }
    of = f" for {len(bad)} of {len(passes)} prompts" if len(passes) > 1 else ""
    if bad:
        return "bad", f"{worst.output_name}: {bad_words(worst.figures)}{of}", payload
    if "min" not in worst.figures:
        return "skip", f"{worst.output_name} has no element, so nothing could be judged", payload
    verb = "are" if worst.output_name.endswith("s") and not worst.output_name.endswith("ss") else "is"
    reason = f"{worst.output_name} {verb} finite, {worst.figures['min']:.6g} to {worst.figures['max']:.6g}"
    if worst.written:
        of = " and ".join(f"{count:,} in {name}" for name, count in worst.written.items())
        reason += f"; beside infinities that the code writes there itself, as a mask does ({of})"
    without = passes[0].inputs.without
    if without:
        reason += "; without {}, which the model takes as well".format(" and ".join(without))
    if any(seen.repeat_equal is False for seen in passes):
        reason += "; a second run gave other numbers"
    if any(seen.uniform for seen in passes):
        reason += "; nearly uniform" + (
            ", as untrained weights are" if random_weights else ", which trained models rarely are"
        )
    return "good", reason, payload
