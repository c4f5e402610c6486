"""A script made smaller: coarse changes first, each tried on a copy, each kept where the fault is the same one."""

import ast
import dataclasses
import itertools
import math
import os
import time
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ..reduce.trials import Trials
from ..script.answer import Script
from ..script.child import preload
from .change import change
from .edits.data import Literals, Shapes, options, replaced, written_down
from .edits.edit import Edit, parts
from .edits.endings import Bad, assertions, bound, instead_of
from .edits.expressions import items, simpler
from .edits.folding import folded
from .edits.numbers import smaller_numbers
from .edits.parameters import defaults, unread
from .edits.statements import (
    blocks,
    called_once,
    drawn_anew,
    fewer_rounds,
    listed,
    not_needed,
    not_run,
    opened,
    plain,
    removal,
    seeded,
    uncompiled,
)
from .edits.variables import inlined
from .runs.conduct import CONDUCT
from .runs.confined import Access
from .runs.fault import COMPILED, CORRECTED, GLANCED, Fault
from .runs.pool import Pool, Run, Setting, Try
from .runs.recorded import RECORD, Recorded
from .text.joined import HERE, CannotJoin, joined
from .text.names import ids, unbound
from .text.tree import Tree, hold, parsed, walk, whose
from .text.written import Text, code_lines, written

ROUNDS = 4
SEEDS = range(5)  # that are tried where chance decides
PATIENCE, LEAST = 3.0, 5.0  # times the original's own seconds, and seconds beyond, that a candidate may take
SLOWER, SLACK = 1.25, 0.03  # the same of a processor, where a default may stand for a model of another size
SHORTER = 0.75  # of the characters, from which on a script of as many lines is a smaller one
OWN = ("__main__", "torch", None)  # whose lines the script's author can change; another library's are its makers'
UNSURE = 4  # versions that are kept at a glance before all is asked of the last one
SLOW = 2.0  # seconds of a run from which on numbers are made smaller first


@dataclass
class State:
    """The smallest version so far."""

    tree: Tree
    text: Text


@dataclass(frozen=True)
class Seen:
    """What was seen in one run of the script, which orders the questions.

    ran, bad, shapes: the statements that ran, those that bind a bad value, and tensors that they bind. modules: names
    of modules. options: by name, the values of parsed arguments and of other records. written: what statements bind
    that read a file, without it. rounds: of loops, until values went bad.
    """

    ran: frozenset[int]
    bad: Sequence[Bad]
    shapes: Shapes
    modules: frozenset[str]
    options: Mapping[str, Mapping[str, Any]]
    written: Literals
    rounds: Mapping[frozenset[int], tuple[int, ...]] = dataclasses.field(default_factory=dict)


Asked = tuple[Optional[State], Optional[int]]
"""What an edit gives, and the number of the worker that was asked about it; None where there is nothing to ask."""


