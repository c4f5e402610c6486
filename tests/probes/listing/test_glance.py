"""Versions kept at a glance: what does not hold when all is asked is taken back."""

import pytest

from repro.probes.listing.listing import Seen, Shrinking
from repro.probes.listing.runs.fault import MADE_HERE, SEARCHED, Fault
from repro.probes.listing.runs.pool import Setting
from repro.probes.listing.text.tree import parsed
from repro.probes.reduce.trials import Trials

TEXT = "".join(f"v{number} = print()\n" for number in range(12))
SEEN = Seen(frozenset(range(10_000)), [], {}, frozenset(), {}, {})


class Told:
    """A pool that runs nothing: a version shows the fault by the names of variables in it."""

    def __init__(self, whole, glance):
        self.wanted = {False: whole, True: glance}
        self.asked, self.answers = {False: 0, True: 0}, {}
        self.free = 2

    def ask(self, _, asked):
        self.asked[asked.glance] += 1
        self.free -= 1
        number = next(number for number in (0, 1) if number not in self.answers)
        self.answers[number] = (all(name in asked.text for name in self.wanted[asked.glance]), 0.0)
        return number

    def answer(self, number):
        self.free += 1
        return self.answers.pop(number)

    leave = answer


def shrunk(pool, how=MADE_HERE):
    fault = Fault("exp", "overflow", "forward", None, None, None, None, None, how)
    shrinking = Shrinking(parsed(TEXT), fault, Setting("asks.py", "."), 5.0, pool, Trials(lambda *_, **__: None))
    assert shrinking.holds()
    shrinking.run(SEEN)
    return shrinking.state.text.text


@pytest.mark.parametrize("how", [MADE_HERE, SEARCHED])
def test_what_holds_at_a_glance_alone_is_taken_back(how):
    pool = Told(whole=("v3 ", "v10 "), glance=("v10 ",))
    assert shrunk(pool, how).split("\n")[:2] == ["v3 = print()", "v10 = print()"]


def test_where_the_glance_tells_the_fault_few_are_asked_the_rest():
    pool = Told(whole=("v3 ", "v10 "), glance=("v3 ", "v10 "))
    assert shrunk(pool).split("\n")[:2] == ["v3 = print()", "v10 = print()"]
    assert pool.asked[False] < pool.asked[True] / 2


def test_where_the_original_shows_nothing_at_a_glance_all_is_asked_each_time():
    pool = Told(whole=("v3 ",), glance=("not there",))
    assert shrunk(pool).startswith("v3 = print()")
    assert pool.asked[True] == 1


def test_a_fault_of_another_kind_is_not_glanced_at():
    pool = Told(whole=("v3 ",), glance=("v3 ",))
    assert shrunk(pool, "compiled").startswith("v3 = print()")
    assert pool.asked[True] == 0
