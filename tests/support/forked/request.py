"""What the server is asked, over a socket: a command, its variables, its folder, its streams. And this as a program,
which a shell starts in place of ``python -m repro``: little is imported here.

The request is the length of a JSON object, in four bytes that carry the streams, and the object. The answers are lines:
the number of the process; then, once it has ended, its status as waitpid gives it, its seconds of processors, and the
kilobytes of the largest of its processes.
"""

import json
import os
import resource
import signal
import socket
import sys

LIMITS = ("AS", "CORE", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK")


def limits():
    """This process's limits, by name."""
    return {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in LIMITS}


def ask(place, command, cwd, env, streams, session=False):
    """(the connection, the number of the process that was forked)."""
    asked = {"command": command, "cwd": cwd, "env": env, "session": session, "limits": limits()}
    text = json.dumps(asked).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(place)
    socket.send_fds(connection, [len(text).to_bytes(4, "big")], streams)
    connection.sendall(text)
    return connection, int(_line(connection))


def ended(connection, block=True):
    """(status, seconds, kilobytes) of a process that has ended.

    Raises:
        BlockingIOError: it has not, and it is not to be waited for.
        EOFError: the server is gone.
    """
    connection.recv(1, socket.MSG_PEEK | (0 if block else socket.MSG_DONTWAIT))
    status, seconds, kilobytes = _line(connection).split()
    connection.close()
    return int(status), float(seconds), int(kilobytes)


def _line(connection):
    line = b""
    while not line.endswith(b"\n"):
        more = connection.recv(1)
        if not more:
            raise EOFError("the server of forked interpreters is gone")
        line += more
    return line


def main():
    """Ask for ``python -m repro`` with these arguments; signals go on to it, and its end is this process's end."""
    place, *arguments = sys.argv[1:]
    command = [sys.executable, "-m", "repro", *arguments]
    connection, pid = ask(place, command, os.getcwd(), dict(os.environ), [0, 1, 2])  # noqa: PTH109 - little is imported
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    status, *_ = ended(connection)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
