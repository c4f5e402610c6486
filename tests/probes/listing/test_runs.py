"""Candidates run where they find the files of the original, and can do no harm."""

import os
import signal
import sys
from pathlib import Path

import pytest

from repro.probes.listing.runs.confined import CONFINED, Confinement, confined
from repro.probes.listing.runs.mirror import Mirror
from repro.probes.listing.runs.pool import Pool, Run, Setting, Worker
from repro.probes.listing.runs.recorded import RECORD
from repro.probes.script.child import Around, Job
from repro.probes.script.folder import own_folder
from repro.probes.script.run import run_script

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux alone")


@pytest.fixture
def place(tmp_path):
    """A folder with a script's files."""
    folder = tmp_path / "project" / "scripts"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "project" / "above.txt").write_text("above")
    (folder / "data" / "x.txt").write_text("x")
    (folder / "beside.py").write_text("VALUE = 5\n")
    (folder / "log.txt").write_text("old\n")
    (folder / "asks.py").write_text("")
    return folder


@pytest.fixture
def run(place):
    """Runs a text in place of the script; what it prints and how it ends."""
    with own_folder() as root:
        worker = Worker(str(Path(root).resolve() / "0"))

        def run(text, *, allowed=frozenset(), written=frozenset(), watch=None, given=None):
            setting = Setting(str(place / "asks.py"), str(place), frozenset(written), allowed)
            return worker.do(setting, Run(text, watch, given, seconds=60.0))

        yield run


def said(ran):
    """What a run printed last."""
    return ran.lines[-1] if ran.lines else ran.reason


# --- the folder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("print(open('data/x.txt').read())", "x"),
        ("print(open('../above.txt').read())", "above"),
        ("from pathlib import Path; print(Path(__file__).with_name('data').joinpath('x.txt').read_text())", "x"),
        ("import beside; print(beside.VALUE)", "5"),
        (
            "import sys, os; print(os.path.basename(sys.argv[0]), os.path.samefile(sys.path[0], os.getcwd()))",
            "asks.py True",
        ),
    ],
)
def test_what_the_script_finds_is_found(run, text, printed):
    assert said(run(text)) == printed


def test_what_is_written_is_gone_with_the_run(run, place):
    assert said(run("open('new.txt', 'w').write('n'); print(open('new.txt').read())")) == "n"
    assert said(run("import os; print(os.path.exists('new.txt'))")) == "False"
    assert sorted(path.name for path in place.iterdir()) == ["asks.py", "beside.py", "data", "log.txt"]
    assert (place / "asks.py").read_text() == ""


def test_a_file_that_the_script_writes_itself_is_a_copy(run, place):
    text = "open('log.txt', 'a').write('new'); print(open('log.txt').read().split())"
    assert said(run(text, written=[str(place / "log.txt")])) == "['old', 'new']"
    assert said(run(text, written=[str(place / "log.txt")])) == "['old', 'new']"
    assert (place / "log.txt").read_text() == "old\n"


def test_what_was_removed_is_there_again(run):
    assert said(run("import os; os.remove('beside.py'); print(os.path.exists('beside.py'))")) == "False"
    assert said(run("import os; print(os.path.exists('beside.py'))")) == "True"


def test_a_mirror_holds_links_and_nothing_of_what_they_lead_to(tmp_path, place):
    mirror = Mirror(str(tmp_path / "root"), [str(place)])
    mirror.restore()
    copy = Path(mirror.path(str(place)))
    assert (copy / "data").is_symlink()
    assert not copy.is_symlink()
    assert (copy / "data" / "x.txt").read_text() == "x"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "open({target!r}, 'w')",
        "open('log.txt', 'w')",
        "import os; os.remove({target!r})",
        "import os; os.rename({target!r}, 'here')",
        "import os; os.truncate({target!r}, 0)",
        "import shutil; shutil.rmtree({folder!r})",
        "import shutil; shutil.rmtree('data/')",
        "import os; os.mkdir({folder!r} + '/new')",
        "import os; os.symlink({folder!r}, 'way'); open('way/log.txt', 'w')",
        "import torch; torch.save(1, {target!r})",
        "import torch; torch.save(1, 'data/x.txt')",
        "import subprocess; subprocess.run(['touch', {target!r}])",
        "import os; os.system('true')",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import os; os.kill(1, 0)",
    ],
)
def test_a_candidate_may_not_do_what_the_original_did_not(run, place, text):
    ran = run(text.format(target=str(place / "log.txt"), folder=str(place / "data")))
    assert "PermissionError" in ran.reason or "OSError" in ran.reason, ran
    assert (place / "log.txt").read_text() == "old\n"
    assert (place / "data" / "x.txt").read_text() == "x"


