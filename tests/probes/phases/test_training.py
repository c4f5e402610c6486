"""Steps of a training: which phase comes first, in whose gradient, which example; and the sound twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.handmade import load_folder
from torch import Tensor, nn

from repro.probes.model.compat import CannotLoad
from repro.probes.model.inputs import make_inputs
from repro.probes.model.ready import ready
from repro.probes.phases.ablations import check
from repro.probes.phases.answer import Phase, bisect, outcome, training

TWO_STEPS: dict[str, Any] = {"train_step": 2, "dtype": None}


class Fails(nn.Module):
    """A layer and a loss in which one thing is wrong; the number ``least`` keeps each from it."""

    def __init__(self, kind: str, least: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.kind, self.least = kind, least
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        h = self.layer(x)
        same = h - h.detach() + target
        if self.kind == "log":
            return {"loss": -(same + self.least).log().mean()}
        if self.kind == "sqrt":
            return {"loss": (same.square().sum(-1) + self.least).sqrt().mean()}
        if self.kind == "spread":
            return {"loss": (h / (h.detach().std(0) + 1e-3)).square().mean()}
        return {"loss": (h * (0.0 if self.kind == "flat" else 1e25)).sum() * (1.0 - self.least)}


def line(below: int) -> str:
    return f"test_training.py:{Fails.forward.__code__.co_firstlineno + below}"


def trained(kind: str, least: float = 0.0, optimizer: Any = None, **case: Any) -> Phase:
    target = torch.ones(3, 4)
    target[1] = 0.0
    loaded, inputs = ready(Fails(kind, least), (), {"x": torch.linspace(-1, 1, 12).reshape(3, 4), "target": target})
    made = None if optimizer is None else optimizer(loaded.model.parameters())
    return training(loaded, [inputs], {**TWO_STEPS, **case}, made)


def origin_of(phase: Phase) -> dict[str, Any]:
    verdict, _, payload = bisect(phase, False)
    assert verdict == "bad"
    assert payload is not None
    origin: dict[str, Any] = payload["origin"]
    return origin


def adam_without_epsilon(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, eps=0.0, foreach=False)


def test_a_loss_at_the_logarithm_of_0() -> None:
    origin = origin_of(trained("log"))
    assert (origin["phase"], origin["train_step"], origin["source"]) == ("forward", 0, line(4))
    assert (origin["op"], origin["mechanism"]) == ("aten.log.default", "divide_by_zero")


def test_a_gradient_at_the_root_of_0() -> None:
    origin = origin_of(trained("sqrt"))
    assert (origin["phase"], origin["train_step"], origin["forward_source"]) == ("backward", 0, line(6))
    assert origin["gradient"] in ("layer.weight", "layer.bias")
    assert origin["forward_op"] == "aten.sqrt.default"


def test_a_norm_of_gradients_that_overflows_is_of_the_clipping() -> None:
    origin = origin_of(trained("large"))
    assert (origin["phase"], origin["mechanism"], origin["train_step"]) == ("clip", "overflow", 0)
    assert origin["source"].startswith("clip_grad.py:")


def test_an_optimizer_without_epsilon() -> None:
    origin = origin_of(trained("flat", optimizer=adam_without_epsilon))
    assert (origin["phase"], origin["mechanism"], origin["train_step"]) == ("optimizer", "invalid", 0)
    assert origin["source"].startswith("adam.py:")
    assert "in the step of layer." in origin["note"]


@pytest.mark.parametrize(
    ("kind", "least", "optimizer"),
    [("log", 1e-3, None), ("sqrt", 1e-3, None), ("large", 1.0, None), ("flat", 0.0, torch.optim.Adam)],
)
def test_the_sound_twin_is_good(kind: str, least: float, optimizer: Any) -> None:
    phase = trained(kind, least, optimizer)
    assert phase.verdict == "good"
    assert bisect(phase, False)[0] == "good"


@pytest.mark.parametrize("kind", ["log", "sqrt"])
def test_the_example_without_which_it_is_good_is_named(kind: str) -> None:
    phase = trained(kind)
    verdict, reason, payload = outcome(phase)
    assert verdict == "bad"
    assert payload is not None
    assert payload["examples"] == [1]
    assert reason.endswith("finite without example 1 of the batch")
    assert ablation(phase, "without_example") == "good"


def ablation(phase: Phase, name: str) -> str:
    loaded = phase.what.loaded
    return check(name, phase, loaded, [], TWO_STEPS)[0]


def test_the_ablation_of_the_cause_is_good_and_the_others_are_not() -> None:
    flat = trained("flat", optimizer=adam_without_epsilon)
    assert [ablation(flat, name) for name in ("eps=0.0001", "clip=off", "without_example")] == ["good", "bad", "skip"]
    large = trained("large")
    assert [ablation(large, name) for name in ("clip=off", "eps=0.0001", "autocast=off")] == ["good", "bad", "skip"]


# --- gradient accumulation -------------------------------------------------------------------------------------------


def gradients(phase: Phase) -> dict[str, Tensor]:
    """What the first step leaves, taken where the optimizer would use it."""
    found: dict[str, Tensor] = {}
    model, optimizer = phase.what.loaded.model, phase.what.optimizer

    def keep(*given: Any) -> None:
        found.update({name: item.grad.clone() for name, item in model.named_parameters() if not found})

    handle = optimizer.register_step_pre_hook(keep)
    try:
        phase.what.run()
    finally:
        handle.remove()
    return found


def test_the_accumulated_gradients_are_those_of_the_plain_loop() -> None:
    phase = trained("log", 1e-3, torch.optim.SGD, accumulate=2, train_step=1)
    model, batch = Fails("log", 1e-3), phase.what.batch.values
    for rows in ([0], [1, 2]):
        loss = model(batch["x"][rows], batch["target"][rows])["loss"] / 2
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert norm > 1.0  # so that what is compared was clipped once, and all together
    expected = {name: item.grad for name, item in model.named_parameters()}
    found = gradients(phase)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], item) for name, item in expected.items())


@pytest.mark.parametrize(
    ("kind", "place", "named"), [("log", "forward", ("source", 4)), ("sqrt", "backward", ("forward_source", 6))]
)
def test_the_micro_batch_of_the_bad_example_is_named(kind: str, place: str, named: tuple[str, int]) -> None:
    phase = trained(kind, accumulate=3)
    origin = origin_of(phase)
    assert (origin["phase"], origin["train_step"], origin["micro_batch"]) == (place, 0, 1)
    assert origin[named[0]] == line(named[1])
    _, reason, payload = outcome(phase)
    assert payload is not None
    assert (payload["examples"], payload["micro_batches"], len(payload["losses"])) == ([1], 3, 6)
    assert reason.endswith("finite without example 1 (micro batch 1) of the batch")
    assert [ablation(phase, name) for name in ("accumulate=off", "without_example")] == ["bad", "good"]


@pytest.mark.filterwarnings("ignore:std")
def test_what_an_example_alone_cannot_do_goes_away_without_accumulation() -> None:
    """The deviation of one example is 0 / 0; a whole batch has one, and its sound twin has two in each part."""
    phase = trained("spread", accumulate=3)
    assert origin_of(phase)["micro_batch"] == 0
    assert [ablation(phase, name) for name in ("accumulate=off", "clip=off")] == ["good", "bad"]
    assert trained("spread").verdict == "good"


def test_the_clipping_and_the_optimizer_are_of_no_micro_batch() -> None:
    assert origin_of(trained("large", accumulate=3))["micro_batch"] is None
    assert origin_of(trained("flat", optimizer=adam_without_epsilon, accumulate=3))["micro_batch"] is None


def test_a_batch_with_fewer_examples_than_micro_batches_cannot_be_split() -> None:
    with pytest.raises(CannotLoad, match=r"splits the batch of a step, and that has 3 examples\. Give 4"):
        trained("log", accumulate=4)


def test_a_case_without_accumulation_has_no_such_ablation() -> None:
    phase = trained("log")
    loaded = phase.what.loaded
    assert check("accumulate=off", phase, loaded, [], TWO_STEPS)[:2] == ("skip", "the case accumulates no gradients")


def test_everything_is_as_it_was_behind_a_training() -> None:
    phase = trained("sqrt", optimizer=adam_without_epsilon)
    model = phase.what.loaded.model
    state, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    bisect(phase, False)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert model.training is True


def test_a_language_model_is_trained_on_its_ids_and_padding_has_no_label(checkpoints: dict[str, Path]) -> None:
    loaded = load_folder(checkpoints["gpt2"], "float32")
    ids = [torch.tensor([[3, 4, 5]]), torch.tensor([[3, 4]])]
    from repro.probes.model.inputs import Inputs
    from repro.probes.phases.training import batch_of

    batch = batch_of(loaded, [Inputs(None, "tokenizer", row, torch.ones_like(row)) for row in ids])
    assert batch.values["labels"].tolist() == [[3, 4, 5], [3, 4, -100]]
    assert batch.values["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.loss == "the model's own, with the ids as labels"


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
def test_a_sound_model_is_good_in_each_dtype(checkpoints: dict[str, Path], dtype: str | None) -> None:
    loaded = load_folder(checkpoints["llama"], "float32")
    phase = training(loaded, make_inputs(loaded, ["a b", "c d e"], False), {**TWO_STEPS, "dtype": dtype})
    verdict, reason, payload = outcome(phase)
    assert verdict == "good", reason
    assert payload is not None
    assert payload["autocast"] == dtype
    assert payload["batch"] == 2


def test_an_overflow_under_autocast_goes_away_without_it(checkpoints: dict[str, Path]) -> None:
    loaded = load_folder(checkpoints["llama"], "float32")
    with torch.no_grad():
        loaded.model.get_submodule("model.layers.1.mlp.up_proj").weight.mul_(1e7)
    case = {**TWO_STEPS, "dtype": "float16"}
    inputs = make_inputs(loaded, ["a b c"], False)
    phase = training(loaded, inputs, case)
    origin = origin_of(phase)
    assert (origin["phase"], origin["module"]) == ("forward", "model.layers.1.mlp.up_proj")
    assert check("autocast=off", phase, loaded, inputs, case)[0] == "good"
    assert check("loss_scale=1", phase, loaded, inputs, case)[0] == "bad"


class Scaled(nn.Module):
    """A layer that scales its inputs by the roots of its own numbers, or by those of its inputs."""

    def __init__(self, of: str) -> None:
        super().__init__()
        self.of = of
        self.own = nn.Parameter(torch.linspace(0.5, 1.5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.own if self.of == "its own" else x * self.own).sqrt()


class Trained(nn.Module):
    def __init__(self, of: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.scaled, self.last = nn.Linear(4, 4), Scaled(of), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.first(x) if self.scaled.of == "its own" else self.first(x).relu()
        return {"loss": self.last(self.scaled(h)).square().mean()}


def held_by(model: nn.Module) -> Any:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loaded, inputs = ready(model, (), {"x": torch.linspace(-1, 1, 12).reshape(3, 4)})
    phase = training(loaded, [inputs], TWO_STEPS)
    origin = origin_of(phase)
    assert (origin["phase"], origin["module"]) == ("backward", "scaled")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    return origin["held"]


def test_a_number_of_the_module_that_decides_in_the_backward_pass_is_named() -> None:
    model = Trained("its own")
    with torch.no_grad():
        model.scaled.own[2] = 0.0
    held = held_by(model)
    assert (held["tensor"], held["index"], held["value"], held["instead"]) == ("scaled.own", [2], 0.0, 1.0)
    assert held["in_file"] is False


def test_where_the_inputs_have_a_part_in_it_no_number_is_blamed() -> None:
    assert held_by(Trained("its inputs")) is None
