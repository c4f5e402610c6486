"""What the author of a script may change: the changed script is well under plain Python, and little is changed."""

import ast
import sys

import pytest
import torch
from support.copied import ends

from repro.probes.listing.answer import reduce
from repro.probes.listing.edits.guards import guards
from repro.probes.listing.edits.repairs import repairs
from repro.probes.listing.text.tree import parsed, whose
from repro.probes.listing.text.written import written
from repro.probes.reduce.trials import Trials
from repro.probes.script.answer import asked, bisect

linux = pytest.mark.skipif(sys.platform != "linux", reason="a process for each candidate is quick on Linux alone")

DIVISION = """
import torch

def cosine(a, b):
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))

x = torch.ones(4, 8)
x[2] = 0
score = cosine(x, torch.ones(4, 8))
assert score.isfinite().all(), "scores"
"""
HALF = """
import torch
q = torch.full((2, 16), 300.0).half()
k = torch.full((2, 16), 300.0).half()
assert torch.isfinite(q * k).all(), "scores"
"""
MASKED = """
import torch
mask = torch.ones(4, 4).tril().bool()
mask[1] = False
weights = torch.ones(4, 4).masked_fill(~mask, float("-inf")).softmax(-1)
assert torch.isfinite(weights).all(), "weights"
"""
LABELS = """
import torch
import torch.nn.functional as F
loss = F.cross_entropy(torch.ones(3, 5), torch.tensor([-100, -100, -100]))
assert torch.isfinite(loss), "loss"
"""
RATE = """
import torch
weight = torch.ones(2, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=1e12)
for step in range(6):
    loss = (weight ** 2).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
assert torch.isfinite(loss), "loss"
"""


@pytest.mark.slow
@linux
@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (DIVISION, "clamp(min=1e-06)"),
        (HALF, "float"),
        (MASKED, "-10000.0"),
        (LABELS, "0"),
    ],
    ids=["division", "half", "mask", "labels"],
)
def test_the_changed_script_is_well_and_the_other_is_not(text, changed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "asks.py").write_text(text)
    script = asked(str(tmp_path / "asks.py"))
    _, _, told = reduce(script, bisect(script), Trials(lambda *_, **__: None))
    found = told["listing"]["change"]
    assert (ends(told["listing"]["text"], tmp_path)[0], ends(found["text"], tmp_path)[0]) == (1, 0)
    assert 1 <= len(found["after"]) <= 2
    assert changed in "\n".join(found["after"])
    assert changed not in "\n".join(found["before"]) or changed == "0"


@pytest.mark.slow
@linux
def test_the_lines_of_the_script_as_it_is_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "asks.py").write_text(HALF)
    script = asked(str(tmp_path / "asks.py"))
    _, _, told = reduce(script, bisect(script), Trials(lambda *_, **__: None))
    found = told["listing"]["change"]
    whole = HALF
    for before, after in zip(found["script_before"], found["script_after"], strict=True):
        assert before in whole
        whole = whole.replace(before, after)
    assert (found["script_before"] != [], ends(whole, tmp_path)[0]) == (True, 0)


def changes(text, line, mechanism, **more):
    tree = parsed(text)
    at = next(whose(node) for node in tree.statements() if node.lineno == line)
    made = (edit.make(tree) for edit in repairs(tree, at, mechanism, **more))
    return [written(tree).text for tree in made if tree is not None]


def test_a_guard_is_put_around_the_divisor_first():
    tree = parsed("import torch\ny = x / z\n")
    at = next(whose(node) for node in tree.statements() if node.lineno == 2)
    made = next(iter(guards(tree, at))).make(tree)
    assert written(made).text == "import torch\ny = x / z.clamp(min=1e-06)\n"


def test_a_number_of_the_formula_at_fault_is_not_replaced():
    text = "import torch\nscale = 3e38\ny = x * 200.0\n"
    assert all("x * 200.0" in changed for changed in changes(text, 3, "overflow"))


def test_every_change_is_python():
    for mechanism in ("overflow", "invalid", "masked_row", "bad_input", "literal"):
        for text in changes(RATE + 'y = torch.log(x.half()) / float("-inf")\n', 11, mechanism):
            ast.parse(text)


def test_a_masked_row_is_not_guarded_away():
    assert not any("clamp" in text for text in changes("y = x.softmax(-1) * 2.0\n", 1, "masked_row"))


def test_the_call_for_the_gradients_is_not_guarded():
    assert changes("loss.backward()\n", 1, "invalid") == []


SIGNED = """
import torch
torch.manual_seed(5)
rows = torch.randn(6, 8)
rows[2] = 0
rows = rows / rows.norm(dim=-1, keepdim=True)
assert not (rows @ rows.T).isnan().any()
"""
ANGLE = """
import torch
a = torch.tensor([[1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [1.0, 0.5, 0.0], [1.0, 1e-2, 0.0]])
b = torch.tensor([[2.0, 4.0, 6.0], [1.1, 2.2, 3.3], [0.0, 0.5, 1.0], [1.0, 0.0, 0.0]])
cos = (a * b).sum(-1) / (a.square().sum(-1).sqrt() * b.square().sum(-1).sqrt()) * 1.0000001
angle = torch.acos(cos)
assert not angle.isnan().any()
"""
ENTROPY = """
import torch
p = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [1e-9, 0.25, 0.75]])
plogp = p * torch.log(p)
assert not plogp.isnan().any()
"""
SLOPE = """
import torch
dx = torch.tensor([1.0, -2.0, 0.0, 4.0, -0.5])
dy = torch.tensor([1.0, 3.0, 0.0, -1.0, 2.0])
slope = dy / dx
assert not slope.isnan().any()
"""
HALF_UNIT = """
import torch
import torch.nn.functional as F
table = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).half()
table[3] = 0
unit = F.normalize(table)
assert unit.isfinite().all()
"""
KEPT = [(SIGNED, "rows"), (ANGLE, "angle"), (ENTROPY, "plogp"), (HALF_UNIT, "unit")]


def value(text, name):
    """What a script's variable is without its last line, under plain Python."""
    names = {}
    exec(text.rstrip().rpartition("\n")[0], names)
    return names[name]


def change_of(text, folder):
    (folder / "asks.py").write_text(text)
    script = asked(str(folder / "asks.py"))
    _, _, told = reduce(script, bisect(script), Trials(lambda *_, **__: None))
    return told["listing"]["change"]


@linux
@pytest.mark.parametrize(("text", "name"), KEPT, ids=[name for _, name in KEPT])
def test_what_was_finite_before_is_as_it_was(text, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = change_of(text, tmp_path)
    before, after = (found["script_before"], found["script_after"]) if found["script_before"] else (
        found["before"], found["after"])  # fmt: skip
    changed = text
    for one, two in zip(before, after, strict=True):
        assert one in changed
        changed = changed.replace(one, two)
    assert ends(changed, tmp_path)[0] == 0
    was, now = value(text, name), value(changed, name)
    good = was.isfinite()
    assert good.any()
    assert not good.all()
    assert torch.allclose(now[good], was[good], rtol=8 * torch.finfo(was.dtype).eps, atol=0)


@linux
def test_without_a_guard_that_keeps_what_was_good_no_change_is_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert change_of(SLOPE, tmp_path) is None
