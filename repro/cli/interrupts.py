"""Ctrl-C, at any time and any number of times: one line of ours answers it, and nothing of Python's own.

A second Ctrl-C in the middle of what the first one set off would end that with a traceback, and one while Python ends
would be printed as an exception that is ignored. Nothing is imported here that is not in Python itself.
"""

import _thread
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

PATIENCE = 10.0
"""Seconds that a command may take to end after a first Ctrl-C; a later one ends it on the spot."""
AGAIN_SECONDS = 0.05
INTERRUPTED = 130


class Interrupts:
    """The first Ctrl-C raises KeyboardInterrupt; those that follow it at once change nothing."""

    def __init__(self) -> None:
        self._first: float | None = None

    def listen(self) -> None:
        """From now on. Where Ctrl-C is ignored, as in the background of a shell, it stays so."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            sys.unraisablehook = self._lost
            signal.signal(signal.SIGINT, self._heard)

    def end(self) -> None:
        """The exit status is known, and there is nothing left to interrupt."""
        self._first = float("inf")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # CPython remembers that a Ctrl-C left code that is run from a text, as a dataclass is made, and would end by
        # that signal whatever the exit status. Any such code that ends well makes it forget.
        exec("")

    def _heard(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            raise KeyboardInterrupt
        if now - self._first > PATIENCE:
            os.write(2, b"\nrepro: stopped by Ctrl-C, without waiting for what was running.\n")
            os._exit(INTERRUPTED)

    def _lost(self, unraisable: Any) -> None:
        """Python drops what is raised while it clears an object away. A Ctrl-C that came there is heard a bit later."""
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)
        elif self._first is not None and self._first < float("inf"):
            self._first = None
            again = threading.Timer(AGAIN_SECONDS, _thread.interrupt_main)
            again.daemon = True
            again.start()
