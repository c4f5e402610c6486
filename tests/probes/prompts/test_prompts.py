"""The prompts step on models of which it is known which prompts fail, where and why."""

import pytest
import torch
import transformers
from corpus import families
from corpus.families import BOS, HIDDEN, LAYERS, PAD
from support.handmade import INF, NAN, Small, as_loaded, load_folder
from support.prompt_models import POISON, RAISE, RARE, write_llama, write_odd
from support.prompting import ask
from torch import nn

from repro.probes.model.compat import CannotLoad
from repro.probes.prompts.run import chosen_layers

FILLED = "w11 w12 w13 w14 w15 w16"
PROMPTS = ("w3 w4 w5", f"w6 w{RARE} w8", "w10", FILLED, f"w20 w21 w{RARE} w22")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "rare": write_llama(root / "rare", RARE),
        "bos": write_llama(root / "bos", BOS),
        "pad": write_llama(root / "pad", PAD),
        "late pad": write_llama(root / "late-pad", PAD, layer=LAYERS - 1),
        "sound": write_llama(root / "sound"),
        "odd": write_odd(root / "odd"),
    }


# --- an example's own fault --------------------------------------------------------------------------------------


def test_a_rare_token_that_overflows_is_named(folders, tmp_path):
    asked = ask(load_folder(folders["rare"], "float16"), tmp_path, PROMPTS, batch_size=3)
    assert (asked.verdict, asked.reason) == ("bad", "2 of 5 examples are bad")
    assert asked.of("verdict", "layer", "layer_index", "token_index", "token", "token_id", "token_kind", "cause") == [
        ("good", None, None, None, None, None, None, None),
        ("bad", "model.layers.1", 1, 2, "w77", RARE, "text", "own"),
        ("good", None, None, None, None, None, None, None),
        ("good", None, None, None, None, None, None, None),
        ("bad", "model.layers.1", 1, 3, "w77", RARE, "text", "own"),
    ]
    assert asked.records[1]["reason"] == "bad first in model.layers.1 at token 2 'w77' (text); alone too"


def test_bad_values_are_whole_rows_from_the_token_on(folders, tmp_path):
    """One infinity in the token's row; in the next layer attention makes each row that may see it NaN, in eager
    attention also those that may not: a weight of zero times NaN.
    """
    asked = ask(load_folder(folders["rare"], "float16"), tmp_path, [f"w3 w4 w{RARE} w5 w6"])
    (record,) = asked.records
    assert (record["posinf"], record["neginf"], record["nan"], record["rows"]) == (1, 0, 0, 1)
    assert record["row_size"] == HIDDEN
    at_last = record["at_last"]
    assert at_last["layer"] == "model.layers.2"
    assert at_last["rows"] in (3, 6)
    assert at_last["nan"] == at_last["rows"] * HIDDEN


