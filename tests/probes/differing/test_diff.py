"""Sound models agree in every way; a fault in one way is found in its module. The truth is what was injected."""

from unittest import mock

import pytest
import torch
from corpus import families
from support.handmade import Angle, case_of, emitter, hooks_of, state_of

from repro.probes import differing
from repro.probes.differing.diff import held_against, make
from repro.probes.differing.ways import in_other_dtype, plain
from repro.probes.model.ready import ready
from repro.probes.model.session import Session
from repro.probes.steps.diff import run

PROMPTS = ["w17 w42 w99 w5 w63 w28 w110 w77 w34 w51 w88", "w3 w9 w17 w80 w2"]
attention = torch.nn.functional.scaled_dot_product_attention


def session(folder, against, dtype=None, **more):
    case = {**case_of(folder, dtype, **more), "prompts": PROMPTS, "against": against}
    return Session(case, str(folder), emitter()[0])


def diff(folder, against, dtype=None, inject=None, **more):
    """Verdict, reason and payload; ``inject`` is given the loaded model first."""
    asked = session(folder, against, dtype, **more)
    if inject is not None:
        inject(asked.loaded().model)
    return run(asked, "diff")


def departure(folder, against, dtype=None, inject=None, **more):
    verdict, _, payload = diff(folder, against, dtype, inject, **more)
    assert verdict == "bad"
    return payload["departure"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    families.build("llama").save_pretrained(folder)
    families.write_tokenizer(folder)
    return folder


WAYS = ("eager", "float64", "cache", "batch", "batch:right", "training")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("against", WAYS)
def test_a_sound_model_agrees_with_itself_in_every_way(llama, against, dtype):
    verdict, reason, payload = diff(llama, against, dtype)
    assert (verdict, payload["departure"], payload["modules"]) == ("good", None, [])
    assert payload["places"] > 100
    assert "agree within rounding" in reason
    assert payload["end"]["degree"] < 1
    assert payload["end"]["top1_flips"] == 0
    assert payload["end"]["rank_correlation"] > 0.99


@pytest.mark.parametrize(("dtype", "against"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_another_dtype_is_rounding(llama, dtype, against):
    assert diff(llama, against, dtype)[0] == "good"


def test_nothing_is_left_behind(llama):
    asked = session(llama, "eager", "bfloat16")
    model = asked.loaded().model
    state, hooks, attn = state_of(model), hooks_of(model), model.config._attn_implementation
    run(asked, "diff")
    assert (state_of(model), hooks_of(model), model.config._attn_implementation) == (state, hooks, attn)
    assert not model.training


def sdpa(change):
    """scaled_dot_product_attention with its arguments changed."""

    def changed(query, key, value, **given):
        return attention(query, key, value, **{**given, **change(given)})

    return mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda given: {"scale": 0.5 * given["scale"]},
        lambda given: {"is_causal": False, "attn_mask": None},
    ],
    ids=["scale", "mask"],
)
def test_an_attention_that_ignores_an_argument_is_found_in_the_first_layer(llama, change):
    with sdpa(change):
        found = departure(llama, "eager", "float32")
    assert found["module"] == "model.layers.0.self_attn"
    assert (found["of"], found["what"]) == ("model.layers.0.self_attn.o_proj", "input")
    assert found["side"] == "different"  # both do faithfully what they were told: float64 cannot tell which is right
    assert "scaled_dot_product" in found["op"]
    assert found["source"].startswith("test_diff.py:")
    assert "aten._softmax.default" in found["other_operators"]


def test_a_departure_has_the_errors_of_both_ends_against_float64(llama):
    _, _, payload = diff(llama, "training", "bfloat16", WrongHere("lm_head"))
    assert payload["end"]["rmse_other"] > 2 * payload["end"]["rmse_this"] > 0


class WrongHere:
    """A linear layer whose kernel gives 1 in 16 too much in bfloat16 in training mode, and nothing wrong in float64."""

    def __init__(self, name, factor=1.0625):
        self.name, self.factor = name, factor

    def __call__(self, model):
        module = model.get_submodule(self.name)
        own = module.forward

        def forward(given):
            out = own(given)
            return out * self.factor if module.training and out.dtype == torch.bfloat16 else out

        module.forward = forward


@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj", "lm_head"])
def test_a_kernel_that_is_wrong_on_one_side_is_named_with_its_side(llama, name):
    found = departure(llama, "training", "bfloat16", WrongHere(name))
    assert (found["module"], found["what"], found["side"]) == (name, "output", "other")
    assert found["error_other"] > 2 * found["error_this"]
    assert found["other"] == pytest.approx(found["this"] * 1.0625, rel=0.02)


def test_one_channel_is_found_and_named(llama):
    def inject(model):
        module = model.model.layers[1].mlp.down_proj
        own = module.forward

        def forward(given):
            out = own(given)
            if module.training:
                out = out.clone()
                out[..., 5] *= 1.5
            return out

        module.forward = forward

    found = departure(llama, "training", "bfloat16", inject)
    assert (found["module"], found["channel_index"]) == ("model.layers.1.mlp.down_proj", 5)


def test_positions_that_are_off_by_one_with_the_cache_are_the_models_own(llama):
    def inject(model):
        own = model.model.rotary_emb.forward
        model.model.rotary_emb.forward = lambda x, position_ids: own(x, position_ids + (position_ids.shape[-1] == 1))

    found = departure(llama, "cache", "float32", inject)
    assert (found["module"], found["what"]) == ("model.rotary_emb", "output")


def test_a_padding_mask_that_is_dropped_is_found_where_it_is_used(llama):
    def inject(model):
        own = model.model.forward

        def forward(input_ids=None, attention_mask=None, **given):
            return own(input_ids, attention_mask=None if len(input_ids) > 1 else attention_mask, **given)

        model.model.forward = forward

    assert departure(llama, "batch", "float32", inject)["module"] == "model.layers.0.self_attn"


def test_nan_against_a_number_is_a_departure_in_either_direction(llama):
    def inject(in_training):
        def into(model):
            module = model.model.layers[1].mlp.up_proj
            own = module.forward

            def forward(given):
                out = own(given).clone()
                if module.training == in_training:
                    out[0, 2, 7] = float("nan")
                return out

            module.forward = forward

        return into

    for in_training in (False, True):
        found = departure(llama, "training", "float32", inject(in_training))
        assert (found["module"], found["mismatched"]) == ("model.layers.1.mlp.up_proj", 1)
        assert (found["token_index"], found["channel_index"]) == (2, 7)


def test_two_nans_at_one_place_agree(llama):
    def inject(model):
        own = model.model.layers[1].mlp.up_proj.forward

        def forward(given):
            out = own(given).clone()
            out[0, 2, 7] = float("nan")
            return out

        model.model.layers[1].mlp.up_proj.forward = forward

    assert diff(llama, "training", "float32", inject)[0] == "good"


@pytest.mark.parametrize(
    ("against", "more", "words"),
    [
        ("sdpa", {}, "the case itself runs with sdpa attention"),
        ("bfloat16", {"dtype": "bfloat16"}, "the case itself is in bfloat16"),
        ("cpu", {}, "the case itself runs on cpu"),
    ],
)
def test_the_cases_own_way_is_refused(llama, against, more, words):
    verdict, reason, _ = diff(llama, against, **more)
    assert verdict == "skip"
    assert words in reason


def test_a_model_without_a_cache_or_a_decoder_is_refused_in_words(tmp_path):
    families.build("bert").save_pretrained(tmp_path)
    verdict, reason, _ = diff(tmp_path, "cache")
    assert (verdict, "no key-value cache" in reason) == ("skip", True)


def test_growth_is_told_layer_by_layer(llama):
    rows = diff(llama, "float64", "bfloat16")[2]["growth"]
    assert [row["module"] for row in rows] == [f"model.layers.{at}" for at in range(len(rows))]
    assert all(row["deviation"] > 0 and row["drift"] > 0 for row in rows)


def noisy(draw, wrong_in=None):
    """A layer that adds random numbers to what it gives, and in one dtype is wrong before that."""

    def inject(model):
        module = model.model.layers[1].mlp.down_proj
        own = module.forward

        def forward(given):
            out = own(given)
            if out.dtype == wrong_in:
                out = out * 1.25
            return out + draw(out)

        module.forward = forward

    return inject


DRAWS = [
    lambda out: 0.1 * torch.randn_like(out),
    lambda out: 0.1 * torch.rand(out.shape, dtype=out.dtype),
    lambda out: torch.empty_like(out).normal_(),
    lambda out: torch.empty_like(out).exponential_(),
]


@pytest.mark.parametrize("draw", DRAWS, ids=["randn_like", "rand", "normal_", "exponential_"])
def test_random_numbers_of_another_dtype_are_no_fault(llama, draw):
    verdict, reason, _ = diff(llama, "float64", "float32", noisy(draw))
    assert verdict != "bad"
    assert verdict == "good" or "random numbers are drawn in model.layers.1.mlp.down_proj" in reason


def test_a_fault_before_the_random_numbers_is_found(llama):
    found = departure(llama, "float64", "float32", noisy(lambda out: 1e-6 * torch.randn_like(out), torch.float64))
    assert (found["module"], found["op"]) == ("model.layers.1.mlp.down_proj", "aten.mul.Tensor")


def test_a_cache_needs_no_switch(llama):
    def without_switch(model):
        class WithoutSwitch(type(model)):
            def forward(self, input_ids=None, attention_mask=None, past_key_values=None):
                return super().forward(input_ids, attention_mask, past_key_values=past_key_values)

        model.__class__ = WithoutSwitch

    verdict, reason, payload = diff(llama, "cache", inject=without_switch)
    assert (verdict, payload["end"]["top1_flips"]) == ("good", 0), reason


def test_a_model_that_does_not_run_in_the_other_way_is_told_what_to_do(llama):
    def own_dtype(model):
        mlp = model.model.layers[0].mlp
        mlp.register_forward_pre_hook(lambda module, args: (args[0] @ torch.eye(args[0].shape[-1]),))

    verdict, reason, payload = diff(llama, "float64", inject=own_dtype)
    assert (verdict, payload) == ("skip", None)
    assert reason.startswith("the model runs as it is, and does not run in the other way (float64): RuntimeError: ")
    assert "makes a tensor of a dtype of its own; make it in that of the weights; or give another --against" in reason


def test_a_place_that_few_roundings_move_is_drawn_again_before_it_is_said_to_part():
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        loaded, given = ready(Angle(), (x,))
        made = make(loaded.model, plain((given,)), (given,), lambda *_: None)
        once, again = (
            held_against(loaded.model, made, in_other_dtype(loaded, (given,), "float64"), lambda *_: None, again)
            for again in (False, True)
        )
    assert once.departing  # of the numbers near 1 the one draw moves none
    assert not again.departing


def test_where_this_way_runs_no_more_the_other_one_is_drawn_again(monkeypatch):
    def parts(seed):
        x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(seed))
        model = Angle()
        with torch.no_grad():
            _, given = ready(model, (x,))
            made = make(model, plain((given,)), (given,), lambda *_: None)
            model.back = True
            return bool(held_against(model, made, plain((given,)), lambda *_: None).departing)

    assert not any(map(parts, range(4)))
    monkeypatch.setattr(differing.diff, "MORE_SEEDS", ())
    assert any(map(parts, range(4)))
