"""repro.find: one call of a module in memory."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import repro
from inprocess.programs import Net, batches, line_of


def state_of(model):
    """Everything that a call could change."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    held = [tensor.clone() for tensor in [*model.parameters(), *model.buffers()]]
    switches = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    everywhere = (
        len(torch.nn.modules.module._global_forward_hooks),
        len(torch.nn.modules.module._global_forward_pre_hooks),
    )
    return [m.training for m in model.modules()], hooks, held, torch.get_rng_state(), switches, everywhere


def same(one, two):
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else same(a, b) if isinstance(a, (list, tuple)) else a == b
        for a, b in zip(one, two, strict=True)
    )


def test_importing_repro_imports_nothing_else():
    code = (
        "import sys, repro; print(sorted({n.split('.')[0] for n in sys.modules} & {'torch', 'transformers', 'click'}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_an_unknown_name_is_refused_with_those_that_are_there():
    with pytest.raises(AttributeError, match="find, replay, watch"):
        repro.nothing  # noqa: B018 - the access is the test


@pytest.mark.parametrize("training", [False, True])
def test_a_division_by_zero_is_found_at_its_line_and_its_twin_is_good(training):
    torch.manual_seed(0)
    x, _ = batches(1, zeros_in=0)[0]
    bad, good = Net("forward").train(training), Net().train(training)
    before = state_of(bad)
    found = repro.find(bad, x)
    assert found.verdict == "bad"
    assert found
    assert found.origin.source == line_of("forward")
    assert (found.origin.op, found.origin.mechanism) == ("aten.div.Tensor", "invalid")
    assert same(state_of(bad), before)
    twin = repro.find(good, x)
    assert twin.verdict == "good"
    assert not twin
    assert twin.origin is None


def test_an_origin_in_a_layer_names_module_token_and_channel():
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].weight[5] = 1e30
        model[1].weight.fill_(0.1)
        model[1].weight[3] = 1e30
    ids = torch.tensor([[1, 2, 5, 3]])
    found = repro.find(model, ids)
    assert (found.origin.module, found.origin.mechanism) == ("1", "overflow")
    assert found.origin.element == (2, 3)  # of the flattened rows
    assert found.origin.token_index == 2


def test_a_bad_loss_beside_good_logits_is_bad():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=32, n_positions=16, bos_token_id=0, eos_token_id=0,
        loss_type="ForCausalLM",
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    ids = torch.arange(8)[None]
    found = repro.find(model, input_ids=ids, labels=torch.full_like(ids, -100))  # the mean over no label at all
    assert found.verdict == "bad"
    assert "nll_loss" in found.origin.op
    assert repro.find(model, input_ids=ids, labels=ids).verdict == "good"


def test_a_cache_that_is_given_is_as_it_was_afterwards():
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=32, bos_token_id=0, eos_token_id=0))
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model.eval()(torch.arange(4)[None], past_key_values=cache, use_cache=True)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.bias[3] = float("inf")
    found = repro.find(model, input_ids=torch.tensor([[5]]), past_key_values=cache, use_cache=True)
    assert found.origin.tensor == "transformer.h.1.mlp.c_proj.bias"
    assert cache.get_seq_length() == 4


def test_the_module_of_a_compiled_one_is_looked_into():
    torch.manual_seed(0)
    x, _ = batches(1, zeros_in=0)[0]
    assert repro.find(torch.compile(Net("forward").eval(), backend="eager"), x).origin.source == line_of("forward")


def test_arguments_that_the_module_does_not_take_are_refused_as_python_does():
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        repro.find(Net(), torch.zeros(1, 8), colour="red")


def test_what_the_module_raises_comes_through_and_nothing_is_left_behind():
    model = Net()
    before = state_of(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        repro.find(model, torch.zeros(1, 9))
    assert same(state_of(model), before)


@pytest.mark.parametrize("fault", ["forward", ""])
def test_no_more_than_a_dozen_passes_are_made_and_one_where_all_is_well(fault):
    torch.manual_seed(0)
    x, _ = batches(1, zeros_in=0)[0]
    model, passes = Net(fault).eval(), []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    found = repro.find(model, x)
    assert bool(found) is bool(fault)
    assert len(passes) == 1 if not fault else len(passes) <= 12


def test_the_report_is_that_of_a_command_and_its_script_was_verified(tmp_path):
    torch.manual_seed(0)
    x, _ = batches(1, zeros_in=0)[0]
    found = repro.find(Net("forward").eval(), x)
    path = found.report(tmp_path / "out")
    text = path.read_text("utf-8")
    assert {"report.md", "report.html", "verdict.json", "evidence.jsonl", "bundle.zip", "reproducer.py"} <= {
        item.name for item in path.parent.iterdir()
    }
    assert line_of("forward") in text
    assert "as the program held them" in text
    assert found.answer.reproducer.verified
    assert {item.name for item in found.answer.ablations} >= {"dtype=bfloat16", "dtype=float16"}
    ran = subprocess.run([sys.executable, str(path.parent / "reproducer.py")], capture_output=True, check=False)
    assert ran.returncode == 1


def test_a_report_goes_into_no_folder_of_somebody_else(tmp_path):
    from repro.core.errors import UsageError

    (tmp_path / "mine.txt").write_text("mine")
    found = repro.find(Net(), torch.ones(2, 8))
    with pytest.raises(UsageError, match=r"mine\.txt"):
        found.report(tmp_path)


def test_a_module_that_was_changed_since_is_not_asked_any_more(tmp_path):
    torch.manual_seed(0)
    x, _ = batches(1, zeros_in=0)[0]
    model = Net("forward").eval()
    found = repro.find(model, x)
    with torch.no_grad():
        model.head.weight.zero_()
    found.report(tmp_path / "out")
    assert found.origin.source == line_of("forward")
    assert all(item.verdict.value == "skip" for item in found.answer.ablations)
    assert "changed after the call" in found.answer.ablations[0].reason


def test_a_finding_prints_itself_and_escapes_what_a_notebook_would_run():
    class Script(nn.Module):
        def forward(self, x):
            return x / 0.0

    model = nn.ModuleDict({"<b>": Script()})
    model.forward = lambda x: model["<b>"](x)
    found = repro.find(model, torch.ones(2, 3))
    assert found.origin.module == "<b>"
    assert "BAD" in repr(found)
    assert "<b>" in repr(found)
    assert "<code><b></code>" not in found._repr_html_()
    assert "&lt;b&gt;" in found._repr_html_()


def test_what_is_no_module_is_refused_with_what_to_give():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for call, got in (
        (lambda: repro.find(torch.log, torch.ones(1)), "a builtin_function_or_method"),
        (lambda: repro.find(nn.Linear, torch.ones(1)), "the class Linear"),
        (lambda: repro.watch(optimizer, model), "a SGD"),
        (lambda: repro.Guard(optimizer, model), "a SGD"),
        (lambda: repro.Guard([model, model], optimizer), "a list"),
    ):
        with pytest.raises(TypeError, match=f"takes a torch.nn.Module, and got {got}"):
            call()
    with pytest.raises(TypeError, match=r"no torch\.optim\.Optimizer"):
        repro.watch(model, model)
    assert repro.watch(model, [optimizer, optimizer]).finding.verdict == "skip"


def test_a_folder_that_holds_no_step_is_refused(tmp_path):
    from repro.core.errors import UsageError

    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError):
            repro.replay(folder, nn.Linear(2, 2))


