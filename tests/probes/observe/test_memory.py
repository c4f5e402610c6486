"""What is known of a piece of memory ends with it, also where its address is used again."""

import pytest
import torch

from repro.probes.observe.memory import ByMemory


def again_at(address):
    """A fresh tensor at an address that was freed, which an allocator hands out again sooner or later."""
    others = []
    for _ in range(1000):
        tensor = torch.ones(64)
        if tensor.data_ptr() == address:
            return tensor
        others.append(tensor)
    pytest.skip("this machine's allocator did not give the address again")


def test_a_view_has_what_its_tensor_has():
    known, tensor = ByMemory(), torch.ones(4, 4)
    known.put(tensor, "made")
    assert known.get(tensor[1:].t()) == "made"
    assert known.get(tensor.clone()) is None
    known.put(tensor[0], "written")
    assert known.get(tensor) == "written"


def test_other_memory_at_the_same_address_has_nothing():
    known, tensor = ByMemory(), torch.ones(64)
    known.put(tensor, "made")
    address = tensor.data_ptr()
    del tensor
    assert known.get(again_at(address)) is None


def test_tensors_of_no_bytes_share_an_address_and_nothing_else():
    known, one, two = ByMemory(), torch.ones(0), torch.ones(0)
    assert one.data_ptr() == two.data_ptr()
    known.put(one, "made")
    assert (known.get(one), known.get(two)) == ("made", None)


def test_a_tensor_without_readable_memory_stands_for_itself():
    known = ByMemory()
    one, two = (torch.eye(2).to_sparse() for _ in range(2))
    known.put(one, "made")
    assert (known.get(one), known.get(two)) == ("made", None)