def test_what_the_original_did_it_may_do(run, tmp_path):
    target = tmp_path / "elsewhere.txt"
    text = f"import subprocess; open({str(target)!r}, 'w').write('a'); print(subprocess.call(['true']))"
    seen = run(text, allowed=None, watch=RECORD, given={}).found
    target.unlink()
    assert said(run(text, allowed=frozenset(seen.access))) == "0"
    assert target.read_text() == "a"
    assert "PermissionError" in run(text.replace("'true'", "'false'"), allowed=frozenset(seen.access)).reason


def test_temporary_files_are_its_own(run):
    name = Path(said(run("import tempfile; print(tempfile.NamedTemporaryFile(delete=False).name)")))
    assert name.parent.name == "temporary"
    assert said(run("import tempfile, os; print(os.listdir(tempfile.gettempdir()))")) == "[]"


def test_a_run_has_the_seed_that_it_is_given(run):
    text = "import torch, random; print(torch.rand(1).item(), random.random())"
    assert said(run(text)) == said(run(text))


def test_a_run_that_does_not_end_is_ended(place):
    with own_folder() as root:
        worker = Worker(str(Path(root).resolve() / "0"))
        setting = Setting(str(place / "asks.py"), str(place), allowed=frozenset())
        ran = worker.do(setting, Run("while True: pass", seconds=1.0))
    assert ran.exit_status < 0


def test_nothing_is_confined_before_it_is_entered(tmp_path):
    before = Path.cwd()
    confined(Confinement(str(tmp_path), str(tmp_path), str(tmp_path), str(tmp_path), 1, frozenset()))
    assert Path.cwd() == before


# --- what is recorded ------------------------------------------------------------------------------------------------


def test_lines_bad_values_and_shapes_are_recorded(run):
    text = "import torch\ndef f(x):\n    return x / 0\nif not torch:\n    f(1)\n"
    text += "a = torch.ones(2, 3)\nb = f(a)\nnet = torch.nn.ReLU()\n"
    bound = {6: ("a",), 7: ("b",), 8: ("net",)}
    seen = run(text, allowed=None, watch=RECORD, given=bound).found
    assert seen.lines == {1, 2, 3, 4, 6, 7, 8}
    assert seen.bad == [(7, "b", "Inf")]
    assert seen.tensors[6, "a"] == ((2, 3), "torch.float32")
    assert seen.modules == {"net"}


# --- workers ---------------------------------------------------------------------------------------------------------


@linux
def test_a_worker_that_is_killed_is_made_again(place):
    setting = Setting(str(place / "asks.py"), str(place), allowed=frozenset())
    with own_folder() as root:
        pool = Pool(2, os.path.realpath(root))
        try:
            number = pool.ask(setting, Run("import os, time; time.sleep(60)"))
            other = pool.ask(setting, Run("print(4)"))
            os.kill(pool._pids[number], 9)
            assert pool.answer(number) is None
            assert said(pool.answer(other)) == "4"
            assert said(pool.answer(pool.ask(setting, Run("print(5)")))) == "5"
        finally:
            pool.close()


@linux
def test_what_nobody_waits_for_any_more_does_not_hold_up_the_next_question(place):
    setting = Setting(str(place / "asks.py"), str(place), allowed=frozenset())
    with own_folder() as root:
        pool = Pool(2, os.path.realpath(root))
        try:
            sleeping = pool.ask(setting, Run("import time; time.sleep(600)"))
            pool.leave(sleeping)
            assert pool.free == 1
            assert said(pool.answer(pool.ask(setting, Run("print(4)")))) == "4"
            pool.leave(pool.ask(setting, Run("print(5)")))
            assert said(pool.answer(pool.ask(setting, Run("print(6)")))) == "6"  # it has the one that is done first
        finally:
            pool.close()


@linux
def test_a_part_of_a_second_of_a_processor_is_a_limit(place, tmp_path):
    (place / "asks.py").write_text("while True: pass\n")
    confinement = Confinement(*[str(tmp_path)] * 4, 1, frozenset(), most=0.2)
    ran = run_script(Job(str(place / "asks.py"), around=Around((CONFINED, confinement), 300.0)))
    assert ran.exit_status == -signal.SIGPROF
