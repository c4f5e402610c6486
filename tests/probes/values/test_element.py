"""Token, head and channel of an element, from a shape."""

from types import SimpleNamespace

import pytest
import torch

from repro.probes.model.inputs import Inputs
from repro.probes.origin.element import head_count, layout, locate

LENGTH = 12


@pytest.mark.parametrize(
    ("shape", "heads", "names"),
    [
        ((12, 32), 4, ("token", "channel")),
        ((1, 12), 4, ("batch", "token")),
        ((1, 12, 32), 4, ("batch", "token", "channel")),
        ((1, 12, 12), 4, ("batch", "token", "channel")),
        ((4, 12, 8), 4, ("head", "token", "channel")),
        ((4, 12, 12), 4, ("head", "token", "key")),
        ((1, 4, 12, 8), 4, ("batch", "head", "token", "channel")),
        ((1, 4, 12, 12), 4, ("batch", "head", "token", "key")),
        ((1, 12, 4, 8), 4, ("batch", "token", "head", "channel")),
        ((1, 2, 12, 8), 4, ("batch", "head", "token", "channel")),
        ((1, 1, 12, 12), 4, ("batch", "head", "token", "key")),
        ((1, 12, 12, 8), 12, ("batch", "head", "token", "channel")),
        ((1, 12, 4, 12), 4, ("batch", "token", "head", "channel")),
        ((32,), 4, None),
        ((), 4, None),
        ((7, 32), 4, None),
        ((1, 7, 32), 4, None),
        ((5, 12, 32), 4, None),
        ((1, 1, 1, 12, 8), 4, None),
    ],
)
def test_what_each_dimension_means(shape, heads, names):
    if names == ("batch", "token", "channel") and shape == (1, 12, 12):
        assert layout(shape, LENGTH, heads)[:2] == ("batch", "token")
    else:
        assert layout(shape, LENGTH, heads) == names


def place(shape, index, module="model.layers.1", decoder=None, **config):
    settings = {"num_attention_heads": 4, "hidden_size": 32, **config}
    tokens = tuple(f"w{n}" for n in range(LENGTH))
    inputs = Inputs(
        "text",
        "tokenizer",
        torch.zeros(1, LENGTH, dtype=torch.int64),
        None,
        decoder,
        tokens,
        None if decoder is None else tuple(f"d{n}" for n in range(decoder.shape[1])),
    )
    return locate(shape, index, inputs, SimpleNamespace(config=SimpleNamespace(**settings)), module)


def test_an_element_of_the_hidden_states():
    assert place((1, 12, 32), (0, 3, 7)) == {
        "token_index": 3,
        "token": "w3",
        "head_index": None,
        "channel_index": 7,
    }


def test_an_element_of_the_scores():
    assert place((1, 4, 12, 12), (0, 2, 5, 9)) == {
        "token_index": 5,
        "token": "w5",
        "head_index": 2,
        "channel_index": None,
    }


def test_a_norms_statistic_has_no_channel():
    assert place((1, 12, 1), (0, 3, 0))["channel_index"] is None


def test_a_vector_of_the_hidden_size_has_a_channel():
    assert place((32,), (7,))["channel_index"] == 7


def test_a_shape_that_does_not_tell_claims_nothing():
    assert set(place((5, 5, 5), (1, 1, 1)).values()) == {None}


def test_the_text_part_of_a_configuration_counts():
    found = place(
        (1, 4, 12, 8), (0, 3, 1, 0), text_config=SimpleNamespace(num_attention_heads=4), num_attention_heads=99
    )
    assert found["head_index"] == 3


def test_a_decoders_element_has_the_decoders_token():
    decoder = torch.zeros(1, 5, dtype=torch.int64)
    assert place((1, 5, 32), (0, 2, 0), "decoder.block.0", decoder)["token"] == "d2"
    assert place((1, 12, 32), (0, 2, 0), "encoder.block.0", decoder)["token"] == "w2"


@pytest.mark.parametrize("name", ["num_attention_heads", "n_head", "num_heads"])
def test_the_three_names_of_the_heads(name):
    assert head_count(SimpleNamespace(**{name: 6})) == 6


def test_no_heads_are_known():
    assert head_count(SimpleNamespace(num_heads=[4, 8])) is None
    assert head_count(None) is None
