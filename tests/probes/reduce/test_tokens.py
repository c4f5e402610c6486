"""The fewest tokens: injected models whose fault hangs on one token, on two together, or on the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from corpus.faults import BY_NAME, POSITION, TOKEN
from support.handmade import Small, as_loaded, hooks_of, inputs_of, load_folder, state_of
from support.reducing import trials
from torch import Tensor, nn

from repro.probes.model.forward import look
from repro.probes.model.inputs import make_inputs
from repro.probes.origin.search import bisect
from repro.probes.reduce.tokens import Place, fewest, only, record, shows

PARTS = ("gpt2-residual-overflow", "llama-qk-overflow", "gemma3-residual-overflow-bos", "t5-cross-qk-overflow")


def injected(name: str, folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """The loaded model, its inputs and its origin."""
    fault = BY_NAME[name]
    fault.build(folder)
    loaded = load_folder(folder, fault.dtype, attn=fault.attn)
    inputs = make_inputs(loaded, [fault.prompt] if fault.prompt else [], False)[0]
    _, _, payload = bisect(loaded, [look(loaded.model, inputs)])
    return loaded, inputs, payload["origin"]


def reduced(loaded: Any, inputs: Any, origin: dict[str, Any]) -> list[int]:
    asked, _ = trials()
    small = fewest(loaded, inputs, Place.of(origin), origin["token_index"], asked)
    assert small is not None
    ids: list[int] = small.input_ids[0].tolist()
    return ids


def test_the_token_that_carries_the_fault_stays_alone(tmp_path: Path) -> None:
    loaded, inputs, origin = injected("gpt2-residual-overflow", tmp_path)
    assert reduced(loaded, inputs, origin) == [TOKEN]


def test_a_fault_of_the_first_special_token_needs_it_alone_and_it_is_marked(tmp_path: Path) -> None:
    loaded, inputs, origin = injected("gemma3-residual-overflow-bos", tmp_path)
    asked, _ = trials()
    small = fewest(loaded, inputs, Place.of(origin), origin["token_index"], asked)
    assert small is not None
    found = record(loaded, inputs, small, False)
    assert (found["before"], found["after"], found["tokens"], found["special"]) == (5, 1, ["<bos>"], [True])
    assert found["ids"] == [1]


def test_no_mask_is_given_where_the_fault_needs_none(tmp_path: Path) -> None:
    loaded, inputs, origin = injected("gpt2-residual-overflow", tmp_path)
    asked, _ = trials()
    small = fewest(loaded, inputs, Place.of(origin), origin["token_index"], asked)
    assert small is not None
    assert inputs.attention_mask is not None
    assert small.attention_mask is None
    assert record(loaded, inputs, small, False)["attention_mask"] is False


def test_the_decoder_follows_the_encoder(tmp_path: Path) -> None:
    loaded, inputs, origin = injected("t5-cross-qk-overflow", tmp_path)
    small = only(inputs, [2, 5])
    start = inputs.decoder_input_ids[0, 0].item()
    ids = inputs.input_ids[0].tolist()
    assert small.input_ids.tolist() == [[ids[2], ids[5]]]
    assert small.decoder_input_ids.tolist() == [[start, ids[2]]]
    assert len(reduced(loaded, inputs, origin)) <= 2


class NeedsTwo(Small):
    """60000 of token 3 and 60000 of token 7 are added: only together they pass float16's limit."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor([0.0, 0, 0, 60000, 0, 0, 0, 60000, 0, 0]).half(), requires_grad=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        values = self.table[input_ids[0]]
        first = (values * (input_ids[0] == 3)).amax()
        return first + (values * (input_ids[0] == 7)).amax()


@pytest.mark.parametrize("ids", [[3, 7], [0, 3, 1, 2, 7, 4], [7, 0, 0, 0, 0, 0, 0, 0, 3], [1, 2, 4, 5, 6, 3, 7]])
def test_two_tokens_that_are_needed_together_stay_two(ids: list[int]) -> None:
    loaded = as_loaded(NeedsTwo(), torch.float16)
    inputs = inputs_of(torch.tensor([ids]))
    _, _, payload = bisect(loaded, [look(loaded.model, inputs)])
    assert payload["origin"]["op"] == "aten.add.Tensor"
    assert sorted(reduced(loaded, inputs, payload["origin"])) == [3, 7]


