"""repro.watch: any code, while it runs once."""

import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import repro
from inprocess.programs import Net, batches, line_of


def net(fault=""):
    torch.manual_seed(0)
    return Net(fault).eval()


def here(word):
    """ "test_watch.py:LINE" of a marked line of this file."""
    with Path(__file__).open(encoding="utf-8") as opened:
        number = next(at for at, line in enumerate(opened, 1) if line.rstrip().endswith(f"# BORN: {word}"))
    return f"test_watch.py:{number}"


def test_a_sound_training_step_is_good():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    with repro.watch(model, optimizer) as seen:
        for x, labels in batches(3):
            model(x, labels)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
    assert seen.finding.verdict == "good"
    assert seen.finding.answer.watch.operators > 100


def test_a_forward_pass_a_loss_a_backward_pass_and_a_step_each_are_named():
    x, labels = batches(1, zeros_in=0)[0]
    with repro.watch(net("forward")) as seen:
        net_forward = seen._model
        net_forward(x)
    assert (seen.finding.origin.phase, seen.finding.origin.source) == ("forward", line_of("forward"))
    model = net()
    with repro.watch(model) as seen:
        loss = torch.log(torch.relu(model(x)).min() * 0).mean()  # BORN: a loss
        loss.backward()
    assert (seen.finding.origin.op, seen.finding.origin.source) == ("aten.log.default", here("a loss"))
    assert seen.finding.answer.watch.arrived == "the loss"
    model = net("backward")
    with repro.watch(model) as seen:
        model(x, labels)["loss"].backward()
    origin = seen.finding.origin
    assert (origin.phase, origin.forward_op, origin.forward_source) == (
        "backward", "aten.sqrt.default", line_of("backward"),
    )  # fmt: skip
    assert origin.gradient
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), eps=0.0)
    with repro.watch(model, optimizer) as seen:
        (model(x) * 0).sum().backward()
        optimizer.step()  # BORN: a step
    assert (seen.finding.origin.phase, seen.finding.origin.source) == ("optimizer", here("a step"))
    assert seen.finding.answer.watch.arrived.startswith("the parameter ")


def test_a_nan_that_arrives_nowhere_is_no_fault():
    model = net()
    x, labels = batches(1)[0]
    with repro.watch(model) as seen:
        dropped = torch.log(torch.zeros(3))
        dropped = torch.where(dropped < 0, torch.zeros(3), dropped)
        scores = torch.randn(1, 4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), float("-inf")).softmax(-1)
        loss = model(x, labels)["loss"] + dropped.sum() + scores.sum()
        loss.backward()
    assert seen.finding.verdict == "good"


def test_a_variable_of_the_block_is_where_a_nan_may_arrive():
    with repro.watch() as seen:
        ratio = torch.zeros(3) / torch.zeros(3)  # BORN: a variable
    assert seen.finding.answer.watch.arrived == "the variable ratio"
    assert seen.finding.origin.source == here("a variable")
    assert ratio.isnan().all()


def test_an_operator_that_raises_for_a_nan_is_where_it_arrives():
    logits = torch.full((1, 4), float("-inf"))
    with pytest.raises(RuntimeError, match="probability tensor"), repro.watch() as seen:
        torch.multinomial(torch.softmax(logits, -1), 1)  # BORN: a softmax
    assert seen.finding.origin.mechanism == "masked_row"
    assert seen.finding.origin.source == here("a softmax")


def test_gradients_that_a_scaler_throws_away_are_no_fault():
    model = net()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with repro.watch(model, optimizer) as seen:
        for x, labels in batches(3):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = F.cross_entropy(model(x), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert seen.finding.verdict == "good"
    assert seen.finding.answer.watch.scaled > 0


def test_a_gradient_that_is_bad_at_any_scale_is_one_under_a_scaler_too():
    """A division by 0 in the backward pass: the scaler leaves the step out, and will leave it out each time."""
    model = net("backward")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, labels = batches(1, zeros_in=0)[0]
    with repro.watch(model, optimizer) as seen:
        scaler.scale(model(x, labels)["loss"]).backward()
        scaler.step(optimizer)
        scaler.update()
    assert seen.finding.origin.forward_source == line_of("backward")


def test_a_forward_fault_under_a_scaler_is_one():
    model = net("forward")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, labels = batches(1, zeros_in=0)[0]
    with repro.watch(model, optimizer) as seen:
        scaler.scale(model(x, labels)["loss"]).backward()
        scaler.step(optimizer)
    assert seen.finding.origin.source == line_of("forward")


def test_generate_names_its_step():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=32, n_positions=32, bos_token_id=0, eos_token_id=31)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():  # the fourth position alone overflows
        model.transformer.wpe.weight.zero_()
        model.transformer.wpe.weight[6] = 3e38
    with repro.watch(model) as seen:
        model.generate(torch.tensor([[1, 2, 3, 4]]), max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=99)
    origin = seen.finding.origin
    assert origin.phase == "generate"
    assert origin.generate_step == 3  # positions 4 and 5 were sound
    assert origin.module.startswith("transformer.h.0.")


