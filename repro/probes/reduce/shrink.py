"""A program made small: plain memory, small shapes, values by a rule. After every change the fault is the same one.

Nothing here knows an operator. Which dimensions belong together is found by trying: a wrong guess is refused by the
operator, or shows no fault.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ..values.figures import widen
from .layout import laid_out, layout_of
from .operators import fewer_calls
from .patterns import Rule
from .program import Call, Fault, Leaf, Program, argument, look
from .trials import Trials
from .values import described, make, simplest

Dim = tuple[int, int]  # number of the leaf, dimension
LETTERS = {"self": "x", "mat2": "y", "other": "y"}
LINKED = 3  # dimensions that are cut together, where not all of a size are
ROUNDS = 4
AROUND = 4096  # elements of zeros before and behind an input
PARTS = 8  # into which positions are cut behind the halves and quarters; more of them as long as some can go
FINEST = 32  # at most: one position at a time would take a trial for each


@dataclass(frozen=True)
class Written:
    """A program whose leaves are made by ``rules``."""

    program: Program
    rules: tuple[Rule, ...]


def shrink(program: Program, fault: Fault, trials: Trials) -> Optional[dict[str, Any]]:
    """The smallest program found, as it travels to the host; None where it needs more values than a script should
    have, or does not show the fault each time.
    """
    program = _plain_memory(fewer_calls(program, fault, trials), fault, trials)
    best: Optional[Written] = None
    for _ in range(ROUNDS):  # plain values allow smaller shapes, and these plainer values
        smaller = _without_dims(_smaller(program, fault, trials), fault, trials)
        if best is not None and smaller is program:
            break
        written = _by_rules(smaller, fault, trials, best)
        if written is None:
            break  # the larger shape may have done with a plain rule
        best, program = written, written.program
    return None if best is None else payload(best, fault)


def _plain_memory(program: Program, fault: Fault, trials: Trials) -> Program:
    """Contiguous, aligned copies where the fault survives that; each leaf that it does not survive stays as it lies."""
    copies = tuple(tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in program.leaves)
    if trials.ask("memory contiguous and aligned", lambda: fault.shown_by(program.given(copies))):
        return program.given(copies)
    leaves = list(program.leaves)
    for number, copy in enumerate(copies):
        changed = (*leaves[:number], copy, *leaves[number + 1 :])
        if trials.ask(f"memory of input {number}", functools.partial(fault.shown_by, program.given(changed))):
            leaves[number] = copy
    return program.given(tuple(leaves))


def _smaller(program: Program, fault: Fault, trials: Trials) -> Program:
    """Along each dimension, or several together, as few positions as the fault needs."""
    tried: set[tuple[Dim, ...]] = set()
    while True:
        for dims in _linked(program):
            if dims in tried:
                continue
            tried.add(dims)
            cut = _cut(program, dims, fault, trials)
            if cut is not program:
                program = cut
                break
        else:
            return program


def _linked(program: Program) -> Iterator[tuple[Dim, ...]]:
    """Sets of dimensions of one size that may belong together: all of them, then fewer; the largest sizes first."""
    sizes: dict[int, list[Dim]] = {}
    for number, tensor in enumerate(program.leaves):
        for dim, size in enumerate(tensor.shape):
            sizes.setdefault(int(size), []).append((number, dim))
    for size in sorted(sizes, reverse=True):
        if size > 1:
            dims = sizes[size]
            yield tuple(dims)
            for count in range(min(LINKED, len(dims) - 1), 0, -1):
                yield from itertools.combinations(dims, count)


def _cut(program: Program, dims: tuple[Dim, ...], fault: Fault, trials: Trials) -> Program:
    """The program with as few positions along ``dims`` as keep the fault; the same object where none can go."""
    size = program.leaves[dims[0][0]].shape[dims[0][1]]

    def taken(positions: list[int]) -> Program:
        return _taken(program, dims, positions)

    def holds(positions: list[int]) -> bool:
        words = f"{len(positions)} of {size} positions"
        cut = taken(positions)
        return trials.ask(words, lambda: fault.shown_by(cut) and fault.shown_by(_among_zeros(cut)))

    if size > 2 and not _go_together(taken, size, trials):
        return program
    for at in _candidates(program, dims, fault):
        if holds([at]):
            return taken([at])
    kept = list(range(size))
    for part in ((size + 1) // 2, (size + 3) // 4):
        kept = _without_parts(kept, part, holds)
    kept = _shortest(kept, holds)
    if len(kept) == size:
        return program  # a quarter cannot be done without anywhere: these dimensions do not belong together
    part = len(kept) // PARTS or 1
    while part > len(kept) // FINEST:
        fewer = _without_parts(kept, part, holds)
        part = part // 2 if len(fewer) < len(kept) else 0  # what goes nowhere in large parts rarely goes in small ones
        kept = fewer
    return taken(kept)


def _without_parts(kept: list[int], part: int, holds: Callable[[list[int]], bool]) -> list[int]:
    """Without those parts of this length that the fault does not need."""
    begin = 0
    while begin < len(kept) and len(kept) > 1:
        rest = kept[:begin] + kept[begin + part :]
        if rest and holds(rest):
            kept = rest
        else:
            begin += part
    return kept


def _go_together(taken: Callable[[list[int]], Program], size: int, trials: Trials) -> bool:
    """Whether the program runs at all with fewer positions along these dimensions, which is one question where it does
    not; each smaller shape would be one. Half of them, or two where half of them are odd: an operator may need pairs.
    """

    def runs(count: int) -> bool:
        look(taken([*range(count)]))
        return True

    counts = (size // 2, 2) if size % 4 > 1 else (size // 2,)
    return any(trials.ask(f"run with {count} of {size} positions", functools.partial(runs, count)) for count in counts)


def _among_zeros(program: Program) -> Program:
    """The same numbers, with zeros in the memory around them.

    An operator whose inputs are of sizes that it does not expect may read beyond their end. A bad value that comes from
    there is another fault, and not there each time.
    """

    def copied(tensor: Tensor) -> Tensor:
        if not tensor.is_contiguous() or tensor.numel() == 0:
            return tensor
        memory = torch.zeros(tensor.numel() + 2 * AROUND, dtype=tensor.dtype, device=tensor.device)
        copy = memory[AROUND : AROUND + tensor.numel()].view(tensor.shape)
        return copy.copy_(tensor)

    return program.given(tuple(copied(tensor) for tensor in program.leaves))


def _shortest(kept: list[int], holds: Callable[[list[int]], bool]) -> list[int]:
    """As few of the first positions as hold, then as few of the last ones of these: what is in front of a mask's edge,
    or behind it, may be all that there is to it.
    """
    for first in (True, False):
        least, most = 1, len(kept)
        while least < most:
            count = (least + most) // 2
            holding = holds(kept[:count] if first else kept[-count:])
            least, most = (least, count) if holding else (count + 1, most)
        kept = kept[:most] if first else kept[-most:]
    return kept


def _candidates(program: Program, dims: tuple[Dim, ...], fault: Fault) -> list[int]:
    """Positions that may do alone: of the bad element, of the largest magnitude in each input, the first."""
    found: list[int] = []
    seen = fault.seen_in(program)
    size = program.leaves[dims[0][0]].shape[dims[0][1]]
    if seen is not None:
        found += [at for at in seen.index if at < size]
    for number, dim in dims:
        tensor = program.leaves[number]
        if tensor.is_floating_point() and tensor.numel():
            others = [other for other in range(tensor.dim()) if other != dim]
            magnitude = widen(tensor).abs()
            found.append(int((magnitude.amax(others) if others else magnitude).argmax()))
    return list(dict.fromkeys([*found, 0]))


def _taken(program: Program, dims: tuple[Dim, ...], positions: list[int]) -> Program:
    """The program with only ``positions`` along ``dims``; lists of sizes among its constants follow."""
    leaves = list(program.leaves)
    size = leaves[dims[0][0]].shape[dims[0][1]]
    for number, dim in dims:
        leaf = leaves[number]
        index = torch.tensor(positions, device=leaf.device)
        leaves[number] = laid_out(leaf.index_select(dim, index), layout_of(leaf))

    def resized(nest: Any) -> Any:
        if isinstance(nest, (list, tuple)) and nest and all(type(item) is int for item in nest):
            return type(nest)(len(positions) if item == size else item for item in nest)
        if isinstance(nest, dict):
            return {name: resized(item) for name, item in nest.items()}
        return type(nest)(resized(item) for item in nest) if isinstance(nest, (list, tuple)) else nest

    calls = tuple(Call(call.func, resized(call.args), resized(call.kwargs)) for call in program.calls)
    return Program(tuple(leaves), calls)


def _without_dims(program: Program, fault: Fault, trials: Trials) -> Program:
    """Without leading dimensions of size 1."""
    while True:
        able = [tensor for tensor in program.leaves if tensor.dim() > 1 and tensor.shape[0] == 1]
        if not able:
            return program
        most = max(tensor.dim() for tensor in able)
        for chosen in ([t for t in able if t.dim() == most], able):
            leaves = tuple(t[0] if any(t is one for one in chosen) else t for t in program.leaves)
            smaller = program.given(leaves)
            if trials.ask("a dimension less", functools.partial(fault.shown_by, smaller)):
                program = smaller
                break
        else:
            return program


def _by_rules(program: Program, fault: Fault, trials: Trials, before: Optional[Written]) -> Optional[Written]:
    """Each input's values by the simplest rule that keeps the fault; None where some have to stay as they are, and are
    too many.
    """
    rules: list[Rule] = []
    for number, leaf in enumerate(program.leaves):
        made_by = before.rules[number] if before is not None and before.program.leaves[number] is leaf else None
        put = functools.partial(_with_rule, program, number)
        holds = functools.partial(_holds, fault, put)
        rule = simplest(leaf, holds, trials, f"values of input {number}", made_by=made_by)
        if rule is None:
            return None
        program = program if rule is made_by else put(rule)
        rules.append(rule)
    return Written(program, tuple(rules))


def _with_rule(program: Program, number: int, rule: Rule) -> Program:
    """The program with the values of one input by a rule."""
    leaf = program.leaves[number]
    made = laid_out(make(rule, tuple(leaf.shape), leaf.dtype).to(leaf.device), layout_of(leaf))
    return program.given((*program.leaves[:number], made, *program.leaves[number + 1 :]))


def _holds(fault: Fault, put: Callable[[Rule], Program], rule: Rule) -> bool:
    return fault.shown_by(put(rule))


def payload(written: Written, fault: Fault) -> Optional[dict[str, Any]]:
    """The program as it travels to the host; None where it does not show the fault again."""
    program = written.program
    names = _names(program)
    results = [f"out{number}" if len(program.calls) > 1 else "out" for number in range(len(program.calls))]
    seen = fault.seen_in(program)
    if seen is None:
        return None
    calls = [
        {
            "op": str(call.func),
            "args": [argument(item, names, results) for item in call.args],
            "kwargs": {name: argument(item, names, results) for name, item in call.kwargs.items()},
            "name": name,
            "several": gives_several(call.func),
        }
        for call, name in zip(program.calls, results)
    ]
    device = next((str(tensor.device) for tensor in program.leaves), "cpu")
    return {
        "leaves": [
            described(name, tensor, rule, layout_of(tensor))
            for name, tensor, rule in zip(names, program.leaves, written.rules)
        ],
        "calls": calls,
        "output": {"call": len(calls) - 1, "result": seen.output, "index": list(seen.index)},
        "seen": seen.value,
        "expected": None if seen.expected is None else {"value": seen.expected, "dtype": "float64"},
        "mechanism": fault.mechanism,
        "limit": seen.limit,
        "allowed": seen.allowed,
        "device": device,
    }


def gives_several(func: Any) -> bool:
    """Whether the operator's result is a tuple or a list, by its schema."""
    returns = func._schema.returns
    return len(returns) > 1 or any("[]" in str(item.type) or "List" in str(item.type) for item in returns)


def _names(program: Program) -> list[str]:
    """The arguments' own names where each is of another; else letters."""
    names: dict[int, str] = {}
    for call in program.calls:
        given = [(argument.name, item) for argument, item in zip(call.func._schema.arguments, call.args)]
        for name, item in [*given, *call.kwargs.items()]:
            if isinstance(item, Leaf):
                names.setdefault(item.number, LETTERS.get(name, name))
    found = [names.get(number, "") for number in range(len(program.leaves))]
    if len(set(found)) == len(found) and all(name.isidentifier() for name in found):
        return found
    return [chr(ord("a") + number) if number < 26 else f"a{number}" for number in range(len(found))]
