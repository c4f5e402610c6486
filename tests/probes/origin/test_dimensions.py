"""Token, head and channel of an element, by what changes with the length, the batch and the token."""

from types import SimpleNamespace

import pytest
import torch
from support.handmade import Small, inputs_of
from torch import nn

from repro.probes.model.inputs import Inputs
from repro.probes.observe.watch import Watch, watched
from repro.probes.origin.counterfactual import kin_of
from repro.probes.origin.dimensions import head_count, locate
from repro.probes.origin.passes import Place

LENGTH, HIDDEN, HEADS = 7, 12, 3
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
WORDS = tuple(f"w{n}" for n in range(LENGTH))
NOTHING = dict.fromkeys(("token_index", "token", "head_index", "channel_index", "place"))


class Layer(Small):
    """A small decoder; ``part`` picks what it ends with, by an exponential that is found again."""

    def __init__(self, part, heads):
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(num_attention_heads=heads, hidden_size=HIDDEN)
        self.embed = nn.Embedding(16, HIDDEN)
        self.part = part

    def forward(self, input_ids, attention_mask=None, decoder_input_ids=None):
        ids = input_ids if decoder_input_ids is None else decoder_input_ids
        return torch.exp(self.part(self.embed(ids), input_ids))


def heads(x):
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def scores(x):
    return heads(x) @ heads(x).transpose(-1, -2)


def mixed(x):
    """Each token gets as much of the others as it has of its own."""
    return torch.tanh(x * 0.1 + x.mean(-2, keepdim=True) * 5)


def by_expert(x):
    """Tokens sorted by an expert that each goes to, as grouped kernels want them."""
    flat = x.flatten(0, 1)
    return flat[flat[:, 0].argsort()]


def found(part, index, inputs=None, heads=HEADS):
    """What is said of one element of the exponential's result."""
    model = Layer(part, heads)
    inputs = inputs or Inputs("text", "tokenizer", IDS, torch.ones_like(IDS), tokens=WORDS)
    made = []

    def visit(call):
        result = call.run()
        if call.address.op == "aten.exp.default":
            made.append((call.address, tuple(result.shape)))
        return result

    def run():
        return model(**inputs.arguments())

    with watched(model, Watch(visit)), torch.no_grad():
        run()
    ((address, shape),) = made
    return locate(model, inputs, Place(kin_of(model, run, address), 0, shape, index))


def said(token, head=None, channel=None):
    word = None if token is None else WORDS[token]
    return {"token_index": token, "token": word, "head_index": head, "channel_index": channel, "place": None}


@pytest.mark.parametrize(
    ("part", "index", "answer"),
    [
        (lambda x, ids: x, (0, 3, 8), said(3, channel=8)),
        (lambda x, ids: x.flatten(0, 1), (3, 8), said(3, channel=8)),
        (lambda x, ids: heads(x), (0, 2, 5, 1), said(5, head=2, channel=1)),
        (lambda x, ids: x.unflatten(-1, (HEADS, -1)), (0, 5, 2, 1), said(5, head=2, channel=1)),
        (lambda x, ids: heads(x).flatten(0, 1), (2, 5, 1), said(5, head=2, channel=1)),
        (lambda x, ids: scores(x), (0, 2, 5, 6), said(5, head=2)),
        (lambda x, ids: scores(x).flatten(0, 1), (2, 5, 6), said(5, head=2)),
        (lambda x, ids: x.transpose(1, 2), (0, 8, 3), said(3, channel=8)),
        (lambda x, ids: x.mean(-1, keepdim=True), (0, 3, 0), said(3)),
        (lambda x, ids: x.mean(-1), (0, 3), said(3)),
        (lambda x, ids: torch.arange(ids.shape[1]) * 1.0, (3,), said(3)),
        (lambda x, ids: x.mean((0, 1)), (8,), said(None, channel=8)),
        (lambda x, ids: x[:, -1], (0, 8), said(None, channel=8)),
        (lambda x, ids: by_expert(x), (3, 8), said(None, channel=8)),
        (lambda x, ids: mixed(by_expert(x)), (3, 8), said(None, channel=8)),
        (lambda x, ids: mixed(x), (0, 3, 8), said(3, channel=8)),
        (lambda x, ids: x.flip(1), (0, 5, 8), said(None, channel=8)),
        (lambda x, ids: x[:, ids[0] > 1], (0, 3, 8), said(None)),
        (lambda x, ids: x.mean(), (), said(None)),
        (lambda x, ids: torch.ones(LENGTH, HIDDEN), (3, 8), said(None, channel=8)),
    ],
    ids=[
        "hidden", "flat", "by head", "heads behind tokens", "heads in the batch", "scores", "scores in the batch",
        "channels first", "statistic", "row", "positions", "pooled", "last token",
        "sorted by expert",
        "sorted and mixed", "mixed", "backwards", "chosen rows",
        "number", "as large as the input, and made of nothing of it",
    ],
)  # fmt: skip
def test_what_the_experiments_show(part, index, answer):
    assert found(part, index) == answer


def test_as_many_heads_as_tokens():
    """Seven heads, seven tokens, seven channels of each: sizes alone cannot tell."""
    torch.manual_seed(0)

    def part(x, ids):
        return torch.cat([x] * 5, -1)[..., :49].unflatten(-1, (7, 7)).transpose(1, 2) * 1

    assert found(part, (0, 2, 5, 1), heads=7) == said(5, channel=1)


def test_a_decoders_element_has_the_decoders_token():
    decoder = torch.tensor([[0, 3, 1, 4, 1]])
    inputs = Inputs("text", "tokenizer", IDS, None, decoder, WORDS, tuple(f"d{n}" for n in range(5)))
    assert found(lambda x, ids: x, (0, 2, 8), inputs)["token"] == "d2"
    with_ids = found(lambda x, ids: x.sum() + ids * 0.1, (0, 2), inputs)
    assert (with_ids["token_index"], with_ids["token"]) == (2, "w2")


def test_features_instead_of_ids():
    torch.manual_seed(0)

    class Features(Small):
        def forward(self, input_ids):
            return torch.exp(input_ids * 2)

    model, inputs = Features(), inputs_of(torch.randn(1, 5, 3))
    run = lambda: model(**inputs.arguments())  # noqa: E731
    made = []
    with watched(model, Watch(lambda call: made.append(call.address) or call.run())):
        run()
    answer = locate(model, inputs, Place(kin_of(model, run, made[-1]), 0, (1, 5, 3), (0, 4, 2)))
    assert answer == {"token_index": 4, "token": None, "head_index": None, "channel_index": 2, "place": None}


def test_a_model_of_one_length_has_no_names():
    def part(x, ids):
        assert ids.shape == (1, LENGTH)
        return x

    assert found(part, (0, 3, 8)) == NOTHING


@pytest.mark.parametrize("name", ["num_attention_heads", "n_head", "num_heads"])
def test_the_three_names_of_the_heads(name):
    assert head_count(SimpleNamespace(**{name: 6})) == 6


def test_no_heads_are_known():
    assert head_count(SimpleNamespace(num_heads=[4, 8])) == 0
    assert head_count(None) == 0
