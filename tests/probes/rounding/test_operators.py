"""Wrong kernels under the names of PyTorch's own operators: found in their module, named by a true mechanism, and sound
without the fault. Two have another formula and are sound.
"""

import pytest
import torch
from support import wrong_operators
from support.asking import rounding_of
from support.wrong_operators import FAULTS, IDS, UNSEEN

from repro.probes.rounding.mechanism import mechanism_of


def made(name, dtype):
    wrong_operators.CALLS.clear()
    return wrong_operators.Network(FAULTS[name]).eval().to(dtype)


CASES = [(name, dtype) for name, fault in FAULTS.items() for dtype in fault.dtypes]
WRONG = [(name, dtype) for name, dtype in CASES if FAULTS[name].mechanisms and name != UNSEEN]


@pytest.mark.parametrize("dtype", wrong_operators.ALL, ids=str)
@pytest.mark.parametrize("op", sorted({fault.op for fault in FAULTS.values()}))
def test_pytorchs_own_is_sound(op, dtype):
    names = [name for name, fault in FAULTS.items() if fault.op == op]
    for name in names:
        rounding = rounding_of(made(name, dtype), IDS)
        assert rounding.departures == []
        assert rounding.not_judged == {}


@pytest.mark.parametrize(("name", "dtype"), WRONG, ids=str)
def test_a_wrong_one_is_found(monkeypatch, name, dtype):
    network = made(name, dtype)
    monkeypatch.setattr(wrong_operators, "chosen", [name])
    found = rounding_of(network, IDS).departures
    assert found
    assert {departure.address.module for departure in found} == {"inner"}
    assert found[0].address.op == f"faulty.{FAULTS[name].op}"
    assert mechanism_of(found[0])[0] in FAULTS[name].mechanisms


@pytest.mark.parametrize("dtype", wrong_operators.ALL, ids=str)
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if not fault.mechanisms])
def test_another_formula_for_the_same_is_sound(monkeypatch, name, dtype):
    network = made(name, dtype)
    monkeypatch.setattr(wrong_operators, "chosen", [name])
    assert rounding_of(network, IDS).departures == []


def test_a_conversion_that_cuts_off_stays_within_what_is_allowed(monkeypatch):
    network = made(UNSEEN, torch.bfloat16)
    monkeypatch.setattr(wrong_operators, "chosen", [UNSEEN])
    rounding = rounding_of(network, IDS)
    assert rounding.departures == []
    assert rounding.worst["_to_copy", "bfloat16"][1] > 0.35  # rounding to nearest leaves 0.2 to 0.29


def test_what_is_stale_shows_once_and_is_not_said_to_be_repeated(monkeypatch):
    network = made("mm: stale", torch.float32)
    monkeypatch.setattr(wrong_operators, "chosen", ["mm: stale"])
    (found,) = rounding_of(network, IDS).departures
    assert not found.repeated
    assert found.address.occurrence == 1
