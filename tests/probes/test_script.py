"""What a script ends with is the answer, and the process is as it was afterwards."""

import os
import random
import sys
import textwrap

import pytest
import torch
import torch.nn.modules.module as modules

from repro.probes.foreign import put_back
from repro.probes.resolve import CannotResolve
from repro.probes.script import LINES, run_script


@pytest.fixture
def write(tmp_path):
    def written(text, name="case.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return written


# --- verdicts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "verdict", "status"),
    [
        ("", "good", 0),
        ("import sys; sys.exit()", "good", 0),
        ("import sys; sys.exit(0)", "good", 0),
        ("import sys; sys.exit(1)", "bad", 1),
        ("import sys; sys.exit(True)", "bad", 1),
        ("import sys; sys.exit('NaN seen')", "bad", 1),
        ("import sys; sys.exit(125)", "skip", 125),
        ("import sys; sys.exit(2)", "skip", 2),
        ("import sys; sys.exit(-1)", "skip", -1),
        ("assert 1 > 2", "bad", None),
        ("raise AssertionError('seen')", "bad", None),
        ("raise ValueError('x')", "skip", None),
        ("raise BaseException('x')", "skip", None),
        ("def f(:", "skip", None),
        ("import no_such_package", "skip", None),
    ],
)
def test_an_ending_is_a_verdict(write, ending, verdict, status):
    ran = run_script(write(ending))
    assert (ran.verdict, ran.exit_status) == (verdict, status)


def test_an_assertion_that_pytorch_raises_is_not_the_scripts(write):
    """It is how PyTorch says that it was built without CUDA."""
    ran = run_script(write("import torch\ntorch.testing.assert_close(torch.ones(1), torch.zeros(1))\n"))
    assert ran.verdict == "skip"
    assert "not by the script" in ran.reason
    assert "sys.exit(1)" in ran.reason


def test_an_assertion_in_a_function_of_the_script_is_the_scripts(write):
    ran = run_script(write("def check(x):\n    assert x, 'no x'\n\ncheck(0)\n"))
    assert (ran.verdict, ran.reason) == ("bad", "case.py:2: AssertionError: no x")


def test_an_assertion_without_words_names_its_line(write):
    assert run_script(write("x = 0\nassert x > 1\n")).reason == "case.py:2: AssertionError: assert x > 1"


def test_a_missing_kernel_is_said_in_plain_words(write):
    ran = run_script(write("raise RuntimeError(\"\\\"addmm\\\" not implemented for 'Half'\")"))
    assert (ran.verdict, ran.reason.startswith("this PyTorch has no kernel for it here")) == ("skip", True)


def test_ctrl_c_is_no_verdict(write):
    before = sys.stdout
    with pytest.raises(KeyboardInterrupt):
        run_script(write("raise KeyboardInterrupt"))
    assert sys.stdout is before


def test_a_script_that_is_not_there_cannot_be_resolved(tmp_path):
    with pytest.raises(CannotResolve, match="Check the path"):
        run_script(str(tmp_path / "gone.py"))


# --- what it printed ---------------------------------------------------------------------------------------------


def test_the_last_line_that_holds_something_is_the_reason(write):
    assert run_script(write("print('first'); print('last'); print(); print('  ')")).reason == "last"


def test_nothing_printed_is_said(write):
    assert run_script(write("import sys; sys.exit(125)")).reason == "the script ended with status 125 and printed nothing"


def test_another_status_is_named_before_the_last_line(write):
    ran = run_script(write("print('no disk')\nimport sys\nsys.exit(3)"))
    assert ran.reason == "the script ended with status 3: no disk"


def test_a_message_given_to_exit_is_a_line(write):
    assert run_script(write("import sys; sys.exit('NaN seen')")).reason == "NaN seen"


def test_what_is_printed_also_goes_where_it_went(write, capsys):
    run_script(write("print('one'); print('two', end='')"))
    assert capsys.readouterr().out == "one\ntwo"


