"""The ways of running a loaded model that can be held against each other, by name."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Callable

import torch
from torch import Tensor, nn

from ..model.ablations import ABLATIONS, NotApplicable, SameAsCase
from ..model.compat import checkpoint
from ..model.forward import arguments_of, main_output
from ..model.forward import run as run_model
from ..model.inputs import Inputs, accepts, second_inputs, unvalidated
from ..model.load import Loaded
from ..model.precision import in_dtype, widened
from ..values.figures import same_values
from .held.alignment import Region
from .held.hold import Way

DTYPES = ("float64", "float32", "bfloat16", "float16")
ATTENTION = ("eager", "sdpa")
DEVICES = ("cpu", "cuda", "mps")
DECODED = 8  # tokens that are decoded one by one; those before them are the prefill


class NoSuchWay(Exception):
    """The model cannot be run in this way, or it is its own. The message says why."""


def plain(inputs: tuple[Inputs, ...]) -> Way:
    """The case as it is: a pass for each of its inputs."""

    def run(model: nn.Module, begin: Callable[[int], None]) -> list[Any]:
        outputs = []
        for at, made in enumerate(inputs):
            begin(at)
            outputs.append(run_model(model, made))
        return outputs

    return Way("as it is", tuple(((at, None),) for at in range(len(inputs))), run)


def named(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any], name: str) -> Way:
    """The other way, by name.

    Raises:
        NoSuchWay: this model has no such way, or it is the case's own.
    """
    if name in DTYPES:
        return in_other_dtype(loaded, inputs, name)
    if name in ATTENTION:
        return changed(loaded, inputs, case, f"attn={name}", f"{name} attention")
    if name in DEVICES:
        return on_device(loaded, inputs, name)
    if name == "cache":
        return decoding(loaded, inputs)
    if name.partition(":")[0] == "batch":
        return batched(loaded, inputs, name.partition(":")[2] or "left")
    if name.partition(":")[0] == "training":
        return training(loaded, inputs, name.partition(":")[2] == "checkpointing")
    raise NoSuchWay(f"there is no way {name!r} of running a model")


def changed(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any], ablation: str, words: str) -> Way:
    """With one thing changed, as the ablation of that name changes it."""
    _, change = ABLATIONS[ablation]

    @contextlib.contextmanager
    def setting() -> Iterator[None]:
        try:
            with change(loaded, inputs, case):
                yield
        except SameAsCase as error:
            raise NoSuchWay(f"the case itself runs with {words}: give another --against, or another --attn") from error
        except NotApplicable as error:
            raise NoSuchWay(str(error)) from error

    return replace(plain(inputs), words=words, setting=setting)


def in_other_dtype(loaded: Loaded, inputs: tuple[Inputs, ...], name: str) -> Way:
    """The very numbers that are loaded in a wider dtype; in a narrower one, the digits that the files have."""
    dtype = getattr(torch, name)
    if dtype == loaded.dtype:
        raise NoSuchWay(f"the case itself is in {name}: give another --against, or another --dtype")
    if loaded.quantised is not None:
        raise NoSuchWay(f"{loaded.quantised} is quantised in memory: it has no other dtype")
    if name == "float64" and loaded.device.type == "mps":
        raise NoSuchWay("mps has no float64: give --device cpu")
    is_wider = torch.finfo(dtype).bits > torch.finfo(loaded.dtype).bits

    def setting() -> Any:
        return widened(loaded.model, dtype) if is_wider else in_dtype(loaded, dtype)

    return replace(plain(inputs), words=name, setting=setting)


def on_device(loaded: Loaded, inputs: tuple[Inputs, ...], name: str) -> Way:
    """On another device; the model is brought back afterwards."""
    if loaded.device.type == name:
        raise NoSuchWay(f"the case itself runs on {name}: give another --against, or another --device")
    there = {"cuda": torch.cuda.is_available(), "cpu": True}.get(name)
    if there is None:
        there = bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available())
    if not there:
        raise NoSuchWay(f"this PyTorch or this machine has no {name}")

    @contextlib.contextmanager
    def setting() -> Iterator[None]:
        loaded.model.to(name)
        try:
            yield
        finally:
            loaded.model.to(loaded.device)

    moved = tuple(_moved(made, name) for made in inputs)
    return replace(plain(moved), words=f"on {name}", setting=setting)


def _moved(made: Inputs, device: str) -> Inputs:
    def there(tensor: Any) -> Any:
        return tensor.to(device) if isinstance(tensor, Tensor) else tensor

    return replace(
        made,
        input_ids=there(made.input_ids),
        attention_mask=there(made.attention_mask),
        decoder_input_ids=there(made.decoder_input_ids),
        further=tuple(replace(more, tensor=there(more.tensor)) for more in made.further),
    )


def decoding(loaded: Loaded, inputs: tuple[Inputs, ...]) -> Way:
    """A prefill, and then token by token with the key-value cache."""
    model = loaded.model
    asks = {"use_cache": True} if accepts(model, "use_cache") else {}
    if not accepts(model, "past_key_values"):
        raise NoSuchWay(f"{loaded.class_name} takes no key-value cache")
    if any(made.input_ids is None or made.further or made.length < 2 for made in inputs):
        raise NoSuchWay("decoding needs two token ids or more, and nothing beside them")
    if any(made.decoder_input_ids is not None for made in inputs):
        raise NoSuchWay("decoding is only known here for models without an encoder")
    passes: list[Any] = []
    chunks: list[tuple[int, int, int]] = []
    for at, made in enumerate(inputs):
        first = max(made.length - DECODED, 1)
        ends = [first, *range(first + 1, made.length + 1)]
        for begin, end in zip([0, *ends], ends):
            chunks.append((at, begin, end))
            whole = Region((begin, end), 1, made.length, (0, end - begin), 1, end - begin, 0, (0, end), end)
            passes.append(((at, whole),))

    def run(model: nn.Module, begin: Callable[[int], None]) -> list[Any]:
        outputs: list[Any] = []
        past: Any = None
        for number, (at, first, end) in enumerate(chunks):
            made = inputs[at]
            assert made.input_ids is not None
            past = None if first == 0 else past
            given = {**made.arguments(), "input_ids": made.input_ids[:, first:end], **asks}
            if made.attention_mask is not None:
                given["attention_mask"] = made.attention_mask[:, :end]
            if past is not None:
                given["past_key_values"] = past
            begin(number)
            with torch.no_grad(), unvalidated():
                output = made.call(model, given)
            past = getattr(output, "past_key_values", None)
            if past is None:
                raise NoSuchWay(f"{loaded.class_name} gives no key-value cache back")
            outputs.append(output)
        return outputs

    return Way(f"a prefill and up to {DECODED} tokens decoded one by one", tuple(passes), run)


def several(loaded: Loaded, inputs: tuple[Inputs, ...], trusted: bool) -> tuple[Inputs, ...]:
    """Inputs of different length, of which a batch can be made: another one is put beside a single one."""
    if len({made.length for made in inputs}) > 1:
        return inputs
    second = second_inputs(loaded, inputs[0], trusted)
    if second.length == inputs[0].length and second.input_ids is not None:
        short = max(second.length // 2, 1)
        mask = None if second.attention_mask is None else second.attention_mask[:, :short]
        words = None if second.tokens is None else second.tokens[:short]
        second = replace(second, input_ids=second.input_ids[:, :short], attention_mask=mask, tokens=words)
    return (*inputs, second)


def batched(loaded: Loaded, inputs: tuple[Inputs, ...], side: str) -> Way:
    """All inputs in one pass, padded on one side; positions are counted from each one's first token."""
    if side not in ("left", "right"):
        raise NoSuchWay(f"padding is on the left or on the right, not {side!r}")
    model = loaded.model
    if any(made.input_ids is None or made.further or made.decoder_input_ids is not None for made in inputs):
        raise NoSuchWay("a batch is made of token ids alone")
    if any(made.attention_mask is None for made in inputs):
        raise NoSuchWay(f"{loaded.class_name} takes no attention mask, so nothing can be padded")
    longest, rows = max(made.length for made in inputs), len(inputs)
    pad = getattr(loaded.config, "pad_token_id", None)
    pad = pad if isinstance(pad, int) and pad >= 0 else 0
    device = loaded.device
    ids = torch.full((rows, longest), pad, device=device)
    mask = torch.zeros((rows, longest), dtype=torch.long, device=device)
    parts: list[tuple[int, Region]] = []
    for row, made in enumerate(inputs):
        assert made.input_ids is not None
        begin = longest - made.length if side == "left" else 0
        end = begin + made.length
        ids[row, begin:end] = made.input_ids[0]
        mask[row, begin:end] = 1
        where = (begin, end)
        parts.append((row, Region((0, made.length), 1, made.length, where, rows, longest, row, where, longest)))
    options = dict(inputs[0].options)
    if side == "left" and _counts_positions(model, inputs[0]):
        options["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    given = {"input_ids": ids, "attention_mask": mask, **options}

    def run(model: nn.Module, begin: Callable[[int], None]) -> list[Any]:
        begin(0)
        with torch.no_grad(), unvalidated():
            return [inputs[0].call(model, given)]

    return Way(f"one batch of {rows}, padded on the {side}", (tuple(parts),), run)


def _counts_positions(model: nn.Module, made: Inputs) -> bool:
    """Whether the model's own positions are 0, 1, 2, ...: then they have to be given where padding stands in front, as
    generate() does. A model that counts its positions by the ids or the mask is left alone.
    """
    if not accepts(model, "position_ids"):
        return False
    places = torch.arange(made.length, device=None if made.input_ids is None else made.input_ids.device)[None]
    own = main_output(run_model(model, made))[1]
    given = main_output(run_model(model, replace(made, options=(*made.options, ("position_ids", places)))))[1]
    return same_values(own, given)


def training(loaded: Loaded, inputs: tuple[Inputs, ...], checkpointing: bool) -> Way:
    """In training mode with every dropout at 0, with gradients recorded; with gradient checkpointing on request."""
    model: Any = loaded.model
    if checkpointing and not getattr(model, "supports_gradient_checkpointing", False):
        raise NoSuchWay(f"{loaded.class_name} has no gradient checkpointing")

    @contextlib.contextmanager
    def setting() -> Iterator[None]:
        before = [(module, module.training) for module in model.modules()]
        dropped = list(_dropouts(model))
        try:
            for holder, name, _ in dropped:
                setattr(holder, name, 0.0)
            model.train()
            if checkpointing:
                checkpoint(model, True)
            yield
        finally:
            if checkpointing:
                checkpoint(model, False)
            for holder, name, value in dropped:
                setattr(holder, name, value)
            for module, was in before:
                module.training = was

    def run(model: nn.Module, begin: Callable[[int], None]) -> list[Any]:
        outputs = []
        for at, made in enumerate(inputs):
            begin(at)
            with torch.enable_grad(), unvalidated():
                outputs.append(made.call(model, arguments_of(model, made)))
        return outputs

    words = "in training mode, without dropout" + (", with gradient checkpointing" if checkpointing else "")
    return replace(plain(inputs), words=words, setting=setting, run=run, trains=True)


def _dropouts(model: nn.Module) -> Iterator[tuple[Any, str, float]]:
    """(holder, attribute, value) of everything that is a chance of dropping: by the name that it is held under."""
    for module in model.modules():
        names = [name for name in vars(module) if "drop" in name]
        if isinstance(module, nn.modules.dropout._DropoutNd):
            names.append("p")
        for name in dict.fromkeys(names):
            value = vars(module).get(name)
            if isinstance(value, float) and value > 0:
                yield module, name, value
