"""Wrong kernels of a library of the tests' own: the module, the operator and the mechanism of each are those that were
chosen, and the same network with sound kernels is sound.
"""

import pytest
import torch
from support import wrong_kernels
from support.asking import rounding_of

from repro.probes.rounding.mechanism import mechanism_of

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PLACES = (0, 2)


def made(name, place, dtype):
    """A seeded network whose layer ``place`` uses the operator, and its input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(place)
        network = wrong_kernels.Network(name, place).eval().to(dtype)
        return network, torch.randint(100, (2, 12))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", wrong_kernels.FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_sound_kernels_are_sound(name, place, dtype):
    assert rounding_of(*made(name, place, dtype)).departures == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name in wrong_kernels.FAULTS for fault in wrong_kernels.FAULTS[name]]
)
@pytest.mark.parametrize("place", PLACES)
def test_a_wrong_kernel_is_found_where_it_is(monkeypatch, name, fault, place, dtype):
    monkeypatch.setitem(wrong_kernels.chosen, name, fault)
    (found,) = rounding_of(*made(name, place, dtype)).departures
    assert found.address.module == f"layers.{place}.used"
    assert found.address.op.split(".")[:2] == ["wrong", name]
    assert mechanism_of(found)[0] in wrong_kernels.FAULTS[name][fault].split("|")


def test_there_are_as_many_faults_as_are_promised():
    assert sum(map(len, wrong_kernels.FAULTS.values())) * len(DTYPES) * len(PLACES) >= 210