class TwoFaults(Small):
    """Token 3 overflows in a product. Where it is missing, 0 / 0 is made by another operator, on its own."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        there = (input_ids[0] == 3).any().half()
        product = (there * 60000.0) * 2.0
        return product + there / there.maximum(there)


def test_a_reduction_never_ends_in_another_fault() -> None:
    """Every part without token 3 is bad as well, by 0 / 0; a search for "it still fails" ends there."""
    loaded = as_loaded(TwoFaults(), torch.float16)
    inputs = inputs_of(torch.tensor([[5, 6, 3, 9]]))
    seen = look(loaded.model, inputs)
    _, _, payload = bisect(loaded, [seen])
    origin = payload["origin"]
    assert (origin["op"], origin["mechanism"]) == ("aten.mul.Tensor", "overflow")
    assert look(loaded.model, only(inputs, [0])).bad
    assert reduced(loaded, inputs, origin) == [3]


class TwoLines(Small):
    """The same operator on two lines: the second is bad without token 3 too."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        there = (input_ids[0] == 3).any().half()
        first = there * 60000.0 + there * 50000.0
        return (1 - there) * 60000.0 + (1 - there) * 50000.0 if not there else first


def test_the_same_operator_on_another_line_is_another_fault() -> None:
    loaded = as_loaded(TwoLines(), torch.float16)
    inputs = inputs_of(torch.tensor([[5, 6, 3, 9]]))
    _, _, payload = bisect(loaded, [look(loaded.model, inputs)])
    assert look(loaded.model, only(inputs, [0])).bad
    assert reduced(loaded, inputs, payload["origin"]) == [3]


def test_an_operator_that_is_given_worse_than_before_does_not_show_it() -> None:
    """Its own inputs are infinite without token 3, so what it makes then is no overflow of its own."""

    class Fed(Small):
        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            there = (input_ids[0] == 3).any().half()
            given = torch.where(there > 0, there * 40000.0, torch.full_like(there, float("inf")))
            return given + given

    loaded = as_loaded(Fed(), torch.float16)
    inputs = inputs_of(torch.tensor([[5, 3]]))
    _, _, payload = bisect(loaded, [look(loaded.model, inputs)])
    place = Place.of(payload["origin"])
    assert shows(loaded, inputs, place)
    assert not shows(loaded, only(inputs, [0]), place)


def test_an_overflow_beside_an_infinity_that_came_in_is_not_the_same_fault() -> None:
    """Finite inputs are part of what the fault is, also where another element overflows all the same."""

    class Beside(Small):
        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            there = (input_ids[0] == 3).any().half()
            given = torch.stack([there * 40000.0, torch.full_like(there, -40000.0)])
            beside = torch.where(given != 0, given, torch.full_like(given, float("inf")))
            return beside + beside

    loaded = as_loaded(Beside(), torch.float16)
    inputs = inputs_of(torch.tensor([[5, 3]]))
    _, _, payload = bisect(loaded, [look(loaded.model, inputs)])
    place = Place.of(payload["origin"])
    assert shows(loaded, inputs, place)
    assert not shows(loaded, only(inputs, [0]), place)


@pytest.mark.parametrize("name", PARTS)
def test_the_model_is_left_as_it_was(tmp_path: Path, name: str) -> None:
    loaded, inputs, origin = injected(name, tmp_path)
    before, hooks = state_of(loaded.model), hooks_of(loaded.model)
    reduced(loaded, inputs, origin)
    assert state_of(loaded.model) == before
    assert hooks_of(loaded.model) == hooks


def test_when_the_time_is_up_the_tokens_stay_and_nothing_is_said_of_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from repro.probes.reduce import trials as module

    loaded, inputs = as_loaded(NeedsTwo(), torch.float16), inputs_of(torch.tensor([[0, 3, 7]]))
    _, _, payload = bisect(loaded, [look(loaded.model, inputs)])
    monkeypatch.setattr(module, "SECONDS", -1.0)
    asked, events = trials()
    assert fewest(loaded, inputs, Place.of(payload["origin"]), None, asked) is inputs
    assert events == []


def test_inputs_that_do_not_show_it_again_are_none() -> None:
    loaded, inputs = as_loaded(NeedsTwo(), torch.float16), inputs_of(torch.tensor([[0, 3, 7]]))
    _, _, payload = bisect(loaded, [look(loaded.model, inputs)])
    asked, _ = trials()
    assert fewest(loaded, only(inputs, [0, 1]), Place.of(payload["origin"]), None, asked) is None


def test_the_injected_position_is_where_the_origin_says(tmp_path: Path) -> None:
    _, inputs, origin = injected("llama-residual-overflow", tmp_path)
    assert origin["token_index"] == POSITION
    assert inputs.input_ids[0, POSITION] == TOKEN
