"""The model in another dtype is, bit by bit, what from_pretrained loads in that dtype; and everything comes back."""

import shutil

import pytest
import torch
import transformers
from corpus import families, files
from support.handmade import bytes_of, load_folder, state_of

from repro.probes.model.forward import main_output, run
from repro.probes.model.inputs import seeded
from repro.probes.model.precision import in_dtype, widened

BOTH_WAYS = [("float16", "float32"), ("float32", "float16")]
CASES = [
    *((family, *way) for family in families.FAMILIES for way in BOTH_WAYS),
    ("gemma3", "bfloat16", "float32"),
    ("gemma3", "float16", "bfloat16"),
    ("gemma3", "float32", "float64"),
    ("t5", "float32", "bfloat16"),
]
"""Gemma 3 has rotary buffers and a scale; T5 keeps a part of itself in float32."""


def fresh(folder, family, dtype):
    """What the library itself loads, by its own class."""
    model_class = type(families.build(family))
    if tuple(map(int, transformers.__version__.split(".")[:2])) >= (4, 56):
        return model_class.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    return model_class.from_pretrained(folder, torch_dtype=getattr(torch, dtype)).eval()


def contents(model):
    return {name: (dtype, content) for name, (_, dtype, content) in state_of(model).items()}


@pytest.mark.parametrize(("family", "loaded_in", "wanted"), CASES)
def test_as_a_fresh_load(checkpoints, family, loaded_in, wanted):
    loaded = load_folder(checkpoints[family], loaded_in)
    expected = fresh(checkpoints[family], family, wanted)
    with in_dtype(loaded, getattr(torch, wanted)) as rounded:
        assert contents(loaded.model) == contents(expected)
        inputs = seeded(loaded, 0)
        found, plain = main_output(run(loaded.model, inputs))[1], main_output(run(expected, inputs))[1]
        assert (found.dtype, bytes_of(found)) == (plain.dtype, bytes_of(plain))
    assert rounded == 0


@pytest.mark.parametrize("family", families.FAMILIES)
def test_everything_is_put_back(checkpoints, family):
    loaded = load_folder(checkpoints[family], "float16")
    before, config = state_of(loaded.model), loaded.config.to_dict()
    with in_dtype(loaded, torch.float32):
        assert state_of(loaded.model) != before
    with widened(loaded.model, torch.float32):
        assert state_of(loaded.model) != before
    assert state_of(loaded.model) == before
    assert loaded.config.to_dict() == config


@pytest.mark.parametrize("change", ["in_dtype", "widened"])
def test_everything_is_put_back_when_the_body_raises(checkpoints, change):
    loaded = load_folder(checkpoints["gemma3"], "bfloat16")
    before, config = state_of(loaded.model), loaded.config.to_dict()
    context = in_dtype(loaded, torch.float32) if change == "in_dtype" else widened(loaded.model, torch.float32)
    with pytest.raises(KeyError), context:
        raise KeyError
    assert state_of(loaded.model) == before
    assert loaded.config.to_dict() == config


def test_the_default_dtype_is_as_before(checkpoints):
    loaded = load_folder(checkpoints["gemma3"], "float32")
    random = torch.random.get_rng_state()
    with in_dtype(loaded, torch.float16):
        assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.random.get_rng_state(), random)


def test_the_files_are_not_written_to(checkpoints):
    path = checkpoints["llama"] / files.WEIGHTS
    before = path.read_bytes()
    loaded = load_folder(checkpoints["llama"], "float32")
    with in_dtype(loaded, torch.float16):
        for parameter in loaded.model.parameters():
            parameter.data.zero_()
    assert path.read_bytes() == before


def test_a_tied_head_stays_tied(tmp_path):
    families.build("gpt2", tied=True).save_pretrained(tmp_path)
    loaded = load_folder(tmp_path, "float16")
    with in_dtype(loaded, torch.float32):
        head, table = loaded.model.lm_head.weight, loaded.model.transformer.wte.weight
        assert head is table
        assert head.dtype == torch.float32


def test_a_file_in_float16_keeps_its_own_digits(tmp_path):
    families.build("llama").half().save_pretrained(tmp_path)
    stored = files.read(tmp_path / files.WEIGHTS)
    loaded = load_folder(tmp_path, "float32")
    with in_dtype(loaded, torch.float16):
        name, parameter = next(iter(loaded.model.named_parameters()))
        assert bytes_of(parameter) == bytes_of(stored[name])


def test_digits_that_no_file_has_are_counted_as_lost(tmp_path, checkpoints):
    shutil.copytree(checkpoints["gpt2"], tmp_path, dirs_exist_ok=True)
    files.change(tmp_path, drop=("transformer.h.0.mlp.c_fc.bias",))
    loaded = load_folder(tmp_path, "float16")
    with in_dtype(loaded, torch.float32) as rounded:
        assert rounded == 1


def test_widening_keeps_the_loaded_numbers(checkpoints):
    loaded = load_folder(checkpoints["gemma3"], "float16")
    before = {name: tensor.double() for name, tensor in loaded.model.named_parameters()}
    with widened(loaded.model, torch.float32):
        assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
        assert all(torch.equal(p.double(), before[name]) for name, p in loaded.model.named_parameters())


def test_a_random_model_goes_to_another_dtype_and_back(checkpoints):
    loaded = load_folder(checkpoints["gpt2"], "float32", weights="random:3")
    assert loaded.source.kind == "random"
    before = state_of(loaded.model)
    with in_dtype(loaded, torch.float16) as rounded:
        assert rounded == 0
        assert {p.dtype for p in loaded.model.parameters()} == {torch.float16}
    assert state_of(loaded.model) == before
