"""Which part of a tensor of one way stands for which part of the other way's: a prompt in a batch, a token that is
decoded by itself.

Passes are aligned by what they were given, modules by path and call number, and tensors by the sizes of their
dimensions: that of the examples and those of the tokens. A tensor whose sizes fit neither is not compared.
"""

from dataclasses import dataclass
from typing import Optional

from torch import Tensor


@dataclass(frozen=True)
class Region:
    """What a pass of the other way has in common with a pass of this way.

    this, other: (first, behind the last) of the tokens. rows, length: how many examples and tokens each pass has.
    row: the example in the other pass. keys: the same tokens where they are counted from the start of a cache, and how
    many there are.
    """

    this: tuple[int, int]
    this_rows: int
    this_length: int
    other: tuple[int, int]
    other_rows: int
    other_length: int
    row: int
    keys: tuple[int, int]
    other_keys: int


@dataclass(frozen=True)
class Cut:
    """How both tensors are cut to the common part: for each dimension, (begin, length); None where it stays whole."""

    this: tuple[Optional[tuple[int, int]], ...]
    other: tuple[Optional[tuple[int, int]], ...]

    def of_this(self, tensor: Tensor) -> Tensor:
        return _narrowed(tensor, self.this)

    def of_other(self, tensor: Tensor) -> Tensor:
        return _narrowed(tensor, self.other)


def _narrowed(tensor: Tensor, cuts: tuple[Optional[tuple[int, int]], ...]) -> Tensor:
    """Figures of rows have 1 in place of the last dimension, which is then not cut."""
    for dim, cut in enumerate(cuts):
        if cut is not None and not (dim == len(cuts) - 1 and tensor.shape[dim] == 1 and cut[0] + cut[1] > 1):
            tensor = tensor.narrow(dim, *cut)
    return tensor


def cut(this: tuple[int, ...], other: tuple[int, ...], region: Optional[Region]) -> Optional[Cut]:
    """How tensors of these shapes are compared; None where they cannot be. Without a region they must be equal. With
    one, the first dimension must be the examples' and another one the tokens': rows without an example may be tokens
    that a router has put into another order.
    """
    if len(this) != len(other):
        return None
    if region is None:
        return Cut((None,) * len(this), (None,) * len(other)) if this == other else None
    ours: list[Optional[tuple[int, int]]] = []
    theirs: list[Optional[tuple[int, int]]] = []
    has_tokens = False
    for dim, (one, two) in enumerate(zip(this, other)):
        a: Optional[tuple[int, int]] = None
        b: Optional[tuple[int, int]] = None
        whole = region.other == (0, region.other_length) and region.this == (0, region.this_length)
        if dim == 0:
            if one != region.this_rows or two not in (1, region.other_rows):
                return None
            b = (region.row, 1) if two > 1 else None
        elif one == region.this_length and two == region.other_length:
            has_tokens = True
            if not (whole and one == two):
                a, b = _span(region.this), _span(region.other)
        elif one == region.this_length and two == region.other_keys:
            has_tokens = True
            begin, end = region.keys
            if one != two:
                a, b = (0, end - begin), (begin, end - begin)
        elif one != two:
            return None
        ours.append(a)
        theirs.append(b)
    return Cut(tuple(ours), tuple(theirs)) if has_tokens else None


def _span(tokens: tuple[int, int]) -> tuple[int, int]:
    return tokens[0], tokens[1] - tokens[0]
