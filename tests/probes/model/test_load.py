"""What the load step finds when memory and file do not agree."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from corpus import families, files
from support.handmade import NAN, bytes_of, case_of, load_folder, state_of
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from repro.probes.checkpoint.resolve import Source, resolve
from repro.probes.model.compat import CannotLoad
from repro.probes.model.load import Loaded, file_tensors, load, pick_device
from repro.probes.model.loadcheck import check, poisoned_memory
from repro.probes.model.settings import settings_of

NAME = "transformer.h.1.mlp.c_fc.bias"


@pytest.fixture
def folder(tmp_path, checkpoints):
    """A copy of the GPT-2 folder, to be changed."""
    shutil.copytree(checkpoints["gpt2"], tmp_path / "model")
    return tmp_path / "model"


def checked(folder, dtype=None, **more):
    case = case_of(folder, dtype, **more)
    return check(load(case, resolve(case)))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_sound_folder_is_good(checkpoints, family, dtype):
    verdict, reason, payload = checked(checkpoints[family], dtype)
    assert verdict == "good", reason
    assert payload["dtype"] == dtype
    assert (payload["values"]["differ"], payload["unset_buffers"], payload["meta"]) == ([], [], [])


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_tensor_of_the_file_is_compared(checkpoints, family):
    payload = checked(checkpoints[family])[2]
    assert payload["values"]["compared"] == len(files.read(checkpoints[family] / files.WEIGHTS))
    assert payload["values"]["not_compared"] == 0


def test_the_parameters_are_counted(checkpoints):
    wanted = sum(tensor.numel() for tensor in files.read(checkpoints["gpt2"] / files.WEIGHTS).values())
    assert checked(checkpoints["gpt2"])[2]["parameters"] == wanted


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "t5"])
def test_the_settings_stand_under_the_names_that_all_architectures_share(checkpoints, family):
    config = checked(checkpoints[family])[2]["config"]
    wanted = (families.HIDDEN, families.LAYERS, families.HEADS)
    assert (config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]) == wanted


def test_the_settings_have_no_path_and_no_secret(folder):
    path = folder / "config.json"
    written = json.loads(path.read_text())
    more = {"token": "t0p", "api_key": "t0p", "notes": {"hub_token": "t0p", "cache_dir": "t0p"}, "own": str(folder)}
    path.write_text(json.dumps({**written, **more, "threshold": 0.5}))
    config = checked(folder)[2]["config"]
    assert config["threshold"] == 0.5
    assert config["bos_token_id"] == families.BOS
    said = json.dumps(config)
    assert "t0p" not in said
    assert str(folder) not in said


def test_the_settings_are_json():
    config = settings_of(SimpleNamespace(to_dict=lambda: {"a": float("inf"), "b": object(), "c": (1, 2), 4: None}))
    assert json.dumps(config, allow_nan=False) == '{"a": "inf", "c": [1, 2], "4": null}'


def test_a_file_that_is_changed_after_loading(folder):
    case = case_of(folder)
    loaded = load(case, resolve(case))
    value = files.read(folder / files.WEIGHTS)[NAME].clone()
    value[3] += 1
    kept = {key: tensor.clone() for key, tensor in loaded.model.state_dict().items()}
    for key, tensor in loaded.model.named_parameters():
        tensor.data = kept[key]  # in memory of its own: the file is mapped
    files.change(folder, replace={NAME: value})
    verdict, reason, payload = check(loaded)
    assert (verdict, payload["values"]["differ"]) == ("bad", [NAME])
    assert NAME in reason
    assert NAME not in loaded.from_file


def test_a_value_that_is_changed_in_memory(folder):
    case = case_of(folder, "float16")
    loaded = load(case, resolve(case))
    with torch.no_grad():
        dict(loaded.model.named_parameters())[NAME][0] += 1
    assert check(loaded)[2]["values"]["differ"] == [NAME]


def test_nan_in_the_file_is_equal_to_nan_in_memory(folder):
    files.change(folder, replace={NAME: torch.full((families.INNER,), NAN)})
    verdict, _, payload = checked(folder)
    assert (verdict, payload["values"]["differ"]) == ("good", [])


def test_a_key_that_is_missing(folder):
    files.change(folder, drop=(NAME,))
    verdict, reason, payload = checked(folder)
    assert (verdict, payload["missing_keys"]) == ("bad", [NAME])
    assert "initialised at random" in reason


def test_a_key_that_is_not_expected_is_a_note(folder):
    tensors = {**files.read(folder / files.WEIGHTS), "transformer.extra": torch.ones(2)}
    files.write(folder / files.WEIGHTS, tensors)
    verdict, _, payload = checked(folder)
    assert (verdict, payload["unexpected_keys"]) == ("good", ["transformer.extra"])
    assert payload["findings"][0]["severity"] == "note"


def test_a_shape_that_does_not_fit(folder):
    files.change(folder, replace={NAME: torch.zeros(families.INNER + 1)})
    verdict, _, payload = checked(folder)
    assert verdict == "bad"
    assert payload["mismatched"] == [{"tensor": NAME, "file": [families.INNER + 1], "model": [families.INNER]}]


def test_two_loads_of_a_file_with_a_missing_key_are_alike(folder):
    files.change(folder, drop=("transformer.wte.weight",))
    one, two = (load_folder(folder) for _ in range(2))
    assert bytes_of(one.model.transformer.wte.weight) == bytes_of(two.model.transformer.wte.weight)


# --- alignment ---------------------------------------------------------------------------------------------------


def test_a_misaligned_file_is_a_note(folder):
    files.misalign(folder)
    verdict, reason, payload = checked(folder, "float32")
    assert verdict == "good"
    assert payload["misaligned"] == len(files.read(folder / files.WEIGHTS))
    assert {example["address_mod"] for example in payload["misaligned_examples"]} == {2}
    assert "not aligned" in reason


def test_the_misaligned_are_those_whose_address_is_odd(folder):
    files.misalign(folder)
    loaded = load_folder(folder, "float32")
    assert loaded.misaligned == sum(p.data_ptr() % 4 != 0 for p in loaded.model.parameters())


def test_a_misaligned_file_that_is_cast_is_aligned(folder):
    files.misalign(folder)
    assert checked(folder, "float16")[2]["misaligned"] == 0


# --- tied weights ------------------------------------------------------------------------------------------------


def test_a_tied_head_is_named(tmp_path):
    families.build("gpt2", tied=True).save_pretrained(tmp_path)
    verdict, _, payload = checked(tmp_path)
    assert verdict == "good"
    assert [sorted(group) for group in payload["tied"]] == [["lm_head.weight", "transformer.wte.weight"]]


def test_an_untied_head_is_not(checkpoints):
    assert checked(checkpoints["gpt2"])[2]["tied"] == []


def test_a_head_that_should_be_tied_and_has_other_values(tmp_path):
    families.build("gpt2", tied=True).save_pretrained(tmp_path)
    case = case_of(tmp_path)
    loaded = load(case, resolve(case))
    loaded.model.lm_head.weight = nn.Parameter(loaded.model.lm_head.weight.detach() + 1)
    verdict, reason, _ = check(loaded)
    assert verdict == "bad"
    assert "declared tied" in reason


# --- buffers -----------------------------------------------------------------------------------------------------


class WithBuffer(GPT2LMHeadModel):
    """One more buffer that no file covers: set in the constructor, or not."""

    kind = "set"

    def __init__(self, config):
        super().__init__(config)
        made = {"set": torch.arange(5.0), "unset": torch.empty(5), "drawn": torch.rand(5)}[self.kind]
        self.register_buffer("extra", made, persistent=False)

    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self and self.kind == "set":
            with torch.no_grad():
                self.extra.copy_(torch.arange(5.0))


class WithUnsetBuffer(WithBuffer):
    kind = "unset"


def with_buffer(model_class, folder):
    model, info = model_class.from_pretrained(folder, output_loading_info=True)
    info = {key: list(value) for key, value in info.items() if isinstance(value, (list, set))}
    source = Source("folder", str(folder))
    return Loaded(model.eval(), model_class.__name__, source, torch.float32, torch.device("cpu"), "sdpa", info)


def test_a_buffer_that_the_constructor_sets(checkpoints):
    verdict, _, payload = check(with_buffer(WithBuffer, checkpoints["gpt2"]))
    assert (verdict, payload["unset_buffers"]) == ("good", [])
    assert payload["buffers_checked"] >= 1


def test_a_buffer_that_nobody_sets(checkpoints):
    loaded = with_buffer(WithUnsetBuffer, checkpoints["gpt2"])
    verdict, reason, payload = check(loaded)
    assert (verdict, payload["unset_buffers"]) == ("bad", ["extra"])
    assert loaded.unset_buffers == ("extra",)
    assert "unset memory" in reason


def test_the_check_leaves_the_model_as_it_was(checkpoints):
    case = case_of(checkpoints["llama"], "float16")
    loaded = load(case, resolve(case))
    before, random = state_of(loaded.model), torch.random.get_rng_state()
    check(loaded)
    assert state_of(loaded.model) == before
    assert torch.equal(torch.random.get_rng_state(), random)


def test_poisoned_memory_is_not_a_number():
    with poisoned_memory() as possible:
        assert possible
        assert bool(torch.isnan(torch.empty(7)).all())
        assert torch.empty(3, dtype=torch.int64).tolist() == [2**63 - 1] * 3


@pytest.mark.parametrize("mode", [(False, False), (True, True)])
def test_poison_leaves_the_process_as_it_was(mode):
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        with pytest.raises(KeyError), poisoned_memory():
            raise KeyError
        assert torch.are_deterministic_algorithms_enabled() == mode[0]
        assert torch.is_deterministic_algorithms_warn_only_enabled() == mode[1]
        assert torch.utils.deterministic.fill_uninitialized_memory is False
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]


# --- refusals ----------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_there():
    missing = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(CannotLoad, match=rf"finds no {missing} device.*Available: .*cpu"):
        pick_device(missing)


def test_the_default_device_is_the_cpu():
    assert pick_device(None) == torch.device("cpu")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": "no_such_type"}', "{}"])
def test_a_configuration_that_cannot_be_read(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CannotLoad):
        load(case_of(tmp_path), Source("folder", str(tmp_path)))


def test_custom_code_is_not_run_without_leave(tmp_path):
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = {"model_type": "own", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CannotLoad, match="--trust-remote-code"):
        load(case_of(tmp_path), Source("folder", str(tmp_path)))
    assert not (tmp_path / "ran").exists()


# --- random weights ----------------------------------------------------------------------------------------------


def test_random_weights_are_the_same_for_the_same_seed(checkpoints):
    one, two, three = (load_folder(checkpoints["gpt2"], weights=f"random:{seed}").model for seed in (5, 5, 6))
    assert bytes_of(one.lm_head.weight) == bytes_of(two.lm_head.weight) != bytes_of(three.lm_head.weight)


def test_random_weights_are_rounded_from_the_same_draw(checkpoints):
    wide = load_folder(checkpoints["llama"], "float32", weights="random:0").model
    half = load_folder(checkpoints["llama"], "float16", weights="random:0").model
    for one, two in zip(wide.parameters(), half.parameters(), strict=True):
        assert bytes_of(one.half()) == bytes_of(two)


def test_random_weights_are_said_to_be_random(checkpoints):
    verdict, reason, payload = checked(checkpoints["gpt2"], weights="random:7")
    assert (verdict, payload["random_seed"]) == ("good", 7)
    assert "random weights of seed 7" in reason


def test_the_model_is_in_evaluation_mode(tmp_path):
    families.build("gpt2", attn_pdrop=0.5).save_pretrained(tmp_path)
    assert not load_folder(tmp_path).model.training


# --- files -------------------------------------------------------------------------------------------------------


def test_a_pickle_is_loaded(folder):
    wanted = files.read(folder / files.WEIGHTS)
    files.to_pickle(folder)
    found = {key: bytes_of(tensor) for _, key, tensor in file_tensors(str(folder))}
    assert found == {key: bytes_of(tensor) for key, tensor in wanted.items()}
    assert checked(folder)[0] == "good"


def test_shards_are_loaded(folder):
    wanted = set(files.read(folder / files.WEIGHTS))
    files.shard(folder)
    assert {key for _, key, _ in file_tensors(str(folder))} == wanted
    assert checked(folder)[2]["values"]["compared"] == len(wanted)


def test_names_without_the_base_prefix_are_matched(tmp_path):
    model = families.build("gpt2")
    (tmp_path / "config.json").write_text(json.dumps({**model.config.to_dict(), "architectures": ["GPT2LMHeadModel"]}))
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in model.state_dict().items()}
    files.write(tmp_path / files.WEIGHTS, tensors)
    _, _, payload = checked(tmp_path)
    assert payload["values"]["compared"] == len(tensors)
    assert isinstance(model.config, GPT2Config)