@pytest.mark.parametrize("layers", [None, [0], [-1]])
def test_a_fault_of_the_first_special_token_is_in_every_prompt(folders, tmp_path, layers):
    asked = ask(load_folder(folders["bos"], "float16"), tmp_path, PROMPTS, layers=layers)
    if layers == [0]:  # it comes to be in layer 1: the output has it
        assert asked.of("verdict", "layer", "token") == [("bad", "output", None)] * 5
        return
    where = "model.layers.2" if layers else "model.layers.1"
    assert (
        asked.of("verdict", "layer", "token_index", "token", "token_kind")
        == [("bad", where, 0, "<bos>", "special")] * 5
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_tokens_are_counted_from_the_first_that_is_no_padding(folders, tmp_path, side):
    asked = ask(load_folder(folders["rare"], "float16"), tmp_path, [FILLED, f"w{RARE}"], padding_side=side)
    assert asked.records[1]["token_index"] == 1
    assert asked.of("padding", "padding_side", "tokens") == [(0, None, 7), (5, side, 2)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dtype_that_holds_the_number_is_good(folders, tmp_path, dtype):
    asked = ask(load_folder(folders["rare"], dtype), tmp_path, PROMPTS)
    assert (asked.verdict, asked.reason) == ("good", "5 of 5 are good")


# --- padding and the batch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_only_padded_prompts_fail_where_padding_overflows(folders, tmp_path, side):
    asked = ask(load_folder(folders["pad"], "float16"), tmp_path, PROMPTS[:4], padding_side=side)
    first = {"left": [-3, -3, -5], "right": [4, 4, 2]}[side]
    padded = [("bad", "good", "padding", "model.layers.1", at, "<pad>", "padding") for at in first]
    assert asked.of("verdict", "alone", "cause", "layer", "token_index", "token", "token_kind") == [
        *padded, ("good", "not_run", None, None, None, None, None),
    ]  # fmt: skip
    assert asked.of("posinf", "rows") == [(3, 3), (3, 3), (5, 5), (0, 0)]
    assert asked.records[0]["at_last"]["nan"] == 4 * HIDDEN
    assert asked.records[0]["padding_rows_bad_in"] == ["model.layers.1"]


def test_padding_that_is_bad_beside_sound_text_is_said_and_harms_nobody(folders, tmp_path):
    asked = ask(load_folder(folders["late pad"], "float16"), tmp_path, PROMPTS[:4], padding_side="left")
    assert asked.verdict == "good"
    assert asked.of("verdict", "padding_rows_bad_in") == [("good", ["model.layers.2"])] * 3 + [("good", [])]


def test_padding_that_is_bad_does_not_take_the_blame_for_an_examples_own_fault(folders, tmp_path):
    asked = ask(load_folder(folders["pad"], "float16"), tmp_path, [FILLED, [PAD, 5]], padding_side="left")
    found = asked.of("verdict", "cause", "token_index", "token", "token_kind")[1]
    assert found == ("bad", "own", 0, "<pad>", "special")


def test_padding_that_is_bad_first_is_not_the_place_of_a_fault_that_is_there_without_it(folders, tmp_path):
    """Padding is made infinite in layer 0, and spreads; but <bos> overflows in layer 1 by itself."""
    loaded = load_folder(folders["bos"], "float16")
    model, ids = loaded.model.model, []

    def spoil(module, args, output):
        return torch.where(ids[-1][..., None] == PAD, INF, output)

    with (
        model.embed_tokens.register_forward_pre_hook(lambda module, args: ids.append(args[0])),
        model.layers[0].register_forward_hook(spoil),
    ):
        asked = ask(loaded, tmp_path, [FILLED, "w3"], padding_side="left")
    assert asked.of("cause", "token", "token_kind") == [("own", "<bos>", "special")] * 2
    assert asked.of("padding_rows_bad_in") == [([],), (["model.layers.0"],)]


def test_a_fault_of_the_batch_is_told_from_the_examples_own(folders, tmp_path):
    loaded = load_folder(folders["odd"], trust_remote_code=True)
    asked = ask(loaded, tmp_path, ["w3 w4", f"w{POISON}", "w5 w6 w7", "w8", "w9"], batch_size=3)
    assert asked.of("verdict", "alone", "cause") == [
        ("bad", "good", "composition"),
        ("good", "not_run", None),
        ("bad", "good", "composition"),
        ("good", "not_run", None),
        ("good", "not_run", None),
    ]
    assert asked.records[0]["reason"].endswith("only in its batch: alone, with the same padding, it is good")


def test_an_example_whose_batch_is_itself_is_not_run_again(folders, tmp_path):
    asked = ask(load_folder(folders["rare"], "float16"), tmp_path, PROMPTS[:2], batch_size=1)
    assert asked.of("verdict", "alone", "cause")[1] == ("bad", "bad", "own")


# --- sound models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_sound_model_of_each_family_is_good_for_every_prompt(checkpoints, tmp_path, family, dtype):
    prompts = [[5, 6, 7, 8], [9], [10, 11], [12, 13, 14]]
    asked = ask(load_folder(checkpoints[family], dtype), tmp_path, prompts, batch_size=3)
    assert asked.of("verdict", "padding_rows_bad_in") == [("good", [])] * 4
    assert asked.of("token_ids") == [(row,) for row in prompts]
    assert all(0 < record["absmax"] < INF for record in asked.records)


@pytest.mark.parametrize(
    ("family", "name", "fault"),
    [
        ("bert", "bert.encoder.layer.1", ("bert.encoder.layer.1", 1)),
        ("gpt2", "transformer.h.2", ("transformer.h.2", 2)),
        ("t5", "encoder.block.1", ("encoder.block.1", 1)),
        ("t5", "decoder.block.0", ("decoder.block.0", 3)),
    ],
)
def test_the_layer_is_found_in_encoders_decoders_and_both(checkpoints, tmp_path, family, name, fault):
    loaded = load_folder(checkpoints[family])

    def spoil(module, args, output):
        whole = output if isinstance(output, tuple) else (output,)
        row = whole[0].clone()
        row[:, 2] = INF  # the third column
        return (row, *whole[1:]) if isinstance(output, tuple) else row

    with loaded.model.get_submodule(name).register_forward_hook(spoil):
        asked = ask(loaded, tmp_path, [[5, 6, 7, 8], [9, 10, 11]])
    token = 6 if "decoder" in name else 7  # a decoder's columns are one later, behind its start token
    own = {"token_index": 2, "token_id": token, "posinf": HIDDEN, "rows": 1}
    assert {key: asked.records[0][key] for key in own} == own
    assert (asked.records[0]["layer"], asked.records[0]["layer_index"]) == fault


# --- the token whose own row it is -------------------------------------------------------------------------------

EMBEDDINGS = {
    "gpt2": "transformer.wte",
    "llama": "model.embed_tokens",
    "bert": "bert.embeddings.word_embeddings",
    "t5": "encoder.embed_tokens",
}


@pytest.mark.parametrize("family", EMBEDDINGS)
def test_a_row_of_the_embedding_is_named_and_not_the_layer_that_attention_spread_it_in(checkpoints, tmp_path, family):
    module = EMBEDDINGS[family]
    loaded = load_folder(checkpoints[family])
    table = loaded.model.get_submodule(module)
    weight = table.weight.detach().clone()  # T5 has one for all of its words, and its output reads it too
    weight[RARE, 3] = NAN
    table.weight = nn.Parameter(weight)
    asked = ask(loaded, tmp_path, [[5, 6, 7, RARE, 9, 10], [11, 12], [13, RARE, 14]])
    assert asked.of("verdict", "layer", "layer_index", "module", "token_index", "token_id", "cause") == [
        ("bad", module, None, module, 3, RARE, "own"),
        ("good", None, None, None, None, None, None),
        ("bad", module, None, module, 1, RARE, "own"),
    ]
    assert asked.of("nan", "rows") == [(1, 1), (0, 0), (1, 1)]


def test_a_position_that_is_bad_is_named(checkpoints, tmp_path):
    loaded = load_folder(checkpoints["gpt2"])
    with torch.no_grad():
        loaded.model.transformer.wpe.weight[2] = NAN
    asked = ask(loaded, tmp_path, [[5, 6, 7, 8], [9, 10]], padding_side="right")
    assert asked.of("verdict", "layer", "token_index", "token_kind", "cause") == [
        ("bad", "transformer.wpe", 2, "text", "own"), ("bad", "transformer.wpe", 2, "padding", "padding"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "name", "index"),
    [
        ("llama", "model.layers.1.input_layernorm", 1),
        ("llama", "model.layers.1.self_attn.k_proj", 1),
        ("llama", "model.layers.0.mlp.up_proj", 0),
        ("bert", "bert.encoder.layer.1.attention.self.value", 1),
        ("bert", "bert.encoder.layer.2.intermediate", 2),
        ("t5", "decoder.block.1.layer.0.SelfAttention.q", 4),
    ],
)
def test_inside_a_layer_the_first_module_has_the_token(checkpoints, tmp_path, family, name, index):
    """Attention carries it to other tokens in the same layer; in BERT to the first one."""
    loaded = load_folder(checkpoints[family], attn="eager")

    def spoil(module, args, output):
        given = output.clone()
        given[:, 2] = NAN
        return given

    with loaded.model.get_submodule(name).register_forward_hook(spoil):
        asked = ask(loaded, tmp_path, [[5, 6, 7, 8]])
    token = 6 if family == "t5" else 7  # a decoder's columns are one later, behind its start token
    assert asked.of("verdict", "layer_index", "module", "token_index", "token_id") == [("bad", index, name, 2, token)]
    assert name.startswith(asked.records[0]["layer"] + ".")
    assert f"bad first in {name} at token 2" in asked.records[0]["reason"]


def test_what_a_layer_absorbs_is_not_where_it_goes_bad(checkpoints, tmp_path):
    """A mask of -inf inside the layer, at every token, comes before the fault."""
    loaded = load_folder(checkpoints["llama"])
    layer = loaded.model.model.layers[1]

    class Masked(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.mask = inner, Mask()

        def forward(self, hidden):
            return self.inner(hidden) + torch.exp(self.mask(hidden)).mean()

    class Mask(nn.Module):
        def forward(self, hidden):
            return torch.full_like(hidden, -INF)

    layer.mlp = Masked(layer.mlp)

    def spoil(module, args, output):
        given = output.clone()
        given[:, 2] = NAN
        return given

    with layer.mlp.inner.down_proj.register_forward_hook(spoil):
        asked = ask(loaded, tmp_path, [[5, 6, 7, 8]])
    assert asked.of("module", "token_index") == [("model.layers.1.mlp.inner.down_proj", 2)]


# --- layers ------------------------------------------------------------------------------------------------------


def chosen(loaded, *numbers):
    from repro.probes.prompts.batches import Tokens

    return chosen_layers(loaded, Tokens(loaded, None, None, None), list(numbers) or None)


def test_layers_are_counted_from_either_end_and_kept_in_order(checkpoints):
    loaded = load_folder(checkpoints["llama"])
    assert chosen(loaded) == [f"model.layers.{number}" for number in range(LAYERS)]
    assert chosen(loaded, -1, 0, 0, -3) == ["model.layers.0", "model.layers.2"]


@pytest.mark.parametrize("number", [LAYERS, -LAYERS - 1])
def test_a_layer_that_is_not_there_is_refused(checkpoints, number):
    with pytest.raises(Exception, match=f"there is no layer {number}: the model has 3, 0 to 2"):
        chosen(load_folder(checkpoints["llama"]), number)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("ViTModel", "takes pixel_values;"), ("CLIPModel", "takes input_ids and pixel_values;")],
)
def test_a_model_of_pictures_is_not_given_prompts(tmp_path, name, wanted):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    words, picture = {**sizes, "vocab_size": 50}, {**sizes, "image_size": 16, "patch_size": 8}
    clip = transformers.CLIPConfig(text_config=words, vision_config=picture)
    config = clip if name == "CLIPModel" else transformers.ViTConfig(**picture)
    getattr(transformers, name)(config).save_pretrained(tmp_path)
    with pytest.raises(CannotLoad, match=wanted):
        ask(load_folder(tmp_path), tmp_path, [[5, 6]])


def test_a_model_without_repeated_layers_is_refused():
    class Flat(Small):
        def forward(self, input_ids):
            return input_ids[..., None] * torch.ones(3)

    with pytest.raises(Exception, match="Flat has no repeated layers"):
        chosen(as_loaded(Flat()))


# --- what has no answer ------------------------------------------------------------------------------------------


def test_a_text_without_a_token_or_an_unknown_id_is_skipped_and_the_rest_are_run(checkpoints, tmp_path):
    asked = ask(load_folder(checkpoints["llama"]), tmp_path, [[5, 6], [500], [], [7]], batch_size=4)
    assert asked.of("index", "verdict", "row") == [(0, "good", 0), (1, "skip", None), (2, "skip", None), (3, "good", 1)]
    assert asked.records[1]["reason"] == "token id 500 is none of the model's 128"
    assert asked.records[2]["reason"] == "the tokenizer makes no token of it"


def test_a_prompt_whose_pass_raises_gets_its_reason_and_the_others_of_its_batch_their_answers(folders, tmp_path):
    loaded = load_folder(folders["odd"], trust_remote_code=True)
    asked = ask(loaded, tmp_path, ["w3", f"w{RAISE}", "w5", "w6"], batch_size=3)
    why = "the forward pass raised IndexError: no such token here"
    assert asked.of("verdict", "row") == [("good", 0), ("skip", None), ("good", 1), ("good", 0)]
    assert asked.records[1]["reason"] == why
    assert asked.trials[-1] == ("batch 1", True)


def test_what_only_shows_in_a_batch_still_does_without_the_prompt_that_raises(folders, tmp_path):
    loaded = load_folder(folders["odd"], trust_remote_code=True)
    asked = ask(loaded, tmp_path, ["w3", f"w{RAISE}", f"w{POISON}"], batch_size=3)
    assert asked.of("verdict") == [("bad",), ("skip",), ("good",)]


def test_a_prompt_that_is_longer_than_the_model_takes_says_by_how_much(checkpoints, tmp_path):
    asked = ask(load_folder(checkpoints["gpt2"]), tmp_path, [[5] * 3, [6] * 65, [7] * 64], batch_size=3)
    assert asked.of("verdict") == [("good",), ("skip",), ("good",)]
    assert asked.records[1]["reason"].startswith("65 tokens, and the model takes 64")


def test_positions_that_are_computed_have_no_end(checkpoints, tmp_path):
    asked = ask(load_folder(checkpoints["llama"]), tmp_path, [[5] * 3, [6] * 65], batch_size=2)
    assert asked.of("verdict") == [("good",), ("good",)]


def test_a_text_that_the_tokenizer_refuses_gets_its_reason_alone(folders, tmp_path):
    asked = ask(load_folder(folders["sound"]), tmp_path, ["w3", "\ud800", "w5"], batch_size=3)
    assert asked.of("verdict") == [("good",), ("skip",), ("good",)]
    assert asked.records[1]["reason"].startswith("the tokenizer raised ")


def test_a_file_of_which_nothing_could_be_run_is_no_good(checkpoints, tmp_path):
    asked = ask(load_folder(checkpoints["llama"]), tmp_path, [[500], [501]])
    assert (asked.verdict, asked.reason) == ("skip", "0 of 2 are good")


def test_every_record_has_the_same_fields(folders, tmp_path):
    loaded = load_folder(folders["rare"], "float16")
    asked = ask(loaded, tmp_path, [*PROMPTS, [500]], known={"batch 0": None}, batch_size=3)
    assert {record["verdict"] for record in asked.records} == {"good", "bad", "skip"}
    assert len({tuple(sorted(record)) for record in asked.records}) == 1


# --- going on ----------------------------------------------------------------------------------------------------


def test_a_batch_is_announced_before_it_is_run_and_answered_behind_its_examples(folders, tmp_path):
    asked = ask(load_folder(folders["rare"], "float16"), tmp_path, PROMPTS[:4], batch_size=2)
    kinds = [event["event"] for event in asked.events if event["event"] != "progress"]
    assert kinds == ["trial", "example", "example", "trial"] * 2 + ["trial", "trial"]
    assert asked.searches == [("search 1", None), ("search 1", True)]
    assert asked.trials == [("batch 0", None), ("batch 0", False), ("batch 1", None), ("batch 1", True)]


def before(folders, tmp_path, prompts, **options):
    """The records of a whole run."""
    return ask(load_folder(folders["rare"], "float16"), tmp_path, prompts, **options).records


def test_batches_of_an_earlier_process_are_left_out_and_counted(folders, tmp_path):
    records = before(folders, tmp_path, PROMPTS, batch_size=2)
    known = {"batch 0": False, "batch 1": True}
    loaded = load_folder(folders["rare"], "float16")
    asked = ask(loaded, tmp_path, PROMPTS, known=known, answers=records[:4], batch_size=2)
    assert asked.of("index", "batch") == [(4, 2)]
    assert (asked.verdict, asked.reason) == ("bad", "2 of 5 examples are bad")
    assert asked.payload["searched"]["asked"] == 2  # one of them is the earlier process's


def test_a_fault_of_an_earlier_process_is_not_forgotten(folders, tmp_path):
    prompts = (*PROMPTS[:4], "w3")
    records = before(folders, tmp_path, prompts, batch_size=2)
    known = {"batch 0": False, "batch 1": True}
    loaded = load_folder(folders["rare"], "float16")
    asked = ask(loaded, tmp_path, prompts, known=known, answers=records[:4], batch_size=2)
    assert asked.of("index", "verdict") == [(4, "good")]
    assert (asked.verdict, asked.reason) == ("bad", "1 of 5 examples are bad")


def test_a_batch_of_which_an_answer_is_missing_is_asked_again(folders, tmp_path):
    records = before(folders, tmp_path, PROMPTS, batch_size=2)
    known = {"batch 0": False, "batch 1": True}
    loaded = load_folder(folders["rare"], "float16")
    asked = ask(loaded, tmp_path, PROMPTS, known=known, answers=[records[0], *records[2:4]], batch_size=2)
    assert asked.of("index") == [(0,), (1,), (4,)]
    assert asked.reason == "2 of 5 examples are bad"


def test_of_a_batch_that_was_asked_twice_the_later_answers_count(folders, tmp_path):
    records = before(folders, tmp_path, PROMPTS, batch_size=2)
    earlier = [{**records[0], "verdict": "skip"}, *records[:2], *records[2:4]]
    loaded, known = load_folder(folders["rare"], "float16"), {"batch 0": False, "batch 1": True}
    asked = ask(loaded, tmp_path, PROMPTS, known=known, answers=earlier, batch_size=2)
    assert (asked.payload["good"], asked.payload["bad"], asked.payload["skip"]) == (3, 2, 0)


def test_the_examples_of_a_batch_that_killed_its_process_are_skipped(folders, tmp_path):
    loaded = load_folder(folders["sound"])
    records = ask(loaded, tmp_path, PROMPTS, batch_size=2).records
    known = {"batch 0": True, "batch 1": None}
    asked = ask(loaded, tmp_path, PROMPTS, known=known, answers=records[:2], batch_size=2)
    assert asked.of("index", "verdict", "reason") == [
        (2, "skip", "the process died in this batch"),
        (3, "skip", "the process died in this batch"),
        (4, "good", "finite in every layer that was looked at"),
    ]
    assert asked.reason == "3 of 5 are good"


def test_a_search_in_which_the_process_died_is_not_begun_again(folders, tmp_path):
    loaded = load_folder(folders["rare"], "float16")
    asked = ask(loaded, tmp_path, PROMPTS, known={"search 1": None}, batch_size=3)
    assert [name for name, _ in asked.searches] == ["search 4", "search 4"]
    found = asked.payload["searched"]
    assert (found["asked"], found["answered"], found["agreed"]) == (2, 1, 1)
    assert found["samples"][0]["reason"] == "the process died in this search"


def test_progress_counts_examples_to_the_end(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr("repro.probes.protocol.wire.PROGRESS_SECONDS", 0.0)
    asked = ask(load_folder(checkpoints["llama"]), tmp_path, [[5], [6], [7], [8], [9]], batch_size=2)
    progress = [(event["done"], event["total"]) for event in asked.events if event["event"] == "progress"]
    assert progress == [(2, 5), (4, 5), (5, 5)]


# --- vectors -----------------------------------------------------------------------------------------------------


def pairs(*texts):
    return [(number // 2, ("positive", "negative")[number % 2], text) for number, text in enumerate(texts)]


def test_vectors_come_from_the_sound_pairs_only(folders, tmp_path):
    loaded = load_folder(folders["rare"], "float16")
    texts = ("w3", "w4", f"w5 w{RARE}", "w6", "w7", "w8")
    path = str(tmp_path / "v.safetensors")
    asked = ask(loaded, tmp_path, pairs(*texts), batch_size=5, vectors=path)
    assert asked.payload["vectors"] == {"path": path, "used": 2, "lost": 1, "lost_pairs": [1]}
    whole = ask(loaded, tmp_path, pairs("w3", "w4", "w7", "w8"), vectors=str(tmp_path / "w.safetensors"))
    assert whole.payload["vectors"]["used"] == 2
    assert_same_vectors(path, str(tmp_path / "w.safetensors"))


def assert_same_vectors(one, other):
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    assert set(first) == set(second)
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-2, atol=1e-2)


def test_vectors_of_a_run_that_goes_on_are_of_all_its_pairs(folders, tmp_path):
    loaded = load_folder(folders["sound"])
    known = {"batch 0": True}
    path = str(tmp_path / "v.safetensors")
    asked = ask(loaded, tmp_path, pairs("w3", "w4", "w5", "w6"), known=known, batch_size=2, vectors=path)
    assert asked.payload["vectors"]["used"] == 2


def test_both_sides_of_a_pair_in_a_batch_that_died_are_one_lost_pair(folders, tmp_path):
    loaded = load_folder(folders["sound"])
    path = str(tmp_path / "v.safetensors")
    known = {"batch 0": None}
    asked = ask(loaded, tmp_path, pairs("w3", "w4", "w5", "w6"), known=known, batch_size=2, vectors=path)
    assert asked.payload["vectors"] == {"path": path, "used": 1, "lost": 1, "lost_pairs": [0]}


def test_a_model_with_another_kind_of_layer_list_still_gives_its_layers():
    """A list whose items are not run is no layer."""

    class Model(Small):
        def __init__(self):
            super().__init__()
            self.unused = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
            self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

        def forward(self, input_ids):
            x = input_ids[..., None] * torch.ones(3)
            for layer in self.layers:
                x = layer(x)
            return x

    assert chosen(as_loaded(Model())) == ["layers.0", "layers.1"]