INF = float("inf")


@pytest.mark.parametrize(
    "values",
    [[-INF, -INF, 1.0, 2.0], [-INF] * 4, [INF, -INF, INF, -INF], [INF] * 4, [-INF, -INF, 0.0, 3.0]],
)
@pytest.mark.parametrize("kind", [nn.Linear, nn.LayerNorm])
def test_infinite_data_are_bad_input(values, kind):
    torch.manual_seed(0)
    module = kind(4, 4) if kind is nn.Linear else kind(4)
    finding = repro.find(module, torch.tensor([values, [1.0, 2.0, 3.0, 4.0]]))
    assert (finding.origin.mechanism, finding.origin.came_in.bad) == (
        "bad_input",
        sum(abs(value) == INF for value in values),
    )


def test_a_mask_among_the_inputs_is_none():
    class Scores(nn.Module):
        def forward(self, scores, mask):
            summed = scores + mask
            powers = (summed - summed.amax(-1, keepdim=True)).exp()
            return powers / powers.sum(-1, keepdim=True)

    mask = torch.zeros(3, 3)
    mask[1] = -INF
    origin = repro.find(Scores(), torch.randn(3, 3), mask).origin
    assert (origin.mechanism, origin.op) == ("invalid", "aten.sub.Tensor")


class Checking(nn.Module):
    """It looks at its own numbers, and refuses NaN; or it refuses what has nothing to do with them."""

    def __init__(self, refuses_nan=True):
        super().__init__()
        self.refuses_nan = refuses_nan

    def forward(self, x):
        ratio = x / x  # BORN
        if not self.refuses_nan or ratio.isnan().any():
            raise ValueError("refused")
        return ratio


def test_an_exception_for_a_nan_is_the_finding_and_any_other_is_passed_on(tmp_path):
    assert repro.find(Checking(), torch.ones(2)).verdict == "good"
    finding = repro.find(Checking(), torch.zeros(2))
    line = Checking.forward.__code__.co_firstlineno + 1
    assert (finding.verdict, finding.origin.source) == ("bad", f"test_find.py:{line}")
    finding.save_step(tmp_path / "step")
    assert repro.replay(tmp_path / "step", Checking()).origin.source == finding.origin.source
    for x in (torch.ones(2), torch.zeros(2)):
        with pytest.raises(ValueError, match="refused"):
            repro.find(Checking(refuses_nan=False), x)


class Rms(nn.Module):
    """The inverse root of a mean of squares, and scores with a mask of -inf beside it."""

    def forward(self, x):
        mask = torch.ones(x.shape[-1], x.shape[-1]).triu(1).bool()
        scores = ((x[:, None] + x[:, :, None]) * 0).masked_fill(mask, -INF).softmax(-1)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) + scores.sum(-1) * 0


def test_an_overflow_in_float16_that_is_swallowed_is_asked_whether_it_matters(tmp_path):
    """300 squared is beyond 65504, 1 / sqrt(inf) is 0, and so is the output, where 1 is right."""
    model = Rms()
    chance = torch.get_rng_state()
    finding = repro.find(model, torch.full((1, 8), 300.0).half())
    assert (finding.verdict, finding.origin.op) == ("bad", "aten.pow.Tensor_Scalar")
    assert torch.equal(chance, torch.get_rng_state())
    assert repro.find(model, torch.full((1, 8), 30.0).half()).verdict == "good"
    wide = repro.find(model, torch.full((1, 8), 1e25))
    assert wide.verdict == "good"  # in float32 the report asks
    wide.report(tmp_path / "out")
    assert (wide.verdict, wide.origin.op) == ("bad", "aten.pow.Tensor_Scalar")
