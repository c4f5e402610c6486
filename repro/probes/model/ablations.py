"""One thing changed on the loaded model, or in its inputs; everything is put back afterwards."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Callable

import torch

from ..values.figures import dtype_name
from .compared.quantised import is_plain
from .inputs import Inputs, accepts, second_inputs, without_first
from .kinds.changed import CHANGES, NoneThere
from .load import Loaded
from .precision import DigitsLost, in_dtype
from .ready import Given


class NotApplicable(Exception):
    """The ablation cannot be run on this model. The message says why."""


class SameAsCase(Exception):
    """The case has this setting already, or nothing that could have it. The message, if any, says what is not there."""


@dataclass(frozen=True)
class Setting:
    """What an ablation runs with: the inputs in place of the case's, and a remark for its reason.

    may_refuse: a model of one size or length may not take them.
    """

    inputs: tuple[Inputs, ...]
    remark: str = ""
    may_refuse: bool = False


Ablation = Callable[[Loaded, tuple[Inputs, ...], dict[str, Any]], "contextlib.AbstractContextManager[Setting]"]


def dtype_ablation(name: str) -> Ablation:
    @contextlib.contextmanager
    def ablation(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
        if dtype_name(loaded.dtype) == name:
            raise SameAsCase
        try:
            with in_dtype(loaded, getattr(torch, name)) as rounded:
                remark = f"from weights already rounded to {dtype_name(loaded.dtype)}" if rounded else ""
                yield Setting(inputs, remark)
        except DigitsLost as error:
            raise NotApplicable(str(error)) from error

    return ablation


def attention_ablation(name: str) -> Ablation:
    @contextlib.contextmanager
    def ablation(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
        before = loaded.attn
        if before == name:
            raise SameAsCase
        if before is None:
            raise NotApplicable(f"{loaded.class_name} names no attention implementation")
        switch = getattr(loaded.model, "set_attn_implementation", None)
        if switch is None:
            import transformers

            raise NotApplicable(
                f"transformers {transformers.__version__} cannot change the attention of a loaded model"
            )
        if name == "sdpa" and not getattr(loaded.model, "_supports_sdpa", True):
            raise NotApplicable(f"{loaded.class_name} has no sdpa attention")
        try:
            switch(name)
        except Exception as error:
            raise NotApplicable("{} refuses it: {}".format(loaded.class_name, str(error).split("\n")[0])) from error
        try:
            yield Setting(inputs)
        finally:
            switch(before)

    return ablation


@contextlib.contextmanager
def aligned_copy(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
    """Every parameter in memory of its own, which the allocator aligns to 64 bytes."""
    if loaded.misaligned == 0:
        raise NotApplicable("every parameter is aligned already")
    before = [(parameter, parameter.data) for parameter in loaded.model.parameters() if is_plain(parameter)]
    try:
        for parameter, data in before:
            parameter.data = data.clone()
        yield Setting(inputs, f"{loaded.misaligned} parameters were not aligned")
    finally:
        for parameter, data in before:
            parameter.data = data


@contextlib.contextmanager
def no_mask(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
    if all(made.attention_mask is None for made in inputs):
        raise NotApplicable("the model takes no attention mask")
    yield Setting(tuple(replace(made, attention_mask=None) for made in inputs))


@contextlib.contextmanager
def no_cache(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
    if not accepts(loaded.model, "use_cache"):
        raise NotApplicable(f"{loaded.class_name} takes no use_cache")
    yield Setting(tuple(replace(made, options=(("use_cache", False),)) for made in inputs))


@contextlib.contextmanager
def no_first_special_token(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
    if not all(made.special_first and made.length > 1 for made in inputs):
        why = "the ids are seeded" if inputs[0].source == "seeded" else "the tokenizer puts no special token first"
        why = why if any(made.length for made in inputs) else "the model takes no token ids"
        raise NotApplicable(why)
    token = inputs[0].tokens[0] if inputs[0].tokens else "the first token"
    yield Setting(tuple(without_first(made) for made in inputs), f"without {token}")


@contextlib.contextmanager
def one_thread(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
    before = torch.get_num_threads()
    if before == 1:
        raise SameAsCase
    torch.set_num_threads(1)
    try:
        yield Setting(inputs)
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def no_autocast(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
    """Of a call in the user's own process, which may have been made under autocast."""
    begun = [made.beginning for made in inputs if isinstance(made, Given) and made.beginning is not None]
    if not any(one.autocast.is_on for one in begun):
        raise SameAsCase
    before = [one.autocast for one in begun]
    try:
        for one in begun:
            one.autocast = one.autocast.off
        yield Setting(inputs)
    finally:
        for one, autocast in zip(begun, before):
            one.autocast = autocast


@contextlib.contextmanager
def second_prompt(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
    if inputs[0].source == "memory":
        raise NotApplicable("the inputs are those that the program gave")
    other = second_inputs(loaded, inputs[0], bool(case.get("trust_remote_code")))
    remark = "inputs drawn from seed 1" if other.source == "seeded" else repr(other.prompt)
    yield Setting((other,), remark)


def inputs_ablation(name: str) -> Ablation:
    """Pictures, sounds and series changed in one way; of no interest where there are none."""

    @contextlib.contextmanager
    def ablation(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
        try:
            changed = tuple(CHANGES[name](loaded.model, made) for made in inputs)
        except NoneThere as error:
            raise SameAsCase(str(error)) from error
        yield Setting(changed, may_refuse=True)

    return ablation


def adapter_ablation(change: Callable[[Loaded], "contextlib.AbstractContextManager[None]"]) -> Ablation:
    """The adapter in another way; of no interest where there is none."""

    @contextlib.contextmanager
    def ablation(loaded: Loaded, inputs: tuple[Inputs, ...], case: dict[str, Any]) -> Iterator[Setting]:
        if loaded.adapter is None:
            raise SameAsCase("the model has no adapter")
        with change(loaded):
            yield Setting(inputs)

    return ablation


# name -> (what it changes, how)
ABLATIONS: dict[str, tuple[dict[str, Any], Ablation]] = {
    "dtype=float32": ({"dtype": "float32"}, dtype_ablation("float32")),
    "dtype=bfloat16": ({"dtype": "bfloat16"}, dtype_ablation("bfloat16")),
    "dtype=float16": ({"dtype": "float16"}, dtype_ablation("float16")),
    "attn=eager": ({"attn": "eager"}, attention_ablation("eager")),
    "attn=sdpa": ({"attn": "sdpa"}, attention_ablation("sdpa")),
    "aligned_copy": ({"storage": "aligned copy"}, aligned_copy),
    "attention_mask=none": ({"attention_mask": None}, no_mask),
    "use_cache=false": ({"use_cache": False}, no_cache),
    "no_first_special_token": ({"first_special_token": False}, no_first_special_token),
    "threads=1": ({"threads": 1}, one_thread),
    "autocast=off": ({"autocast": False}, no_autocast),
    "adapter=merged": ({"adapter": "merged"}, adapter_ablation(lambda loaded: loaded.adapter.merged(loaded))),
    "adapter=off": ({"adapter": "off"}, adapter_ablation(lambda loaded: loaded.adapter.off())),
    **{name: (dict([name.split("=")]), inputs_ablation(name)) for name in CHANGES},
    "second_prompt": ({"prompt": "another"}, second_prompt),
}
