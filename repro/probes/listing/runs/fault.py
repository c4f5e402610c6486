"""Whether a candidate shows the same fault: it is bad, through the same operator, by the same mechanism, in the same
phase, and the line of the original where that is born is still there.

The cheap question comes first: does the candidate end as bad when it is run plainly? Only then is it watched.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ...observe.watch import base_name
from ...program.capture import WINDOW, Found, Wanted
from ...program.kinds import Kinds
from ...program.makers import MADE, Candidate, Rule
from ...program.search import FAST_PATH, STAND_INS
from ...script.answer import ROUNDING, Script, begun, bisect
from ...script.child import Around, Job
from ...script.run import Ran, run_script
from ...script.runs import Runs
from .confined import CONFINED, Confinement

Place = Any
"""Where an operator is called from: the statements of the original (a frozenset), or "file.py:line" of other code."""
MADE_HERE, CORRECTED, COMPILED, FUSED, SEARCHED = "made here", "corrected", "compiled", "fused", "searched"
GLANCED = (MADE_HERE, SEARCHED)  # of which a part of the experiments tells nearly as much
FURTHER = (3, 4, 5)  # seeds under which the version that is offered must be bad as well
WATCHED = 3.0  # times the seconds of a plain run that a watched one may take
NARROW = ("op", "mechanism", "phase", "layer", "forward_op")


@dataclass(frozen=True)
class Fault:
    """What makes two faults the same one.

    op, mechanism, phase, layer, forward_op: as in the origin's record, operators by their base name. at, forward_at:
    the places of the operator and of the forward operator behind it. raised: the type of the exception that ended the
    script, where that was its answer. how: by which experiments it is told from others. rule, settings: of a watched
    run. values: the kinds of bad values that the operator gave. dtypes: of what it was given. kinds: of that, where it
    is known.
    """

    op: str
    mechanism: str
    phase: Optional[str]
    layer: Optional[str]
    forward_op: Optional[str]
    at: Place
    forward_at: Place
    raised: Optional[str]
    how: str
    rule: Rule = dataclasses.field(default_factory=Rule)
    settings: tuple[str, ...] = ()
    values: frozenset[str] = frozenset()
    dtypes: frozenset[str] = frozenset()
    kinds: Optional[Kinds] = None

    @classmethod
    def of(cls, script: Script, origin: Mapping[str, Any], places: Mapping[int, frozenset[int]]) -> "Fault":
        """Of the original, from the origin's record.

        places: for each line of it, the statements that it stands for.
        """
        raised = script.runs.plain.key[0] if script.nonfinite else None
        rule = Rule() if script.watched is None else script.watched.rule
        found = None if script.found is None else script.found.found
        how = SEARCHED
        if origin["op"] == "torch.compile" or origin["mechanism"] == "compiler":
            how = COMPILED
        elif origin.get("layer") == "fast path":
            how = FUSED
        elif origin.get("confirmed_by") == "corrected":
            how = CORRECTED
        elif found is not None and found.kind == MADE:
            how = MADE_HERE
        at, forward_at = _places(origin, script.runs.path, places)
        kinds = None if found is None else found.kinds
        given = _values(origin), _dtypes(origin), kinds
        return cls(*_narrow(origin), at, forward_at, raised, how, rule, (), *given)

    def ways(self) -> "Iterator[Fault]":
        """The same fault by each way of telling it, the quickest first. One of them must hold of the original."""
        yield self
        if self.how == MADE_HERE:
            yield dataclasses.replace(self, settings=(FAST_PATH,))
        if self.how not in (SEARCHED, COMPILED):  # the search compiles its nodes one by one
            yield dataclasses.replace(self, how=SEARCHED)

    def is_in(
        self,
        origin: Mapping[str, Any],
        found: Optional[Found],
        path: str,
        places: Mapping[int, frozenset[int]],
    ) -> bool:
        """Whether an origin's record tells of the same fault. found: what it was made of, where that is known."""
        wanted = (self.op, self.mechanism, self.phase, self.layer, self.forward_op)
        both = zip(_places(origin, path, places), (self.at, self.forward_at))
        if _narrow(origin) != wanted or not all(_same_place(one, two) for one, two in both):
            return False
        if _dtypes(origin) != self.dtypes or not (_values(origin) & self.values or _values(origin) == self.values):
            return False
        return found is None or self.kinds is None or found.kinds == self.kinds

    @property
    def kept(self) -> frozenset[int]:
        """The statements of the original that must stay."""
        found: frozenset[int] = frozenset()
        return found.union(*(at for at in (self.at, self.forward_at) if isinstance(at, frozenset)))


