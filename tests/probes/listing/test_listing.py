"""Scripts made smaller: the fault is still there under plain Python, and little else."""

import ast
import json
import re
import subprocess
import sys

import numpy
import pytest
import torch
from safetensors.torch import save_file
from support.copied import ends

from repro.probes.listing.answer import reduce
from repro.probes.listing.edits.statements import seeded
from repro.probes.listing.text.tree import parsed
from repro.probes.listing.text.written import written
from repro.probes.reduce.trials import Trials
from repro.probes.script.answer import asked, bisect

linux = pytest.mark.skipif(sys.platform != "linux", reason="a process for each candidate is quick on Linux alone")
pytestmark = linux


@pytest.fixture
def reduced(tmp_path, monkeypatch):
    """Reduces the script of a text: the outcome of the step and what it tells."""
    monkeypatch.chdir(tmp_path)

    def reduced(text, **files):
        for name, content in files.items():
            (tmp_path / name.replace("_", ".")).write_text(content)
        (tmp_path / "asks.py").write_text(text)
        script = asked(str(tmp_path / "asks.py"))
        verdict, _, told = reduce(script, bisect(script), Trials(lambda *_, **__: None))
        return verdict, told

    return reduced


def calls(text):
    """The names of everything that is called."""
    return {
        ast.unparse(node.func).rpartition(".")[2] for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)
    }


LONG = """
import sys
import math
import torch
from torch import nn

def unused(a):
    return a + 1

class Net(nn.Module):
    '''A network.'''
    def __init__(self, width: int = 32):
        super().__init__()
        self.one = nn.Linear(width, width)
        self.two = nn.Linear(width, width)

    def forward(self, x):
        h = torch.relu(self.one(x))
        p = torch.log(h)  # log(0)
        return self.two(p)

def main():
    torch.manual_seed(0)
    net = Net()
    for step in range(4):
        x = torch.randn(8, 32)
        out = net(x)
        print("step", step, out.mean().item())
    return 0 if math.isfinite(out.sum().item()) else 1

if __name__ == "__main__":
    sys.exit(main())
"""


def test_a_script_is_made_smaller_and_shows_the_same(reduced, tmp_path):
    verdict, told = reduced(LONG)
    small = told["listing"]
    assert verdict == "bad"
    assert small["lines_before"] == 26
    assert small["lines"] == sum(bool(line.strip()) for line in small["text"].split("\n")) < 14
    assert not small["whole"]
    assert "log" in calls(small["text"])
    status, said = ends(small["text"], tmp_path)
    assert (status, said.partition(":")[0]) == (1, "AssertionError")
    assert all(len(line) <= 120 for line in small["text"].split("\n"))
    json.dumps(told)


@pytest.mark.slow
def test_a_harmless_twin_of_the_operator_goes_and_the_line_at_fault_stays(reduced, tmp_path):
    text = (
        "import torch\nx = torch.tensor([0.0, 1.0])\n"
        "y = torch.where(x > 0, torch.log(x), 0.0)\n"
        "z = torch.log(x - 3)\nassert torch.isfinite(y + z).all()\n"
    )
    _, told = reduced(text)
    assert "where" not in calls(told["listing"]["text"])
    assert "log" in calls(told["listing"]["text"])
    assert ends(told["listing"]["text"], tmp_path)[0] == 1


@pytest.mark.slow
def test_a_gradient_is_told_by_an_assertion_on_gradients(reduced, tmp_path):
    text = (
        "import sys, torch\nfrom torch import nn\nnet = nn.Linear(3, 2)\n"
        "opt = torch.optim.SGD(net.parameters(), lr=0.1)\n"
        "a = torch.randn(4, 3)\nloss = (net(a) - net(a.clone())).pow(2).sum().sqrt()\nloss.backward()\nopt.step()\n"
        "bad = [n for n, p in net.named_parameters() if p.isnan().any()]\nprint(bad)\nsys.exit(1 if bad else 0)\n"
    )
    _, told = reduced(text)
    small = told["listing"]["text"]
    assert "backward" in calls(small)
    assert "step" not in calls(small)
    assert ends(small, tmp_path) == (1, "AssertionError: a gradient has NaN or Inf")


@pytest.mark.slow
def test_what_a_script_reads_is_not_needed(reduced, tmp_path):
    text = (
        "import csv, sys, torch\nrows = [[float(v) for v in row] for row in csv.reader(open('data.csv'))]\n"
        "x = torch.tensor(rows)\nx = (x - x.mean(0)) / x.std(0)\nopen('log.txt', 'a').write('ran')\n"
        "sys.exit(1 if x.isnan().any() else 0)\n"
    )
    _, told = reduced(text, data_csv="1,2\n1,3\n1,4\n")
    (tmp_path / "data.csv").unlink()
    assert ends(told["listing"]["text"], tmp_path)[0] == 1
    assert "open" not in calls(told["listing"]["text"])
    assert set((tmp_path / "log.txt").read_text().split("ran")) == {""}


