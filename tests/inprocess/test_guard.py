"""repro.Guard and the Trainer's callback: a training loop, screened, and its bad step made again."""

import contextlib
import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from support.hosting import ROOT
from torch import nn

import repro
from inprocess.programs import Net, batches, line_of
from inprocess.test_find import same, state_of

ZEROS = 7
INF = float("inf")


def train(fault="", *, own_loss=True, steps=12, **options):
    """(guard, model) of a loop whose step ZEROS + 1 has an example of zeros; FaultFound is caught."""
    torch.manual_seed(0)
    model = Net(fault).train()
    optimizer = torch.optim.AdamW(model.parameters())
    guarded = repro.Guard(model, optimizer, **options)
    with contextlib.suppress(repro.FaultFound), guarded:
        for x, labels in batches(steps, zeros_in=ZEROS):
            loss = model(x, labels)["loss"] if own_loss else F.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return guarded, model


def test_a_sound_loop_is_left_alone():
    guard, model = train()
    assert guard.finding is None
    assert guard.steps == 12
    torch.manual_seed(0)
    plain = Net().train()
    optimizer = torch.optim.AdamW(plain.parameters())
    for x, labels in batches(12, zeros_in=ZEROS):
        plain(x, labels)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(map(torch.equal, model.state_dict().values(), plain.state_dict().values()))
    assert same(state_of(model)[1:2], state_of(plain)[1:2])  # no hook is left


@pytest.mark.parametrize("own_loss", [True, False], ids=["the model's loss", "a loss behind the model"])
@pytest.mark.parametrize("fault", ["forward", "backward"])
def test_step_example_phase_and_line_are_named(fault, own_loss):
    guard, _ = train(fault, own_loss=own_loss)
    watch, origin = guard.finding.answer.watch, guard.finding.origin
    assert guard.steps == ZEROS
    assert watch.step == ZEROS + 1
    assert (watch.examples, watch.batch) == ((2,), 4)
    assert origin.phase == fault
    assert (origin.forward_source if fault == "backward" else origin.source) == line_of(fault)


class Heads(nn.Module):
    """Two results and what both are made of; the second head has the fault, where an example is zeros."""

    def __init__(self, fault, chained=False):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.mean, self.spread = nn.Linear(8, 8, bias=False), nn.Linear(8, 4), nn.Linear(8, 4)
        self.fault, self.chained = fault, chained

    def forward(self, x, labels=None):
        h = self.body(x)
        size = h.square().sum(-1, keepdim=True)
        spread = self.spread(h) + (size.sqrt() if self.fault else size)
        if labels is not None:
            return {"loss": self.mean(h).square().mean(), "logits": spread}
        return (self.mean(h), spread, h) if not self.chained else (h, spread)


def heads_trained(fault, chained, labelled):
    model = Heads(fault, chained)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with repro.Guard(model, optimizer, then="note") as guard:
        for x, labels in batches(3, zeros_in=1):
            if labelled:
                loss = F.cross_entropy(model(x, labels)["logits"], labels)
            else:
                loss = sum(output.square().mean() for output in model(x))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return guard


@pytest.mark.parametrize(("chained", "labelled"), [(False, False), (True, False), (False, True)])
def test_a_gradient_is_followed_from_whichever_output_the_loss_is_made_of(chained, labelled):
    """The first output is not the one at fault; one may be made of another; the model's own loss may go unused."""
    guard = heads_trained(True, chained, labelled)
    assert (guard.finding.origin.phase, guard.finding.origin.op) == ("backward", "aten.div.Tensor")
    assert guard.finding.origin.forward_source == f"test_guard.py:{Heads.forward.__code__.co_firstlineno + 3}"
    assert guard.finding.answer.watch.examples == (2,)
    assert heads_trained(False, chained, labelled).finding is None


def test_a_loss_that_is_made_behind_the_model_is_not_blamed_on_it():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = repro.Guard(model, optimizer)
    with pytest.raises(repro.FaultFound), guard:  # noqa: PT012 - the loop raises
        (torch.sqrt((model(torch.ones(1, 4)) * 0).sum()) * 0).backward()
        optimizer.step()
    assert guard.finding.origin is None
    assert "made behind the model" in guard.finding.text


