"""A script ends in a process of its own as under plain Python, and that end is its answer."""

import hashlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.handmade import case_of

from repro.probes.checkpoint.resolve import CannotResolve
from repro.probes.main import run_plan
from repro.probes.program.settings import IDLE
from repro.probes.protocol.wire import Emitter
from repro.probes.script.answer import ablation, asked
from repro.probes.script.child import LINES, Job, Tail
from repro.probes.script.run import run_plainly, run_script

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def script(tmp_path):
    """Runs a script of the given text."""

    def run(text):
        (tmp_path / "asks.py").write_text(text)
        return run_plainly(str(tmp_path / "asks.py"))

    return run


# --- how it ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "verdict", "status"),
    [
        ("x = 1", "good", 0),
        ("raise SystemExit", "good", 0),
        ("raise SystemExit(None)", "good", 0),
        ("import sys; sys.exit(0)", "good", 0),
        ("raise SystemExit(False)", "good", 0),
        ("raise SystemExit(1)", "bad", 1),
        ("raise SystemExit(True)", "bad", 1),
        ("raise SystemExit('words are status 1 in Python')", "bad", 1),
        ("raise SystemExit(125)", "skip", 125),
        ("raise SystemExit(2)", "skip", 2),
        ("raise SystemExit(-1)", "skip", 255),
        ("raise ValueError('no answer')", "skip", 1),
        ("raise BaseException('no Exception')", "skip", 1),
        ("def x(:", "skip", 1),
        ("import a_module_that_is_not_there", "skip", 1),
    ],
)
def test_the_end_is_the_answer(script, text, verdict, status):
    ran = script(text)
    assert (ran.verdict, ran.exit_status) == (verdict, status)


@pytest.mark.parametrize("text", ["pass", "raise SystemExit('said')", "import sys; sys.exit(3)", "raise SystemExit(1)"])
def test_the_status_is_the_one_that_python_gives(script, tmp_path, text):
    asked = subprocess.run([sys.executable, "-c", text], capture_output=True, check=False)
    assert script(text).exit_status == asked.returncode


@pytest.mark.parametrize("where", ["assert 1 == 2, 'one is two'", "def f():\n    assert 1 == 2, 'one is two'\nf()"])
def test_an_assertion_of_the_script_is_bad_and_named(script, where):
    ran = script(where)
    line = where.split("\n").index(next(line for line in where.split("\n") if "assert" in line)) + 1
    assert (ran.verdict, ran.reason) == ("bad", f"asks.py:{line}: AssertionError: one is two")


def test_an_assertion_without_words_is_told_by_its_line(script):
    assert script("assert 1 == 2").reason == "asks.py:1: AssertionError: assert 1 == 2"


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.testing.assert_close(torch.zeros(1), torch.ones(1))",
        "import torch\ndef f(a):\n    torch.testing.assert_close(a, a + 1)\nf(torch.ones(1))",
        "import numpy as np\nnp.testing.assert_allclose(np.zeros(1), np.ones(1))",
        "import numpy as np\nnp.testing.assert_array_equal(np.zeros(1), np.ones(1))",
        "import unittest\nunittest.TestCase().assertAlmostEqual(0.1, 0.2)",
    ],
)
def test_a_comparison_that_the_script_calls_is_its_own(script, text):
    ran = script(text)
    line = next(at for at, one in enumerate(text.split("\n"), 1) if "ssert" in one)
    assert (ran.verdict, ran.raised, ran.key) == ("bad", False, ("AssertionError", line))
    assert ran.reason.startswith(f"asks.py:{line}: AssertionError: ")


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch._assert(False, 'raised in torch')",
        "import torch\ndef f(x):\n    torch._assert(x is None, 'x')\nf(torch.ones(1))",
    ],
)
def test_an_assertion_of_torch_is_not_the_scripts(script, text):
    ran = script(text)
    assert ran.verdict == "skip"
    assert "not by the script; a script says bad with sys.exit(1)" in ran.reason


def test_an_assertion_that_the_script_passes_on_from_torch_is_not_its_own(script):
    ran = script("import torch\ntry:\n    torch._assert(False, 'x')\nexcept AssertionError:\n    raise")
    assert ran.verdict == "skip"


