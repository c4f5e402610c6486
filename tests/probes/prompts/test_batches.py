"""Batches against the model's own hidden states and against counts by a plain loop; the model left as it was."""

import math

import pytest
import torch
from corpus import families
from corpus.families import BOS, HIDDEN, LAYERS, PAD
from support.handmade import INF, NAN, Small, as_loaded, hooks_of, load_folder, state_of
from torch import nn

from repro.probes.model.compat import CannotLoad
from repro.probes.model.inputs import load_tokenizer
from repro.probes.observe.screen import blocks
from repro.probes.prompts.batches import Example, NotSeen, Tokens, alone, captured, counted, forward, largest, passed

PROMPTS = ("w3 w4 w5 w6", "w7", "w8 w9")


def with_ids(*rows):
    return [Example(number, None, None, tuple(row)) for number, row in enumerate(rows)]


def with_texts(*texts):
    return [Example(number, None, text) for number, text in enumerate(texts)]


@pytest.fixture(scope="module")
def llama(checkpoints):
    return load_folder(checkpoints["llama"])


@pytest.fixture(scope="module")
def tokenizer(checkpoints):
    return load_tokenizer(str(checkpoints["llama"]), False)


def batch_of(loaded, tokenizer, *texts, side=None, max_length=None):
    return Tokens(loaded, tokenizer, max_length, side).batch(0, with_texts(*texts))


class Layer(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        return self.change(x)


class Stack(Small):
    """Ids become rows of three numbers, which go through the layers."""

    def __init__(self, *changes):
        super().__init__()
        self.layers = nn.ModuleList(Layer(change) for change in changes)

    def forward(self, input_ids):
        x = input_ids[..., None] + torch.zeros(3)
        for layer in self.layers:
            x = layer(x)
        return x


# --- tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_shorter_rows_are_padded_on_the_side_asked_for(llama, tokenizer, side):
    batch = batch_of(llama, tokenizer, "w3 w4 w5", "w7", side=side)
    short = [PAD, PAD, BOS, 7] if side == "left" else [BOS, 7, PAD, PAD]
    assert batch.input_ids.tolist() == [[BOS, 3, 4, 5], short]
    assert batch.mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1] if side == "left" else [1, 1, 0, 0]]
    assert batch.last.tolist() == ([3, 3] if side == "left" else [3, 1])


def test_without_a_side_it_is_the_tokenizers_own(llama, tokenizer):
    assert Tokens(llama, tokenizer, None, None).side == tokenizer.padding_side
    assert Tokens(llama, None, None, None).side == "right"


def test_longer_prompts_are_cut(llama, tokenizer):
    tokens = Tokens(llama, tokenizer, 3, None)
    assert tokens.ids(Example(0, None, "w3 w4 w5 w6")) == [BOS, 3, 4]
    assert tokens.ids(Example(0, None, None, (9, 8, 7, 6))) == [9, 8, 7]


def test_a_text_needs_a_tokenizer_and_ids_do_not(llama):
    tokens = Tokens(llama, None, None, None)
    assert tokens.ids(Example(0, None, None, (3, 4))) == [3, 4]
    with pytest.raises(CannotLoad, match="no tokenizer"):
        tokens.ids(Example(0, None, "w3"))


def test_ids_that_the_model_does_not_have_are_refused(llama):
    tokens = Tokens(llama, None, None, None)
    assert tokens.refusal([0, families.VOCAB - 1]) is None
    assert tokens.refusal([3, families.VOCAB]) == "token id 128 is none of the model's 128"
    assert tokens.refusal([-1]) == "token id -1 is none of the model's 128"
    assert tokens.refusal([]) == "the tokenizer makes no token of it"


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_is_fed_each_rows_tokens_behind_its_start_token(checkpoints, side):
    loaded = load_folder(checkpoints["t5"])
    batch = Tokens(loaded, None, None, side).batch(0, with_ids([5, 6, 7], [8]))
    start = loaded.config.decoder_start_token_id
    short = [PAD, PAD, start] if side == "left" else [start, PAD, PAD]
    assert batch.decoder_ids.tolist() == [[start, 5, 6], short]
    assert batch.ids_of("decoder.block.1").tolist() == batch.decoder_ids.tolist()
    assert batch.ids_of("encoder.block.1").tolist() == batch.input_ids.tolist()


# --- what is captured --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_sizes_and_residuals_are_those_of_the_models_own_hidden_states(checkpoints, tokenizer, side, dtype):
    loaded = load_folder(checkpoints["llama"], dtype)
    batch = batch_of(loaded, tokenizer, *PROMPTS, side=side)
    seen = captured(loaded.model, batch, blocks(loaded.model), residual=True)
    with torch.no_grad():
        states = loaded.model(batch.input_ids, attention_mask=batch.mask, output_hidden_states=True).hidden_states
    assert seen.size.shape == (LAYERS, 3, 5)
    assert seen.width == HIDDEN
    for layer in range(LAYERS - 1):  # the last of the hidden states is behind the final norm
        own = states[layer + 1].float()
        assert torch.equal(seen.size[layer], own.abs().amax(-1))
        for row in range(3):
            last = int(batch.mask[row].nonzero()[-1])
            assert torch.equal(seen.residual[layer, row], own[row, last])


