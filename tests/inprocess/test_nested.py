"""A watch inside of another, a find inside of a watch, several threads: each sees the program, and none of the others'
work.
"""

import threading
from pathlib import Path

import torch
from torch import nn

import repro
from inprocess.test_watch import net


def line(word):
    with Path(__file__).open(encoding="utf-8") as opened:
        number = next(at for at, text in enumerate(opened, 1) if text.rstrip().endswith(f"# BORN: {word}"))
    return f"test_nested.py:{number}"


def test_both_name_the_line():
    with repro.watch() as outer, repro.watch() as inner:
        y = torch.log(torch.tensor([-1.0, 1.0]))  # BORN: both
    for seen in (outer, inner):
        assert seen.finding.answer.watch.arrived == "the variable y"
        assert (seen.finding.origin.op, seen.finding.origin.source) == ("aten.log.default", line("both"))
    assert y.isnan().any()


def test_three_deep_and_through_a_helper():
    def helper():
        with repro.watch(), repro.watch():
            return torch.log(torch.tensor([-1.0, 1.0])) + 1.0  # BORN: helper

    with repro.watch() as outer:
        z = helper() * 2
    assert (outer.finding.origin.op, outer.finding.origin.source) == ("aten.log.default", line("helper"))
    assert outer.finding.answer.watch.arrived == "the variable z"
    assert z.isnan().any()


def test_an_outer_watch_counts_the_operators_of_the_program_alone():
    def run():
        layer = nn.Linear(2, 2)
        for _ in range(3):
            layer(torch.ones(1, 2)).sum().backward()

    alone, nested = [], []
    for _ in range(3):  # one count in some runs has one operator more, which is none of the inner watch's: the fewest
        with repro.watch() as seen:
            run()
        alone.append(seen.finding.answer.watch.operators)
        with repro.watch() as outer, repro.watch():
            run()
        assert outer.finding.verdict == "good"
        nested.append(outer.finding.answer.watch.operators)
    assert min(nested) == min(alone)


def test_a_find_inside_of_a_watch_or_a_guard_is_none_of_theirs():
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with repro.Guard(layer, optimizer, then="note") as guard, repro.watch(layer) as seen:
        assert repro.find(layer, torch.full((1, 2), float("nan"))).verdict == "bad"
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert seen.finding.verdict == "good"
    assert guard.finding is None
    assert guard.steps == 1


def test_a_guard_inside_of_a_watch_and_a_bad_step():
    model = net("backward")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.zeros(3, 8)
    with repro.watch(model, optimizer) as seen, repro.Guard(model, optimizer, then="note") as guard:
        model(x).sum().backward()
        optimizer.step()
    assert guard.finding.origin.phase == "backward"
    assert seen.finding.origin.phase == "backward"
    assert seen.finding.origin.forward_source == guard.finding.origin.forward_source


def test_threads_that_watch_one_module_see_their_own_calls():
    layer = nn.Linear(4, 4)
    ends = []

    def work(bad):
        for _ in range(5):
            with repro.watch(layer) as seen:
                layer(torch.full((2, 4), float("nan") if bad else 1.0))
            ends.append((bad, seen.finding.verdict))

    threads = [threading.Thread(target=work, args=(at == 1,)) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == [(False, "good")] * 10 + [(True, "bad")] * 5
    assert not layer._forward_hooks