def test_a_script_that_is_small_is_offered_as_it_is(reduced):
    text = "import torch\nx = torch.zeros(1).log()\nassert x.isfinite().all()\n"
    _, told = reduced(text)
    assert (told["listing"]["whole"], told["listing"]["text"]) == (True, text)


def test_without_an_origin_the_script_is_offered_as_it_is(reduced):
    verdict, told = reduced("import sys\nx = 1\nsys.exit(1)\n")
    assert verdict == "skip"
    assert told["listing"]["whole"]
    assert told["listing"]["text"] == "import sys\nx = 1\nsys.exit(1)\n"


def test_a_good_script_is_not_reduced(reduced):
    assert reduced("x = 1\n") == ("good", None)


@pytest.mark.slow
def test_an_exception_that_only_comes_with_a_nan_is_told_by_an_assertion(reduced, tmp_path):
    text = "import torch\nx = torch.zeros(2)\nprint(x)\np = x / x.sum()\nn = 3\ny = torch.multinomial(p, 1)\nprint(y)\n"
    verdict, told = reduced(text)
    assert verdict == "bad"
    status, said = ends(told["listing"]["text"], tmp_path)
    assert (status, said.partition(":")[0]) == (1, "AssertionError")


@pytest.mark.slow
def test_where_chance_decides_a_seed_is_kept(reduced, tmp_path):
    text = (
        "import torch\ntorch.manual_seed(1)\nn = 3\nprint(n)\nx = 0.6 - torch.rand(1)\ny = torch.log(x)\n"
        "for k in range(4):\n    print(k)\nassert y.isfinite().all(), 'y'\n"
    )
    _, told = reduced(text)  # the seeds under which it is tried are bad, those under which it is confirmed are not
    assert "manual_seed" in calls(told["listing"]["text"])
    assert not told["listing"]["whole"]
    assert [ends(told["listing"]["text"], tmp_path)[0] for _ in range(8)] == [1] * 8


def test_a_script_that_draws_without_a_seed_gets_one(reduced, tmp_path):
    _, told = reduced(
        "import torch\nx = torch.randn(200)\ny = torch.sqrt(x)\nw = y * 2 + 1\nassert not w.isnan().any()\n"
    )
    assert told["listing"]["unseeded"] == []
    assert "manual_seed" in calls(told["listing"]["text"])
    assert ends(told["listing"]["text"], tmp_path)[0] == 1


def test_each_generator_is_seeded_by_the_scripts_own_name_for_it():
    made = seeded(3, frozenset(("numpy", "random"))).make(parsed("import random, numpy as np\nx = 1\n"))
    assert written(made).text == "import random, numpy as np\nrandom.seed(3)\nnp.random.seed(3)\nx = 1\n"


def test_a_seed_stands_behind_the_imports():
    made = seeded(3).make(parsed("import torch\nfrom torch import nn\nx = 1\n"))
    assert written(made).text == "import torch\nfrom torch import nn\ntorch.manual_seed(3)\nx = 1\n"
    assert seeded(3).make(parsed("from torch import nn\nx = 1\n")) is None


# --- the same fault, and all that it needs ---------------------------------------------------------------------------

ROUNDED = """
import math, random, torch
random.seed(8); torch.manual_seed(8)
n = 0
for trial in range(60):
    a = torch.randn(3)
    b = a * random.uniform(0.5, 3) if random.random() < 0.3 else torch.randn(3)
    cos = (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())
    n += math.isnan(torch.acos(cos).item())
assert n == 0
"""


