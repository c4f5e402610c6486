"""The command as a user meets it: arguments, exit status, what is on stdout, what is on stderr."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.hosting import BISECT, NAN_FORWARD, answers, command, environment, fake_python, model_folder, repro

from repro.environments.cells import recipes
from repro.environments.store import STAMP

ALL_STEPS = 28
NOTE = "note: resuming in out: {} of 9 steps are recorded there\n"


@pytest.fixture
def place(tmp_path):
    """A folder with a model and an interpreter that speaks the wire."""
    model_folder(tmp_path)
    fake_python(tmp_path)
    return tmp_path


def ask(place, *args, **told):
    """``repro model ARGS`` with the fake interpreter, into the folder ``out``."""
    fixed = ("--python", "./fake-python", "--out", "out")
    return repro("model", *args, *fixed, cwd=place, env=answers(place, **told))


def verdict(place):
    return json.loads((place / "out" / "verdict.json").read_text())


@pytest.mark.parametrize(
    ("told", "args", "status", "word"),
    [
        ({}, (), 0, "GOOD: forward is fine"),
        ({"forward": NAN_FORWARD}, (), 1, "BAD: every logit is NaN"),
        ({"forward": {"verdict": "skip", "reason": "no kernel"}}, (), 125, "SKIP: No kernel"),
        ({"forward": {"before": ["SIGSEGV"]}}, (), 125, "SKIP: The process was ended by SIGSEGV in the forward step"),
        ({"forward": {"before": ["SIGSEGV"]}}, ("--fault", "crash"), 1, "BAD: The process was ended by SIGSEGV"),
        ({"load": {"before": ["SIGKILL"]}}, (), 125, "the out-of-memory killer is a usual cause"),
        ({"ablation_attn=eager": {"before": ["SIGBUS"]}}, (), 0, "GOOD: forward is fine"),
    ],
)
def test_the_exit_status_is_the_verdict(place, told, args, status, word):
    ran = ask(place, *args, **told)
    assert (ran.returncode, word in ran.stdout) == (status, True), ran.stdout + ran.stderr
    assert {path.name for path in (place / "out").iterdir()} >= {
        *("evidence.jsonl", "verdict.json", "plan.json", "probes.pyz", "kit.log", "report.md"),
    }


def test_the_summary_names_place_workaround_report_and_command(place):
    told = {
        "forward": NAN_FORWARD,
        "bisect": {"verdict": "bad", "payload": BISECT},
        "ablation_attn=eager": {"verdict": "bad"},
    }
    ran = ask(place, "--dtype", "fp16", "--no-ablations", **told)
    assert "BAD: float16 overflow in model.layers.7 (aten.add.Tensor, modeling_gemma3.py:416): token 0" in ran.stdout
    assert f"report: {place / 'out' / 'report.md'}" in ran.stdout
    assert "rerun: repro model --dtype float16 --python ./fake-python --no-ablations" in ran.stdout
    assert (place / "out" / "report.md").read_text().startswith("# model: float16 overflow in model.layers.7\n")


def test_the_files_that_a_model_is_given_are_in_the_command_and_in_the_plan(place):
    (place / "in.npz").write_bytes(b"numbers")
    ran = ask(place, "--inputs", "in.npz", "--no-ablations")
    assert "rerun: repro model --python ./fake-python --inputs in.npz --no-ablations" in ran.stdout
    assert json.loads((place / "out" / "plan.json").read_text())["case"]["inputs"] == str(place / "in.npz")


def test_exact_ids_are_not_private(place):
    (place / "in.npz").write_bytes(b"numbers")
    ran = ask(place, "--inputs", "in.npz", "--private-prompts")
    assert (ran.returncode, ran.stderr) == (
        2, "repro: --private-prompts withholds texts, and --inputs holds token ids. Give one of them.\n",
    )  # fmt: skip


def test_progress_is_plain_lines_on_stderr(place):
    ran = ask(place, "--no-ablations", weights={"reason": "148 tensors"})
    assert ran.stderr.splitlines()[2] == "weights ... good (0.5 s): 148 tensors"
    assert "\x1b" not in ran.stderr + ran.stdout


def test_what_the_progress_said_is_not_said_again_in_the_same_place(place):
    words = command("weights", "model", "--python", "./fake-python", "--out", "out")
    together = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ran = subprocess.run(words, cwd=place, env=environment(), check=True, **together)
    assert ran.stdout.count("weights is fine") == 2  # as it ended, and in the headline
    again = subprocess.run(words, cwd=place, env=environment(), check=True, **together)
    assert "what was found" in again.stdout  # nothing was told this time, so the table is


def test_steps_that_were_not_run_are_told_in_few_words(place):
    ran = ask(place, load={"verdict": "skip", "reason": "no such device"})
    assert "not run: forward, reference, bisect, forecast, reduce and 19 ablations\n" in ran.stdout


def test_a_prompt_that_no_tokenizer_could_read_is_said_to_be_unused(place):
    told = {"forward": {"payload": {"prompts": [{"input_source": "seeded", "input_ids": [1]}]}}}
    assert "note: the prompt was not used" in ask(place, "--prompt", "a", **told).stdout
    assert "The prompt was not used" in (place / "out" / "report.md").read_text()


def test_random_weights_are_not_said_twice_in_one_sentence(place):
    told = {"weights": {"verdict": "skip", "reason": "random weights of seed 0: no file is read"}}
    args = ("weights", "gpt2", "--weights", "random:0", "--python", "./fake-python", "--out", "out")
    ran = repro(*args, cwd=place, env=answers(place, **told))
    assert "SKIP: Random weights of seed 0: no file is read\n" in ran.stdout


def test_json_alone_is_on_stdout(place):
    ran = ask(place, "--json", forward=NAN_FORWARD)
    assert json.loads(ran.stdout) == verdict(place)
    assert "BAD: every logit is NaN" in ran.stderr


def test_ablations_that_crash_are_in_the_answer(place):
    ask(place, **{"ablation_attn=eager": {"before": ["SIGBUS"]}})
    ablation = next(ablation for ablation in verdict(place)["ablations"] if ablation["name"] == "attn=eager")
    assert (ablation["verdict"], ablation["ending"], ablation["signal"]) == ("skip", "crashed", "SIGBUS")
    assert len(verdict(place)["steps"]) == ALL_STEPS


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("weights", ["environment", "files", "weights"]),
        ("forward", ["environment", "files", "weights", "load", "forward"]),
        ("bisect", ["environment", "files", "weights", "load", "forward", "bisect"]),
    ],
)
def test_a_single_step_runs_what_it_needs(place, name, steps):
    ran = repro(name, "model", "--python", "./fake-python", "--out", "out", cwd=place)
    assert ran.returncode == 0
    assert [step["step"] for step in verdict(place)["steps"]] == steps


@pytest.mark.parametrize("args", [("run", "model"), ("--attn", "eager", "model"), ("--attn=eager", "--json", "model")])
def test_run_need_not_be_named_and_options_may_come_first(place, args):
    ran = repro(*args, "--python", "./fake-python", "--out", "out", cwd=place)
    assert ran.returncode == 0
    assert len(verdict(place)["steps"]) == ALL_STEPS


def test_options_may_come_before_a_command(place):
    ran = repro("--python", "./fake-python", "weights", "model", "--out", "out", cwd=place)
    assert (ran.returncode, len(verdict(place)["steps"])) == (0, 3)


def test_the_run_folder_has_the_models_name_and_a_stamp(place):
    repro("weights", "model", "--python", "./fake-python", cwd=place)
    (folder,) = (place / "repro-runs").iterdir()
    assert re.fullmatch(r"model-\d{8}-\d{6}", folder.name)


def test_the_plan_has_what_was_asked_for(place):
    repro(
        *("gpt2@abc", "--device", "cpu", "--dtype", "bf16", "--attn", "sdpa", "--prompt", "a", "--prompt", "ü\n|"),
        *("--weights", "random:7", "--trust-remote-code", "--python", "./fake-python", "--out", "out"),
        cwd=place,
        env={"REPRO_CACHE_DIR": str(place / "cache")},
    )
    plan = json.loads((place / "out" / "plan.json").read_text())
    config = plan["case"].pop("config")
    assert config.endswith("gpt2.json")
    assert Path(config).is_file()
    assert plan["cache"] == str(place / "cache")
    assert plan["case"] == {
        "model": "gpt2",
        "revision": "abc",
        "weights": "random:7",
        "device": "cpu",
        "dtype": "bfloat16",
        "attn": "sdpa",
        "prompts": ["a", "ü\n|"],
        "trust_remote_code": True,
        "texts": None,
        "factory": None,
        "generate": None,
        "train_step": None,
        "accumulate": None,
        "keep_float32": None,
        "keep_bfloat16": None,
        "against": None,
        "image": None,
        "audio": None,
        "inputs": None,
    }


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["./gone"], "repro: './gone' does not exist (looked for "),
        (["empty"], "repro: the folder 'empty' is empty: it needs a config.json and the weights."),
        (
            ["notes.txt"],
            "repro: 'notes.txt' is a file, and only .gguf files are models by themselves (a .py file is run as a",
        ),
        (["gpt2", "--devise", "cpu"], "No such option '--devise'. Did you mean '--device'?"),
        (["--devic", "cpu", "gpt2"], "No such option '--devic'. Did you mean '--device'? See 'repro run --help'."),
        ([""], "Invalid value for 'MODEL': it is empty."),
        (["completion", "tcsh"], "Invalid value for 'SHELL': 'tcsh' is not one of 'bash', 'zsh', 'fish'."),
        (
            ["weigths", "gpt2"],
            "no such command 'weigths': did you mean 'weights'? (A model of that name: repro run weig",
        ),
        (["gpt2", "--device", "tpu"], "'tpu' is not one of 'cpu', 'cuda', 'mps'"),
        (["gpt2", "--dtype", "int8"], "'int8' is not one of 'float32', 'float16', 'bfloat16', 'float64'"),
        (["gpt2", "--weights", "random"], "expected 'checkpoint' or 'random:SEED', such as random:0"),
        (["gpt2", "--timeout", "0"], "0.0 is not in the range x>0"),
        (["gpt2", "--python", "no-such-python"], "--python no-such-python: no such program."),
        (["gpt2", "more"], "Got unexpected extra argument"),
        (["--json"], "Missing argument 'MODEL'"),
        (["fetch", "gpt9"], "there is no sample 'gpt9'. Samples: gemma-3-270m."),
        (["two words"], "is no Hub id, and no folder or file of that name exists."),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(tmp_path, args, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    ran = repro(*args, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "repro-runs").exists()


def test_a_model_with_nearly_a_commands_name_can_be_run(place):
    (place / "model").rename(place / "weigths")
    ran = repro("weigths", "--python", "./fake-python", "--out", "out", "--no-ablations", cwd=place)
    assert ran.returncode == 0


def test_without_arguments_the_help_and_status_2(tmp_path):
    ran = repro(cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Usage: repro" in ran.stderr


@pytest.mark.parametrize(
    "args",
    [["--help"], ["-h"], ["help"], ["run", "--help"], ["help", "scan"], ["weights", "-h"], ["completion", "--help"]],
)
def test_help_is_on_stdout_with_status_0(tmp_path, args):
    ran = repro(*args, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Usage: repro" in ran.stdout


def test_help_has_examples_and_exit_status(tmp_path):
    text = repro("--help", cwd=tmp_path).stdout
    assert "repro gpt2-medium --device cpu" in text
    assert "125 could not tell" in text


def test_a_matrix_is_resumed_in_a_folder_that_is_named(tmp_path):
    ran = repro("matrix", "gpt2", "--weights", "random:0", "--resume", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--resume needs --out DIR" in ran.stderr


def test_the_version(tmp_path):
    from repro import __version__

    assert repro("--version", cwd=tmp_path).stdout == f"repro {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script(tmp_path, shell):
    ran = repro("completion", shell, cwd=tmp_path)
    assert (ran.returncode, "_REPRO_COMPLETE" in ran.stdout) == (0, True)


@pytest.mark.parametrize(
    ("words", "count", "found"),
    [
        ("repro we", "1", "weights"),
        ("repro gpt2 --dev", "2", "--device"),
        ("repro --dev", "1", "--device"),
        ("repro pythia", "1", "pythia-160m"),
        ("repro gpt2 --attn e", "3", "eager"),
    ],
)
def test_completion_knows_commands_options_and_models(tmp_path, words, count, found):
    env = {"_REPRO_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
    assert f"plain,{found}\n" in repro(cwd=tmp_path, env=env).stdout


def test_an_earlier_run_goes_on_and_nothing_is_repeated(place):
    ask(place, "--no-ablations", weights={"before": ["SIGSEGV"]})
    before = (place / "out" / "evidence.jsonl").read_bytes()
    ran = ask(place, "--no-ablations")
    assert (ran.returncode, ran.stderr) == (125, NOTE.format(9))
    assert (place / "out" / "evidence.jsonl").read_bytes() == before


def test_a_torn_last_line_is_run_again(place):
    ask(place, "--no-ablations")
    path = place / "out" / "evidence.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    ran = ask(place, "--no-ablations")
    cut = "note: the last line of evidence.jsonl was cut off and is dropped: its step is asked again\n"
    assert (ran.returncode, ran.stderr) == (0, cut + NOTE.format(8) + "reduce ... good (0.5 s): reduce is fine\n")


@pytest.mark.parametrize("args", [("--dtype", "float16"), ("--prompt", "other")])
def test_a_folder_with_another_case_is_refused(place, args):
    ask(place, "--no-ablations")
    ran = ask(place, *args)
    assert ran.returncode == 2
    assert "--out" in ran.stderr
    assert "holds a run of another case (repro model --python ./fake-python --no-ablations)" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_folder_with_somebodys_report_is_left_alone(place):
    (place / "out").mkdir()
    (place / "out" / "report.md").write_text("mine")
    assert ask(place).returncode == 2
    assert (place / "out" / "report.md").read_text() == "mine"


def test_an_out_that_is_a_file_is_refused(place):
    (place / "out").write_text("")
    assert (ask(place).returncode, (place / "out").read_text()) == (2, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("name", ["evidence.jsonl", "verdict.json.part", "report.md.part", "probes.pyz.part"])
def test_a_full_disk_is_one_line_and_status_125(place, name):
    (place / "out").mkdir()
    (place / "out" / name).symlink_to("/dev/full")
    ran = ask(place, "--no-ablations")
    assert ran.returncode == 125
    assert re.search(r"repro: could not write .*: No space left on device\.", ran.stderr)
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of this kind are POSIX's")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_keeps_its_records_and_says_how_to_go_on(place, number, status):
    env = environment(**answers(place, load={"before": [{"spawn": str(place / "pid")}, {"sleep": 600}]}))
    args = ("model", "--prompt", "two words", "--python", "./fake-python", "--out", "out", "--no-ablations")
    child = subprocess.Popen(command(*args), cwd=place, env=env, stderr=subprocess.PIPE, text=True)
    heard = ""
    while "load ..." not in heard:
        heard += child.stderr.read(1)
    while not (place / "pid").exists() or not (place / "pid").read_text():
        pass
    child.send_signal(number)
    _, rest = child.communicate()
    assert child.returncode == status
    again = "repro model --python ./fake-python --prompt 'two words' --no-ablations --out out"
    assert rest.strip() == f"repro: stopped; what was recorded stays. To go on: {again}"
    steps = [json.loads(line).get("step") for line in (place / "out" / "evidence.jsonl").read_text().splitlines()]
    assert steps == [None, "environment", "files", "weights"]
    ran = ask(place, "--no-ablations", "--prompt", "two words")
    assert (ran.returncode, ran.stderr.split("\n")[1].split(" ")[0]) == (0, "load")


def test_a_fatal_files_step_is_125_with_its_reason(place):
    reason = "gpt9 is neither in the cache nor on the network"
    ran = ask(place, files={"verdict": "skip", "reason": reason, "payload": {"fatal": True}})
    assert ran.returncode == 125
    assert f"SKIP: {reason}\n" in ran.stdout
    assert "weights ..." not in ran.stderr


def test_an_interpreter_without_torch_is_125_and_says_so(place):
    bare = place / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    ran = repro("model", "--python", "./bare-python", "--out", "out", cwd=place)
    assert ran.returncode == 125
    assert re.search(r"torch", ran.stdout)
    assert "Traceback" not in ran.stderr + ran.stdout


def test_a_timeout_is_125(place):
    ran = ask(place, "--timeout", "1", weights={"before": [{"sleep": 600}]})
    assert ran.returncode == 125
    assert "the time limit of the run (1 s) was up" in ran.stdout


def test_an_exception_that_nobody_planned_is_125_and_one_line(place):
    (place / "sitecustomize.py").write_text(
        "import sys\nif sys.argv[0].endswith('__main__.py') or True:\n"
        "    import repro.core.case\n    def broken(*a, **k): raise ZeroDivisionError('planned here')\n"
        "    repro.core.case.case_from = broken\n"
    )
    env = {"PYTHONPATH": os.pathsep.join([str(place), environment()["PYTHONPATH"]])}
    ran = repro("model", cwd=place, env=env)
    assert (ran.returncode, ran.stderr.count("\n")) == (125, 1)
    assert "repro: unexpected ZeroDivisionError: planned here. Run it again with --debug" in ran.stderr
    assert "Traceback" in repro("model", "--debug", cwd=place, env=env).stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_console_that_is_not_utf_8_shows_what_it_can(place, encoding):
    told = {"forward": {"verdict": "bad", "reason": "token ▁the 🤗 ümlaut"}}
    env = {**answers(place, **told), "PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    args = command("model", "--no-ablations", "--python", "./fake-python", "--out", "out")
    ran = subprocess.run(args, cwd=place, env=environment(**env), capture_output=True, check=False)
    assert ran.returncode == 1
    assert rb"token \u2581the \U0001f917" in ran.stdout
    assert "▁the" in (place / "out" / "report.md").read_text(encoding="utf-8")


def test_a_closed_stdout_is_no_traceback(place):
    script = f"{sys.executable} -m repro --help | true; {sys.executable} -m repro completion zsh | head -c 1"
    ran = subprocess.run(
        ["sh", "-c", script], cwd=place, env=environment(), capture_output=True, text=True, check=False
    )
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr


@pytest.mark.skipif(os.name == "nt", reason="the shell is POSIX's")
@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_a_reader_that_goes_away_does_not_change_the_status(place, extra):
    told = answers(place, forward={**NAN_FORWARD, "reason": "many words " * 20_000})
    args = command("model", "--python", "./fake-python", "--out", "out", *extra)
    with subprocess.Popen(
        args, cwd=place, env=environment(**told), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        process.stdout.close()
    assert process.returncode == 1
    assert verdict(place)["verdict"] == "bad"


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal is POSIX's")
@pytest.mark.parametrize(("extra", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_a_bar_and_colour_unless_told_otherwise(place, extra, coloured):
    import pty

    told = answers(place, weights={"before": [{"progress": [3, 148]}, {"sleep": 0.5}]})
    env = environment(**told, **extra, TERM="xterm-256color", COLUMNS="120")
    if "NO_COLOR" not in extra:
        env.pop("NO_COLOR", None)
    args = command("weights", "model", "--python", "./fake-python", "--out", "out")
    shown = b""
    parent, child = pty.openpty()
    with subprocess.Popen(args, cwd=place, env=env, stdout=child, stderr=child, stdin=subprocess.DEVNULL) as process:
        os.close(child)
        while True:
            try:
                chunk = os.read(parent, 65536)
            except OSError:  # Linux's word for "the other end is closed"
                break
            if not chunk:
                break
            shown += chunk
    os.close(parent)
    assert process.returncode == 0
    assert b"3/148 tensors" in shown
    assert (b"\x1b[32m" in shown) is coloured


@pytest.mark.parametrize(("code", "status", "found"), [
    ("import torch; print('row 2 is NaN'); raise SystemExit(1)", 1, "BAD: row 2 is NaN"),
    ("print('all finite')", 0, "GOOD: The script ended with exit status 0 in 2 of 2 runs."),
    ("raise RuntimeError('no such thing')", 125, "no such thing"),
])  # fmt: skip
def test_a_script_answers_by_its_exit_status(tmp_path, code, status, found):
    """Through the real kit."""
    (tmp_path / "asks.py").write_text(code)
    done = repro("asks.py", cwd=tmp_path)
    assert (done.returncode, found in done.stdout) == (status, True), done.stdout + done.stderr


@pytest.mark.parametrize(
    "option", [["--dtype", "float16"], ["--prompt", "a"], ["--weights", "random:0"], ["--trust-remote-code"]]
)
def test_a_script_takes_no_setting_of_a_model(tmp_path, option):
    (tmp_path / "asks.py").write_text("")
    done = repro("asks.py", *option, cwd=tmp_path)
    assert done.returncode == 2
    assert f"asks.py is a script, which takes no {option[0]}" in done.stderr


def test_a_script_has_no_weights(tmp_path):
    (tmp_path / "asks.py").write_text("")
    done = repro("weights", "asks.py", cwd=tmp_path)
    assert (done.returncode, "it has no weights and no layers" in done.stderr) == (2, True)


def test_cells_are_listed_as_data_for_other_programs(tmp_path):
    done = repro("cells", "list", "--json", cwd=tmp_path, env={"REPRO_CACHE_DIR": str(tmp_path)})
    rows = {row["id"]: row for row in json.loads(done.stdout)}
    assert rows["seed-2.9.1"]["python"] == "3.13"
    assert rows["seed-2.9.1"]["pins"] == {"torch": "2.9.1", "transformers": "4.57.3"}
    assert {(row["built"], row["shipped"]) for row in rows.values()} == {(False, True)}


def test_each_cell_is_one_line_of_80_columns_and_why_it_is_there_only_where_asked(tmp_path):
    shown = repro("cells", "list", cwd=tmp_path, env={"REPRO_CACHE_DIR": str(tmp_path)}).stdout
    told = repro("cells", "list", "--verbose", cwd=tmp_path, env={"REPRO_CACHE_DIR": str(tmp_path)}).stdout
    lines = [line.rstrip() for line in shown.splitlines() if re.match(r" (seed|torch|transformers)-", line)]
    assert len(lines) == len(recipes())
    assert max(map(len, lines)) <= 80
    assert "maintainer" not in shown
    assert "maintainer" in told


def test_of_a_cell_that_is_removed_what_others_share_is_told(tmp_path):
    folders = [tmp_path / "cells" / name for name in ("one", "two")]
    recipe = {"id": "", "python": "3.11", "device": "cpu", "why": "", "pins": {}, "lock": None}
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / STAMP).write_text(json.dumps({"recipe": {**recipe, "id": folder.name}, "fingerprint": "0"}))
    with (folders[0] / "large").open("wb") as file:
        file.truncate(80_000_000)
    (folders[1] / "large").hardlink_to(folders[0] / "large")
    done = repro("cells", "remove", "one", cwd=tmp_path, env={"REPRO_CACHE_DIR": str(tmp_path)})
    assert re.search(r"0\.1 GB of the 0\.1 GB are shared with other cells or uv's cache \(--cache drops", done.stdout)
    assert (folders[1] / "large").stat().st_size == 80_000_000


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["matrix", "gpt2", "--cell", "nope"], "there is no cell 'nope'. Cells: seed-2.0.1, "),
        (["matrix", "gpt2", "--out", "gpt2"], "--out gpt2 is where MODEL would be looked for as well"),
        (["cells"], "Missing command. See 'repro cells --help'."),
        (["cells", "remove"], "name the cells to remove, or give --all"),
        (["cells", "remove", "nope"], "the cell 'nope' is not built. Built: none."),
        (["cells", "build", "nope"], "there is no cell 'nope'"),
        (["versions", "gpt2", "--package", "torch", "--good", "1"], "Missing option '--bad'"),
        (
            ["versions", "gpt2", "--package", "torch", "--good", "1", "--bad", "2", "--with", "x"],
            "expected NAME==VERSION",
        ),
        (["merge", "nowhere"], "'nowhere' does not exist"),
    ],
)
def test_wrong_usage_of_the_commands_of_many_environments(tmp_path, args, message):
    done = repro(*args, cwd=tmp_path, env={"REPRO_CACHE_DIR": str(tmp_path)})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
