"""Who fails, where first and at which token, on five architectures; the truth is the injected fault.

Each fault is one that a pipeline meets: a word that few prompts have, padding, a batch, a long prompt, a layer whose
fault attention spreads, and a head.
"""

import json

import pytest
import torch
from corpus.families import PAD, build, write_tokenizer
from support.handmade import INF, NAN, load_folder
from support.prompt_models import RARE
from support.prompting import ask

from repro.probes.prompts.batches import Example, Tokens, captured, fails

EMBEDDING = {
    "gpt2": "transformer.wte",
    "llama": "model.embed_tokens",
    "gemma3": "model.embed_tokens",
    "bert": "bert.embeddings.word_embeddings",
    "t5": "encoder.embed_tokens",
}
FAMILIES = tuple(EMBEDDING)
UNTIED = FAMILIES[:-1]
"""T5 shares its words with its head and its decoder."""
BLOCK = {
    "gpt2": ("transformer.h.1", "mlp.c_fc"),
    "llama": ("model.layers.1", "mlp.up_proj"),
    "gemma3": ("model.layers.1", "self_attn.v_proj"),
    "bert": ("bert.encoder.layer.1", "attention.self.value"),
    "t5": ("encoder.block.1", "layer.0.SelfAttention.v"),
}
POSITIONS = {"gpt2": "transformer.wpe", "bert": "bert.embeddings.position_embeddings"}
PROMPTS = ("w3 w4 w5 w6", f"w6 w{RARE} w8 w9 w10", "w11 w12", f"w20 w21 w22 w{RARE}")
PLACE = ("verdict", "module", "token_index", "token", "token_kind", "cause")
GOOD = ("good", None, None, None, None, None)


def loaded(tmp_path, family, change=None, **config):
    """A sound model of the family, changed in memory before it is saved."""
    model = build(family, **config)
    if change is not None:
        with torch.no_grad():
            change(model)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return load_folder(folder)


def row(path, index, value):
    def change(model):
        model.get_submodule(path).weight[index] = value

    return change


def agreed(asked):
    """The samples of the full search, all of which must have an answer and say the same."""
    found = asked.payload["searched"]
    assert (found["answered"], found["agreed"]) == (found["asked"], found["asked"]), found["samples"]
    return found["samples"]


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("family", UNTIED)
def test_a_rare_word_is_named_where_it_is_embedded(tmp_path, family, value):
    module = EMBEDDING[family]
    asked = ask(loaded(tmp_path, family, row(module, RARE, value)), tmp_path, PROMPTS)
    named = ("bad", module, "w77", "text", "own")
    assert [(*found[:2], *found[3:]) for found in asked.of(*PLACE) if found[0] == "bad"] == [named, named]
    assert asked.of("verdict", "token_index") == [("good", None), ("bad", 2), ("good", None), ("bad", 4)]
    for sample in agreed(asked):
        assert (sample["origin"]["mechanism"], sample["origin"]["tensor"]) == ("bad_weights", f"{module}.weight")
        assert sample["origin"]["tensor_index"][0] == RARE


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "t5"])
def test_a_word_that_the_head_shares_spoils_every_prompt_and_each_is_told_its_own_place(tmp_path, family):
    config = {} if family == "t5" else {"tied": True}
    module = "shared" if family == "t5" else EMBEDDING[family]
    asked = ask(loaded(tmp_path, family, row(module, RARE, NAN), **config), tmp_path, PROMPTS)
    head, word = ("bad", "lm_head", None, None, None, "own"), ("bad", EMBEDDING[family])
    assert asked.of(*PLACE)[0::2] == [head, head]
    assert [found[:4] for found in asked.of(*PLACE)[1::2]] == [(*word, 2, "w77"), (*word, 4, "w77")]
    assert asked.records[0]["layer"] == "output"
    assert asked.records[0]["reason"] == (
        "bad logits though every layer is finite: lm_head gives them (1 of 128: of 'w77'); alone too"
    )
    assert {sample["origin"]["mechanism"] for sample in agreed(asked)} == {"bad_weights"}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", UNTIED)
