"""A function that gives a module: its forms, the weights that go in, and what is said where it gives something else."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from repro.probes.checkpoint.resolve import CannotResolve
from repro.probes.model.compat import CannotLoad
from repro.probes.model.forward import look
from repro.probes.model.given.factory import Made, make
from repro.probes.model.loadcheck import check
from repro.probes.model.precision import in_dtype
from repro.probes.model.session import Session
from repro.probes.protocol.wire import Emitter

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x, scale=1.0):
        return self.norm(self.layer(x)) * scale


def by_name(): return Net(), {"x": torch.randn(4, 3), "scale": 2.0}
def by_place(): return Net(), (torch.randn(4, 3), 2.0)
def one_tensor(): return Net(), torch.randn(4, 3)
def alone(): return Net()
def with_optimizer():
    net = Net()
    return net, torch.randn(4, 3), torch.optim.SGD(net.parameters())
def lazy(): return nn.Sequential(nn.LazyLinear(2), nn.LazyBatchNorm1d()), torch.randn(4, 3)
def lazy_alone(): return nn.Sequential(nn.LazyLinear(2))
def compiled(): return torch.compile(Net(), backend="eager"), torch.randn(4, 3)
class Empty(nn.Module):
    def forward(self, x): return x * 1


def half(): return Empty(), torch.ones(2).half()
def empty_alone(): return Empty()
def raises(): raise ValueError("no such checkpoint")
def nothing(): return None
def wrong_inputs(): return Net(), 7
def not_taken(): return Net(), {"image": torch.ones(1)}
VALUE = 3
"""


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "made_here.py"
    path.write_text(SOURCE)
    before = list(sys.path)
    yield path
    sys.path[:] = before
    sys.modules.pop("made_here", None)


def made(path: Path, name: str, **case: Any) -> Made:
    return make({"factory": f"{path}:{name}", "model": f"{path}:{name}", **case})


@pytest.mark.parametrize("name", ["by_name", "by_place", "one_tensor", "with_optimizer"])
def test_each_form_of_inputs_is_taken(factory: Path, name: str) -> None:
    found = made(factory, name)
    assert found.inputs is not None
    seen = look(found.loaded.model, found.inputs)
    assert tuple(seen.output.shape) == (4, 2)
    assert check(found.loaded)[0] == "good"
    assert (found.optimizer is not None) == (name == "with_optimizer")
    assert found.loaded.model.training is False


def test_a_lazy_module_is_called_once_and_a_compiled_one_is_its_own_code(factory: Path) -> None:
    lazy = made(factory, "lazy")
    assert lazy.inputs is not None
    assert tuple(lazy.loaded.model[0].weight.shape) == (2, 3)  # type: ignore[index, union-attr]
    assert int(lazy.loaded.model[1].num_batches_tracked) == 0  # type: ignore[index, union-attr]
    assert check(lazy.loaded)[0] == "good"
    assert made(factory, "compiled").loaded.class_name == "Net"


def test_a_module_alone_is_given_the_inputs_of_a_file(factory: Path, tmp_path: Path) -> None:
    save_file({"x": torch.ones(4, 3)}, tmp_path / "in.safetensors")
    case = {"factory": f"{factory}:alone", "model": f"{factory}:alone", "inputs": str(tmp_path / "in.safetensors")}
    session = Session({**case, "weights": "checkpoint", "prompts": []}, str(tmp_path / "cache"), Emitter(io.StringIO()))
    (seen,) = session.passes()
    assert tuple(seen.output.shape) == (4, 2)


def test_two_calls_give_the_same_module(factory: Path) -> None:
    one, two = made(factory, "by_name"), made(factory, "by_name")
    assert torch.equal(one.loaded.model.layer.weight, two.loaded.model.layer.weight)