def _narrow(origin: Mapping[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
    values = {name: origin.get(name) for name in NARROW}
    values["phase"] = "forward" if values["phase"] in (None, "loss") else values["phase"]  # a loss is one by its name
    values["op"] = base_name(str(values["op"]))
    values["forward_op"] = None if values["forward_op"] is None else base_name(values["forward_op"])
    op, mechanism, phase, layer, forward_op = values.values()
    return op, mechanism, phase, layer, forward_op


def _values(origin: Mapping[str, Any]) -> frozenset[str]:
    """The kinds of bad values: that of the element, and the others beside it."""
    output = origin.get("output") or {}
    found = {name for name, key in (("nan", "nan"), ("inf", "posinf"), ("-inf", "neginf")) if output.get(key)}
    value = origin.get("value")
    if isinstance(value, float) and not math.isfinite(value):
        found.add(str(value))
    return frozenset(found)


def _dtypes(origin: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(item["dtype"] for item in origin.get("inputs") or ())


def _places(origin: Mapping[str, Any], path: str, places: Mapping[int, frozenset[int]]) -> tuple[Place, Place]:
    return place_of(origin.get("source"), path, places), place_of(origin.get("forward_source"), path, places)


def place_of(source: Optional[str], path: str, places: Mapping[int, frozenset[int]]) -> Place:
    """A place from "file.py:line". A library may have a file of the script's name, in which other lines hold code."""
    file, _, line = (source or "").rpartition(":")
    if file != os.path.basename(path) or not line.isdigit():
        return source
    return places.get(int(line), source)


def _same_place(one: Place, two: Place) -> bool:
    if isinstance(one, frozenset) and isinstance(two, frozenset):
        return bool(one & two)
    return bool(one == two)


@dataclass(frozen=True)
class Question:
    """A candidate, and what is asked of it.

    path: where it lies. places: of its lines. confinement: of its runs. folder: where these report. seconds: that each
    may take. most: seconds of a processor that the plain one may take. whole: whether its origin is searched for as
    that of a new script, else the known operator alone is looked at; not of a fault of compiled code, where that takes
    minutes. glance: whether it is enough that this operator
    makes a bad value there; that the script is bad for it, and by the same mechanism, is asked later.
    """

    path: str
    places: Mapping[int, frozenset[int]]
    confinement: Confinement
    folder: str
    seconds: float
    most: Optional[float]
    whole: bool = False
    glance: bool = False


def shows(asked: Question, fault: Fault) -> tuple[bool, float]:
    """Whether the candidate shows the fault, and how many seconds of a processor its plain run took. That one is held
    to the original's conduct; the others do the same.
    """
    before = _spent()
    confinement = dataclasses.replace(asked.confinement, seed=1, most=asked.most)
    plain = run_script(Job(asked.path, around=_around(asked, confinement, asked.seconds)))
    spent = _spent() - before
    if (asked.most is not None and spent > asked.most) or not is_bad(plain, fault.raised):
        return False, spent
    asked = dataclasses.replace(asked, confinement=dataclasses.replace(asked.confinement, conduct=None))
    for seed in FURTHER if asked.whole else ():
        other = dataclasses.replace(asked.confinement, seed=seed)
        if not is_bad(run_script(Job(asked.path, around=_around(asked, other, asked.seconds))), fault.raised):
            return False, spent
    return _is_the_same(asked, fault, plain), spent


def _spent() -> float:
    """Seconds of a processor that the processes which this one started have taken, where the system counts them."""
    times = os.times()
    return times.children_user + times.children_system


def _is_the_same(asked: Question, fault: Fault, plain: Ran) -> bool:
    other = dataclasses.replace(asked.confinement, seed=2)  # one draw of random numbers is not enough
    runs = Runs(asked.path, plain, around=_around(asked, other, WATCHED * asked.seconds))
    if asked.glance and fault.how in GLANCED:
        return _is_made(asked, fault, runs)
    if fault.how == SEARCHED or (asked.whole and fault.how != COMPILED):
        return _searched(asked, fault, runs)
    tests = {MADE_HERE: _made_here, CORRECTED: _corrected, COMPILED: _compiled, FUSED: _fused}
    return tests[fault.how](asked, fault, runs)


def _around(asked: Question, confinement: Confinement, seconds: float) -> Around:
    return Around((CONFINED, confinement), seconds, asked.folder)


def is_bad(plain: Ran, raised: Optional[str]) -> bool:
    """Whether it ends as bad. raised: an exception that counts as that as well."""
    return plain.verdict == "bad" or (raised is not None and plain.raised and plain.key[0] == raised)


def _searched(asked: Question, fault: Fault, runs: Runs) -> bool:
    """The whole search, as for the original."""
    script = begun(runs)
    verdict, _, payload = bisect(script)
    origin = (payload or {}).get("origin")
    found = None if script.found is None else script.found.found
    return verdict == "bad" and origin is not None and fault.is_in(origin, found, asked.path, asked.places)


def _made_here(asked: Question, fault: Fault, runs: Runs) -> bool:
    """The known operator on its known line, repaired on the spot: is the script well? And by which mechanism is it?"""
    runs = runs.with_settings(*fault.settings)
    watched = runs.look(fault.rule)
    if watched.found is None or not runs.same(watched):
        return False
    made = [item for item in watched.found.candidates if _is_wanted(item, asked, fault)]
    if not made:
        return False
    repaired = dataclasses.replace(fault.rule, repair=True, meant=True, only=frozenset(item.name for item in made))
    if not any(runs.well(runs.look(dataclasses.replace(repaired, stand_in=value))) for value in STAND_INS):
        return False
    return any(_captured(asked, fault, runs, item) for item in _ends(made))


def _is_made(asked: Question, fault: Fault, runs: Runs) -> bool:
    """Whether the known operator gives a bad value on its known line."""
    runs = runs.with_settings(*fault.settings)
    watched = runs.look(fault.rule)
    if watched.found is None or not runs.same(watched):
        return False
    return any(_is_there(item, asked, fault) for item in watched.found.candidates)


def _is_wanted(item: Candidate, asked: Question, fault: Fault) -> bool:
    return item.kind == MADE and _is_there(item, asked, fault)


def _is_there(item: Candidate, asked: Question, fault: Fault) -> bool:
    if item.address.base_name != fault.op:
        return False
    return _same_place(place_of(item.source, asked.path, asked.places), fault.at)


def _ends(made: list[Candidate]) -> Iterator[Candidate]:
    """The first and the last of what the line made: each may be the one."""
    yield made[0]
    if len(made) > 1:
        yield made[-1]


def _captured(asked: Question, fault: Fault, runs: Runs, item: Candidate) -> bool:
    found = runs.capture(Wanted(item.name, fault.rule, max(0, item.place - WINDOW)))
    return found is not None and fault.is_in(found.origin, found, asked.path, asked.places)


def _corrected(asked: Question, fault: Fault, runs: Runs) -> bool:
    """The operator that is farthest from float64, corrected on the spot."""
    rounding = runs.run(watch=ROUNDING).found
    if rounding is None or rounding.farthest is None or rounding.is_within:
        return False
    if not fault.is_in({**rounding.origin(), "phase": fault.phase}, None, asked.path, asked.places):
        return False
    return runs.well(runs.run(watch=ROUNDING, given=rounding.farthest.address))


def _compiled(asked: Question, fault: Fault, runs: Runs) -> bool:
    return runs.well(runs.unwatched("compile=off"))


def _fused(asked: Question, fault: Fault, runs: Runs) -> bool:
    return runs.well(runs.unwatched(FAST_PATH))