def test_padding_whose_row_is_bad_spoils_those_that_are_padded(tmp_path, family, side):
    module = EMBEDDING[family]
    asked = ask(loaded(tmp_path, family, row(module, PAD, NAN)), tmp_path, PROMPTS[:3], padding_side=side)
    at = {"left": (-1, -3), "right": (5, 3)}[side]
    named = [("bad", module, index, "<pad>", "padding", "padding") for index in at]
    assert asked.of(*PLACE) == [named[0], GOOD, named[1]]
    assert [sample["found"]["token_index"] for sample in agreed(asked)] == list(at)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_fault_of_its_own_is_placed_without_the_padding_that_is_bad_before(tmp_path, side):
    """T5's decoder begins with the padding's row, in every prompt; the encoder meets it in those that are padded."""
    asked = ask(loaded(tmp_path, "t5", row("shared", PAD, NAN)), tmp_path, PROMPTS[:3], padding_side=side)
    assert asked.of(*PLACE) == [("bad", "decoder.embed_tokens", 0, "<pad>", "special", "own")] * 3
    agreed(asked)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fault_that_only_a_batch_has_names_no_token_where_all_go_bad(tmp_path, family):
    module = BLOCK[family][0]

    def spoil(inner, args, output):
        whole = output if isinstance(output, tuple) else (output,)
        hidden = whole[0].clone()
        hidden[1:] = torch.sqrt(-1 - hidden[1:].abs())
        return (hidden, *whole[1:]) if isinstance(output, tuple) else hidden

    sound = loaded(tmp_path, family)
    with sound.model.get_submodule(module).register_forward_hook(spoil):
        asked = ask(sound, tmp_path, PROMPTS[:3])
    assert asked.of(*PLACE) == [GOOD, *[("bad", module, None, None, "every", "composition")] * 2]
    assert asked.records[1]["reason"].startswith(f"bad first in {module}, at every token; only in its batch")
    agreed(asked)


@pytest.mark.parametrize("family", POSITIONS)
def test_a_long_prompt_reaches_the_position_that_is_bad(tmp_path, family):
    module, long = POSITIONS[family], " ".join(f"w{number}" for number in range(20, 40))
    asked = ask(loaded(tmp_path, family, row(module, 9, NAN)), tmp_path, ["w3 w4", long, "w5 w6"], batch_size=1)
    assert asked.of(*PLACE) == [GOOD, ("bad", module, 9, "w28", "text", "own"), GOOD]
    assert agreed(asked)[0]["origin"]["tensor_index"][0] == 9


@pytest.mark.parametrize("family", FAMILIES)
def test_inside_a_layer_the_tokens_own_row_decides(tmp_path, family):
    """Attention of the same layer or of the next one carries it to others, in BERT and in T5's encoder to all."""
    layer, inner = BLOCK[family]
    ids = []

    def spoil(module, args, output):
        return torch.where((ids[-1] == RARE)[..., None], INF, output)

    sound = loaded(tmp_path, family)
    with (
        sound.model.register_forward_pre_hook(
            lambda module, args, kwargs: ids.append(kwargs["input_ids"]), with_kwargs=True
        ),
        sound.model.get_submodule(f"{layer}.{inner}").register_forward_hook(spoil),
    ):
        asked = ask(sound, tmp_path, PROMPTS)
    named = [("bad", f"{layer}.{inner}", index, "w77", "text", "own") for index in (2, 4)]
    assert asked.of(*PLACE) == [GOOD, named[0], GOOD, named[1]]
    assert [record["layer"] for record in asked.records[1::2]] == [layer] * 2
    agreed(asked)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_what_a_layers_own_code_makes_is_not_blamed_on_the_module_that_reads_it(tmp_path, family):
    """The residual add in the middle of a layer overflows; the norm behind it is the first module with a bad row."""
    layer = BLOCK[family][0]
    last = {"gpt2": "attn.c_proj", "llama": "self_attn.o_proj", "gemma3": "post_attention_layernorm"}[family]
    embedding = EMBEDDING[family]

    def large(model):
        model.get_submodule(embedding).weight[RARE, 5] = 3e38 if family != "gemma3" else 5e37

    def spoil(module, args, output):
        given = output.clone()
        given[..., 5] = 3.3e38
        return given

    sound = loaded(tmp_path, family, large)
    with sound.model.get_submodule(f"{layer}.{last}").register_forward_hook(spoil):
        asked = ask(sound, tmp_path, [PROMPTS[1]], layers=None)
    assert asked.of("module", "token_index", "token") == [(layer, 2, "w77")]
    agreed(asked)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_bad_logits_name_what_gives_them(tmp_path, family):
    norm = {"gpt2": "transformer.ln_f", "llama": "model.norm", "t5": "decoder.final_layer_norm"}[family]

    def change(model):
        model.get_submodule(norm).weight[4] = NAN

    asked = ask(loaded(tmp_path, family, change), tmp_path, PROMPTS[:2])
    assert asked.of("layer", "module", "token_kind") == [("output", norm, None)] * 2
    assert f"though every layer is finite: {norm} gives them (128 of 128)" in asked.records[0]["reason"]
    agreed(asked)