def test_a_missing_kernel_is_told_as_one(script):
    assert script("raise RuntimeError('\"x\" not implemented for \\'Half\\'')").reason.startswith("this PyTorch has no")


def test_an_interrupt_is_a_signal_and_no_answer(script):
    ran = script("raise KeyboardInterrupt")
    assert (ran.verdict, ran.exit_status, ran.crashed) == ("skip", -signal.SIGINT, True)


def test_a_script_that_is_not_there_cannot_be_resolved(tmp_path):
    with pytest.raises(CannotResolve, match="cannot be read: No such file"):
        asked(str(tmp_path / "gone.py"))


# --- what it prints ----------------------------------------------------------------------------------------------


def test_the_last_line_printed_is_the_reason(script):
    assert script("print('first'); print('seen: 3 NaN'); print(' '); raise SystemExit(1)").reason == "seen: 3 NaN"


def test_a_line_that_is_not_ended_counts(script):
    assert script("print('whole'); print('half', end='')").reason == "half"


def test_nothing_printed_is_said(script):
    assert script("raise SystemExit(1)").reason == "the script ended with status 1 and printed nothing"


def test_another_status_stands_before_what_was_printed(script):
    assert script("print('wrong usage'); raise SystemExit(2)").reason == "the script ended with status 2: wrong usage"


def test_words_in_an_exit_are_printed(script):
    ran = script("raise SystemExit('seen: NaN')")
    assert (ran.errors, ran.reason) == (("seen: NaN",), "seen: NaN")


def test_the_last_lines_are_kept_and_all_are_passed_on(script, capsys):
    ran = script("for n in range(100): print(n)")
    assert ran.lines == tuple(str(n) for n in range(100 - LINES, 100))
    assert capsys.readouterr().out.split() == [str(n) for n in range(100)]


def test_a_script_may_close_its_output(script):
    assert script("import sys\nprint('shut')\nsys.stdout.close()").reason == "shut"


def test_bytes_written_to_the_buffer_are_caught(script):
    assert script("import sys; sys.stdout.buffer.write('größer\\n'.encode())").lines == ("größer",)


def test_a_character_that_comes_in_two_writes_is_whole():
    tail = Tail(io.StringIO())
    for byte in "ö\n".encode():
        tail.write(bytes([byte]))
    assert tail.lines() == ("ö",)


def test_bytes_that_are_no_text_stop_nothing(script):
    ran = script("import sys; sys.stdout.buffer.write(b'\\xff\\n')")
    assert (ran.verdict, ran.lines) == ("good", ("\\xff",))


