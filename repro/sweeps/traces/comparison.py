"""Two traces compared, operator by operator."""

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from repro.core.encoding import number, replace
from repro.core.payloads import Trace
from repro.core.trace_answers import Changes, ModuleChange, OperatorChange, OperatorFigures, OtherDigits
from repro.sweeps.traces.alignment import Row, align, rows_of
from repro.sweeps.traces.words import sentence

# Operators that make no number: they give another view or a copy of what is there, put a constant that somebody chose
# into memory, or read a number out. They come and go between releases. Where one of them matters (another mask, another
# slice), the next operator that computes with it shows it, by its form or its values; so they are counted and reported
# beside the answer, and never are the answer.
PREPARING = frozenset((
    "alias", "as_strided", "chunk", "clone", "contiguous", "detach", "diagonal", "expand", "expand_as", "flatten",
    "lift", "lift_fresh", "lift_fresh_copy", "movedim", "narrow", "numpy_T", "permute", "ravel", "reshape",
    "resolve_conj", "resolve_neg", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose",
    "unbind", "unflatten", "unfold", "unsafe_split", "unsqueeze", "view", "view_as", "view_as_complex",
    "view_as_real", "_conj", "_neg_view", "_reshape_alias", "_unsafe_view", "arange", "empty", "empty_like",
    "empty_permuted", "empty_strided", "eye", "fill", "full", "full_like", "linspace", "new_empty",
    "new_empty_strided", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "scalar_tensor", "zero", "zeros",
    "zeros_like", "_local_scalar_dense", "item", "is_nonzero", "equal",
))  # fmt: skip


def compare(good: Trace, bad: Trace) -> Changes:
    """What is different in the second of two traces.

    Raises:
        RecordError: the rows of one of them are of another shape.
    """
    found = _Comparison(good, bad).changes()
    return replace(found, sentence=sentence(found))


@dataclass(frozen=True, slots=True)
class _Found:
    """A change by the positions of its rows. place: where it stands in the order of both traces."""

    place: tuple[int, int, int]
    kind: str
    what: tuple[str, ...]
    in_good: int | None
    in_bad: int | None