def trained_by(loss_of, then="note", scale=1.0, **options):
    """(guard, whether a weight changed) of one step, whose loss is made behind the model."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plain = torch.autograd.backward
    with repro.Guard(model, optimizer, then=then, **options) as guard, repro.Guard(nn.Linear(1, 1), optimizer):
        (loss_of(model(torch.randn(2, 4))) * scale).backward()
        optimizer.step()
    assert torch.autograd.backward is plain
    return guard, not torch.equal(before, model.weight)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_loss_is_screened_whose_gradients_are_finite(ignored, tmp_path):
    def loss(output):
        return F.cross_entropy(output, torch.tensor([-100, -100 if ignored else 0]))

    guard, changed = trained_by(loss, out=tmp_path / "out")
    assert (guard.finding is not None, changed) == (ignored, not ignored)  # the gradients are 0
    if ignored:
        assert (guard.finding.answer.watch.arrived, guard.finding.answer.watch.phase) == ("the loss", "loss")
        assert "repro.watch" in guard.finding.text
        assert repro.replay(tmp_path / "out" / "step", nn.Linear(4, 3)).verdict == "skip"


@pytest.mark.parametrize("bad", [False, True])
def test_a_step_with_a_bad_loss_is_left_out(bad):
    guard, changed = trained_by(lambda output: output.sum() + (-1.0 if bad else 1.0) * torch.tensor(INF), then="skip")
    assert (guard.skipped, changed) == (1, False)  # either is infinite
    guard, changed = trained_by(lambda output: output.sum() + (float("nan") if bad else 0.0), then="skip")
    assert (guard.skipped, changed) == (bad, not bad)


def test_a_loss_that_a_scaler_made_infinite_is_none():
    scale = torch.tensor(2.0**16)
    assert trained_by(lambda output: output.sum() + 1e35, scale=scale)[0].finding is None
    assert trained_by(lambda output: output.sum() + float("nan"), scale=scale)[0].finding is not None


def test_a_loss_of_another_model_is_none_of_the_guard_s():
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with repro.Guard(model, optimizer) as guard:
        (other(torch.ones(1, 2)).sum() + float("nan")).backward()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert guard.finding is None


def test_a_penalty_on_a_gradient_is_said_not_to_be_made_again():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    nn.init.constant_(model[0].bias, -5.0)  # no unit is on: the gradient is 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with repro.Guard(model, optimizer, then="note") as guard:
        x = torch.randn(3, 2, requires_grad=True)
        (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        gradient.pow(2).sum(1).sqrt().mean().backward()
        optimizer.step()
    assert all(word in guard.finding.text for word in ("a gradient of a gradient", "was not", "repro.watch(model)"))


def test_a_step_of_the_optimiser_is_made_again_from_what_is_left():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = torch.optim.Adam(model[0].parameters(), eps=0.0)
    guard = repro.Guard(model, optimizer)
    before = model[0].weight.detach().clone()
    with pytest.raises(repro.FaultFound), guard:  # noqa: PT012 - the loop raises
        (model(torch.ones(2, 4)) * 0).sum().backward()
        optimizer.step()
    origin = guard.finding.origin
    assert origin.phase == "optimizer"
    assert origin.op.startswith("aten.addcdiv")
    assert model[0].weight.isnan().all()
    assert not before.isnan().any()


@pytest.mark.parametrize("fault", ["forward", "backward"])
def test_skipped_steps_leave_the_weights_alone(fault):
    guard, model = train(fault, then="skip")
    assert (guard.steps, guard.skipped) == (12, 1)
    assert all(bool(tensor.isfinite().all()) for tensor in model.parameters())


def test_noted_steps_go_on():
    guard, _ = train("forward", then="note")
    assert guard.steps == 12
    assert guard.finding.answer.watch.step == ZEROS + 1


def test_random_state_and_buffers_are_as_if_nobody_had_made_the_step_again():
    def end(then):
        _, model = train("backward", then=then)
        return torch.get_rng_state(), model.norm.running_mean

    torch.manual_seed(0)
    model = Net("backward").train()
    optimizer = torch.optim.AdamW(model.parameters())
    for at, (x, labels) in enumerate(batches(12, zeros_in=ZEROS)):
        before = {name: tensor.clone() for name, tensor in model.norm.state_dict().items()}
        model(x, labels)["loss"].backward()
        if at != ZEROS:
            optimizer.step()
        else:  # a step that is skipped leaves nothing behind
            model.norm.load_state_dict(before)
        optimizer.zero_grad()
    random, mean = end("skip")
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(mean, model.norm.running_mean)


def test_gradients_are_accumulated_over_several_calls_and_the_guilty_one_is_found():
    torch.manual_seed(0)
    model = Net("backward").train()
    optimizer = torch.optim.AdamW(model.parameters())
    guard = repro.Guard(model, optimizer)
    with pytest.raises(repro.FaultFound), guard:  # noqa: PT012 - the loop raises
        for at, (x, labels) in enumerate(batches(12, zeros_in=ZEROS), 1):
            (model(x, labels)["loss"] / 4).backward()
            if at % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()
    assert guard.finding.answer.watch.step == 2
    assert guard.finding.answer.watch.examples == (2,)


def test_gradients_that_a_scaler_throws_away_are_no_fault():
    torch.manual_seed(0)
    model = Net().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    with repro.Guard(model, optimizer) as guard:
        for x, labels in batches(4):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = F.cross_entropy(model(x), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert guard.finding is None
    assert guard.steps < 4


def test_report_and_saved_step_are_written(tmp_path):
    guard, model = train("backward", out=tmp_path / "out")
    out = tmp_path / "out"
    assert line_of("backward") in (out / "report.md").read_text("utf-8")
    assert guard.finding.answer.reproducer.verified
    told = json.loads((out / "step" / "step.json").read_text("utf-8"))
    assert (told["step"], told["phase"], told["training"]) == (ZEROS + 1, "backward", True)
    calls = torch.load(out / "step" / "step.pt", weights_only=True)
    assert torch.equal(calls[0]["inputs"]["x"], batches(12, zeros_in=ZEROS)[ZEROS][0])
    weights = torch.load(out / "step" / "weights.pt", weights_only=True)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in weights.items() if "norm" not in name)


def test_what_is_no_optimizer_and_no_choice_is_refused():
    with pytest.raises(TypeError, match=r"no torch\.optim\.Optimizer"):
        repro.Guard(Net(), "adam")
    with pytest.raises(ValueError, match=r"'raise', 'skip', 'note'"):
        repro.Guard(Net(), then="ignore")


def test_distributed_data_parallel_is_guarded_from_inside(tmp_path):
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        model = DistributedDataParallel(Net("backward").train())
        optimizer = torch.optim.AdamW(model.parameters())
        x, labels = batches(1, zeros_in=0)[0]
        guard = repro.Guard(model, optimizer)
        with pytest.raises(repro.FaultFound), guard:  # noqa: PT012 - the loop raises
            model(x, labels)["loss"].backward()
            optimizer.step()
        assert guard.finding.origin.forward_source == line_of("backward")
    finally:
        dist.destroy_process_group()


def trainer(model, data, folder, callbacks, **options):
    from transformers import Trainer, TrainingArguments

    chosen = {
        "per_device_train_batch_size": 4, "max_steps": 60, "learning_rate": 60.0, "optim": "sgd", "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant", "use_cpu": True, "report_to": [], "save_strategy": "no", "disable_tqdm": True,
        "logging_steps": 1, "logging_nan_inf_filter": False, "seed": 1,
    }  # fmt: skip
    arguments = TrainingArguments(str(folder), **{**chosen, **options})
    return Trainer(model, arguments, train_dataset=data, callbacks=callbacks)


def tiny():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=32, n_positions=16, bos_token_id=0, eos_token_id=0,
        loss_type="ForCausalLM",
    )  # fmt: skip
    data = [dict.fromkeys(("input_ids", "labels"), torch.randint(0, 32, (8,))) for _ in range(240)]
    return GPT2LMHeadModel(config), data


def test_a_trainer_that_turns_nan_by_its_learning_rate(tmp_path):
    """When it does so is asked of the Trainer's own log first, without the callback."""
    from repro.transformers import Callback

    model, data = tiny()
    plain = trainer(model, data, tmp_path / "plain", None)
    plain.train()
    losses = [row["loss"] for row in plain.state.log_history if "loss" in row]
    first = next(at for at, loss in enumerate(losses, 1) if loss != loss or loss == float("inf"))
    model, data = tiny()
    callback = Callback(out=tmp_path / "out")
    with pytest.raises(repro.FaultFound):
        trainer(model, data, tmp_path / "watched", [callback]).train()
    watch, origin = callback.finding.answer.watch, callback.finding.origin
    assert watch.step == first
    assert origin.phase == "forward"
    assert origin.mechanism in ("overflow", "invalid")
    assert origin.source.startswith(("modeling_gpt2.py:", "activations.py:", "loss_utils.py:", "sdpa_attention.py:"))
    assert (tmp_path / "out" / "report.md").exists()
    assert (tmp_path / "out" / "step" / "step.json").exists()


