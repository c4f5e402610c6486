"""Each case in a process of its own, forked from one that has imported everything and computed nothing.

So a crash, a leak or a changed setting of one case does not touch the next, and nobody pays for the imports twice.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar

FORK = multiprocessing.get_context("fork")


class Case(Protocol):
    """What is worked on: its name, and how long that may take."""

    @property
    def name(self) -> str: ...

    @property
    def seconds(self) -> float: ...


C = TypeVar("C", bound=Case)
T = TypeVar("T")


def each(cases: Sequence[C], work: Callable[[C], T], jobs: int, log: Path) -> Iterator[tuple[C, T | str]]:
    """The result of each case as it comes; a sentence where its process died, raised, or took too long.

    What a case prints goes to ``log``.
    """
    waiting, running = list(reversed(cases)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            case = waiting.pop()
            receive, send = FORK.Pipe(duplex=False)
            process = FORK.Process(target=_child, args=(case, work, send, log))
            process.start()
            send.close()
            running[receive] = (case, process, time.monotonic() + case.seconds)
        ready = wait(running, timeout=min(until for *_, until in running.values()) - time.monotonic())
        late = [pipe for pipe, (*_, until) in running.items() if time.monotonic() > until and pipe not in ready]
        for pipe in ready:
            case, process, _ = running.pop(pipe)
            yield case, _result(pipe, process)
        for pipe in late:
            case, process, _ = running.pop(pipe)
            process.kill()
            process.join()
            pipe.close()
            yield case, f"given up after {case.seconds:g} s"


def _result(pipe: Any, process: BaseProcess) -> Any:
    try:
        result = pipe.recv()
    except EOFError:
        result = None
    pipe.close()
    process.join()
    return result if result is not None else f"its process ended with {process.exitcode}"


def _child(case: C, work: Callable[[C], T], send: Connection, log: Path) -> None:
    with log.open("ab", buffering=0) as opened:
        for stream in (1, 2):
            os.dup2(opened.fileno(), stream)
    print(f"--- {case.name}", flush=True)
    try:
        send.send(work(case))
    except BaseException:  # noqa: BLE001 - whatever ends a case is that case's result
        traceback.print_exc()
        send.send(traceback.format_exc(limit=-3))
    send.close()
    os._exit(0)