class _Comparison:
    def __init__(self, good: Trace, bad: Trace) -> None:
        self.good, self.bad = rows_of(good), rows_of(bad)
        self.good_classes, self.bad_classes = good.classes, bad.classes
        self.left_out = (good.rows_left_out, bad.rows_left_out)
        self.pairs = align(self.good, self.bad)
        self.back = {j: i for i, j in self.pairs.items()}
        self.gone = _unpaired(len(self.good), self.pairs, cut=self.left_out[1] > 0)
        self.new = _unpaired(len(self.bad), self.back, cut=self.left_out[0] > 0)
        computing = {i for i in self.pairs if not _prepares(self.good[i])}
        self.before_gone, self.before_new = _last(len(self.good), self.pairs), _last(len(self.bad), self.back)
        self.gap_gone = _last(len(self.good), computing)
        self.gap_new = _last(len(self.bad), {self.pairs[i] for i in computing})
        self.good_bytes, self.bad_bytes = _bytes_by_module(self.good), _bytes_by_module(self.bad)

    def changes(self) -> Changes:
        structural = sorted(self._structural(), key=lambda found: found.place)
        computing = [found for found in structural if not _prepares(self._row(found))]
        telling = [found for found in computing if not self._without_effect(found)]
        nonfinite = min(self._nonfinite(), key=lambda found: found.place, default=None)
        first = min([*telling[:1], *([nonfinite] if nonfinite else [])], key=lambda found: found.place, default=None)
        near = [found for found in telling if nonfinite is not None and found.place <= nonfinite.place]
        preparing = next((found for found in structural if _prepares(self._row(found))), None)
        return Changes(
            aligned=len(self.pairs),
            only_good=len(self.gone),
            only_bad=len(self.new),
            without_effect=len(computing) - len(telling),
            left_out=self.left_out,
            modules=tuple(self._modules()),
            first=self._change(first),
            first_structural=self._change(telling[0] if telling else None),
            first_nonfinite=self._change(nonfinite),
            nearest=self._change(near[-1] if near else None),
            first_preparing=self._change(preparing),
            first_numeric=self._numeric(),
        )

    def _row(self, found: _Found) -> Row:
        return self.good[found.in_good] if found.in_bad is None else self.bad[found.in_bad]  # type: ignore[index]

    def _structural(self) -> Iterator[_Found]:
        for i in self.gone:
            yield _Found((self._place_of_gone(i), 1, i), "gone", (), i, None)
        for j in self.new:
            yield _Found((j, 0, 0), "new", (), None, j)
        for i, j in self.pairs.items():
            good, bad = self.good[i], self.bad[j]
            what = tuple(name for name in ("shape", "dtype") if getattr(good, name) != getattr(bad, name))
            if what:
                yield _Found((j, 0, 0), "different", what, i, j)

    def _place_of_gone(self, i: int) -> int:
        """A gone operator stands behind the last one before it that both traces have."""
        before = self.before_gone[i]
        return -1 if before is None else self.pairs[before]

    def _nonfinite(self) -> Iterator[_Found]:
        # Masks are filled with -inf on purpose: a new operator's Inf says nothing in a module that has some when good.
        masked = {row.module for row in self.good if row.inf}
        for j in self.new:
            row, new = self.bad[j], _Found((j, 0, 0), "new", (), None, j)
            not_finite = row.nan or (row.inf and row.module not in masked)
            if not_finite and not _prepares(row) and not self._without_effect(new):
                yield new
        for i, j in self.pairs.items():
            good, bad = self.good[i], self.bad[j]
            if not _prepares(bad) and ((bad.nan and good.nan == 0) or (bad.inf and good.inf == good.nan == 0)):
                yield _Found((j, 0, 0), "different", ("finite",), i, j)

    def _without_effect(self, found: _Found) -> bool:
        """Whether each trace has the bytes that the other made here: then no number depends on the change.

        They are looked for in the same module; where that came or went as a whole, everywhere.
        """
        sides = ((found.in_good, self.good, self.bad_bytes), (found.in_bad, self.bad, self.good_bytes))
        return all(
            row.digest is not None and row.digest in theirs.get(row.module, theirs[None])
            for row, theirs in ((rows[at], theirs) for at, rows, theirs in sides if at is not None)
        )

    def _change(self, found: _Found | None) -> OperatorChange | None:
        if found is None:
            return None
        row, i, j = self._row(found), found.in_good, found.in_bad
        classes, others = self.bad_classes, self.good_classes
        if j is None:
            classes, others = others, classes
        return OperatorChange(
            kind=found.kind,
            what=found.what,
            module=row.module,
            module_class=classes.get(row.module) if row.call_index >= 0 else None,
            whole_module=_outermost(row.module, classes, others) if found.kind != "different" else None,
            call_index=row.call_index,
            op=row.op,
            occurrence=row.occurrence,
            good_source=_source(self.good, i, self.back.get(_or_none(self.before_new, j))),
            bad_source=_source(self.bad, j, self.pairs.get(_or_none(self.before_gone, i))),
            good=None if i is None else _figures(self.good[i]),
            bad=None if j is None else _figures(self.bad[j]),
            position=found.place[0] + found.place[1],
            instead=self._instead(found),
        )

    def _instead(self, found: _Found) -> str | None:
        """The computing operator of the other trace between the same neighbours in the same call."""
        row = self._row(found)
        if found.kind == "gone":
            before = self.gap_gone[found.place[2]]
            rows, others, gaps = self.bad, self.new, self.gap_new
            wanted = None if before is None else self.pairs[before]
        elif found.kind == "new":
            before = self.gap_new[found.place[0]]
            rows, others, gaps = self.good, self.gone, self.gap_gone
            wanted = None if before is None else self.back[before]
        else:
            return None
        for other in others:
            same_call = (rows[other].module, rows[other].call_index) == (row.module, row.call_index)
            if same_call and gaps[other] == wanted and not _prepares(rows[other]):
                return rows[other].op
        return None

    def _modules(self) -> Iterator[ModuleChange]:
        for kind, mine, others in (
            ("gone", self.good_classes, self.bad_classes),
            ("new", self.bad_classes, self.good_classes),
        ):
            for module in mine:
                if _outermost(module, mine, others) == module:
                    yield ModuleChange(
                        kind=kind,
                        module=module,
                        good_class=self.good_classes.get(module),
                        bad_class=self.bad_classes.get(module),
                    )
        for module, name in self.good_classes.items():
            if self.bad_classes.get(module, name) != name:
                yield ModuleChange(kind="class", module=module, good_class=name, bad_class=self.bad_classes[module])

    def _numeric(self) -> OtherDigits | None:
        for j, i in sorted(self.back.items()):
            good, bad = self.good[i], self.bad[j]
            same_form = (good.shape, good.dtype, good.nan, good.inf) == (bad.shape, bad.dtype, bad.nan, bad.inf)
            known = good.digest is not None and bad.digest is not None and not _prepares(bad)
            if known and same_form and good.digest != bad.digest:
                return OtherDigits(
                    module=bad.module,
                    call_index=bad.call_index,
                    op=bad.op,
                    occurrence=bad.occurrence,
                    good_source=good.source,
                    bad_source=bad.source,
                    position=j,
                    largest_relative_difference=_relative(good, bad),
                    exact=good.min is None,
                )
        return None


