"""Running a script in a clean interpreter: what each way to end is called."""

import os
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from repro.core.errors import CellError
from repro.core.locks.scratch import scratch_folder
from repro.reproducer.verify import verify


def run(text, **options):
    return verify(sys.executable, text, **{"runs": 1, **options})


MARK = "import os, sys\nif os.path.exists({0!r}): sys.exit(0)\nopen({0!r}, 'w').close()\nsys.exit(1)"
"""Ends with 1 when it is run first, and with 0 from then on."""

A_LIBRARY = """
import types
made = types.ModuleType("made")
exec(compile("def f(): assert False, 'of a library'", "made.py", "exec"), vars(made))
made.f()
"""


@pytest.mark.parametrize(
    ("text", "statuses", "reason"),
    [
        ("import sys\nprint('seen inf')\nsys.exit(1)", (1, 1, 1),
         "Run 3 times in a clean interpreter, with exit status 1 each time: the fault is there."),
        ("print('expected 1, seen 1')", (0, 0, 0), "It did not show the fault: exit status 0."),
        (MARK, (1, 0, 0), "The runs disagree: exit statuses 1, 0, 0."),
        ("assert 1 == 2, 'the fault'", (1, 1, 1),
         "Run 3 times in a clean interpreter, with exit status 1 each time: the fault is there."),
        ("import unittest\nunittest.TestCase().assertEqual(1, 2)", (1, 1, 1),
         "Run 3 times in a clean interpreter, with exit status 1 each time: the fault is there."),
        (A_LIBRARY, (70,), "It raised an exception that it did not catch: AssertionError: of a library."),
        ("import no_such_package", (70,),
         "It raised an exception that it did not catch: ModuleNotFoundError: No module named 'no_such_package'."),
        ("import sys\nsys.exit(125)", (125,), "It could not tell: exit status 125."),
        ("raise ValueError('broken')", (70,), "It raised an exception that it did not catch: ValueError: broken."),
        ("x = = 1", (70,), "It raised an exception that it did not catch: SyntaxError: invalid syntax."),
        ("import sys\nsys.exit(3)", (3,), "It ended with exit status 3; expected 0, 1 or 125."),
    ],
)  # fmt: skip
def test_each_way_to_end_has_its_reason(tmp_path, text, statuses, reason):
    found = run(text.format(str(tmp_path / "mark")) if text is MARK else text, runs=3)
    assert (found.exit_statuses, found.reason) == (statuses, reason)
    assert found.verified == (statuses == (1, 1, 1))


@pytest.mark.skipif(os.name == "nt", reason="signals end no process there")
def test_a_process_that_dies_is_told_from_a_fault():
    found = run("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert found.exit_statuses == (-11,)
    assert found.reason == "Its process was ended by SIGSEGV."


def test_a_script_that_does_not_end_is_stopped():
    found = run("import time\ntime.sleep(60)", timeout_seconds=0.5)
    assert found.exit_statuses == (None,)
    assert found.reason == "It did not finish within 0.5 seconds."


@pytest.mark.skipif(os.name == "nt", reason="there is no fork")
def test_a_grandchild_that_holds_the_output_does_not_keep_the_host_waiting():
    text = "import os, sys, time\nif os.fork() == 0:\n    time.sleep(60)\nsys.exit(1)"
    assert run(text, timeout_seconds=20).verified


def test_it_starts_in_an_empty_folder_with_an_empty_home():
    text = "import os, sys\nprint(os.listdir('.'), os.listdir(os.path.expanduser('~')))\nsys.exit(1)"
    assert run(text, runs=2).output == "[] []"


def test_variables_of_the_user_do_not_reach_it(monkeypatch):
    monkeypatch.setenv("INJECTED_SECRET", "hunter2")
    text = "import os, sys\nprint(os.environ.get('INJECTED_SECRET'), os.environ['HF_HUB_OFFLINE'])\nsys.exit(1)"
    assert run(text).output == "None 1"


def test_what_the_user_has_on_the_path_is_not_imported(monkeypatch, tmp_path):
    (tmp_path / "injected_module.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "injected_module" in run("import injected_module").reason


def test_there_is_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = f"import socket\nsocket.create_connection(('127.0.0.1', {port}))"
        assert "the network is blocked" in run(text).reason


def test_a_name_is_not_looked_up():
    assert "the network is blocked" in run("import socket\nsocket.getaddrinfo('localhost', 80)").reason


def test_it_gets_its_arguments_and_sees_nothing_of_the_launcher():
    text = (
        "import sys\nprint(sys.argv[1:], __name__, sorted(n for n in globals() if not n.startswith('__')))\nsys.exit(1)"
    )
    assert run(text, argv=("a", "b c")).output == "['a', 'b c'] __main__ ['sys']"


def test_only_the_end_of_a_long_output_is_kept():
    found = run("import sys\nprint('x' * 100_000 + 'end')\nsys.exit(1)")
    assert len(found.output) < 10_000
    assert found.output.endswith("end")


def test_where_it_ran_does_not_stand_in_what_it_said():
    text = "import sys, traceback\ntry:\n    1 / 0\nexcept ArithmeticError:\n    traceback.print_exc(file=sys.stdout)"
    assert 'File "reproducer.py", line 3' in run(text).output


def test_an_interpreter_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CellError, match="cannot be started"):
        verify(str(tmp_path / "python"), "")


KILLED = """
import os, sys
from repro.reproducer.verify import verify
verify(sys.executable, f"import os; os.kill({os.getpid()}, 9)", runs=1)
"""


CROWDED = """
import os, signal, sys
with open({0!r}, "a") as mark:
    mark.write("x")
    number = mark.tell()
if number in (2, 3):
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(1)
"""
"""Ends with 1, but where it is run second or third."""


@pytest.mark.skipif(os.name == "nt", reason="signals end no process there")
@pytest.mark.parametrize(("together", "statuses"), [(True, (1, 1, 1)), (False, (1, -9, -9))])
def test_a_run_that_was_killed_beside_others_is_made_again_alone(tmp_path, together, statuses):
    """Memory that is enough for one may be too little for several."""
    found = run(CROWDED.format(str(tmp_path / "mark")), runs=3, together=together)
    assert found.exit_statuses == statuses


@pytest.mark.skipif(os.name == "nt", reason="signals end no process there")
def test_what_a_killed_host_left_is_removed_by_the_next_and_nothing_else(tmp_path, monkeypatch):
    ran = subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert ran.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "script" / "reproducer.py").is_file()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "repro-verify-of-another").mkdir()
    (tmp_path / "repro-verify-link").symlink_to(tmp_path / "repro-verify-of-another")
    with scratch_folder("repro-verify-") as held:
        run("pass")
        assert held.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"repro-verify-of-another", "repro-verify-link"}
