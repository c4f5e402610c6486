"""A generation or a training with one thing changed; everything is put back afterwards."""

import contextlib
from collections.abc import Iterator
from typing import Any, Callable

from ..model.ablations import ABLATIONS, NotApplicable, SameAsCase
from ..model.compat import checkpoint
from ..model.inputs import Inputs
from ..model.load import Loaded
from ..protocol.wire import Outcome
from .answer import NOTHING_JUDGED, Phase, again, generating, guilty, passing, training
from .generation import Generation, is_greedy
from .passing import Passing
from .training import EPSILON, Training

OTHER_EPSILON = 1e-4
"""Far above what a float16 state holds (6e-8), and far below a usual second moment's root."""

Change = Callable[[Phase], "tuple[str, str]"]


def check(name: str, phase: Phase, loaded: Loaded, inputs: list[Inputs], case: dict[str, Any]) -> Outcome:
    """Verdict, reason and payload of one ablation of a phase."""
    own = None if isinstance(phase.what, Passing) else OWN.get(name)
    change = own[0] if own is not None else ABLATIONS[name][0]
    payload: dict[str, Any] = {"change": change, "same_as_case": False, "logits": None, "equal_to_case": None}
    try:
        if own is not None:
            verdict, reason = own[1](phase)
        else:
            verdict, reason = _of_the_model(name, phase, loaded, inputs, case)
    except SameAsCase:
        payload["same_as_case"] = True
        return "skip", "the case has this setting itself", payload
    except NotApplicable as error:
        return "skip", str(error), payload
    return verdict, reason, payload


def _of_the_model(
    name: str, phase: Phase, loaded: Loaded, inputs: list[Inputs], case: dict[str, Any]
) -> tuple[str, str]:
    """One that changes the model or its inputs, as for a forward pass."""
    what = phase.what
    with ABLATIONS[name][1](loaded, tuple(inputs), case) as setting:
        if isinstance(what, Generation):
            changed = generating(loaded, setting.inputs, what.tokens)
        elif isinstance(what, Passing):
            changed = passing(loaded, setting.inputs)
            if changed.verdict == "skip" and setting.may_refuse:
                raise NotApplicable(f"the model refuses it: {changed.asked.reason}")
        else:
            changed = training(loaded, list(setting.inputs), case, what.own)
        remark = f" ({setting.remark})" if setting.remark else ""
        verdict, reason = _ended(changed)
        return verdict, reason + remark


def _ended(changed: Phase) -> tuple[str, str]:
    """Verdict and reason of a changed phase."""
    if isinstance(changed.what, Generation) and changed.verdict == "good" and not changed.what.judged:
        return "skip", NOTHING_JUDGED
    return changed.verdict, changed.asked.reason


def _sampling(wanted: bool) -> Change:
    def change(phase: Phase) -> tuple[str, str]:
        what = _generation(phase)
        if is_greedy(what.loaded) is not wanted:
            raise SameAsCase
        return _ended(generating(what.loaded, [what.inputs], what.tokens, do_sample=wanted))

    return change


def _without_autocast(phase: Phase) -> tuple[str, str]:
    what = _training(phase)
    if what.settings.autocast is None:
        raise NotApplicable("the case has no autocast: give --dtype float16 or bfloat16")
    return _trained(what, autocast=None, scale=None)


def _without_scale(phase: Phase) -> tuple[str, str]:
    what = _training(phase)
    if what.settings.scale is None:
        raise NotApplicable("the case has no loss scale")
    return _trained(what, scale=1.0)


def _without_clipping(phase: Phase) -> tuple[str, str]:
    return _trained(_training(phase), clip=None)


def _other_epsilon(phase: Phase) -> tuple[str, str]:
    what = _training(phase)
    if what.own is None:
        return _trained(what, eps=OTHER_EPSILON)
    groups = [group for group in what.own.param_groups if "eps" in group]
    if not groups:
        raise NotApplicable(f"{type(what.own).__name__} has no epsilon")
    before = [group["eps"] for group in groups]
    try:
        for group in groups:
            group["eps"] = OTHER_EPSILON
        return _trained(what)
    finally:
        for group, eps in zip(groups, before):
            group["eps"] = eps


def _without_example(phase: Phase) -> tuple[str, str]:
    what = _training(phase)
    if what.batch.rows < 2:
        raise NotApplicable("the batch has one example")
    rows = frozenset(guilty(phase))
    if phase.verdict != "bad":
        raise NotApplicable("no example is bad")
    if not rows:
        raise NotApplicable("no example is bad alone, and none of them makes it good where it is left out")
    if len(rows) == what.batch.rows:
        raise NotApplicable("each example of the batch is bad alone")
    verdict, reason = _trained(what, leave_out=rows)
    return verdict, f"{reason} (without example {', '.join(map(str, sorted(rows)))})"


def _checkpointed(phase: Phase) -> tuple[str, str]:
    what = _training(phase)
    model: Any = what.loaded.model
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise NotApplicable(f"{what.loaded.class_name} has no gradient checkpointing")
    checkpoint(model, True)
    try:
        return _trained(what)
    finally:
        checkpoint(model, False)


def _without_accumulation(phase: Phase) -> tuple[str, str]:
    what = _training(phase)
    if what.settings.accumulate == 1:
        raise NotApplicable("the case accumulates no gradients")
    return _trained(what, accumulate=1)


def _frozen_adapters(phase: Phase) -> tuple[str, str]:
    what = _training(phase)
    with _frozen(what.loaded):
        if not any(parameter.requires_grad for parameter in what.loaded.model.parameters()):
            raise NotApplicable("nothing but the adapters is trained")
        return _trained(what)


@contextlib.contextmanager
def _frozen(loaded: Loaded) -> Iterator[None]:
    adapters = getattr(loaded.model, "peft_config", None)
    if loaded.adapter is None and not isinstance(adapters, dict):
        raise NotApplicable("the model has no adapters")
    frozen = [
        parameter
        for name, parameter in loaded.model.named_parameters()
        if parameter.requires_grad and (loaded.adapter is not None or set(adapters or ()) & set(name.split(".")))
    ]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _trained(what: Training, **changes: Any) -> tuple[str, str]:
    asked = again(what, **changes)
    return asked.verdict, asked.reason


def _generation(phase: Phase) -> Generation:
    assert isinstance(phase.what, Generation)  # the registry asks it of nothing else
    return phase.what


def _training(phase: Phase) -> Training:
    assert isinstance(phase.what, Training)  # the registry asks it of nothing else
    return phase.what


# name -> (what it changes, how)
OWN: dict[str, tuple[dict[str, Any], Change]] = {
    "do_sample=false": ({"do_sample": False}, _sampling(False)),
    "do_sample=true": ({"do_sample": True}, _sampling(True)),
    "autocast=off": ({"autocast": False}, _without_autocast),
    "loss_scale=1": ({"loss_scale": 1}, _without_scale),
    "clip=off": ({"clip": False}, _without_clipping),
    f"eps={OTHER_EPSILON:g}": ({"eps": OTHER_EPSILON, "was": EPSILON}, _other_epsilon),
    "without_example": ({"example": "left out"}, _without_example),
    "gradient_checkpointing=true": ({"gradient_checkpointing": True}, _checkpointed),
    "accumulate=off": ({"accumulate": 1}, _without_accumulation),
    "adapters=frozen": ({"adapters": "frozen"}, _frozen_adapters),
}