def test_a_nan_and_an_infinity_of_either_sign_are_seen_where_they_are():
    def spoil(x):
        x = x.clone()
        x[0, 1, 2], x[1, 0, 0], x[1, 2, 1] = NAN, INF, -INF
        return x

    loaded = as_loaded(Stack(spoil, lambda x: x))
    batch = Tokens(loaded, None, None, None).batch(0, with_ids([1, 0, 1], [0, 1, 1]))
    names = blocks(loaded.model)
    seen, counts = captured(loaded.model, batch, names), counted(loaded.model, batch, names)
    assert (~torch.isfinite(seen.size[0])).nonzero().tolist() == [[0, 1], [1, 0], [1, 2]]
    assert math.isnan(seen.size[0, 0, 1])
    nan, posinf, neginf = counts["layers.0"]
    assert nan.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert posinf.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert neginf.tolist() == [[0, 0, 0], [0, 0, 1]]


def test_a_release_without_the_kernel_gives_the_same_sizes(monkeypatch):
    rows = torch.tensor([[1.0, -3.0], [NAN, 2.0], [-INF, 2.0]], dtype=torch.bfloat16)
    whole, kernel = largest(rows), torch.aminmax

    def without_bfloat16(tensor, **given):
        if tensor.dtype == torch.bfloat16:
            raise RuntimeError("\"aminmax_cpu\" not implemented for 'BFloat16'")
        return kernel(tensor, **given)

    monkeypatch.setattr(torch, "aminmax", without_bfloat16)
    assert str(largest(rows).tolist()) == str(whole.tolist()) == "[3.0, nan, inf]"


def test_the_output_is_judged_at_each_rows_last_token():
    def spoil(x):
        x = x.clone()
        x[0, 1], x[1, 1] = INF, INF
        return x

    loaded = as_loaded(Stack(lambda x: x, spoil))
    batch = Tokens(loaded, None, None, "right").batch(0, with_ids([1, 1, 1], [1, 1]))
    assert captured(loaded.model, batch, ["layers.0"]).output_bad.tolist() == [False, True]


def test_a_model_is_left_as_it_was(llama, tokenizer):
    model, names = llama.model, blocks(llama.model)
    before, hooks = state_of(model), hooks_of(model)
    batch = batch_of(llama, tokenizer, *PROMPTS)
    plain = forward(model, batch).logits
    captured(model, batch, names, residual=True)
    counted(model, batch, names)
    assert (state_of(model), hooks_of(model)) == (before, hooks)
    assert torch.equal(forward(model, batch).logits, plain)


def test_hooks_are_gone_when_the_pass_raises():
    def fall(x):
        raise ValueError("no")

    loaded = as_loaded(Stack(lambda x: x, fall))
    batch = Tokens(loaded, None, None, None).batch(0, with_ids([1, 0]))
    with pytest.raises(ValueError, match="no"):
        captured(loaded.model, batch, ["layers.0"])
    assert sum(hooks_of(loaded.model)) == 0


def test_a_layer_that_gives_no_rows_of_tokens_is_named():
    loaded = as_loaded(Stack(lambda x: x.flatten(), lambda x: x))
    batch = Tokens(loaded, None, None, None).batch(0, with_ids([1, 0]))
    with pytest.raises(NotSeen, match=r"layers\.0 gave no output of shape \(batch, seq, hidden\)"):
        captured(loaded.model, batch, ["layers.0"])


def test_only_layers_that_the_tokens_go_through_are_passed():
    class WithTower(Stack):
        def __init__(self):
            super().__init__(lambda x: x, lambda x: x)
            self.tower = nn.ModuleList(Layer(lambda x: x) for _ in range(2))

    loaded = as_loaded(WithTower())
    batch = Tokens(loaded, None, None, None).batch(0, with_ids([1, 0]))
    assert set(blocks(loaded.model)) == {"layers.0", "layers.1", "tower.0", "tower.1"}
    assert passed(loaded.model, batch, blocks(loaded.model)) == ["layers.0", "layers.1"]


# --- alone -------------------------------------------------------------------------------------------------------


def test_an_example_alone_keeps_its_padding_or_loses_it(llama, tokenizer):
    batch = batch_of(llama, tokenizer, *PROMPTS, side="left")
    assert alone(batch, 1, padded=False).input_ids.tolist() == [[BOS, 7]]
    assert alone(batch, 1, padded=True).input_ids.tolist() == [[PAD, PAD, PAD, BOS, 7]]
    assert alone(batch, 1, padded=True).mask.tolist() == [[0, 0, 0, 1, 1]]
    assert alone(batch, 1, padded=True).examples == (batch.examples[1],)


def test_a_decoders_ids_are_kept_with_it(checkpoints):
    loaded = load_folder(checkpoints["t5"])
    batch = Tokens(loaded, None, None, "left").batch(0, with_ids([5, 6, 7], [8, 9]))
    assert alone(batch, 1, padded=False).decoder_ids.tolist() == [[loaded.config.decoder_start_token_id, 8]]


ABSOLUTE = ("gpt2", "bert")
"""Families whose positions are counted from the first column, so that padding on the left moves a row's own."""


@pytest.mark.parametrize(
    ("family", "side"),
    [(family, "right") for family in families.FAMILIES]
    + [(family, "left") for family in families.FAMILIES if family not in ABSOLUTE],
)
def test_padding_does_not_change_what_a_sound_row_is(checkpoints, family, side):
    loaded = load_folder(checkpoints[family])
    names = blocks(loaded.model)
    batch = Tokens(loaded, None, None, side).batch(0, with_ids([5, 6, 7, 8], [9, 10]))
    own = captured(loaded.model, alone(batch, 1, padded=False), names).size[:, 0]
    within = captured(loaded.model, batch, names).size[:, 1][:, batch.mask[1].bool()]
    torch.testing.assert_close(within, own, rtol=1e-4, atol=1e-4)
