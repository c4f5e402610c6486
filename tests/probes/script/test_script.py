"""A script's end is its answer, what it prints is caught and passed on, and the process is left as it was found."""

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.modules.module as modules
from support.handmade import case_of

from repro.probes.checkpoint.resolve import CannotResolve
from repro.probes.main import run_plan
from repro.probes.protocol.wire import Emitter
from repro.probes.script.run import LINES, Tee, captured, run_script

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def script(tmp_path):
    """Runs a script of the given text."""

    def run(text):
        (tmp_path / "asks.py").write_text(text)
        return run_script(str(tmp_path / "asks.py"))

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
        ("raise SystemExit(-1)", "skip", -1),
        ("raise ValueError('no answer')", "skip", None),
        ("raise BaseException('no Exception')", "skip", None),
        ("def x(:", "skip", None),
        ("import a_module_that_is_not_there", "skip", None),
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
        "import torch\ntorch._assert(False, 'raised in torch')",
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


def test_an_interrupt_ends_the_run_and_is_no_answer(script):
    with pytest.raises(KeyboardInterrupt):
        script("raise KeyboardInterrupt")


def test_a_script_that_is_not_there_cannot_be_resolved(tmp_path):
    with pytest.raises(CannotResolve, match="cannot be read: No such file"):
        run_script(str(tmp_path / "gone.py"))


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
    assert script("raise SystemExit('seen: NaN')").lines == ("seen: NaN",)


def test_the_last_lines_are_kept_and_all_are_passed_on(script, capsys):
    ran = script("for n in range(100): print(n)")
    assert ran.lines == tuple(str(n) for n in range(100 - LINES, 100))
    assert capsys.readouterr().out.split() == [str(n) for n in range(100)]


def test_a_script_may_close_its_output(script):
    assert script("import sys\nprint('shut')\nsys.stdout.close()").reason == "shut"


def test_bytes_written_to_the_buffer_are_caught(script):
    assert script("import sys; sys.stdout.buffer.write('größer\\n'.encode())").lines == ("größer",)


def test_a_character_that_comes_in_two_writes_is_whole():
    target = io.StringIO()
    tee = Tee(target)
    for byte in "ö\n".encode():
        tee.write(bytes([byte]))
    assert (tee.lines(), target.getvalue()) == (["ö"], "ö\n")


def test_bytes_that_are_no_text_stop_nothing(script):
    ran = script("import sys; sys.stdout.buffer.write(b'\\xff\\n')")
    assert (ran.verdict, ran.lines) == ("good", ("\\xff",))


def test_standard_output_is_back_also_after_an_exception():
    before = sys.stdout
    with pytest.raises(ValueError, match="x"), captured():
        raise ValueError("x")
    assert sys.stdout is before


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
    assert [event["reason"] for event in events if event["event"] == "end"] == ["through Python"]


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


def test_a_library_below_the_scripts_folder_stays(script, tmp_path, monkeypatch):
    """An environment may lie there; to import its libraries a second time would break them."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "injected_library.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    script("import injected_library")
    assert sys.modules.pop("injected_library", None) is not None


def test_the_payload_knows_the_file(script, tmp_path):
    text = "print('seen')"
    assert script(text).outcome[2] == {
        "exit_status": 0,
        "lines": ["seen"],
        "script_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


# --- the process as it was found -----------------------------------------------------------------------------------

UPSETS = """
import os, random, sys, warnings
import torch
torch.set_default_dtype(torch.float64)
torch.set_num_threads(torch.get_num_threads() + 1)
torch.use_deterministic_algorithms(True)
torch.set_grad_enabled(False)
torch.set_float32_matmul_precision("medium")
torch.set_default_device("meta")
torch.set_flush_denormal(True)
torch.set_printoptions(precision=2, sci_mode=True)
torch.manual_seed(99)
random.seed(99)
torch.nn.modules.module.register_module_forward_hook(lambda *found: None)
torch.nn.modules.module.register_module_forward_pre_hook(lambda *found: None)
warnings.simplefilter("ignore")
os.environ["OMP_INJECTED"] = "1"
os.environ.pop("HF_HUB_OFFLINE")
os.chdir("/")
sys.argv.append("more")
sys.path.insert(0, "/injected")
sys.modules["__main__"] = os
sys.stdout = sys.stderr = None
raise {how}
"""


def state():
    return {
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "argv": (id(sys.argv), list(sys.argv)),
        "path": (id(sys.path), list(sys.path)),
        "main": sys.modules["__main__"],
        "folder": Path.cwd(),
        "variables": dict(os.environ),
        "random": random.getstate(),
        "torch random": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "device": str(torch.empty(0).device),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "grad": torch.is_grad_enabled(),
        "denormal": (torch.tensor([1e-40]) * 0.5).item(),
        "printing": dict(vars(torch._tensor_str.PRINT_OPTS)),
        "filters": list(warnings.filters),
        "hooks": [len(modules._global_forward_hooks), len(modules._global_forward_pre_hooks)],
    }


@pytest.mark.parametrize("how", ["SystemExit(0)", "ValueError('x')"])
def test_everything_is_as_before(script, how):
    before = state()
    script(UPSETS.format(how=how))
    assert state() == before


def test_a_script_does_change_what_is_put_back(tmp_path):
    """Without this the test above could pass on a script that upsets nothing."""
    shown = (
        "import torch, os, torch.nn.modules.module as modules\n"
        "assert torch.get_default_dtype() == torch.float64 and os.getcwd() == '/'\n"
        "assert len(modules._global_forward_hooks) and os.environ['OMP_INJECTED'] == '1'\n"
        "assert str(torch.empty(0).device) == 'meta' and torch.are_deterministic_algorithms_enabled()\n"
    )
    (tmp_path / "asks.py").write_text(UPSETS.replace("raise {how}", shown))
    assert run_script(str(tmp_path / "asks.py")).verdict == "good"


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
