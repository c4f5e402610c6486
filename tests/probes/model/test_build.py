"""From a configuration to a model: arguments, classes, and constructors without memory."""

from types import SimpleNamespace

import pytest
import torch
from corpus import families
from support.handmade import bytes_of
from torch import nn

from repro.probes.model.compat import (
    CannotLoad,
    attn_argument,
    config_parts,
    default_dtype,
    dtype_argument,
    kept_in_float32,
    model_class,
    quiet,
    skeleton,
)


def test_no_dtype_is_no_argument():
    assert (dtype_argument(None), attn_argument(None)) == ({}, {})


def test_the_dtype_argument_is_one_that_the_library_takes(checkpoints):
    model = families.build("gpt2")
    loaded = type(model).from_pretrained(checkpoints["gpt2"], **dtype_argument(torch.float16))
    assert {p.dtype for p in loaded.parameters()} == {torch.float16}


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_the_attention_argument_is_one_that_the_library_takes(checkpoints, attn):
    loaded = type(families.build("gpt2")).from_pretrained(checkpoints["gpt2"], **attn_argument(attn))
    assert loaded.config._attn_implementation == attn


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_class_that_the_checkpoint_names(family):
    model = families.build(family)
    model.config.architectures = [type(model).__name__]
    assert model_class(model.config, False) is type(model)


@pytest.mark.parametrize(("family", "wanted"), [("gpt2", "CausalLM"), ("t5", "Seq2SeqLM"), ("bert", "CausalLM")])
def test_without_a_name_the_widest_class_that_knows_the_configuration(family, wanted):
    config = families.build(family).config
    config.architectures = None
    assert wanted in model_class(config, False).__name__


def test_a_configuration_that_no_class_knows():
    with pytest.raises(CannotLoad, match="has no class for SimpleNamespace"):
        model_class(SimpleNamespace(architectures=["NoSuchModel"]), False)


def test_code_of_its_own_needs_leave():
    with pytest.raises(CannotLoad, match="--trust-remote-code"):
        model_class(SimpleNamespace(architectures=["X"], auto_map={"AutoModel": "x.X"}), False)


class Keeps(nn.Module):
    _keep_in_fp32_modules = ("wo",)
    _keep_in_fp32_modules_strict = ("gate",)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float16, {"layers.0.wo.weight", "wo", "gate.bias"}),
        (torch.bfloat16, {"gate.bias"}),
        (torch.float32, set()),
    ],
)
def test_what_is_kept_in_float32(dtype, kept):
    pattern = kept_in_float32(Keeps(), dtype)
    names = ["layers.0.wo.weight", "wo", "gate.bias", "two.weight", "wo_norm.weight", "gates"]
    assert {name for name in names if pattern is not None and pattern.search(name)} == kept


def test_the_parts_of_a_configuration():
    inner = families.gpt2_config()
    config = SimpleNamespace(text_config=inner, other=3)
    assert config_parts(config) == [config, inner]


def test_the_default_dtype_is_put_back():
    with default_dtype(torch.float16):
        assert torch.ones(1).dtype == torch.float16
    with pytest.raises(KeyError), default_dtype(torch.float16):
        raise KeyError
    assert torch.get_default_dtype() == torch.float32


def test_quiet_puts_the_verbosity_back():
    from transformers.utils import logging

    before = logging.get_verbosity()
    with quiet():
        assert logging.get_verbosity() == logging.ERROR
    with pytest.raises(KeyError), quiet():
        raise KeyError
    assert logging.get_verbosity() == before


def test_quiet_puts_the_progress_bars_back_as_they_were():
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with quiet():
            pass
        assert not logging.is_progress_bar_enabled()
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


def shapes(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_skeleton_has_the_buffers_and_no_parameters(family):
    model = families.build(family)
    made = skeleton(model, torch.float32, None)
    assert {p.is_meta for p in made.parameters()} == {True}
    assert shapes(made) == shapes(model)
    assert {n: bytes_of(b) for n, b in made.named_buffers()} == {n: bytes_of(b) for n, b in model.named_buffers()}


def process_state():
    return (
        dict(vars(nn.init)),
        nn.Module.register_parameter,
        torch.get_default_dtype(),
        torch.random.get_rng_state().tolist(),
    )


def test_a_skeleton_leaves_the_process_as_it_was():
    model = families.build("gpt2")
    before, config = process_state(), model.config.to_dict()
    skeleton(model, torch.float16, None)
    assert process_state() == before
    assert model.config.to_dict() == config
    assert not nn.Linear(2, 2).weight.is_meta


def test_a_constructor_that_raises_leaves_the_process_as_it_was():
    class Fails(type(families.build("gpt2"))):
        def __init__(self, config):
            super().__init__(config)
            if getattr(config, "fails", False):
                raise ValueError("no")

    model = Fails(families.gpt2_config())
    model.config.fails = True
    before = process_state()
    with pytest.raises(ValueError, match="no"):
        skeleton(model, torch.float16, None)
    assert process_state() == before
