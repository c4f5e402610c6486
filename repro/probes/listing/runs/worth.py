"""Which guards leave every value alone that was finite before: on the values that a script meets, and on others.

The expression is evaluated with the guard and without it where the script comes to it. Then what is guarded is replaced
by ordinary numbers of its kind: of both signs where it has had both, zero, and beyond any domain. Only where the
expression without the guard is finite there is something to keep.
"""

import ast
import builtins
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from ...values.figures import tensors_in, widen
from ..edits.edit import GIVEN, Worth

KEEPS, HOOK = "listing.runs.worth:keeps", "kept_"
VISITS = 60  # of one expression that are looked at: a loop may come to it for ever so long
UNITS = 8.0  # of the dtype's epsilon, times the value, that rounding may make of it
DRAWS = 4
# What a draw is made of beside normal numbers: zero, the ends of a domain and what is beside them.
POOL = (0.0, 1.0, -1.0, 0.9999, -0.9999, 0.5, -0.5, 1e-3, -1e-3, 0.9, -0.95, 1.5, -3.0, 20.0)
STEADY = 2  # different positive values without a negative one, from which on there is taken to be none


class Keeping:
    """Compares at each visit. worths: by their numbers."""

    def __init__(self, worths: Mapping[int, Worth]) -> None:
        self._worths = worths
        self._at: dict[int, list[int]] = {}
        for key, worth in worths.items():
            self._at.setdefault(worth.number, []).append(key)
        self._visits: dict[int, int] = {}
        self._inside = False
        self.refuted: set[int] = set()
        self.compared: dict[int, int] = {}
        self._seen: dict[str, tuple[Tensor, set[float], bool, Mapping[str, Any], Mapping[str, Any]]] = {}

    def visit(self, number: int, everywhere: dict[str, Any], here: dict[str, Any]) -> None:
        self._visits[number] = self._visits.get(number, 0) + 1
        if self._inside or self._visits[number] > VISITS:
            return
        self._inside = True
        try:
            for key in self._at.get(number, ()):
                if key not in self.refuted:
                    self._compare(key, self._worths[key].before, self._worths[key].after, everywhere, here)
            for inner in {self._worths[key].inner for key in self._at.get(number, ())}:
                self._remember(inner, everywhere, here)
        finally:
            self._inside = False

    def found(self) -> frozenset[int]:
        """The numbers of those that hold."""
        self._inside = True
        for key, worth in self._worths.items():
            seen = self._seen.get(worth.inner)
            if key in self.refuted or seen is None:
                self.refuted.add(key)
                continue
            like, positive, negative, everywhere, here = seen
            is_signed = negative or (len(positive) < STEADY and not _is_positive(worth.inner, everywhere, here))
            for draw in range(DRAWS):
                given = _drawn(like, draw, is_signed)
                self._compare(key, worth.inner_before, worth.inner_after, everywhere, {**here, GIVEN: given})
        return frozenset(key for key in self._worths if key not in self.refuted and self.compared.get(key))

    def _remember(self, inner: str, everywhere: dict[str, Any], here: dict[str, Any]) -> None:
        """What the guarded expression is here: its shape, and which signs it has."""
        value = _value(inner, everywhere, here)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return
        finite = widen(value.detach())[torch.isfinite(value.detach())]
        before = self._seen.get(inner)
        positive = set(before[1]) if before else set()
        positive |= set(finite[finite > 0].flatten()[:STEADY].tolist())
        negative = bool((finite < 0).any()) or bool(before and before[2])
        self._seen[inner] = value.detach(), positive, negative, everywhere, dict(here)

    def _compare(
        self, key: int, before: str, after: str, everywhere: Mapping[str, Any], here: Mapping[str, Any]
    ) -> None:
        one = _numbers(_value(before, everywhere, here))
        if one is None or not bool(torch.isfinite(one).any()):
            return
        two = _numbers(_value(after, everywhere, here))
        if two is None or two.shape != one.shape:
            self.refuted.add(key)
            return
        good = torch.isfinite(one)
        self.compared[key] = self.compared.get(key, 0) + int(good.sum())
        apart = (widen(one[good]) - widen(two[good])).abs()
        allowed = UNITS * torch.finfo(one.dtype).eps * widen(one[good]).abs()
        if not bool((apart <= allowed).all()):
            self.refuted.add(key)


def _value(text: str, everywhere: Mapping[str, Any], here: Mapping[str, Any]) -> Any:
    """What an expression gives, from the same random numbers each time; None where it cannot be said."""
    names = {**everywhere, **{key: _own(value) for key, value in here.items()}}
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            return eval(compile(text, "<worth>", "eval", dont_inherit=True), names)
    except Exception:  # noqa: BLE001 - what cannot be evaluated by itself is not judged, so its guard is not offered
        return None


def _is_positive(inner: str, everywhere: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether an expression has no negative value for numbers of both signs in place of the tensors that it is of."""
    names = {node.id for node in ast.walk(ast.parse(inner)) if isinstance(node, ast.Name)} - {inner}
    known = {**everywhere, **here}
    given = {name: known[name] for name in names if isinstance(known.get(name), Tensor)}
    given = {name: value for name, value in given.items() if value.is_floating_point()}
    for draw in range(DRAWS if given else 0):
        drawn = {name: _drawn(value, 2 * draw + number, True) for number, (name, value) in enumerate(given.items())}
        value = _numbers(_value(inner, everywhere, {**here, **drawn}))
        if value is None or not bool((value[torch.isfinite(value)] >= 0).all()):
            return False
    return bool(given)


def _own(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _numbers(value: Any) -> Optional[Tensor]:
    """All floating numbers of a result in one line."""
    if isinstance(value, float):
        return torch.tensor([value], dtype=torch.float64)
    found = [item.detach().flatten() for item in tensors_in(value) if item.is_floating_point()]
    return torch.cat(found) if found and len({item.dtype for item in found}) == 1 else None


def _drawn(like: Tensor, number: int, is_signed: bool) -> Tensor:
    """Ordinary numbers of this shape and dtype."""
    generator = torch.Generator().manual_seed(number)
    count = like.numel()
    values = torch.randn(count, generator=generator)
    pool = torch.tensor(POOL)
    from_pool = torch.randint(len(POOL), (count,), generator=generator)
    values = torch.where(torch.rand(count, generator=generator) < 0.5, pool[from_pool], values)
    if not is_signed:
        values = values.abs()
    return values.reshape(like.shape).to(device=like.device, dtype=like.dtype)


def keeps(worths: Mapping[int, Worth]) -> tuple[Any, Callable[[], frozenset[int]]]:
    """(context around the script, function that gives the numbers of the guards that keep all values)."""
    made = Keeping(worths)

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        setattr(builtins, HOOK, made.visit)
        try:
            yield
        finally:
            delattr(builtins, HOOK)

    return around(), made.found