class Shrinking:
    """The search for a smaller version of one script.

    fault: what every version must show.
    """

    def __init__(self, tree: Tree, fault: Fault, setting: Setting, seconds: float, pool: Pool, trials: Trials) -> None:
        self._fault = fault
        self.setting = setting
        self._seconds = seconds
        self._spent = math.inf
        self._pool = pool
        self._trials = trials
        self._known: dict[str, bool] = {}
        self._failed: set[tuple[str, str]] = set()
        self._unbound = unbound(tree)
        self.state = State(tree, written(tree))
        self.history = [self.state]
        self._sure = 0
        self._glance = False

    def run(self, seen: Seen) -> None:
        """Every kind of change, again as long as one of them is kept."""
        if self._fault.how != COMPILED:  # what is compiled takes seconds in each run
            self._sweep(uncompiled(self.state.tree))
        self._sweep(fewer_rounds(self.state.tree, seen.rounds))
        self._sweep([not_run(self.state.tree, seen.ran)])
        self._asserting()
        self._ending(seen.bad)
        for number in range(ROUNDS):
            before, glanced = self.state, self._glance
            if number == 0:
                self._sweep([not_needed(self.state.tree, self._ends() | self._fault.kept)])
                if self._seconds > LEAST + PATIENCE * SLOW:
                    self._sweep(smaller_numbers(self.state.tree))
            self._cut()
            self._until_no_more(opened)
            self._until_no_more(called_once)
            if number == 0:
                self._ending(seen.bad)
            self._sweep(options(self.state.tree, seen.options))
            self._sweep(replaced(self.state.tree, seen.shapes, seen.modules))
            self._sweep(written_down(self.state.tree, seen.written))
            for edits in (folded, smaller_numbers, items, simpler, inlined, defaults, unread, plain):
                self._sweep(self._new(edits(self.state.tree)))
            self._settle()
            if (self.state is before and self._glance == glanced) or self._trials.over:
                break
        self._sweep([not_needed(self.state.tree, self._ends() | self._fault.kept)])
        self._without_draws()
        self._settle()

    def _asserting(self) -> None:
        """An assertion in place of an exception, and from then on no version that ends with that by itself."""
        if self._fault.raised is None:
            return
        before = self.state
        self._sweep([instead_of(self._fault.raised)])
        self._settle()
        if self.state is not before:
            self._fault = dataclasses.replace(self._fault, raised=None)

    def _without_draws(self) -> None:
        """What feeds nothing stays where it draws random numbers; with another seed the fault may do without."""
        needless = not_needed(self.state.tree, self._ends() | self._fault.kept)
        for edit in self._each([drawn_anew(needless, seed) for seed in SEEDS]):
            if edit is not None:
                return

    def _settle(self) -> None:
        """Ask all of what was kept at a glance. Where it does not hold, go back to the last version that does; from
        then on each is asked all at once.
        """
        later = self.history[self._sure + 1 :]
        if later and self._glance and not self._holds(later[-1]):
            kept = _last(later, self._holds)
            self._glance = False
            self._known.update(dict.fromkeys((state.text.text for state in later[kept:]), False))
            del self.history[self._sure + 1 + kept :]
            self.state = self.history[-1]
        self._sure = len(self.history) - 1

    def _ends(self) -> frozenset[int]:
        """The statements of the original that the last one stands for."""
        body = self.state.tree.module.body
        numbers = [whose(node) for last in body[-1:] for node in walk(last)]
        return frozenset().union(*numbers)

    def _ending(self, bad: Sequence[Bad]) -> None:
        """The first assertion that tells the fault; then the others have nothing to do. Where there is an assertion by
        now, another one has to leave more of the script out.
        """
        if self._fault.how in (COMPILED, CORRECTED):
            return  # such a script compares two results, and says so by its own end
        asserts = any(isinstance(node, ast.Assert) for node in self.state.tree.statements())
        most = self.state.text.lines - asserts

        def fits(edit: Edit) -> bool:
            made = edit.make(self.state.tree)
            return made is not None and written(made).lines <= most

        for edit in self._each(filter(fits, assertions(self.state.tree, bad))):
            if edit is not None:
                return

    def _cut(self) -> None:
        """Statements, in parts of each block, the largest first."""
        for block in blocks(self.state.tree):
            numbers = listed(self.state.tree, block)
            whole = block[0] != vars(self.state.tree.module)["number"]
            sizes: dict[int, list[Edit]] = {}
            for some in parts(numbers, whole):
                sizes.setdefault(len(some), []).append(removal(some))
            self._sweep(edit for edits in sizes.values() for edit in edits)

    def _until_no_more(self, edits: Callable[[Tree], Iterator[Edit]]) -> None:
        """A kind of change whose result may be changed in the same way."""
        while True:
            before = self.state
            self._sweep(edits(self.state.tree))
            if self.state is before:
                return

    def _new(self, edits: Iterable[Edit]) -> Iterator[Edit]:
        """Without what has failed before on a statement that is still the same."""
        for edit in edits:
            if edit.of is None or (edit.what, edit.of) not in self._failed:
                yield edit

    def _sweep(self, edits: Iterable[Edit]) -> None:
        for _ in self._each(edits):
            pass
        if len(self.history) - 1 - self._sure >= UNSURE:
            self._settle()

    def _each(self, edits: Iterable[Edit]) -> Iterator[Optional[Edit]]:
        """Try one edit after the other; each that keeps the fault is kept, and given back, else None.

        As many are tried ahead as there are workers, as if those before would fail. So the order of what is kept is the
        same on any number of cores.
        """
        waiting = list(edits)
        ahead: dict[int, Asked] = {}
        for at, edit in enumerate(waiting):
            if self._trials.over:
                break
            self._begin(waiting, at, ahead)
            state, number = ahead.pop(at)
            holds = state is not None and number is not None and self._answer(edit, state, number)
            if holds and state is not None:
                self._forget(ahead)
                self.state = state
                self.history.append(state)
            yield edit if holds else None
        self._forget(ahead)

    def _begin(self, waiting: Sequence[Edit], at: int, ahead: "dict[int, Asked]") -> None:
        """Ask about the edit at ``at`` and those behind it, as long as a worker is free."""
        for later in range(at, len(waiting)):
            if later in ahead:
                continue
            if later > at and not self._pool.free:
                return
            made = self._made(waiting[later])
            number = None
            if made is not None:
                number = self._pool.ask(self.setting, self._try(made.text, waiting[later].may_grow))
            ahead[later] = made, number

    def _forget(self, ahead: "dict[int, Asked]") -> None:
        """What was tried ahead is of no use any more."""
        for _, number in ahead.values():
            if number is not None:
                self._pool.leave(number)
        ahead.clear()

    def _answer(self, edit: Edit, state: State, number: int) -> bool:
        shown, spent = self._pool.answer(number) or (False, 0.0)
        holds = self._known[state.text.text] = self._trials.ask(edit.what, lambda: shown)
        if holds:
            self._spent = min(self._spent, spent)
        if not holds and edit.of is not None:
            self._failed.add((edit.what, edit.of))
        return holds

    def _made(self, edit: Edit) -> Optional[State]:
        """What an edit gives; None where it changes nothing, gives no Python, or what is known."""
        tree = edit.make(self.state.tree)
        if tree is None:
            return None
        text = written(tree)
        if text.text == self.state.text.text or text.text in self._known:
            return None
        if unbound(tree) - self._unbound or ids(tree)[0] & ids(self.state.tree)[1]:
            return None
        there: frozenset[int] = frozenset().union(*text.places.values()) if text.places else frozenset()
        if not all(at & there for at in (self._fault.at, self._fault.forward_at) if isinstance(at, frozenset) and at):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(text.text, "candidate", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return None
        return State(tree, text)

    def _try(self, text: Text, may_grow: bool = False) -> Try:
        most = SLOWER * self._spent + SLACK if may_grow else None
        return Try(text.text, text.places, self._fault, self._seconds, most, glance=self._glance)

    def holds(self) -> bool:
        """Whether the version that it begins with shows the fault. Only what shows it at a glance is looked at in that
        way.
        """
        holds = self._holds(self.state)
        self._glance = holds and self._fault.how in GLANCED and self._holds(self.state, glance=True)
        return holds

    def _holds(self, state: State, whole: bool = False, glance: bool = False) -> bool:
        """Whether a version shows the fault, with all that is asked of it. whole: also as a script of its own. glance:
        see Question.
        """
        asked = dataclasses.replace(self._try(state.text), glance=glance, whole=whole)
        shown, spent = self._pool.answer(self._pool.ask(self.setting, asked)) or (False, 0.0)
        if shown:
            self._spent = min(self._spent, spent)
        return bool(shown)

    def confirmed(self) -> Optional[State]:
        """The last version that the whole search finds to show the same fault, under any seed; or that version with a
        seed of its own; or an earlier one. None where that is the original.
        """
        later = self.history[1:]
        last = later[-1:] or [self.state]
        drawing = self._unseeded(last[0])
        seeded = self._seeded(last, drawing or frozenset(("torch",)))
        for state in itertools.chain(seeded, later[-1:]) if drawing else itertools.chain(later[-1:], seeded):
            if self._is_confirmed(state):
                self.state = state
                return state
        kept = _last(later, self._is_confirmed)
        return self.history[kept] if kept else None

    def _unseeded(self, state: State) -> frozenset[str]:
        """The generators that a version draws from without a seed, which it may where the original does."""
        if self.setting.conduct is None or not self.setting.conduct.unseeded:
            return frozenset()
        ran = self._pool.answer(self._pool.ask(self.setting, Run(state.text.text, CONDUCT, seconds=self._seconds)))
        return frozenset() if ran is None or ran.found is None else ran.found.unseeded

    def _seeded(self, states: Sequence[State], generators: frozenset[str]) -> Iterator[State]:
        for state in states:
            trees = (seeded(seed, generators).make(state.tree) for seed in SEEDS)
            yield from (State(tree, written(tree)) for tree in trees if tree is not None)

    def _is_confirmed(self, state: State) -> bool:
        return self._holds(state, whole=True)


def _last(versions: Sequence[State], holds: Callable[[State], bool]) -> int:
    """How many of these versions, each made of the one before it, come before the first that does not hold; the last
    one does not.
    """
    low, high = 0, len(versions)
    while high - low > 1:
        at = (low + high) // 2
        if holds(versions[at - 1]):
            low = at
        else:
            high = at
    return low


def smaller(script: Script, origin: Optional[Mapping[str, Any]], trials: Trials, pool: Pool) -> dict[str, Any]:
    """The smallest version of the script that shows the same fault, as it travels to the host; the script as it is
    where there is none, or where no origin is known by which a smaller one could be held to the same fault.
    """
    began, asked = time.monotonic(), trials.asked
    path = script.runs.path
    with tokenize.open(path) as opened:
        text = opened.read()
    base = _Base(text, origin)
    found = None
    recorded = _recorded(script, text, pool)
    if origin is not None:
        base = base if recorded is None else _with_own_modules(script, base, recorded, trials, pool)
        if base.text != text:
            again = _recorded(script, base.text, pool)
            found = _shrunk(script, base.origin or origin, base.text, again, trials, pool)
        if found is None:
            if base.text != text:
                trials.notes.append("with the modules beside it in its text, the script does not show its fault")
            base = _Base(text, origin)
            found = _shrunk(script, origin, text, recorded, trials, pool)
    lines = code_lines(base.text)
    told: dict[str, Any] = {"text": text, "lines_before": lines, "lines": lines, "whole": True}
    told["complete"] = found is not None
    state, complete, changed = found or (None, False, None)
    told["change"] = changed
    useless_alone = base.text != text or script.nonfinite  # it needs its modules, or ends with an exception
    if state is None and found is not None and base.text != text:
        told.update(text=base.text, whole=False)
    elif state is not None and (
        useless_alone or state.text.lines < lines or len(state.text.text) < SHORTER * len(text)
    ):
        told.update(text=state.text.text, lines=state.text.lines, whole=False, complete=complete)
    final = recorded if told["text"] == text else _recorded(script, told["text"], pool)
    if final is not None:
        told.update(unseeded=sorted(final.conduct.unseeded), reads=sorted(set(final.files)))
    return {**told, "trials": trials.asked - asked, "seconds": time.monotonic() - began}


@dataclass(frozen=True)
class _Base:
    """What is made smaller: the script's text, and the origin with the lines of that."""

    text: str
    origin: Optional[Mapping[str, Any]]


def _recorded(script: Script, text: str, pool: Pool) -> Optional[Recorded]:
    """One run of a text in place of the script; None where it cannot be run so."""
    tree = parsed(text)
    whole = written(tree)
    preload(script.runs.path)
    setting = Setting(script.runs.path, os.getcwd())
    ran = pool.answer(pool.ask(setting, Run(whole.text, RECORD, bound(tree, whole.places))))
    found: Optional[Recorded] = None if ran is None else ran.found
    return found


def _with_own_modules(script: Script, base: _Base, recorded: Recorded, trials: Trials, pool: Pool) -> _Base:
    """With the modules that lie beside the script in its text, so that it can be handed on without them."""
    if not recorded.own:
        return base
    try:
        texts = {name: _text_of(path) for name, path in recorded.own.items()}
        lines = joined(base.text, texts, recorded.packages)
    except (CannotJoin, OSError, SyntaxError, UnicodeDecodeError) as error:
        names = ", ".join(sorted(recorded.own)[:4])
        trials.notes.append(
            f"the script needs modules that lie beside it ({names}), which were not put into it: {error}"
        )
        return base
    files = {name: os.path.basename(path) for name, path in recorded.own.items()}
    files[HERE] = os.path.basename(script.runs.path)
    rows = {f"{files.get(at[0])}:{at[1]}": row for row, (_, at) in enumerate(lines, 1) if at is not None}
    moved = dict(base.origin or {})
    for key in ("source", "forward_source"):
        if moved.get(key) in rows:
            moved[key] = f"{files[HERE]}:{rows[moved[key]]}"
    return _Base("\n".join(line for line, _ in lines), moved)


def _text_of(path: str) -> str:
    with tokenize.open(path) as opened:
        return opened.read()


def _shrunk(
    script: Script, origin: Mapping[str, Any], text: str, recorded: Optional[Recorded], trials: Trials, pool: Pool
) -> Optional[tuple[Optional[State], bool, Optional[dict[str, Any]]]]:
    """The smallest version, if there is a smaller one; whether nothing was left untried; and what its author may change
    so that it is good. None where the script itself does not hold.
    """
    path = script.runs.path
    tree = parsed(text)
    fault = Fault.of(script, origin, _places(tree))
    whole = written(tree)
    setting = Setting(path, os.getcwd())
    if recorded is not None:
        hold(tree, _numbers(recorded.reading, whole.places))
    if recorded is None:
        trials.notes.append("the script could not be run in a folder of its own, so it was not made smaller")
        return None
    conduct, alike = recorded.conduct, recorded.alike.pairs
    if "compile" in text:  # a compiled module is entered by a way of its own
        conduct, alike = dataclasses.replace(conduct, parameters=0, modules=0), frozenset()
    setting = dataclasses.replace(
        setting,
        allowed=frozenset(recorded.access),
        written=_files(recorded.access, setting),
        imported=recorded.imported,
        alike=alike,
        conduct=conduct,
    )
    trials.begin("making the script smaller")
    begin = time.monotonic()
    pool.answer(pool.ask(setting, Run(whole.text)))
    seconds = LEAST + PATIENCE * (time.monotonic() - begin)
    for way, threads in itertools.product(fault.ways(), (1, None)):
        held = dataclasses.replace(setting, threads=threads)
        shrinking = Shrinking(tree, way, held, seconds, pool, trials)
        if shrinking.holds():
            break
    else:
        trials.notes.append("the script does not show its fault in a folder of its own, so it was not made smaller")
        return None
    shrinking.run(_seen(recorded, whole.places))
    confirmed = shrinking.confirmed()
    complete = confirmed is not None and confirmed is shrinking.state and not trials.over
    changed = None
    if (
        origin.get("code") in OWN and fault.how != COMPILED
    ):  # what helps there is not to compile, which an ablation says
        smallest = tree if confirmed is None else confirmed.tree
        changed = change(tree, smallest, fault.kept, origin, shrinking.setting, seconds, pool, trials)
    return confirmed, complete, changed


def _numbers(lines: Iterable[int], places: Mapping[int, frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*(places.get(line, frozenset()) for line in lines))


def _seen(recorded: Recorded, places: Mapping[int, frozenset[int]]) -> Seen:
    """What was recorded of lines, by the statements that they stand for."""
    return Seen(
        _numbers(recorded.lines, places),
        [(places[line], shown, kind) for line, shown, kind in recorded.bad if line in places],
        {(places[line], name): shape for (line, name), shape in recorded.tensors.items() if line in places},
        frozenset(recorded.modules),
        recorded.options,
        {(places[line], name): texts for (line, name), texts in recorded.written.items() if line in places},
        {places[line]: counts for line, counts in recorded.rounds.items() if line in places},
    )


def _places(tree: Tree) -> dict[int, frozenset[int]]:
    """For each line of the original, the innermost statement on it."""
    found: dict[int, frozenset[int]] = {}
    for node in tree.statements():
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            found[line] = whose(node)
    return found


def _files(access: Iterable[Access], setting: Setting) -> frozenset[str]:
    """The files of the script's own folders that it writes."""
    folders = (os.path.dirname(setting.path), setting.folder)
    paths = {target for event, *targets in access if event == "open" for target in targets}
    return frozenset(path for path in paths if path.startswith(tuple(os.path.join(folder, "") for folder in folders)))