def test_bytes_are_caught_too(write, capsys):
    ran = run_script(write("import sys; sys.stdout.buffer.write('gr\\u00fcn\\n'.encode())"))
    assert ran.lines == ("grün",)


def test_only_the_last_lines_are_kept(write):
    ran = run_script(write(f"for n in range({LINES} + 5): print(n)"))
    assert (len(ran.lines), ran.lines[0], ran.lines[-1]) == (LINES, "5", str(LINES + 4))


def test_a_script_may_close_its_output(write):
    assert run_script(write("import sys\nprint('shut')\nsys.stdout.close()")).reason == "shut"


def test_the_payload_holds_status_lines_and_hash(write):
    import hashlib

    path = write("print('x')")
    _, _, payload = run_script(path).outcome
    sha256 = hashlib.sha256(b"print('x')").hexdigest()
    assert payload == {"exit_status": 0, "lines": ["x"], "script_sha256": sha256}


# --- as python would run it --------------------------------------------------------------------------------------


def test_it_is_the_main_module_with_its_own_arguments(write):
    path = write("import sys\nprint(__name__, __file__, sys.argv, sys.modules['__main__'].__dict__ is globals())")
    assert run_script(path).reason == f"__main__ {path} {[path]} True"


def test_it_imports_from_its_own_folder_each_time_anew(write):
    write("print('made')", "beside_the_case.py")
    path = write("import beside_the_case\nprint('end')")
    assert [run_script(path).lines for _ in range(2)] == [("made", "end")] * 2
    assert "beside_the_case" not in sys.modules


def test_a_library_below_the_scripts_folder_stays(write, tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "some_library.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    run_script(write("import some_library"))
    assert sys.modules.pop("some_library", None) is not None


# --- what is left behind -----------------------------------------------------------------------------------------

CHANGES = """
import os, random, sys, warnings
import torch
import torch.nn.modules.module as modules
torch.set_default_dtype(torch.float64)
torch.set_num_threads(3)
torch.use_deterministic_algorithms(True)
torch.set_float32_matmul_precision("medium")
torch.set_grad_enabled(False)
torch.set_default_device("meta")
torch.set_printoptions(precision=2)
torch.manual_seed(5)
random.seed(5)
modules.register_module_forward_hook(lambda *_: None)
modules.register_module_forward_pre_hook(lambda *_: None)
os.environ["REPRO_TEST_VARIABLE"] = "1"
os.chdir("/")
sys.argv.append("x")
sys.path.append("x")
sys.stderr = sys.stdout
sys.modules["__main__"] = torch
warnings.simplefilter("ignore")
"""


def state():
    import warnings

    return {
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "grad": torch.is_grad_enabled(),
        "device": torch.empty(0).device.type,
        "printing": str(torch.tensor(1 / 3)),
        "random": (torch.get_rng_state().tolist(), random.getstate()),
        "hooks": [len(modules._global_forward_hooks), len(modules._global_forward_pre_hooks)],
        "variables": dict(os.environ),
        "folder": os.getcwd(),
        "lists": (list(sys.argv), list(sys.path)),
        "objects": [id(item) for item in (sys.argv, sys.path, sys.stdout, sys.stderr, sys.modules["__main__"])],
        "filters": list(warnings.filters),
    }


@pytest.mark.parametrize("ending", ["", "raise ValueError", "raise SystemExit(1)", "assert 0"])
def test_everything_is_as_it_was(write, ending):
    before = state()
    run_script(write(CHANGES + ending))
    assert state() == before


def test_the_script_did_change_what_is_compared(write, tmp_path):
    """The guard can fail: inside, nothing is as it was but what every script shares."""
    before, text = state(), CHANGES.replace('os.chdir("/")', "")
    with put_back(str(tmp_path)):
        exec(compile(text, "changes", "exec"), {"__name__": "changes"})
        inside = {key for key, value in state().items() if value != before[key]}
    assert inside == set(before) - {"folder"}
    assert state() == before
