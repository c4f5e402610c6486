"""The process that has imported everything and computed nothing: it is forked for each command that it is asked for."""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import sys
from typing import Any

from . import fresh
from .command import Command


def main(argv: list[str]) -> None:
    """Listen, import, and answer until the process that started this one ends.

    Args:
        argv: The folder of the tests, which is no longer looked into, and the descriptor of a socket that listens.
    """
    tests, descriptor = argv[:2]
    parent = os.getppid()
    fresh.end_with_parent()
    if os.getppid() != parent or parent == 1:
        return
    sys.path.remove(tests)
    listener = socket.socket(fileno=int(descriptor))
    world = fresh.World.imported()
    heard, told = os.pipe()
    for end in (heard, told):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    gc.freeze()  # otherwise the collector would write to every page that is shared with the copies
    running: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(heard, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    _fork(world, listener.accept()[0], running)
                else:
                    os.read(heard, 4096)
            _reap(running)


def _fork(world: fresh.World, connection: socket.socket, running: dict[int, socket.socket]) -> None:
    """One request: the copy never comes back from here."""
    asked, streams = _request(connection)
    pid = os.fork()
    if not pid:
        fresh.begin(streams, asked["session"], asked["limits"])
        fresh.become(world, Command.read(asked["command"]), asked["cwd"], asked["env"])
    for stream in streams:
        os.close(stream)
    running[pid] = connection
    _tell(connection, f"{pid}\n")


def _request(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    left, text = int.from_bytes(head, "big"), b""
    while len(text) < left:
        text += connection.recv(left - len(text))
    return json.loads(text), list(streams)


def _reap(running: dict[int, socket.socket]) -> None:
    """Those that have ended, and how."""
    while running:
        pid, status, used = os.wait4(-1, os.WNOHANG)
        if not pid:
            return
        connection = running.pop(pid)
        _tell(connection, f"{status} {used.ru_utime + used.ru_stime:f} {used.ru_maxrss}\n")
        connection.close()


def _tell(connection: socket.socket, line: str) -> None:
    try:
        connection.sendall(line.encode())
    except OSError:  # who has asked is gone
        return