def _prepares(row: Row) -> bool:
    return row.base_name in PREPARING


def _unpaired(count: int, paired: Mapping[int, int], *, cut: bool) -> list[int]:
    """What a trace that was cut short would have run behind its end is not known: it is neither new nor gone."""
    end = max(paired, default=-1) + 1 if cut else count
    return [position for position in range(end) if position not in paired]


def _last(count: int, marked: Container[int]) -> list[int | None]:
    """For each position the last marked one before it."""
    last: int | None = None
    found: list[int | None] = []
    for position in range(count):
        found.append(last)
        if position in marked:
            last = position
    return found


def _bytes_by_module(rows: Sequence[Row]) -> dict[str | None, set[str]]:
    """The digests of a trace for each module; under None those of all."""
    found: dict[str | None, set[str]] = {None: set()}
    for row in rows:
        if row.digest is not None:
            found[None].add(row.digest)
            found.setdefault(row.module, set()).add(row.digest)
    return found


def _outermost(module: str, classes: Mapping[str, str], others: Mapping[str, str]) -> str | None:
    """The outermost of the modules around ``module`` that only the first of two traces has."""
    parts = module.split(".")
    for count in range(len(parts) + 1):
        path = ".".join(parts[:count])
        if path in classes and path not in others:
            return path
    return None


def _or_none(before: Sequence[int | None], position: int | None) -> int:
    """The position before, or one that is nowhere."""
    found = None if position is None else before[position]
    return -1 if found is None else found


def _source(rows: Sequence[Row], own: int | None, nearest: int | None) -> str | None:
    position = nearest if own is None else own
    return None if position is None else rows[position].source


def _figures(row: Row) -> OperatorFigures:
    return OperatorFigures(dtype=row.dtype, shape=row.shape, min=row.min, max=row.max, nan=row.nan, inf=row.inf)


def _relative(good: Row, bad: Row) -> float | None:
    ends = [tuple(map(number, pair)) for pair in ((good.min, bad.min), (good.max, bad.max))]
    found = [
        abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0
        for a, b in ends
        if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)
    ]
    return max(found, default=None)
