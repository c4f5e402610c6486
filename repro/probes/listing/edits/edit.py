"""What a smaller script is made by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Callable, Optional, TypeVar

from ..text.tree import Tree

GIVEN = "given_"  # the name of a value that is put in place of what is guarded

Item = TypeVar("Item")


@dataclass(frozen=True)
class Worth:
    """Whose values must stay: an expression without a change and with it, as text.

    number: of the expression in the tree. inner: the text of what the change guards; inner_before, inner_after: the
    expression of another value, by the name GIVEN, in its place.
    """

    number: int
    before: str
    after: str
    inner: str
    inner_before: str
    inner_after: str


@dataclass(frozen=True)
class Edit:
    """One change. make: the changed tree; None where there is nothing to change by now. what: a few words. of: what is
    changed, as text, where the same change of the same text need not be tried twice. may_grow: whether a default may
    take the place of what is left out. worth: whose values it must keep.
    """

    what: str
    make: Callable[[Tree], Optional[Tree]]
    of: Optional[str] = None
    may_grow: bool = False
    worth: Optional[Worth] = None


def parts(items: Sequence[Item], whole: bool) -> Iterator[tuple[Item, ...]]:
    """Neighbours that may go together, the largest parts first and each size from the end: what is used comes before
    what uses it. whole: whether all of them are one part.
    """
    size = len(items) if whole else (len(items) + 1) // 2
    if size == len(items) and not whole:
        size = 0
    while size >= 1:
        for end in range(len(items), 0, -size):
            yield tuple(items[max(0, end - size) : end])
        size = 0 if size == 1 else (size + 1) // 2
