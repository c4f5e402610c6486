"""Processes below another one: found, ended, and gone with it."""

import os
import subprocess
import sys
import time

import pytest

from repro.core.processes import family

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is found")
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
"""


def is_there(pid):
    """Alive: the zombie of a process that is not ours is its new parent's to reap."""
    return family._every().get(pid, (0, False))[1]


def eventually(holds):
    end = time.monotonic() + 30
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def test_who_leaves_its_session_and_its_parent_is_found_and_ended():

    before = family.children(os.getpid())
    family.adopt(True)
    try:
        with subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, text=True) as parent:
            pid = int(parent.stdout.readline())
            parent.wait()
            adopted = family.children(os.getpid()) - before
            assert adopted == {pid}
            assert family.end(adopted) == {pid}
    finally:
        family.adopt(False)
    assert not is_there(pid)


def test_what_is_below_a_process_is_found_at_any_depth():
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); {SLEEP}"
    with subprocess.Popen([sys.executable, "-c", code]) as top:
        assert eventually(lambda: len(family.below(top.pid)) == 1)
        (below,) = family.below(top.pid)
        assert family.end([top.pid]) == {top.pid, below}
        assert not is_there(below)


SLEEP = "import time; time.sleep(600)"


@pytest.mark.parametrize("way", ["variable", "launch"])
def test_a_process_ends_with_the_one_that_started_it(way):
    child = f"from repro.core.processes import family; family.end_with_parent(); print('up', flush=True); {SLEEP}"
    if way == "launch":
        child = f"print('up', flush=True); {SLEEP}"
    started = {
        "variable": "subprocess.Popen([sys.executable, '-c', code], env=family.asking_to_end_with_this(os.environ))",
        "launch": "subprocess.Popen(family.ending_with_this([sys.executable, '-c', code]))",
    }[way]
    parent = f"import os, subprocess, sys; from repro.core.processes import family\ncode = {child!r}\n"
    parent += f"print({started}.pid, flush=True)\n{SLEEP}"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as top:
        said = {top.stdout.readline().strip(), top.stdout.readline().strip()}
        pid = int(next(iter(said - {"up"})))
        assert is_there(pid)
        top.kill()
    assert eventually(lambda: not is_there(pid))