@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"num_beams": 1}])
def test_a_choice_among_scores_that_are_all_taken_away_is_a_fault(settings):
    """Which a processor wrote: the model's logits are finite. One that leaves a token, as each does, is none."""
    from transformers import GPT2Config, GPT2LMHeadModel

    def processor(left):
        def take_away(ids, scores):
            return torch.cat([scores[:, :left], torch.full_like(scores[:, left:], -torch.inf)], 1)  # BORN: scores

        return take_away

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16, n_positions=16)).eval()
    for left, verdict in ((0, "bad"), (4, "good")):
        with repro.watch(model) as seen:
            model.generate(
                torch.tensor([[1, 2]]), max_new_tokens=3, logits_processor=[processor(left)], do_sample=False,
                pad_token_id=0, eos_token_id=99, **settings,
            )  # fmt: skip
        assert seen.finding.verdict == verdict
        if verdict == "bad":
            assert seen.finding.origin.source == here("scores")


def test_everything_is_afterwards_as_it_was_also_where_the_code_raises():
    from inprocess.test_find import same, state_of

    model = net()
    before = state_of(model)
    with pytest.raises(ZeroDivisionError), repro.watch(model) as seen:  # noqa: PT012 - the code raises
        model(torch.ones(2, 8))
        _ = 1 / 0
    assert seen.finding.verdict == "good"
    assert same(state_of(model), before)


def test_the_numbers_are_those_of_a_run_that_nobody_watches():
    def train(watched):
        torch.manual_seed(3)
        model = Net().train()
        optimizer = torch.optim.AdamW(model.parameters())
        with repro.watch(model, optimizer) if watched else torch.enable_grad():
            for x, labels in batches(3):
                model(x, labels)["loss"].backward()
                optimizer.step()
                optimizer.zero_grad()
        return list(model.state_dict().values())

    assert all(map(torch.equal, train(True), train(False)))


def test_checkpointed_layers_are_followed_through_their_second_pass():
    from torch.utils.checkpoint import checkpoint

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Net("backward")

        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=False)

    torch.manual_seed(0)
    model = Stack().eval()
    x, _ = batches(1, zeros_in=0)[0]
    with repro.watch(model) as seen:
        model(x.requires_grad_()).sum().backward()
    assert seen.finding.origin.phase == "backward"
    assert seen.finding.origin.forward_source == line_of("backward")


def test_the_report_has_a_verified_script(tmp_path):
    model = net("backward")
    x, labels = batches(1, zeros_in=0)[0]
    with repro.watch(model) as seen:
        model(x, labels)["loss"].backward()
    text = seen.finding.report(tmp_path / "out").read_text("utf-8")
    assert seen.finding.answer.reproducer.verified
    assert line_of("backward") in text


def test_nothing_ran_is_no_answer():
    with repro.watch() as seen:
        pass
    assert seen.finding.verdict == "skip"


def test_data_that_come_in_bad_are_the_origin_and_are_no_fault_while_nothing_reads_them():
    with repro.watch() as seen:
        data = torch.tensor([[1.0, float("nan")]])
    assert seen.finding.verdict == "good"
    layer = nn.Linear(2, 2)
    with repro.watch() as seen:
        data = torch.tensor([[1.0, 2.0]]) * torch.tensor(float("nan"))
        layer(data)
    assert seen.finding.verdict == "bad"
    with repro.watch(layer) as seen:
        layer(data)
    assert seen.finding.origin.mechanism == "bad_input"
    assert seen.finding.origin.tensor == "input"


def test_a_nan_that_is_made_before_the_model_is_called_is_found_where_it_was_made():
    layer = nn.Linear(2, 2)
    with repro.watch() as seen:
        before = torch.zeros(1, 2) / torch.zeros(1, 2)  # BORN: before the model
        layer(before)
    assert seen.finding.origin.source == here("before the model")


def test_what_the_block_returns_without_a_name_is_not_called_good():
    seen = []

    def returning(inside):
        with repro.watch() as watch:
            seen.append(watch)
            zeros = torch.zeros(3)
            if inside:
                return {"mean": zeros / zeros.sum()}
            return (zeros + 1).mean()

    def named():
        with repro.watch() as watch:
            seen.append(watch)
            zeros = torch.zeros(3)
            result = zeros / zeros.sum()
            return result  # noqa: RET504 - the name is what is asked about

    kept = [returning(True), returning(False), named()]
    assert len(kept) == 3
    unnamed, sound, with_name = (watch.finding for watch in seen)
    assert unnamed.verdict == "skip"
    assert "give it a name in the block" in unnamed.reason
    assert sound.verdict == "good"
    assert (with_name.verdict, with_name.origin.op) == ("bad", "aten.div.Tensor")


def test_threads_that_the_code_started_are_said():
    made = []
    before = threading.Thread.start
    with repro.watch() as seen:
        torch.ones(2).sum()
        thread = threading.Thread(target=lambda: made.append(torch.zeros(1) / torch.zeros(1)))
        thread.start()
        thread.join()
    assert made[0].isnan().all()
    assert (seen.finding.verdict, threading.Thread.start) == ("skip", before)
    assert "the variable made[0] holds a NaN or Inf that no watched operator made" in seen.finding.reason
    with repro.watch() as seen:
        torch.ones(2).sum()
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
    assert seen.finding.verdict == "good"
    assert "started a thread, and what ran there was not watched" in seen.finding.reason


def test_what_an_optimizers_closure_runs_is_no_optimizers_phase():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    calls = []

    def closure():
        optimizer.zero_grad()
        calls.append(model(torch.ones(2, 3)).square().mean())
        loss = calls[-1] * (torch.zeros(()) / torch.zeros(()) if len(calls) == 2 else 1)  # BORN: a closure
        loss.backward()
        return loss

    with repro.watch(model, optimizer) as seen:
        optimizer.step(closure)
    origin = seen.finding.origin
    assert (origin.op, origin.source, origin.phase) == ("aten.div.Tensor", here("a closure"), "forward")