def test_where_layers_were_left_out_the_head_is_not_blamed(tmp_path):
    """Only layer 0 is looked at, and layer 1 is bad: the search has the place."""
    layer = BLOCK["llama"][0]

    def change(model):
        model.get_submodule(f"{layer}.mlp.down_proj").weight[3, 3] = NAN

    asked = ask(loaded(tmp_path, "llama", change), tmp_path, PROMPTS[:2], layers=[0])
    assert asked.of("layer", "module") == [("output", None)] * 2
    assert asked.records[0]["reason"].startswith("bad logits though every layer that was looked at is finite (128 of")
    found = asked.payload["searched"]
    assert (found["answered"], found["agreed"]) == (2, 0)
    assert {sample["found"]["module"] for sample in found["samples"]} == {f"{layer}.mlp.down_proj"}


def test_where_prompts_are_withheld_the_search_tells_no_token_of_theirs(tmp_path):
    """A row of the embedding is a token's id: the tensor is told, and the row is not."""
    model = loaded(tmp_path, "gpt2", row("transformer.wte", RARE, NAN))
    asked = ask(model, tmp_path, PROMPTS, withheld=True)
    for sample in agreed(asked):
        assert (sample["origin"]["tensor"], sample["origin"]["mechanism"]) == ("transformer.wte.weight", "bad_weights")
        assert sample["reason"] == "bad_weights in transformer.wte"
    said = json.dumps(asked.payload["searched"])
    assert (str(RARE) in said, "w6" in said) == (False, False)


# --- a pass that ends early --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["model.embed_tokens", "model.norm", "lm_head"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_pass_that_ends_early_says_what_a_whole_one_says(tmp_path, module, side):
    index = RARE if module == "model.embed_tokens" else 4
    model = loaded(tmp_path, "llama", row(module, index, NAN))
    tokens = Tokens(model, None, None, side)
    layers = [f"model.layers.{number}" for number in range(3)]
    every = [Example(0, None, None, (5, 6, 7)), Example(1, None, None, (5, RARE)), Example(2, None, None, (8,))]
    for examples in (every, every[1:2], every[:1]):
        batch = tokens.batch(0, examples)
        expected = captured(model.model, batch, layers).failing(batch)
        assert fails(model.model, batch, layers).tolist() == expected.tolist()
    assert not any(inner._forward_hooks or inner._forward_pre_hooks for inner in model.model.modules())


def test_of_those_that_are_not_asked_about_nothing_is_waited_for(tmp_path):
    model = loaded(tmp_path, "llama", row("model.embed_tokens", RARE, NAN))
    batch = Tokens(model, None, None, None).batch(0, [Example(0, None, None, (5,)), Example(1, None, None, (RARE,))])
    calls = []
    with model.model.model.layers[1].register_forward_hook(lambda *_: calls.append(1)):
        found = fails(model.model, batch, ["model.layers.0", "model.layers.1"], torch.tensor([False, True]))
    assert (bool(found[1]), calls) == (True, [])


ATTENTION = {
    "gpt2": "transformer.h.0.attn",
    "llama": "model.layers.0.self_attn",
    "gemma3": "model.layers.0.self_attn",
    "bert": "bert.encoder.layer.0.attention.self",
    "t5": "encoder.block.0.layer.0.SelfAttention",
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ATTENTION)
def test_rows_of_padding_that_attention_makes_bad_are_the_place_and_not_the_text_they_spoil(tmp_path, family, side):
    """As a kernel does that gives NaN for a row whose every key is masked; the next layer carries it to the text."""
    masks = []

    def spoil(module, args, output):
        whole = output if isinstance(output, tuple) else (output,)
        hidden, padding = whole[0].clone(), masks[-1] == 0
        hidden[padding] = torch.log(-1 - hidden[padding].abs())
        return (hidden, *whole[1:]) if isinstance(output, tuple) else hidden

    sound = loaded(tmp_path, family)
    with (
        sound.model.register_forward_pre_hook(
            lambda module, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
        ),
        sound.model.get_submodule(ATTENTION[family]).register_forward_hook(spoil),
    ):
        asked = ask(sound, tmp_path, PROMPTS[:3], padding_side=side)
    at = {"left": (-1, -3), "right": (5, 3)}[side]
    named = [("bad", ATTENTION[family], index, "<pad>", "padding", "padding") for index in at]
    assert asked.of(*PLACE) == [named[0], GOOD, named[1]]
    agreed(asked)
