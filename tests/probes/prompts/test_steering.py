"""Steering vectors against a plain loop over single prompts; what is lost is counted."""

import torch
from safetensors import safe_open
from support.handmade import load_folder

from repro.probes.model.inputs import load_tokenizer
from repro.probes.observe.screen import blocks
from repro.probes.prompts.batches import Example, Tokens, captured
from repro.probes.prompts.vectors import Steering

LAYERS = ["layers.0", "layers.1"]


def side(index, name):
    return Example(index, name, "text")


def rows(*values):
    """(layer, hidden) with one number in all of a layer."""
    return torch.tensor([[float(value)] * 4 for value in values])


def read(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def test_the_mean_of_positive_minus_negative_whatever_comes_first(tmp_path):
    steering = Steering(LAYERS)
    for example, residual in [
        (side(0, "positive"), rows(3, 5)),
        (side(1, "negative"), rows(1, 1)),
        (side(0, "negative"), rows(1, 1)),
        (side(1, "positive"), rows(2, 9)),
    ]:
        steering.take(example, residual)
    path = str(tmp_path / "v.safetensors")
    assert steering.save(path) == {"path": path, "used": 2, "lost": 0, "lost_pairs": []}
    vectors, metadata = read(path)
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in vectors.items()} == {
        "layers.0": (torch.float32, [1.5] * 4),
        "layers.1": (torch.float32, [6.0] * 4),
    }
    assert metadata == {"format": "pt", "pairs_used": "2", "pairs_lost": "0", "token": "last"}


def test_a_pair_of_which_a_side_is_not_sound_is_lost_and_counted(tmp_path):
    steering = Steering(LAYERS)
    for index, (positive, negative) in enumerate([(True, True), (False, True), (True, False), (False, False)]):
        steering.take(side(index, "positive"), rows(index + 1, 1) if positive else None)
        steering.take(side(index, "negative"), rows(0, 0) if negative else None)
    steering.take(side(4, "positive"), rows(7, 7))  # its other side never came
    found = steering.save(str(tmp_path / "v.safetensors"))
    assert (found["used"], found["lost"], found["lost_pairs"]) == (1, 4, [1, 2, 3, 4])
    assert read(found["path"])[0]["layers.0"].tolist() == [1.0] * 4


def test_nothing_is_written_where_no_pair_is_sound(tmp_path):
    steering = Steering(LAYERS)
    steering.take(side(0, "positive"), None)
    steering.take(side(0, "negative"), rows(1, 1))
    path = tmp_path / "v.safetensors"
    assert steering.save(str(path)) == {"path": None, "used": 0, "lost": 1, "lost_pairs": [0]}
    assert not path.exists()


def test_an_example_without_a_side_is_no_part_of_it():
    steering = Steering(LAYERS)
    steering.take(side(0, None), rows(1, 1))
    assert steering.save("nowhere") == {"path": None, "used": 0, "lost": 0, "lost_pairs": []}


def test_vectors_of_batches_are_those_of_single_prompts(checkpoints, tmp_path):
    loaded = load_folder(checkpoints["llama"])
    tokenizer = load_tokenizer(str(checkpoints["llama"]), False)
    names = blocks(loaded.model)
    pairs = [("w3 w4 w5", "w6"), ("w7 w8", "w9 w10 w11 w12"), ("w13", "w14 w15")]
    every = [
        Example(number, name, text)
        for number, pair in enumerate(pairs)
        for name, text in zip(("positive", "negative"), pair, strict=True)
    ]
    steering = Steering(names)
    for begin in range(0, 6, 4):  # the second pair's sides are in two batches when they are three to a batch
        batch = Tokens(loaded, tokenizer, None, "left").batch(0, every[begin : begin + 3])
        for example, residual in zip(
            batch.examples, captured(loaded.model, batch, names, residual=True).residual.unbind(1), strict=True
        ):
            steering.take(example, residual)
        rest = every[begin + 3 : begin + 4]
        if rest:
            single = Tokens(loaded, tokenizer, None, "left").batch(0, rest)
            steering.take(rest[0], captured(loaded.model, single, names, residual=True).residual[:, 0])
    found, _ = read(steering.save(str(tmp_path / "v.safetensors"))["path"])

    def last_state(text, layer):
        with torch.no_grad():
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            return loaded.model(ids, output_hidden_states=True).hidden_states[layer + 1][0, -1].double()

    for layer in range(len(names) - 1):  # the last of the hidden states is behind the final norm
        differences = [last_state(positive, layer) - last_state(negative, layer) for positive, negative in pairs]
        expected = (sum(differences) / len(differences)).float()
        torch.testing.assert_close(found[names[layer]], expected, rtol=1e-4, atol=1e-5)