def test_printed_lines_are_no_events(tmp_path):
    """Standard output is the wire; what a script prints goes to standard error, also past Python's own stream."""
    path = tmp_path / "asks.py"
    path.write_text(
        "import os\nprint('through Python')\nos.write(1, b'through the descriptor\\n')\nraise SystemExit(1)"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "repro.probes", "script", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 1
    assert {"through Python", "through the descriptor"} <= set(ran.stderr.splitlines())
    (reason,) = [event["reason"] for event in events if event["event"] == "end"]
    assert reason.startswith("through ")


# --- as `python script.py` would -----------------------------------------------------------------------------------


def test_it_runs_as_the_main_module_with_its_path_and_folder(script, tmp_path):
    (tmp_path / "injected_neighbour.py").write_text("VALUE = 7")
    path = str(tmp_path / "asks.py")
    ran = script(
        "import sys, injected_neighbour\nprint([__name__, __file__, sys.argv, sys.path[0], injected_neighbour.VALUE])"
    )
    assert ran.lines == (str(["__main__", path, [path], str(tmp_path), 7]),)


def test_a_neighbour_is_run_again_in_the_next_run(script, tmp_path):
    for value in ("once", "twice, and longer"):
        (tmp_path / "injected_neighbour.py").write_text(f"VALUE = {value!r}")
        assert script("import injected_neighbour\nprint(injected_neighbour.VALUE)").lines == (value,)
    assert "injected_neighbour" not in sys.modules


def test_distributions_refuse_a_nan_in_it_whatever_this_process_has_compiled(tmp_path):
    path = tmp_path / "asks.py"
    path.write_text("import torch\ntorch.distributions.Normal(torch.tensor(float('nan')), 1.0)")
    kind = torch.distributions.Distribution
    before = kind._validate_args
    kind.set_default_validate_args(False)  # as PyTorch's compiler does
    try:
        ran = run_script(Job(str(path)))
    finally:
        kind.set_default_validate_args(before)
    assert (ran.verdict, ran.key[0]) == ("skip", "ValueError")


def test_the_payload_knows_the_file(script, tmp_path):
    text = "print('seen')"
    assert script(text).outcome[2] == {
        "exit_status": 0,
        "lines": ["seen"],
        "script_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


# --- what plain Python gives ---------------------------------------------------------------------------------------

ENDS = {
    "os._exit": "import os; os._exit(1)",
    "os._exit 0 behind a failure": "import os\ntry:\n    raise ValueError\nexcept ValueError:\n    os._exit(0)",
    "atexit": "import atexit, os; atexit.register(os._exit, 1)",
    "atexit behind an exit": "import atexit, os, sys; atexit.register(os._exit, 1); sys.exit(0)",
    "a thread": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()",
    "a thread that exits": "import os, threading\nthreading.Thread(target=lambda: os._exit(1)).start()",
    "a child": "import os, sys\npid = os.fork()\nif pid == 0: os._exit(1)\nsys.exit(os.waitpid(pid, 0)[1] >> 8)",
    "closed streams": "import os\nos.close(1); os.close(2)\nraise SystemExit(1)",
    "streams that are None": "import sys\nsys.stdout = sys.stderr = None\nraise SystemExit(1)",
    "words": "import sys\nsys.exit('three NaN')",
    "a hook for exceptions": "import sys\nsys.excepthook = lambda *_: None\nraise ValueError",
    "a killed process": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("name", sorted(ENDS))
@pytest.mark.parametrize("how", ["plainly", "copied"])
def test_the_status_is_the_operating_systems(script, tmp_path, name, how):
    path = tmp_path / "asks.py"
    path.write_text(ENDS[name])
    wanted = subprocess.run([sys.executable, str(path)], capture_output=True, check=False).returncode
    ran = run_plainly(str(path)) if how == "plainly" else run_script(Job(str(path), ("threads=1",)))
    assert ran.exit_status == wanted


def test_what_a_thread_prints_after_the_script_is_heard(script):
    assert script(ENDS["a thread"]).reason == "late"


def test_a_grandchild_that_holds_the_pipe_is_not_waited_for(script):
    text = (
        "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])\nsys.exit(1)"
    )
    assert script(text).verdict == "bad"


def test_a_script_that_prints_a_traceback_of_its_own_and_exits_has_answered(script):
    ran = script(
        "import sys, traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\nsys.exit(1)"
    )
    assert (ran.verdict, ran.raised) == ("bad", False)


def test_events_cannot_be_forged(tmp_path):
    """A script that writes an answer to every descriptor that it finds is not believed."""
    forged = json.dumps({"event": "end", "step": "script", "verdict": "good", "reason": "forged", "payload": None})
    path = tmp_path / "asks.py"
    path.write_text(
        f"import os\nfor fd in range(3, 256):\n    try:\n        os.write(fd, b{forged + chr(10)!r})\n"
        "    except OSError:\n        pass\nraise SystemExit(1)"
    )
    command = [sys.executable, "-m", "repro.probes", "script", str(path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "forged" not in ran.stdout


# --- the step ----------------------------------------------------------------------------------------------------


def steps_of(path, *steps):
    stream = io.StringIO()
    plan = {"schema": 1, "steps": list(steps), "case": case_of(path), "cache": str(path)}
    verdicts = dict(run_plan(plan, Emitter(stream)))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    return verdicts, {event["step"]: event for event in events if event["event"] == "end"}


def test_a_script_has_no_steps_of_a_model(tmp_path):
    path = tmp_path / "asks.py"
    path.write_text("raise SystemExit(1)")
    verdicts, ends = steps_of(path, "files", "load", "forward", "ablation:float32", "script")
    assert verdicts == {"files": "skip", "load": "skip", "forward": "skip", "ablation:float32": "skip", "script": "bad"}
    assert ends["load"]["reason"] == "a script has no load step: what it ends with is the answer"


def test_a_model_is_no_script(tmp_path):
    verdicts, ends = steps_of(tmp_path, "script")
    assert verdicts == {"script": "skip"}
    assert "is no script: a script is a .py file" in ends["script"]["reason"]


def test_a_script_that_is_gone_ends_the_run(tmp_path):
    verdicts, ends = steps_of(tmp_path / "gone.py", "script", "trace")
    assert verdicts == {"script": "skip"}
    assert ends["script"]["payload"] == {"fatal": True}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a process is not found")
@pytest.mark.parametrize("run", ["plain", "forked"])
def test_what_a_script_leaves_in_a_session_of_its_own_ends_with_it(tmp_path, capsys, run):
    path = tmp_path / "asks.py"
    path.write_text(
        "import os, subprocess, sys\n"
        "left = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "open(__file__ + '.pid', 'w').write(str(left.pid))\n"
    )
    assert (run_plainly(str(path)) if run == "plain" else run_script(Job(str(path)))).verdict == "good"
    pid = (tmp_path / "asks.py.pid").read_text()
    assert not Path("/proc", pid).exists()
    assert f"processes that the script left behind were ended: {pid}" in capsys.readouterr().err


def test_a_warning_is_no_reason(tmp_path):
    path = tmp_path / "warns.py"
    path.write_text(
        "import sys, warnings\nprint('the error itself', file=sys.stderr)\nwarnings.warn('old')\nsys.exit(1)\n", "utf-8"
    )
    ran = run_plainly(str(path))
    assert (ran.verdict, ran.reason) == ("bad", "the error itself")


FAST = [
    "layer = torch.nn.TransformerEncoderLayer(4, 2, 4, batch_first=True).eval()",
    "mask = torch.zeros(2, 2)",
    "mask[1] = -float('inf')",
    "with torch.no_grad():",
    "    x = layer(torch.ones(1, 2, 4), src_mask=mask)",
]
"""The fused layer gives NaN for a row without a key, and its Python code none: what only looks on changes the end."""


@pytest.mark.parametrize(
    ("lines", "narrow", "compiled"),
    [
        (["x = torch.zeros(1)"], False, False),
        (["x = torch.zeros(1).half().float()"], True, False),
        (["x = torch.zeros(1, dtype=torch.bfloat16).float()"], True, False),
        (["with torch.autocast('cpu'):", "    x = torch.zeros(1)"], True, False),
        (FAST, False, False),
        (["x = torch.compile(torch.zeros_like, backend='eager')(torch.ones(1))"], False, True),
    ],
)
def test_a_change_that_changes_nothing_does_not_apply(lines, narrow, compiled, tmp_path):
    path = tmp_path / "script.py"
    path.write_text("\n".join(["import torch", *lines, "assert (x / x).isfinite().all()"]), "utf-8")
    found = asked(str(path))
    for name, applies in (("dtype=float32", narrow), ("compile=off", compiled)):
        verdict, reason, _ = ablation(found, name)
        assert (verdict, reason in IDLE.values()) == (("bad", False) if applies else ("skip", True))


@pytest.mark.parametrize(
    ("lines", "attention", "layers"),
    [
        (["x = torch.zeros(1)"], False, False),
        (["q = torch.zeros(1, 1, 2, 4)", "x = torch.nn.functional.scaled_dot_product_attention(q, q, q)"], True, False),
        (
            ["net = torch.nn.MultiheadAttention(4, 2)", "x = net(*[torch.ones(2, 1, 4)] * 3)[0] * 0"],
            True,
            True,
        ),
    ],
)
def test_without_attention_no_other_way_of_it_is_tried(lines, attention, layers, tmp_path):
    path = tmp_path / "script.py"
    path.write_text("\n".join(["import torch", *lines, "assert (x / x).isfinite().all()"]), "utf-8")
    found = asked(str(path))
    tried = {name: ablation(found, name)[0] for name in ("attn=math", "fast_path=off")}
    assert tried == {"attn=math": "bad" if attention else "skip", "fast_path=off": "bad" if layers else "skip"}
