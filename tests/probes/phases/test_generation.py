"""Generations: prefill, a decoding step, a logits processor; which step and token it is, and the sound twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.handmade import load_folder
from torch import Tensor, nn
from transformers import AutoTokenizer

from repro.probes.model.inputs import make_inputs
from repro.probes.model.load import Loaded
from repro.probes.phases.ablations import check
from repro.probes.phases.answer import Phase, bisect, generating, outcome

TOKENS = 6
CASE = {"generate": TOKENS}


@pytest.fixture
def loaded(checkpoints: dict[str, Path]) -> Loaded:
    return load_folder(checkpoints["llama"], "float32")


def generation(loaded: Loaded, **settings: Any) -> Phase:
    return generating(loaded, make_inputs(loaded, ["a b c"], False), TOKENS, **settings)


def origin_of(phase: Phase) -> dict[str, Any]:
    verdict, _, payload = bisect(phase, False)
    assert verdict == "bad"
    assert payload is not None
    origin: dict[str, Any] = payload["origin"]
    return origin


def inject(loaded: Loaded, at: int, factor: float = 3e38) -> int:
    """The feed-forward layer overflows in its call number ``at``. Returns the line of the fault."""
    module = loaded.model.get_submodule("model.layers.1.mlp")
    module.calls = 0

    def hook(module: Any, args: Any, output: Tensor) -> Tensor:
        module.calls += 1
        return output if module.calls - 1 != at else output.sign() * 10 * factor

    module.register_forward_hook(hook)
    return hook.__code__.co_firstlineno + 2


@pytest.mark.parametrize("settings", [{}, {"use_cache": False}, {"do_sample": True}])
@pytest.mark.parametrize("step", [0, 3])
def test_the_step_and_the_line_of_a_fault_are_named(loaded: Loaded, step: int, settings: dict[str, Any]) -> None:
    line = inject(loaded, step)
    phase = generation(loaded, **settings)
    assert phase.verdict == "bad"
    origin = origin_of(phase)
    assert (origin["phase"], origin["generate_step"]) == ("generate", step)
    assert origin["source"] == f"test_generation.py:{line}"
    assert (origin["module"], origin["mechanism"]) == ("model.layers.1", "overflow")


def test_the_token_that_the_model_was_given_in_the_step_is_named(loaded: Loaded) -> None:
    model: Any = loaded.model
    (made,) = make_inputs(loaded, ["a b c"], False)
    whole = model.generate(made.input_ids, attention_mask=made.attention_mask, max_new_tokens=2)[0].tolist()
    inject(loaded, 2)
    origin = origin_of(generation(loaded))
    assert origin["token_index"] == made.length + 1
    text = AutoTokenizer.from_pretrained(loaded.source.folder).convert_ids_to_tokens(whole[origin["token_index"]])
    assert origin["token"] == text


def test_no_token_is_named_where_a_pass_is_given_all_of_them(loaded: Loaded) -> None:
    inject(loaded, 2)
    phase = generation(loaded, use_cache=False)
    origin = origin_of(phase)
    assert (origin["generate_step"], origin.get("token_index")) == (2, None)
    payload = outcome(phase)[2]
    assert payload is not None
    assert payload["cached"] is False


@pytest.mark.parametrize("settings", [{}, {"use_cache": False}, {"do_sample": True}])
def test_a_sound_generation_is_good(loaded: Loaded, settings: dict[str, Any]) -> None:
    inject(loaded, 3, factor=1e-3)
    phase = generation(loaded, **settings)
    verdict, _, payload = outcome(phase)
    assert verdict == "good"
    assert payload is not None
    assert payload["judged"] == 2 * TOKENS
    assert bisect(phase, False)[0] == "good"


def test_a_fault_of_a_logits_processor_is_outside_of_the_model(loaded: Loaded) -> None:
    config = loaded.model.generation_config
    config.do_sample, config.temperature = True, 1e-39
    phase = generation(loaded)
    assert phase.verdict == "bad"
    origin = origin_of(phase)
    assert (origin["phase"], origin["generate_step"], origin["module"]) == ("generate", 0, "")
    assert origin["source"].startswith("logits_process.py:")
    assert origin["op"] == "aten.div.Tensor"


def test_the_masks_of_a_processor_are_no_fault(loaded: Loaded) -> None:
    config = loaded.model.generation_config
    config.do_sample, config.top_k, config.temperature = True, 3, 0.7
    assert generation(loaded).verdict == "good"


def test_scores_of_which_no_token_is_left_are_a_fault(loaded: Loaded) -> None:
    assert generation(loaded, suppress_tokens=list(range(loaded.config.vocab_size))).verdict == "bad"
    assert generation(loaded, suppress_tokens=list(range(1, loaded.config.vocab_size))).verdict == "good"


def test_ablations_of_a_generation(loaded: Loaded) -> None:
    config = loaded.model.generation_config
    config.do_sample, config.temperature = True, 1e-39
    phase = generation(loaded)
    inputs = make_inputs(loaded, ["a b c"], False)

    def ablation(name: str) -> str:
        return check(name, phase, loaded, inputs, CASE)[0]

    assert ablation("do_sample=false") == "good"
    assert ablation("use_cache=false") == "bad"
    assert check("do_sample=true", phase, loaded, inputs, CASE)[2]["same_as_case"]  # type: ignore[index]
    assert config.do_sample is True


def test_a_generation_leaves_the_process_and_the_model_as_they_were(loaded: Loaded) -> None:
    before = torch.get_rng_state(), dict(vars(loaded.model)), loaded.model.training
    inject(loaded, 1)
    bisect(generation(loaded, do_sample=True), False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert set(vars(loaded.model)) == set(before[1])
    assert loaded.model.training is before[2]


def test_a_model_that_does_not_generate_is_not_judged(checkpoints: dict[str, Path]) -> None:
    from repro.probes.model.compat import CannotLoad

    loaded = load_folder(checkpoints["bert"], "float32")
    with pytest.raises(CannotLoad, match="does not generate"):
        generation(loaded)


class Paced(nn.Module):
    """A norm whose result is divided by numbers of its own in each pass behind the prefill."""

    def __init__(self, norm: nn.Module, width: int) -> None:
        super().__init__()
        self.norm = norm
        self.register_buffer("pace", torch.linspace(0.5, 1.5, width))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(x)
        return found if x.shape[1] > 1 else found / self.pace


@pytest.mark.parametrize("bad", [True, False])
def test_a_number_of_the_model_that_decides_in_a_decoding_step_is_named(loaded: Loaded, bad: bool) -> None:
    paced = Paced(loaded.model.model.norm, 32)
    loaded.model.model.norm = paced
    if bad:
        paced.pace[5] = 0.0
    phase = generation(loaded)
    assert phase.verdict == ("bad" if bad else "good")
    if bad:
        origin = origin_of(phase)
        assert (origin["generate_step"], origin["module"]) == (1, "model.norm")
        held = origin["held"]
        assert (held["tensor"], held["index"], held["instead"]) == ("model.norm.pace", [5], 1.0)