def test_a_number_that_was_rounded_over_the_edge_is_not_replaced_by_one_far_beyond(reduced, tmp_path):
    _, told = reduced(ROUNDED)
    small = told["listing"]["text"]
    assert "manual_seed" in small
    assert told["listing"]["unseeded"] == []
    watch = "import torch\nreal = torch.acos\ndef acos(x):\n    print('GIVEN', x.tolist())\n    return real(x)\n"
    watch += "torch.acos = acos\n"
    (tmp_path / "watched.py").write_text(watch + small)
    ran = subprocess.run(
        [sys.executable, "-I", "watched.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    given = [ast.literal_eval(line[6:]) for line in ran.stdout.splitlines() if line.startswith("GIVEN")]
    beyond = [abs(value) for value in given if isinstance(value, float) and abs(value) > 1]
    assert beyond
    assert max(beyond) < 1.00001
    assert {ends(small, tmp_path)[0] for _ in range(3)} == {1}


def test_what_is_read_of_a_file_is_the_same_element_and_stands_in_the_script(reduced, tmp_path):
    text = (
        "import numpy as np, torch\nrows = np.genfromtxt('people.csv', delimiter=',', skip_header=1)\n"
        "x = torch.from_numpy(rows[:, 1:]).float()\nx = (x - x.mean(0)) / x.std(0)\n"
        "assert not torch.isnan(x * 2).any()\n"
    )
    _, told = reduced(text, people_csv="id,age\n1,34\n2,\n3,28\n")
    small = told["listing"]["text"]
    (tmp_path / "people.csv").unlink()
    assert "genfromtxt" not in calls(small)
    assert told["listing"]["reads"] == []
    assert '[2.0, float("nan")]' in small
    assert ends(small, tmp_path)[0] == 1


TRAINS = """
import torch

torch.manual_seed(0)
net = torch.nn.Linear(3, 3)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(300):
    loss = (net(torch.ones(1, 3)) ** 2).sum()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step == 20:
        with torch.no_grad():
            net.weight[1, 1] = -1.0
            net.weight.log_()
print(loss.item())
assert loss == loss, "nan"
"""


def test_a_training_goes_on_no_longer_than_until_the_value_is_bad(reduced, tmp_path):
    _, told = reduced(TRAINS)
    small = told["listing"]["text"]
    assert "300" not in small
    assert all(int(number) <= 22 for number in re.findall(r"range\((\d+)\)", small)), small
    assert ends(small, tmp_path)[0] == 1


@pytest.mark.parametrize(
    ("reading", "files"),
    [
        ("with open('c.json') as f:\n    held = json.load(f)\nx, eps = torch.tensor(held['x']), held['eps']", "c.json"),
        ("held = numpy.load('a.npz')\nx, eps = torch.from_numpy(held['x']), float(held['eps'])", "a.npz"),
        ("held = torch.load('b.pt', weights_only=True)\nx, eps = held['x'], held['eps']", "b.pt"),
        ("held = load_file('d.safetensors')\nx, eps = held['x'], float(held['eps'])", "d.safetensors"),
    ],
)
def test_a_small_record_that_is_read_stands_in_the_script(reduced, tmp_path, reading, files):
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    (tmp_path / "c.json").write_text(json.dumps({"x": x.tolist(), "eps": 0.0, "name": "made here"}))
    numpy.savez(tmp_path / "a.npz", x=x.numpy(), eps=0.0)
    torch.save({"x": x, "eps": 0.0}, tmp_path / "b.pt")
    save_file({"x": x, "eps": torch.tensor(0.0)}, tmp_path / "d.safetensors")
    imports = "import json, numpy, torch\nfrom safetensors.torch import load_file\n"
    end = "\ny = x / (x.norm(dim=-1, keepdim=True) + eps)\nassert not y.isnan().any(), 'nan'\n"
    _, told = reduced(imports + reading + end)
    (tmp_path / files).unlink()
    small = told["listing"]["text"]
    assert told["listing"]["reads"] == [], small
    assert ends(small, tmp_path)[0] == 1


def test_modules_beside_the_script_are_put_into_it(reduced, tmp_path):
    helpers = "import torch\n\n\ndef unit(x):\n    return x / x.norm()\n\n\ndef other(x):\n    return x\n"
    text = "import torch\nimport helpers\nx = torch.zeros(4)\ny = helpers.unit(helpers.other(x))\n"
    text += "assert not y.isnan().any()\n"
    _, told = reduced(text, helpers_py=helpers)
    small = told["listing"]["text"]
    (tmp_path / "helpers.py").unlink()
    assert "helpers" not in small
    assert "norm" in calls(small)
    assert ends(small, tmp_path)[0] == 1


def test_an_exception_becomes_an_assertion_and_the_model_does_not_grow(reduced, tmp_path):
    text = (
        "import torch\ntorch.manual_seed(0)\n\n\nclass Net(torch.nn.Module):\n    def __init__(self, width=256):\n"
        "        super().__init__()\n        self.one = torch.nn.Linear(width, 4)\n\n    def forward(self, x):\n"
        "        return torch.log(self.one(x))\n\n\nnet = Net(width=6)\n"
        "p = net(torch.ones(2, net.one.in_features)).softmax(-1)\nprint(torch.multinomial(p, 1))\n"
    )
    _, told = reduced(text)
    small = told["listing"]["text"]
    assert ends(small, tmp_path)[1].startswith("AssertionError")
    assert "256" not in small


def test_a_loss_that_is_nan_stays_one(reduced, tmp_path):
    text = (
        "import torch\nz = torch.tensor([[0.0, 2.0], [1.0, 3.0]])\np = z / z.sum(-1, keepdim=True)\n"
        "entropy = -(p * torch.log(p)).sum(-1).mean()\nprint(entropy)\nif entropy.isnan():\n    raise SystemExit(1)\n"
    )
    _, told = reduced(text)
    small = told["listing"]["text"]
    assert "isnan" in calls(small)
    assert "isfinite" not in calls(small)
    assert ends(small, tmp_path)[0] == 1
