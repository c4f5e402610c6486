"""A callable of this process: who makes it bad, and everything put back as it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.reducing import trials
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from repro.probes.program.answer import Asked, smallest
from repro.probes.program.callable import Program


def asked(run: Callable[[], Any], *state: Any, **given: Any) -> Asked:
    return Asked.of(Program(run, state, **given))


def origin_of(run: Callable[[], Any], *state: Any) -> dict[str, Any]:
    verdict, _, payload = asked(run, *state).bisect()
    assert verdict == "bad"
    assert payload is not None
    origin: dict[str, Any] = payload["origin"]
    return origin


def line(function: Callable[..., Any], below: int) -> str:
    return f"test_callable.py:{function.__code__.co_firstlineno + below}"


class Roots(nn.Module):
    """sqrt at 0: finite forward, an infinite gradient."""

    def __init__(self, least: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        return (self.first(x).relu() * 0.0 + self.least).sqrt()


class Falls(nn.Module):
    """It counts its calls, draws a number and overflows in float16 in the call of this number."""

    def __init__(self, fails_at: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.float16))
        self.register_buffer("mean", torch.zeros(3))
        self.fails_at, self.calls, self.seen = fails_at, 0, [0.5]

    def forward(self) -> Tensor:
        self.calls += 1
        self.mean += torch.rand(3)
        self.seen.append(random.random() + float(np.random.rand()))
        factor = 60000.0 if self.calls == self.fails_at else 1.0
        return self.scale * factor * 2.0


def test_an_operator_of_the_forward_pass_is_named_with_its_line() -> None:
    model = Falls(1)
    origin = origin_of(model, model)
    assert (origin["op"], origin["mechanism"], origin["phase"]) == ("aten.mul.Tensor", "overflow", "forward")
    assert origin["source"] == line(Falls.forward, 5)
    assert origin["confirmed_by"] == "repaired"


@pytest.mark.parametrize(("least", "verdict"), [(0.0, "bad"), (1.0, "good")])
def test_a_gradient_that_is_not_finite_is_bad_though_the_loss_is_finite(least: float, verdict: str) -> None:
    model = Roots(least)
    found = asked(lambda: model(torch.ones(2, 4)).sum().backward(), model)
    assert found.verdict == verdict
    outcome, _, payload = found.bisect()
    assert outcome == verdict
    if verdict == "bad":
        assert payload is not None
        origin = payload["origin"]
        assert (origin["phase"], origin["forward_source"]) == ("backward", line(Roots.forward, 1))
        assert origin["excerpt"]["source"] == origin["forward_source"]
        assert origin["mechanism"] in ("divide_by_zero", "invalid")


def test_a_step_of_adam_without_epsilon_is_born_in_the_optimizer() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], eps=0.0, foreach=False)

    def run() -> Tensor:
        loss = (weight * 0.0).sum()
        loss.backward()
        optimizer.step()
        return loss

    origin = origin_of(run, optimizer)
    assert (origin["phase"], origin["mechanism"]) == ("optimizer", "invalid")
    assert "addcdiv" in origin["op"]
    assert bool((weight == 1).all())
    assert weight.grad is None
    assert not optimizer.state


def test_a_norm_of_zero_that_is_divided_by_is_named_and_its_twin_is_good() -> None:
    weight = nn.Parameter(torch.ones(3))

    def run(least: float) -> Tensor:
        loss = (weight * 0.0).sum()
        loss.backward()
        weight.grad.div_(weight.grad.norm() + least)  # type: ignore[union-attr]
        return loss

    origin = origin_of(lambda: run(0.0), weight, [torch.optim.SGD([weight])])
    assert (origin["op"], origin["mechanism"], origin["source"]) == ("aten.div_.Tensor", "invalid", line(run, 3))
    assert asked(lambda: run(1.0), torch.optim.SGD([weight])).verdict == "good"


def test_an_exception_that_a_nan_causes_is_the_fault_itself() -> None:
    logits = torch.zeros(4)

    def run(factor: float) -> Tensor:
        torch.manual_seed(0)
        return torch.multinomial(((logits - factor) / logits.mul(2).add(factor)).softmax(0), 1)

    found = asked(lambda: run(0.0))
    assert found.verdict == "bad"
    assert found.bisect()[2]["origin"]["op"] == "aten.div.Tensor"  # type: ignore[index]
    assert "not raised where" in found.reason
    assert asked(lambda: run(1.0)).verdict == "good"


def test_an_exception_of_another_kind_is_no_answer() -> None:
    def run() -> Tensor:
        return torch.ones(2) @ torch.ones(3)

    found = asked(run)
    assert found.verdict == "skip"
    assert found.bisect()[0] == "skip"


@pytest.mark.parametrize(("factor", "verdict"), [(2.0, "good"), (1e30, "bad")])
def test_a_step_that_a_scaler_leaves_out_is_bad_only_without_a_scale_too(factor: float, verdict: str) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def run() -> Tensor:
        loss = (weight * factor).sum()
        scaler.scale(loss * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    program = Program(run, [optimizer, scaler])
    assert program.plain.verdict == verdict
    assert scaler.get_scale() == 2.0**127
    assert program.plain.skipped


def test_everything_is_as_it_was_after_every_kind_of_run() -> None:
    model, data = Falls(2), torch.ones(3)
    optimizer = torch.optim.AdamW(model.parameters())
    model.scale.grad = torch.full((3,), 0.25, dtype=torch.float16)
    grad = model.scale.grad
    shuffled = random.Random(3)
    order = shuffled.getstate()

    def everything() -> tuple[Any, ...]:
        return (
            torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(),  # type: ignore[index]
            model.mean.tolist(), model.calls, list(model.seen), model.scale.tolist(), model.training, data.tolist(),
            {id(key): dict(value) for key, value in optimizer.state.items()}, optimizer.param_groups[0]["lr"],
            torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), shuffled.getstate() == order,
            len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks),
        )  # fmt: skip

    def run() -> Tensor:
        data.add_(1)
        shuffled.random()
        model.eval()
        model()
        result = model()
        result.sum().backward()
        optimizer.param_groups[0]["lr"] *= 0.5
        optimizer.step()
        model.scale.data = torch.zeros(1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        raise RuntimeError("on the way")

    before = everything()
    found = asked(run, model, optimizer, [{"data": data}], shuffled)
    found.bisect()
    assert found.verdict == "skip"
    assert everything() == before
    assert model.scale.grad is grad
    assert grad.tolist() == [0.25] * 3


def test_a_fault_of_the_second_call_is_found_there_and_its_operator_made_small() -> None:
    model = Falls(2)

    def run() -> list[Tensor]:
        return [model(), model()]

    found = asked(run, model)
    verdict, _, payload = found.bisect()
    assert verdict == "bad"
    assert payload is not None
    assert payload["origin"]["call_index"] == 1
    reduced = smallest(found.found.found.program if found.found and found.found.found else None, trials()[0])[2]
    assert reduced is not None
    assert [leaf["shape"] for leaf in reduced["program"]["leaves"]] == [[1]]


def test_a_checkpointed_layer_keeps_its_name_where_it_runs_again_in_the_backward_pass() -> None:
    from torch.utils.checkpoint import checkpoint

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.roots = Roots(0.0)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.roots, x, use_reentrant=False)  # type: ignore[no-any-return]

    model = Stack()
    origin = origin_of(lambda: model(torch.ones(2, 4)).sum().backward(), model)
    assert (origin["module"], origin["phase"]) == ("roots", "backward")
