"""Where a NaN may be kept: in outputs of any form, and in variables of any kind."""

import collections
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import repro

Pair = collections.namedtuple("Pair", "first second")


@dataclasses.dataclass
class Answer:
    logits: object
    more: object = None
    itself: object = None


class Plain:
    def __init__(self, logits):
        self.logits = logits


def in_itself(x):
    answer = Answer(torch.ones(1), {"deep": [x]})
    answer.itself = answer
    return answer


FORMS = {
    "dataclass": Answer, "object": Plain, "named tuple": lambda x: Pair(torch.ones(1), x),
    "dict in a dataclass": lambda x: Answer(torch.ones(1), {"deep": [x]}), "one that holds itself": in_itself,
    "complex": lambda x: torch.complex(torch.ones_like(x), x), "user dict": lambda x: collections.UserDict(a=x),
    "distribution": lambda x: torch.distributions.Normal(x, torch.ones_like(x), validate_args=False),
}  # fmt: skip


class Log(nn.Module):
    def __init__(self, form, shift=-100.0):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.form, self.shift = form, shift

    def forward(self, x):
        return self.form(torch.log(self.inner(x) + self.shift))


@pytest.mark.parametrize("form", FORMS)
def test_an_output_of_any_form_is_judged(form):
    x = torch.ones(1, 2)
    bad = Log(FORMS[form])
    found = repro.find(bad, x)
    assert (found.verdict, found.origin.op, found.origin.mechanism) == ("bad", "aten.log.default", "invalid")
    with repro.watch(bad) as seen:
        bad(x)
    assert seen.finding.origin.op == "aten.log.default"
    with repro.Guard(bad, then="note") as guard:
        bad(x)
    assert guard.finding.origin.op == "aten.log.default"
    good = Log(FORMS[form], shift=100.0)
    assert repro.find(good, x).verdict == "good"
    with repro.watch(good) as seen:
        good(x)
    assert seen.finding.verdict == "good"


@pytest.mark.parametrize("output", [None, "text", 3, [], torch.ones(2, dtype=torch.int64)])
def test_an_output_without_numbers_gives_no_verdict(output):
    class Says(nn.Module):
        def forward(self, x):
            return output

    found = repro.find(Says(), torch.ones(1))
    assert found.verdict == "skip"
    assert "holds no number to judge" in found.text


def in_list():
    with repro.watch() as seen:
        kept = [torch.ones(1), torch.log(torch.tensor(-1.0))]
    return seen, kept


def in_dict():
    with repro.watch() as seen:
        kept = {"k": {"z": torch.log(torch.tensor(-1.0))}}
    return seen, kept


def in_object():
    kept = Plain(None)
    with repro.watch() as seen:
        kept.logits = torch.log(torch.tensor(-1.0))
    return seen, kept


def in_module():
    kept = Log(torch.sum)
    with repro.watch() as seen:
        kept.last = torch.log(torch.tensor(-1.0))
    return seen, kept


def in_number():
    with repro.watch() as seen:
        kept = torch.log(torch.tensor(-1.0)).item() * 2
    return seen, kept


def in_numbers():
    kept = []
    with repro.watch() as seen:
        kept.extend(float(torch.log(torch.tensor([value]))) for value in (1.0, -1.0))
    return seen, kept


def in_array():
    with repro.watch() as seen:
        kept = torch.log(torch.tensor([1.0, -1.0])).numpy()[1:]
    return seen, kept


@pytest.mark.parametrize("keep", [in_list, in_dict, in_object, in_module, in_number, in_numbers, in_array])
def test_a_nan_that_a_variable_keeps_has_arrived(keep):
    seen, _ = keep()
    assert seen.finding.verdict == "bad"
    assert seen.finding.origin.op == "aten.log.default"
    assert seen.finding.answer.watch.arrived.startswith("the variable kept")


def test_what_is_meant_or_was_there_before_is_no_fault():
    before = float("nan")
    table = [torch.tensor([1.0, float("nan")]), {"best": float("inf")}]
    with repro.watch() as seen:
        best = float("inf")
        missing = [torch.full((2,), float("nan")), torch.tensor(float("nan"))]
        mask = {"mask": torch.full((2, 2), float("-inf")).triu(1)}
        scores = Plain(torch.randn(2, 2) + mask["mask"])
        lost = torch.log(torch.tensor(-1.0)).item()
        lost = 0.0
        weights = [scores.logits.softmax(-1)]
    assert seen.finding.verdict == "good", seen.finding
    assert (best, lost, len(missing), len(weights), len(table)) == (float("inf"), 0.0, 2, 1, 2)
    assert before != before


def test_minus_infinity_counts_in_an_output_where_an_operator_computed_it():
    class Masked(Log):
        def forward(self, x):
            scores = self.inner(x)
            return scores.masked_fill(torch.tensor([[True, False]]), float("-inf"))

    class Zero(Log):
        def forward(self, x):
            return torch.log(self.inner(x) * 0)

    x = torch.ones(1, 2)
    for kind, verdict in ((Masked, "good"), (Zero, "bad")):
        model = kind(torch.sum)
        with repro.watch(model) as seen:
            model(x)
        assert seen.finding.verdict == verdict
    assert seen.finding.origin.op == "aten.log.default"


KEPT = {}


class Register:
    """Keeps what it is given in the class itself."""


def kept_in(kind, x):
    """The finding of a block that keeps 0 / x in one way, beside one of the same kind that was there before."""
    queue, found, kinds, counts = collections.deque(maxlen=3), set(), collections.defaultdict(list), np.zeros(3)
    old = np.full(3, np.nan)
    with repro.watch() as seen:
        ratio = torch.zeros(2) / x
        if kind == "queue":
            queue.append(ratio)
        elif kind == "set":
            found.add(ratio)
        elif kind == "dict with a default":
            kinds["a"].append(ratio)
        elif kind == "global":
            KEPT["x"] = ratio
        elif kind == "class":
            Register.last = ratio
        elif kind == "copy":
            counts[:2] = ratio.numpy()
        del ratio
    assert len(old) == 3
    return seen.finding


@pytest.mark.parametrize("kind", ["queue", "set", "dict with a default", "global", "class", "copy", "nowhere"])
def test_a_variable_of_any_kind_is_looked_into(kind):
    assert kept_in(kind, torch.ones(2)).verdict == "good"
    finding = kept_in(kind, torch.zeros(2))
    assert finding.verdict == {"copy": "skip", "nowhere": "good"}.get(kind, "bad")
    if kind == "copy":
        assert "array counts" in finding.text
    elif kind != "nowhere":
        assert finding.origin.op == "aten.div.Tensor"


def test_a_good_watch_says_where_it_looked():
    """A graph still needs the NaN that nothing else has."""
    x = torch.zeros(2, requires_grad=True)
    with repro.watch() as seen:
        loss = torch.where(x == 0, x, x.log() * (x / x)).sum()
    assert seen.finding.verdict == "good"
    assert "variables of test_a_good_watch_says_where_it_looked" in seen.finding.text
    assert "is still in use elsewhere" in seen.finding.text
    assert loss == 0


def test_a_variable_whose_value_is_meant_is_left_out_as_the_finding_says():
    mse = torch.zeros(1)
    with repro.watch() as seen:
        psnr = -10 * torch.log10(mse)
    assert (seen.finding.verdict, "name begins with _" in repr(seen.finding)) == ("bad", True)
    del psnr
    with repro.watch() as seen:
        _psnr = -10 * torch.log10(mse)
    assert seen.finding.verdict == "good"
