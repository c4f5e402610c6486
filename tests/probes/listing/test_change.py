"""What the author of a script may change: the changed script is well under plain Python, and little is changed."""

import ast
import subprocess
import sys

import pytest

from repro.probes.listing.answer import reduce
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


def ends(text, folder):
    (folder / "plain.py").write_text(text)
    return subprocess.run([sys.executable, "-I", "plain.py"], cwd=folder, capture_output=True, check=False).returncode


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
    assert (ends(told["listing"]["text"], tmp_path), ends(found["text"], tmp_path)) == (1, 0)
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
    assert (found["script_before"] != [], ends(whole, tmp_path)) == (True, 0)


def changes(text, line, mechanism, **more):
    tree = parsed(text)
    at = next(whose(node) for node in tree.statements() if node.lineno == line)
    made = (edit.make(tree) for edit in repairs(tree, at, mechanism, **more))
    return [written(tree).text for tree in made if tree is not None]


def test_a_guard_is_put_around_the_divisor_first():
    assert changes("import torch\ny = x / z\n", 2, "divide_by_zero")[0] == "import torch\ny = x / z.clamp(min=1e-06)\n"


def test_every_change_is_python():
    for mechanism in ("overflow", "invalid", "masked_row", "bad_input", "literal"):
        for text in changes(RATE + 'y = torch.log(x.half()) / float("-inf")\n', 11, mechanism):
            ast.parse(text)


def test_a_masked_row_is_not_guarded_away():
    assert not any("clamp" in text for text in changes("y = x.softmax(-1) * 2.0\n", 1, "masked_row"))


def test_the_call_for_the_gradients_is_not_guarded():
    assert changes("loss.backward()\n", 1, "invalid") == []
