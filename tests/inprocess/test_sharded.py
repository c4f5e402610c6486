"""Models whose weights FSDP shares out among processes: two real ones, over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import repro

ROOT = Path(__file__).parents[2]
NET = """
import json, os, sys, datetime, torch, torch.distributed as dist, torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import fully_shard
import repro

class Block(nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.layer, self.fault = nn.Linear(8, 8, bias=False), fault
    def forward(self, x):
        x = torch.tanh(self.layer(x))
        size = (x * x).sum(-1, keepdim=True)
        if self.fault == "forward":
            return x + size / size
        if self.fault == "backward":
            return x + size.sqrt()
        return x + size

class Net(nn.Module):
    def __init__(self, fault):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Block(""), Block(fault)])
        self.head = nn.Linear(8, 4)
    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)
"""
LINES = {"forward": "net.py:15", "backward": "net.py:17"}
TRAINED = """
from net import *

from repro.inprocess.finding import Finding
Finding.report = lambda self, folder: None  # takes long, and is tested elsewhere

rank, store, patience = int(sys.argv[1]), os.path.abspath("store"), datetime.timedelta(seconds=60)
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2, timeout=patience)

def trained(fault, guarded):
    model = Net(fault)
    for part in (*model.blocks, model):
        fully_shard(part)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=0.0 if fault == "optimizer" else 1e-8)
    chance = torch.Generator().manual_seed(rank)
    guard = repro.Guard(model, optimizer, out="out" if fault == "backward" else None)
    told = {}
    if guarded:
        guard.start()
    try:
        for step in range(4):
            x, y = torch.randn(4, 8, generator=chance), torch.randint(0, 4, (4,), generator=chance)
            if step == 2 and rank == 1:
                x[2] = 0
            loss = F.cross_entropy(model(x), y)
            (loss * 0 if fault == "optimizer" else loss).backward()
            optimizer.step()
            optimizer.zero_grad()
    except repro.FaultFound as error:
        origin, seen = error.finding.origin, error.finding.answer.watch
        names = ("module", "op", "phase", "source", "forward_source")
        told = {**{name: getattr(origin, name, None) for name in names}, "step": seen.step, "examples": seen.examples}
    finally:
        guard.close()
    return told, [parameter.full_tensor().tolist() for parameter in model.parameters()]

assert trained("", True)[1] == trained("", False)[1]  # the third step's row of zeros, too
print(json.dumps({fault: trained(fault, True)[0] for fault in ("forward", "backward", "optimizer")}))

model = Net("forward")
for part in (*model.blocks, model):
    fully_shard(part)
finding = repro.find(model, torch.zeros(2, 8) if rank else torch.ones(2, 8))
print(json.dumps([finding.verdict, getattr(finding.origin, "source", None)]))
with repro.watch(model) as seen:
    model(torch.zeros(2, 8) if rank else torch.ones(2, 8))
print(json.dumps([seen.finding.verdict, getattr(seen.finding.origin, "source", None)]))
dist.destroy_process_group()
"""


def run_by_two(tmp_path, text):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "run.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "run.py"]
    ran = [
        subprocess.Popen([*command, str(rank)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    return [[json.loads(line) for line in process.communicate(timeout=120)[0].splitlines()] for process in ran]


@pytest.mark.slow
def test_processes_that_share_a_model_repeat_a_bad_step_together(tmp_path, monkeypatch):
    pytest.importorskip("torch.distributed.fsdp").fully_shard  # noqa: B018 - newer than FSDP itself
    here, there = run_by_two(tmp_path, TRAINED)
    place = {"module": "blocks.1", "op": "aten.div.Tensor", "step": 3, "examples": [2]}
    forward = {**place, "phase": "forward", "source": LINES["forward"], "forward_source": None}
    backward = dict.fromkeys(("source", "forward_source"), LINES["backward"])
    assert here[0]["forward"] == there[0]["forward"] == forward
    assert here[0]["backward"] == there[0]["backward"] == {**place, "phase": "backward", **backward}
    assert here[0]["optimizer"] == there[0]["optimizer"]
    assert (here[0]["optimizer"]["phase"], here[0]["optimizer"]["step"]) == ("optimizer", 1)
    assert here[1:] == [["good", None], ["good", None]]  # its own inputs are sound, and none waits for the other
    assert there[1:] == [["bad", LINES["forward"]]] * 2
    monkeypatch.syspath_prepend(tmp_path)
    from net import Net  # type: ignore[import-not-found]

    again = repro.replay(
        tmp_path / "out" / "step", Net("backward")
    )  # it holds the whole weights, and one process's call
    assert (again.origin.source, again.answer.watch.examples) == (LINES["backward"], (2,))
    assert not (tmp_path / "out-2").exists()


def test_a_sharded_model_of_one_process_is_screened_as_a_whole_one(tmp_path):
    import torch
    import torch.distributed as dist

    shard = pytest.importorskip("torch.distributed.fsdp").fully_shard
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = torch.nn.Linear(4, 2)
        shard(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        guard = repro.Guard(model, optimizer)
        with pytest.raises(repro.FaultFound), guard:  # noqa: PT012 - the loop raises
            torch.log(model(torch.zeros(1, 4)) * 0).sum().backward()
            optimizer.step()
        assert guard.finding.origin is None
        assert "made behind the model" in guard.finding.text
    finally:
        dist.destroy_process_group()


def test_a_watch_of_a_sharded_model_disturbs_nothing_and_names_the_line(tmp_path):
    """In a process of its own: what PyTorch has once worked out about a sharded operator it does not ask again."""
    (tmp_path / "run.py").write_text(SHARDED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "run.py"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["good", "bad", "aten.div.Tensor", "run.py:13"], ran.stderr


SHARDED = """
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
import repro

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
    def forward(self, x):
        size = self.layer(x).square().sum() * x.abs().max()
        return size.sqrt()

dist.init_process_group("gloo", init_method="file://" + __file__ + ".store", rank=0, world_size=1)
for x in (torch.ones(2, 4), torch.zeros(2, 4)):
    torch.manual_seed(0)
    model = Net()
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters())
    with repro.watch(model, optimizer) as seen:
        for _ in range(2):
            model(x).backward()
            optimizer.step()
    print(seen.finding.verdict)
print(seen.finding.origin.op, seen.finding.origin.forward_source)
dist.destroy_process_group()
"""