def test_a_dtype_is_that_of_module_and_inputs_and_an_ablation_has_another(factory: Path) -> None:
    found = made(factory, "by_name", dtype="bfloat16")
    assert found.inputs is not None
    assert look(found.loaded.model, found.inputs).output.dtype == torch.bfloat16
    with in_dtype(found.loaded, torch.float32):
        assert look(found.loaded.model, found.inputs).output.dtype == torch.float32
    assert found.loaded.model.norm.running_mean.dtype == torch.bfloat16


def test_a_module_that_holds_nothing_has_the_dtype_of_its_inputs_or_the_one_asked_for(
    factory: Path, tmp_path: Path
) -> None:
    save_file({"x": torch.ones(2).half()}, tmp_path / "in.safetensors")
    for name, wanted in (("half", None), ("half", "float64"), ("empty_alone", None), ("empty_alone", "float64")):
        case = {"factory": f"{factory}:{name}", "model": f"{factory}:{name}", "dtype": wanted, "prompts": []}
        case["inputs"] = str(tmp_path / "in.safetensors") if name == "empty_alone" else None
        session = Session({**case, "weights": "checkpoint"}, str(tmp_path / "cache"), Emitter(io.StringIO()))
        (seen,) = session.passes()
        assert seen.output.dtype == getattr(torch, wanted or "float16"), case
        with in_dtype(session.loaded(), torch.float32):
            assert name == "empty_alone" or look(session.loaded().model, seen.inputs).output.dtype == torch.float32
        assert look(session.loaded().model, seen.inputs).output.dtype == seen.output.dtype


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("lazy_alone", CannotLoad, r"0\.weight is made at its first call. Return its inputs beside it"),
        ("missing", CannotResolve, r"has no function 'missing' \(it has: Net, by_name"),
        ("VALUE", CannotResolve, "has no function 'VALUE'"),
        ("raises", CannotLoad, r"raised ValueError: no such checkpoint \(made_here.py:\d+\)"),
        ("nothing", CannotLoad, r"gives nothing: expected module, \(module, inputs\)"),
        ("wrong_inputs", CannotLoad, "inputs of type int: expected a dict, a tuple or a tensor"),
        ("alone", CannotLoad, r"gives a Net alone, and what it takes is not known. Return .*\(module, tensor\)"),
        ("not_taken", CannotLoad, "Net does not take the inputs of"),
    ],
)
def test_what_cannot_be_used_is_said_in_words(factory: Path, name: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        made(factory, name)


def test_a_file_that_cannot_be_imported_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken_here.py"
    path.write_text("import torch\nraise RuntimeError('on import')\n")
    with pytest.raises(CannotLoad, match=r"broken_here.py raised RuntimeError: on import \(broken_here.py:2\)"):
        made(path, "f")


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(CannotResolve, match="has no module no_such_package"):
        make({"factory": "no_such_package.models:make", "model": "no_such_package.models:make"})


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "folder"])
def test_weights_go_into_the_module_and_keys_that_do_not_fit_are_told(
    factory: Path, tmp_path: Path, suffix: str
) -> None:
    state = {"layer.weight": torch.full((2, 3), 0.5), "layer.bias": torch.ones(5), "other": torch.ones(1)}
    path = tmp_path / ("weights" if suffix == "folder" else f"weights.{suffix}")
    if suffix == "pt":
        torch.save({"state_dict": state}, path)
    elif suffix == "folder":
        path.mkdir()
        save_file(state, path / "any.safetensors")
    else:
        save_file(state, path)
    found = made(factory, "by_name", model=str(path))
    assert bool((found.loaded.model.layer.weight == 0.5).all())
    verdict, _, payload = check(found.loaded)
    assert verdict == "bad"
    assert payload["unexpected_keys"] == ["other"]
    assert [row["tensor"] for row in payload["mismatched"]] == ["layer.bias"]
    assert "norm.weight" in payload["missing_keys"]
    assert "layer.bias" not in payload["missing_keys"]


def test_an_object_in_a_pickle_is_not_made(factory: Path, tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save(textwrap.TextWrapper(), path)
    with pytest.raises(CannotLoad, match="cannot be read as a state_dict"):
        made(factory, "by_name", model=str(path))
