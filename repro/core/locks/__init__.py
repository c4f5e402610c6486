"""One writer at a time: a lock of the operating system on each folder and file that two processes might write at once.

A lock goes with its process, however that ends: what counts is the system's lock on the file, never that the file is
there. So the lock's file stays behind, empty, and means nothing by itself.
"""

from repro.core.locks.held import (
    FILES,
    Say,
    folder_held,
    is_unused,
    names_in,
    nobody,
    remove_unused,
    waited_for,
)

__all__ = ["FILES", "Say", "folder_held", "is_unused", "names_in", "nobody", "remove_unused", "waited_for"]
