"""Parquet files, where pyarrow is installed: a library of that size is not made a requirement for them."""

import math
from pathlib import Path
from typing import Any

from repro.jobs.scan.findings import Counts, Tally, Unreadable

ROWS = 1 << 16
"""Rows at a time."""


def read_parquet(path: Path, tally: Tally) -> None:
    """Every column of floating-point numbers, lists, maps and structs of them included. A null is no NaN, and a
    text no number: a column of numbers is one by its type here.

    Raises:
        Unreadable: pyarrow is not there, or the file is none that it reads.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise Unreadable(f"pyarrow is needed for it ({error}): pip install pyarrow") from None
    try:
        row = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    _column(name, column, row, None, tally)
                row += batch.num_rows
    except pyarrow.ArrowException as error:
        raise Unreadable(f"pyarrow does not read it: {error}") from None


def _column(place: str, column: Any, first_row: int, rows: Any, tally: Tally) -> None:
    """Count one column of a batch that starts at ``first_row``.

    ``rows`` has the row in the batch of each element, where the column is what lists hold; else it is None.
    """
    import pyarrow
    from pyarrow import compute, types

    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if types.is_map(kind):  # pyarrow's functions on lists have none for maps, and one of them ends the process
        kind = pyarrow.list_(pyarrow.struct([kind.key_field, kind.item_field]))
        column = column.cast(kind)
    if types.is_struct(kind):
        for field, part in zip(kind, column.flatten(), strict=True):
            _column(f"{place}.{field.name}", part, first_row, rows, tally)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        parents = compute.list_parent_indices(column)
        rows = parents if rows is None else compute.take(rows, parents)
        _column(f"{place}[]", column.flatten(), first_row, rows, tally)
    elif types.is_floating(kind):
        tally.numbers(place, len(column) - column.null_count)
        wide = column.cast("float64") if types.is_float16(kind) else column
        bad = compute.fill_null(compute.invert(compute.is_finite(wide)), False)
        index = compute.index(bad, True).as_py()
        if index >= 0:
            values = compute.filter(wide, bad).to_pylist()
            nan, posinf = sum(map(math.isnan, values)), values.count(math.inf)
            row = first_row + (index if rows is None else rows[index].as_py())
            tally.hit(place, f"row {row}", Counts(nan, posinf, len(values) - nan - posinf), str(kind))
    elif types.is_integer(kind) or types.is_decimal(kind):
        tally.numbers(place, len(column) - column.null_count)
