"""A bad call that is saved, and made again from its folder alone; what cannot be saved says what can."""

import pytest
import torch
from torch import nn

import repro
from inprocess.programs import Net, batches, line_of
from repro.core.errors import UsageError


def bad_batch():
    return batches(1, zeros_in=0)[0][0]


def same_origin(one, two):
    return all(
        getattr(one.origin, name) == getattr(two.origin, name)
        for name in ("module", "op", "mechanism", "source", "element")
    )


@pytest.mark.parametrize("watches", [False, True])
def test_a_bad_call_is_made_again_from_its_folder(tmp_path, watches):
    """In training, with a dropout that draws and a batch norm whose buffers change."""
    torch.manual_seed(3)
    model, x = Net("forward"), bad_batch()
    if watches:
        with repro.watch(model) as seen:
            model(x)
        found = seen.finding
    else:
        found = repro.find(model, x)
    buffers = [tensor.clone() for tensor in model.buffers()]
    chance = torch.get_rng_state()
    assert "save_step" in repr(found)
    step = found.save_step(tmp_path / "step")
    assert torch.equal(chance, torch.get_rng_state())
    assert all(map(torch.equal, buffers, model.buffers()))
    again = repro.replay(step, Net("forward"))
    assert again.origin.source == line_of("forward")
    assert same_origin(found, again)
    assert again.answer.watch.examples == (2,)
    assert repro.replay(step, Net()).verdict == "good"


def test_what_is_no_call_of_a_known_module_says_what_saves_it(tmp_path):
    model, x = Net("backward"), bad_batch()
    with repro.watch(model) as of_gradient:
        model(x).sum().backward()
    with repro.watch() as of_nobody:
        Net("forward")(x)
    for finding in (of_gradient.finding, of_nobody.finding):
        assert finding
        assert "save_step" not in repr(finding)
        with pytest.raises(UsageError, match=r"repro\.Guard\(model, optimizer, out=FOLDER\)"):
            finding.save_step(tmp_path / "step")
    with pytest.raises(UsageError, match="no bad call"):
        repro.find(Net(), x).save_step(tmp_path / "step")
    assert not (tmp_path / "step").exists()


def test_a_call_whose_weights_have_changed_since_is_not_saved(tmp_path):
    model, x = Net("forward"), bad_batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with repro.watch(model, optimizer) as seen:
        model(x).sum().backward()
        optimizer.step()
    with pytest.raises(UsageError, match="changed after the bad call"):
        seen.finding.save_step(tmp_path / "step")
    other = Net("forward")
    found = repro.find(other, x)
    other.eval()
    with pytest.raises(UsageError, match="changed after the bad call"):
        found.save_step(tmp_path / "step")


def half():
    return torch.autocast("cpu", dtype=torch.float16)


class Deep(nn.Module):
    """Finite forwards in float16; the gradient between both layers is 1e6 there."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        with torch.no_grad():
            self.b.weight.fill_(100.0)

    def forward(self, x):
        return self.b(self.a(x))


class Large(nn.Module):
    """Finite in float32 and not in float16."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        with torch.no_grad():
            self.a.weight.fill_(300.0)
            self.b.weight.fill_(300.0)

    def forward(self, x):
        return self.b(self.a(x))


def test_a_call_under_autocast_is_made_again_under_autocast(tmp_path):
    model = Large()
    with half():
        found = repro.find(model, torch.ones(2, 4))
    assert (found.origin.module, found.origin.mechanism) == ("b", "overflow")
    again = repro.replay(found.save_step(tmp_path / "step"), Large())
    assert same_origin(found, again)
    assert not torch.is_autocast_enabled("cpu")


def test_the_ablations_of_a_call_under_autocast_are_asked_under_it(tmp_path):
    model = Large()
    with half():
        found = repro.find(model, torch.ones(2, 4))
    found.report(tmp_path / "out")
    verdicts = {row.name: row.verdict.value for row in found.answer.ablations}
    assert verdicts["autocast=off"] == "good"
    assert found.answer.workarounds == ("autocast=off",)


def test_a_call_without_autocast_has_none_to_be_left_out(tmp_path):
    class Half(nn.Module):
        def forward(self, x):
            return x / (x - x)

    found = repro.find(Half(), torch.ones(2, 4))
    found.report(tmp_path / "out")
    assert "autocast=off" not in found.answer.workarounds
    assert "autocast" not in (tmp_path / "out" / "report.md").read_text("utf-8")


@pytest.mark.parametrize("replays", [False, True])
def test_a_guard_makes_a_step_again_under_the_autocast_of_its_forward_pass(tmp_path, replays):
    model = Deep()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    with repro.Guard(model, optimizer, then="note", out=tmp_path / "out" if replays else None) as guard:
        with half():
            output = model(torch.full((2, 4), 0.01))
        (output.float().sum() * 1e4).backward()
        optimizer.step()
    found = guard.finding
    if replays:
        found = repro.replay(tmp_path / "out" / "step", Deep())
    assert found.verdict == "bad"
    assert (found.origin.phase, found.origin.module, found.origin.mechanism) == ("backward", "b", "overflow")