def test_a_sound_trainer_ends_as_without_the_callback(tmp_path):
    from repro.transformers import Callback

    ends = []
    for callbacks in (None, [Callback(out=tmp_path / "out")]):
        model, data = tiny()
        trainer(model, data, tmp_path / "t", callbacks, learning_rate=0.1, max_steps=4).train()
        ends.append(list(model.state_dict().values()))
    assert all(map(torch.equal, *ends))
    assert not (tmp_path / "out").exists()


FACTORY = """
from inprocess.programs import Net

def make():
    return Net("backward")

def sound():
    return Net()

def other():
    import torch
    return torch.nn.Linear(2, 2)
"""


def run_replay(tmp_path, *arguments):
    (tmp_path / "f.py").write_text(FACTORY)
    paths = [str(ROOT), str(ROOT / "tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "repro", "replay", str(tmp_path / "out" / "step"), *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_saved_step_replays_to_the_same_origin(tmp_path):
    guard, _ = train("backward", out=tmp_path / "out")
    again = repro.replay(tmp_path / "out" / "step", Net("backward"))
    first, second = guard.finding.origin, again.origin
    assert (second.op, second.phase, second.forward_source) == (first.op, first.phase, first.forward_source)
    assert again.answer.watch.examples == (2,)
    ran = run_replay(tmp_path, "--factory", "f.py:make")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert line_of("backward") in ran.stdout
    assert run_replay(tmp_path, "--factory", "f.py:sound").returncode == 0


@pytest.mark.slow
def test_a_saved_step_of_another_model_is_refused_in_one_line(tmp_path):
    train("forward", out=tmp_path / "out")
    for arguments, words in (
        ((), "add --factory"),
        (("--factory", "f.py:other"), "layers.0.weight"),
        (("--factory", "f.py:nothing"), "has no function"),
        (("--factory", "f.py:make", "--model", "m"), "--model is for bundles"),
    ):
        ran = run_replay(tmp_path, *arguments)
        assert ran.returncode == 2
        assert words in ran.stderr
        assert ran.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_folder_that_is_used_gets_a_numbered_sibling_before_the_first_step(tmp_path, capsys):
    for number in (1, 2, 3):
        guard, _ = train("forward", out=tmp_path / "out", then="note")
        name = "out" if number == 1 else f"out-{number}"
        assert guard.out == tmp_path / name
        assert (tmp_path / name / "report.md").exists()
        assert (f"goes to {guard.out}" in capsys.readouterr().err) is (number > 1)
        assert guard.steps == 12


def test_two_guards_of_one_folder_do_not_end_each_other(tmp_path):
    one, two = (repro.Guard(nn.Linear(2, 2), out=tmp_path / "out", then="note") for _ in range(2))
    for guard in (one, two):
        with guard:
            guard._model(torch.full((1, 2), float("nan")))
    assert (one.out, two.out) == (tmp_path / "out", tmp_path / "out-2")
    assert all((guard.out / "report.md").exists() for guard in (one, two))


def test_a_folder_that_cannot_be_written_ends_no_training(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    guard, _ = train("forward", out=tmp_path / "file" / "out", then="note")
    assert guard.steps == 12
    assert guard.finding.verdict == "bad"
    assert guard.out is None
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize("steps", [2, 4])
def test_a_fault_of_the_optimisers_own_step_has_the_number_of_that_step(steps):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), eps=0.0, betas=(0.0, 0.0))
    first = None
    with repro.Guard(model, optimizer, then="note") as guard:
        for at in range(1, steps + 1):
            x = torch.randn(4, 3)
            if at == 2:
                x[:, 1] = 0  # 0 / 0
            model(x).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if first is None and model.weight.isnan().any():
                first = at
    assert guard.finding.answer.watch.step == first == 2
    assert guard.steps == steps


def test_a_model_whose_call_makes_the_optimisers_step_is_not_called_again():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = nn.Linear(4, 1), 0
            self.optimizer = torch.optim.Adam(self.inner.parameters(), lr=0.0)

        def forward(self, x):
            self.calls += 1
            loss = self.inner(x).mean()
            self.optimizer.zero_grad()
            (loss * (float("inf") if self.calls == 3 else 1)).backward()
            self.optimizer.step()
            return loss.detach()

    model = Whole()
    with repro.Guard(model, model.optimizer, then="note") as guard:
        for _ in range(4):
            model(torch.ones(2, 4))
    assert model.calls == 4
    assert model.optimizer.state[model.inner.weight]["step"].item() == 4
    assert (guard.finding.answer.watch.step, guard.finding.origin) == (3, None)
    assert "changing the training" in guard.finding.text


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_step_that_is_skipped_leaves_no_trace_in_the_buffers(accumulated):
    def train(bad):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with repro.Guard(model, optimizer, then="skip") as guard:
            for step in range(4):
                for _ in range(accumulated):
                    x = torch.randn(6, 4)
                    if step == 2:
                        if not bad:
                            continue
                        x[2, 1] = float("inf")
                    model(x).sum().backward()
                if step != 2 or bad:
                    optimizer.step()
                optimizer.zero_grad()
        return guard.skipped, list(model.state_dict().values())

    skipped, state = train(True)
    assert skipped >= 1
    assert all(map(torch.equal, state, train(False)[1]))


@pytest.mark.parametrize(("batch_first", "examples"), [(False, (3,)), (True, (2,))])
def test_examples_are_counted_along_the_dimension_of_the_batch(batch_first, examples):
    layer = nn.GRU(3, 4, batch_first=batch_first)
    x = torch.randn(7, 5, 3)
    x[2, 3, 0] = float("nan")
    with repro.Guard(layer, then="note") as guard:
        layer(x)
    assert guard.finding.answer.watch.examples == examples
    assert guard.finding.answer.watch.batch == (7 if batch_first else 5)


def test_no_example_is_named_where_the_dimension_of_the_batch_is_not_known():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.GRU(3, 4)

        def forward(self, x):
            return self.inner(x.transpose(0, 1))[0]

    x = torch.randn(7, 5, 3)
    x[2, 3, 0] = float("nan")
    with repro.Guard(Turned(), then="note") as guard:
        guard._model(x)
    assert guard.finding.answer.watch.examples is None


@pytest.mark.parametrize("then", ["note", "skip"])
def test_a_loss_that_goes_bad_in_a_closure_is_told_as_such(then):
    torch.manual_seed(0)
    model, calls = nn.Linear(3, 1), []
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    x, wanted = torch.randn(10, 3), torch.randn(10, 1)

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = ((model(x) - wanted) ** 2).mean()
        if len(calls) == 2:
            loss = loss * torch.tensor(0.0).log() * 0
        loss.backward()
        return loss

    guard = repro.Guard(model, optimizer, then=then)
    expected = pytest.raises(repro.FaultFound) if then == "skip" else contextlib.nullcontext()
    with expected, guard:  # it has overwritten the weights, so that it cannot be skipped
        optimizer.step(closure)
    assert guard.finding.answer.watch.step == 1
    assert guard.finding.origin is None
    assert "made behind the model, in the loss" in guard.finding.text


def test_a_parameter_that_was_bad_before_the_guard_began_is_said_so():
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    model.forward = lambda x: model["used"](x)
    with torch.no_grad():
        model["idle"].weight[1, 0] = float("nan")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with repro.Guard(model, optimizer, then="note") as guard:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert "the parameter idle.weight holds a NaN or Inf in step 1" in guard.finding.reason
    assert "it held that before the guard began" in guard.finding.text
