"""TensorBoard's event files as lines of JSON, one for each scalar; the package tensorboard reads them, if installed."""

import json
from collections.abc import Iterator
from pathlib import Path

MARK = "tfevents"
"""Part of the name of every event file."""


class Unreadable(Exception):
    """An event file cannot be read. The message says what to do."""


def is_event_file(path: Path) -> bool:
    """By its name, as TensorBoard itself knows them."""
    return MARK in path.name


def scalars(path: Path) -> Iterator[bytes]:
    """A line such as ``{"step": 118, "train/loss": NaN}`` for each scalar, in the order of the file.

    Raises:
        Unreadable: tensorboard is not installed, or does not read the file.
    """
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise Unreadable(f"tensorboard is needed for event files ({error}): pip install tensorboard") from None
    try:
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    number = float(value.simple_value)
                elif value.HasField("tensor") and not value.tensor.tensor_shape.dim and value.tensor.dtype in (1, 2):
                    number = float(tensor_util.make_ndarray(value.tensor))
                else:
                    continue
                yield f"{json.dumps({'step': event.step, value.tag: number})}\n".encode()
    except Exception as error:  # noqa: BLE001 - the package raises its own and protobuf's
        raise Unreadable(f"tensorboard does not read it: {type(error).__name__}: {error}") from None
