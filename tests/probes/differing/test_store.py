"""Tensors in memory up to a bound, behind it on disk; either way the same values come back."""

import gc

import pytest
import torch

from repro.probes.differing.held import store as module
from repro.probes.differing.held.store import Store

GIVEN = (
    torch.arange(6, dtype=torch.float32).reshape(2, 3),
    torch.tensor([[1.5, float("nan")]], dtype=torch.bfloat16),
    torch.tensor([True, False]),
    torch.tensor(3),
    torch.zeros(0, 4),
    torch.arange(6).reshape(2, 3).T,
)


def same(one, two):
    return one.dtype == two.dtype and one.shape == two.shape and torch.equal(one.nan_to_num(7.0), two.nan_to_num(7.0))


@pytest.mark.parametrize("most", [0, 30, 1 << 30], ids=["on disk", "some on disk", "in memory"])
def test_what_is_put_comes_back(monkeypatch, most):
    monkeypatch.setattr(module, "MOST", most)
    store = Store()
    numbers = [store.put(tensor) for tensor in GIVEN]
    assert all(same(store.get(number), tensor) for number, tensor in zip(numbers, GIVEN, strict=True))


def test_what_is_written_to_later_was_copied():
    store, tensor = Store(), torch.ones(3)
    number = store.put(tensor)
    tensor.add_(1)
    assert store.get(number).tolist() == [1, 1, 1]
    assert store.get(store.put(tensor)).tolist() == [2, 2, 2]


def test_what_is_put_twice_is_kept_once():
    store, tensor = Store(), torch.ones(3)
    assert store.put(tensor) == store.put(tensor)


def test_its_own_folder_goes_with_it(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MOST", 0)
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    store = Store()
    store.put(torch.ones(3))
    assert len(list(tmp_path.iterdir())) == 1
    del store
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_another_process_reads_what_was_saved(tmp_path):
    store = Store(str(tmp_path))
    numbers = [store.put(tensor) for tensor in GIVEN]
    read = Store.opened(str(tmp_path), store.save())
    assert all(same(read.get(number), tensor) for number, tensor in zip(numbers, GIVEN, strict=True))
