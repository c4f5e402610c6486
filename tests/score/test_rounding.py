"""The calibration page says what was run: no more sound runs, no fewer alarms, no more faults found."""

import pytest
import torch
from support import wrong_kernels, wrong_operators

from . import rounding


@pytest.fixture
def few(monkeypatch):
    """Two kinds of faults, of which one is not seen, and a sound one."""
    kept = ("mul: the tail of a vector", wrong_operators.UNSEEN, "softmax without its maximum")
    monkeypatch.setattr(wrong_kernels, "FAULTS", {"gelu": {"scaled": "wrong_constant"}})
    monkeypatch.setattr(wrong_operators, "FAULTS", {name: wrong_operators.FAULTS[name] for name in kept})


def test_an_architecture_is_run_in_three_dtypes_with_both_kinds_of_attention():
    sweep = rounding.swept(["gpt2"])
    assert (sweep.runs, sweep.names, sweep.alarms, sweep.left_out) == (6, {"gpt2"}, [], [])
    assert {dtype for _, dtype in sweep.worst} == {"float32", "bfloat16", "float16"}
    assert sweep.operators > 6 * 20


def test_what_is_found_and_what_is_not_are_counted(few):
    rows, alarms = rounding.injected()
    assert alarms == []
    assert vars(rows["gelu"]) == {"faults": 6, "found": 6, "placed": 6, "named": 6}
    assert vars(rows["mul"]) == {"faults": 3, "found": 3, "placed": 3, "named": 3}
    assert vars(rows["_to_copy"]) == {"faults": 1, "found": 0, "placed": 0, "named": 0}


def test_an_alarm_stands_on_the_page(few):
    sweep = rounding.Sweep(runs=3, names={"gpt2"}, alarms=["gpt2, sdpa, float32: aten.mm.default"])
    words = rounding.page(sweep, {"mul": rounding.Injected(3, 2, 1, 0)}, [])
    assert "**1 of 3** runs" in words
    assert "- gpt2, sdpa, float32: aten.mm.default\n" in words
    assert "3 faults: " in words
    assert "| `mul` | 3 | 2 | 1 | 0 |" in words
    assert rounding.COMMAND in words


def test_a_wrong_kernel_in_a_sound_model_is_an_alarm(monkeypatch):
    network = wrong_kernels.Network("gelu", 1).eval()
    monkeypatch.setitem(wrong_kernels.chosen, "gelu", "scaled")
    sweep = rounding.Sweep()
    sweep.add("network", "network, float32", rounding.rounding_of(network, torch.arange(24).reshape(2, 12)))
    assert sweep.alarms == ["network, float32: wrong.gelu.default"]
