"""Prompts in parquet and arrow files, and in folders that ``datasets`` has saved, where pyarrow is installed.

The files of such a folder are arrow files, so pyarrow alone reads them. They are read in pieces.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro.core.errors import UsageError
from repro.core.foreign import check_is_file, read_foreign

SUFFIXES = (".parquet", ".arrow", ".feather")
STATE, SPLITS = "state.json", "dataset_dict.json"
"""Of a folder that ``save_to_disk`` wrote: of one data set, and of several splits."""
ROWS = 256
"""Rows at a time."""
MOST_JSON = 1 << 24
"""Bytes of such a state that are read."""


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that hold the rows: the file itself, or those of a folder, in order.

    Raises:
        UsageError: it is a folder of something else, or of several splits.
    """
    if not path.is_dir():
        return (path,)
    if (path / SPLITS).exists():
        splits = _json(path / SPLITS).get("splits")
        names = ", ".join(map(str, splits)) if isinstance(splits, list) else "not known"
        raise UsageError(f"{path} holds several splits ({names}). Give the folder of one.")
    if not (path / STATE).exists():
        raise UsageError(f"{path}: expected a prompt file, or a folder that datasets has saved; it has no {STATE}.")
    state = _json(path / STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UsageError(f"{path}: its rows are chosen by indices beside it. Save it anew: flatten_indices().")
    data = state.get("_data_files")
    names_in = [item.get("filename") if isinstance(item, dict) else None for item in data or ()]
    if not names_in or not all(isinstance(name, str) and name == Path(name).name for name in names_in):
        raise UsageError(f"{path / STATE}: expected the names of arrow files in _data_files.")
    return tuple(path / str(name) for name in names_in)


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a file or folder, with its place for a message.

    Raises:
        UsageError: pyarrow is not installed, or does not read it; names the file.
    """
    files = files_of(path)
    try:
        import pyarrow
    except ImportError:
        raise UsageError(f"{path} needs pyarrow to be read: pip install pyarrow.") from None
    for file in files:
        number = 0
        try:
            check_is_file(file)
            for batch in _batches(file):
                for row in batch.to_pylist():
                    yield f"{file}, row {number}", row
                    number += 1
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise UsageError(f"{file}: pyarrow does not read it: {_first_line(error)}.") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def _batches(file: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow import parquet

    if file.suffix.lower() == ".parquet":
        with parquet.ParquetFile(file) as table:
            yield from table.iter_batches(batch_size=ROWS)
        return
    with pyarrow.memory_map(str(file)) as source:
        try:
            reader = pyarrow.ipc.open_file(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            whole: Any = pyarrow.ipc.open_stream(source)
        else:
            whole = (reader.get_batch(number) for number in range(reader.num_record_batches))
        for batch in whole:
            yield from (batch.slice(begin, ROWS) for begin in range(0, batch.num_rows, ROWS))


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_foreign(path, MOST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: expected JSON: {error}.") from None
    return data if isinstance(data, dict) else {}
