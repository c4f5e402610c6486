"""The runner against a real process that speaks the wire, and that really dies."""

import json
import re
import sys
import threading

import pytest
from support.hosting import Listener, answers, fake_python, is_gone, observation, setting

from repro.core.errors import CellError, EvidenceError
from repro.core.records import Ending, Outcome
from repro.engine.evidence import PATIENCE, TRIALS, TrialLog
from repro.engine.process import LOG, SHOWN_LINE, Process, death
from repro.engine.runner import CRASHES, run

STEPS = ("environment", "files", "weights", "load", "forward", "bisect", "ablation:threads=1")


def follow(folder, monkeypatch, *steps, finished=(), limits=None, trials=None, **told):
    """Run the fake kit; observations by step, what the listener heard, and what was recorded in order."""
    monkeypatch.setenv("FAKE_KIT", answers(folder, **told)["FAKE_KIT"])
    listener, recorded = Listener(), []
    asked = setting(folder, *(steps or STEPS), **(limits or {}))
    known = run(asked, recorded.append, listener, finished, trials)
    assert {item.step for item in recorded} | {item.step for item in finished} == set(known)
    return known, listener, recorded


def endings(known):
    return {step: item.ending.value for step, item in known.items() if item.ending is not Ending.ENDED}


def starts(folder):
    return (folder / "kit.log").read_text().count("[repro] steps:")


def test_a_sound_run_is_one_process_and_one_observation_a_step(tmp_path, monkeypatch):
    known, _, recorded = follow(tmp_path, monkeypatch)
    assert [item.step for item in recorded] == list(STEPS)
    assert {item.verdict.outcome for item in known.values()} == {Outcome.GOOD}
    assert starts(tmp_path) == 1


def test_an_observation_carries_its_command_and_kit(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, "files")
    argv = known["files"].argv
    assert argv[:3] == (sys.executable, "-X", "faulthandler")
    assert argv[4:] == ("run", str(tmp_path / "plan.json"))
    assert known["files"].kit_sha256 == "0" * 64


def test_payload_and_reason_arrive_whole(tmp_path, monkeypatch):
    payload = {"logits": {"max": "nan"}, "names": ["ä", "|"]}
    known, _, _ = follow(
        tmp_path, monkeypatch, "forward", forward={"verdict": "bad", "reason": "r", "payload": payload}
    )
    assert known["forward"].payload == payload
    assert (known["forward"].verdict.outcome, known["forward"].verdict.reason) == (Outcome.BAD, "r")


def test_the_listener_hears_start_progress_and_end(tmp_path, monkeypatch):
    _, listener, _ = follow(tmp_path, monkeypatch, "weights", weights={"before": [{"progress": [3, 148]}]})
    assert listener.heard == [("started", "weights"), ("progress", "weights", 3, 148, "tensors"), ("ended", "weights")]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGKILL", "SIGABRT"])
def test_a_signal_is_recorded_and_the_steps_behind_it_run(tmp_path, monkeypatch, name):
    known, _, _ = follow(tmp_path, monkeypatch, forward={"before": [{"stderr": "last words"}, name]})
    crash = known["forward"]
    assert (crash.ending, crash.verdict.outcome) == (Ending.CRASHED, Outcome.SKIP)
    assert crash.failure.signal == name
    assert crash.exit_status < 0
    assert f"was ended by {name}" in crash.verdict.reason
    assert "last words" in crash.stderr_tail
    assert known["ablation:threads=1"].ending is Ending.ENDED
    assert starts(tmp_path) == 2


def test_what_would_make_the_pass_again_in_which_the_process_died_is_not_run(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, forward={"before": ["SIGSEGV"]})
    assert known["bisect"].ending is Ending.NOT_RUN
    assert "in which the forward step crashed" in known["bisect"].verdict.reason


def test_the_fault_handlers_headline_is_kept(tmp_path, monkeypatch):
    noise = {"stderr": "\n".join(f"line {number}" for number in range(100))}
    known, _, _ = follow(tmp_path, monkeypatch, "forward", forward={"before": [noise, "SIGSEGV"]})
    # The fake kit resets the handler before it dies, so the tail is what it wrote itself.
    assert known["forward"].stderr_tail[-1] == "line 99"
    assert len(known["forward"].stderr_tail) == 40
    assert "line 0\n" in (tmp_path / "kit.log").read_text()


def test_a_fatal_errors_stack_is_kept_from_its_headline_on(tmp_path, monkeypatch):
    words = "before\nFatal Python error: Segmentation fault\n" + "\n".join(f"  frame {n}" for n in range(100))
    known, _, _ = follow(tmp_path, monkeypatch, "forward", forward={"before": [{"stderr": words}, "SIGKILL"]})
    assert known["forward"].stderr_tail[:2] == ("Fatal Python error: Segmentation fault", "  frame 0")
    assert "Fatal Python error: Segmentation fault" in known["forward"].verdict.reason


def test_an_exit_without_an_end_is_a_crash(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, forward={"before": [{"exit": 3}]})
    assert known["forward"].ending is Ending.CRASHED
    assert "ended with exit status 3" in known["forward"].verdict.reason
    assert known["ablation:threads=1"].ending is Ending.ENDED


def test_an_exit_between_steps_loses_nothing(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, weights={"after": [{"exit": 9}]})
    assert endings(known) == {}
    assert starts(tmp_path) == 2


def test_a_crash_after_done_changes_nothing(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, done={"before": ["SIGSEGV"]})
    assert endings(known) == {}
    assert starts(tmp_path) == 1


def test_every_step_may_crash_and_the_run_still_ends(tmp_path, monkeypatch):
    told = {step.replace("ablation:", "ablation_"): {"before": ["SIGKILL"]} for step in STEPS}
    known, _, _ = follow(tmp_path, monkeypatch, **told)
    assert endings(known) == {
        "environment": "crashed",
        "files": "crashed",
        "weights": "crashed",
        "load": "crashed",
        "forward": "not_run",
        "bisect": "not_run",
        "ablation:threads=1": "not_run",
    }


def test_a_load_that_was_skipped_starts_nothing_that_needs_it(tmp_path, monkeypatch):
    known, listener, _ = follow(tmp_path, monkeypatch, load={"verdict": "skip", "reason": "no kernel"})
    assert endings(known) == dict.fromkeys(("forward", "bisect", "ablation:threads=1"), "not_run")
    assert ("started", "forward") not in listener.heard
    assert known["forward"].verdict.reason == "not run: the load step gave no model"


def test_a_bad_load_is_loaded_all_the_same(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, load={"verdict": "bad"})
    assert endings(known) == {}


def test_fatal_files_end_all_others(tmp_path, monkeypatch):
    told = {"verdict": "skip", "reason": "gpt9 is nowhere", "payload": {"fatal": True}}
    known, _, _ = follow(tmp_path, monkeypatch, files=told)
    assert endings(known) == dict.fromkeys(STEPS[2:], "not_run")
    assert "gpt9 is nowhere" in known["forward"].verdict.reason


def test_the_time_limit_of_the_run_is_a_skip(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, weights={"before": [{"sleep": 600}]}, limits={"run_seconds": 1.0})
    assert known["weights"].ending is Ending.TIMED_OUT
    assert known["weights"].verdict.outcome is Outcome.SKIP
    assert "the time limit of the run (1 s) was up" in known["weights"].verdict.reason
    assert known["forward"].ending is Ending.NOT_RUN


def test_the_time_limit_of_a_step_ends_that_step_only(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, forward={"before": [{"sleep": 600}]}, limits={"step_seconds": 1.0})
    assert endings(known) == {"forward": "timed_out"}


def test_load_has_no_time_limit_of_its_own(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, load={"before": [{"sleep": 1.0}]}, limits={"step_seconds": 0.5})
    assert known["load"].ending is Ending.ENDED


@pytest.mark.parametrize("line", ["loading ...", "[1, 2]", '{"no": "event"}', '{"event": 3}', "{"])
def test_a_line_that_is_no_event_is_logged_and_noted(tmp_path, monkeypatch, line):
    known, listener, _ = follow(tmp_path, monkeypatch, "load", load={"before": [{"print": line}]})
    assert known["load"].ending is Ending.ENDED
    assert any(kind == "note" for kind, *_ in listener.heard)
    assert line in (tmp_path / "kit.log").read_text()


def test_an_event_of_a_step_that_was_not_asked_for_is_ignored(tmp_path, monkeypatch):
    stray = {"print": '{"event": "end", "step": "forward", "verdict": "bad", "reason": "x"}'}
    known, _, _ = follow(tmp_path, monkeypatch, "load", load={"before": [stray]})
    assert set(known) == {"load"}


def test_an_unknown_verdict_is_a_skip_that_says_so(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, "load", load={"verdict": "great", "reason": "r"})
    assert known["load"].verdict.outcome is Outcome.SKIP
    assert known["load"].verdict.reason == "the kit gave the unknown verdict 'great': r"


def test_an_exception_in_the_kit_is_kept_whole(tmp_path, monkeypatch):
    error = {"type": "RuntimeError", "message": "not implemented for 'Half'", "traceback": "Traceback"}
    known, _, _ = follow(tmp_path, monkeypatch, "load", load={"verdict": "skip", "error": error})
    failure = known["load"].failure
    assert (failure.type, failure.message, failure.traceback) == tuple(error.values())


def test_another_schema_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(CellError, match="the kit speaks schema 7 and this host 2"):
        follow(tmp_path, monkeypatch, hello={"schema": 7})


def test_an_interpreter_without_torch_is_said_to_be_one(tmp_path, monkeypatch):
    told = {"before": [{"stderr": "ModuleNotFoundError: No module named 'torch'"}, {"exit": 1}]}
    known, _, _ = follow(tmp_path, monkeypatch, hello=told)
    assert f"{sys.executable} has no torch. Install it there" in known["forward"].verdict.reason


def test_a_kit_that_never_answers_is_started_once(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, hello={"before": [{"stderr": "no luck"}, {"exit": 4}]})
    assert set(endings(known).values()) == {"not_run"}
    assert "ended with exit status 4 before it answered any step. Its last line was: no luck." in (
        known["files"].verdict.reason
    )
    assert starts(tmp_path) == 1


def test_a_program_that_cannot_be_started_is_an_error(tmp_path):
    (tmp_path / "python").write_text("no program")
    with pytest.raises(CellError, match=r"could not start .*python: .*Give a working Python with --python"):
        run(setting(tmp_path, "load", python=tmp_path / "python"), print, Listener())


def test_finished_steps_are_not_repeated(tmp_path, monkeypatch):
    finished = [observation("environment"), observation("files", "skip", ending="crashed"), observation("other")]
    known, _, recorded = follow(tmp_path, monkeypatch, "environment", "files", "weights", finished=finished[:2])
    assert [item.step for item in recorded] == ["weights"]
    assert known["files"].ending is Ending.CRASHED


def test_the_whole_plan_stays_on_disk_after_a_restart(tmp_path, monkeypatch):
    follow(tmp_path, monkeypatch, forward={"before": ["SIGKILL"]})
    assert json.loads((tmp_path / "plan.json").read_text())["steps"] == list(STEPS)
    assert json.loads((tmp_path / "plan.restart.json").read_text())["steps"] == list(STEPS[6:])


def test_the_environment_is_passed_on_unchanged(tmp_path, monkeypatch):
    python = fake_python(tmp_path)
    python.write_text(f'#!/bin/sh\necho "$SOME_SETTING" > {tmp_path}/seen\nexec {sys.executable} "$@"\n')
    monkeypatch.setenv("SOME_SETTING", "as it was")
    monkeypatch.setenv("FAKE_KIT", answers(tmp_path)["FAKE_KIT"])
    run(setting(tmp_path, "load", python=python), lambda _: None, Listener())
    assert (tmp_path / "seen").read_text() == "as it was\n"


def test_what_the_kit_started_is_gone_with_it(tmp_path, monkeypatch):
    pid_file = tmp_path / "pid"
    told = {"before": [{"spawn": str(pid_file)}, {"sleep": 600}]}
    follow(tmp_path, monkeypatch, "weights", weights=told, limits={"run_seconds": 2.0})
    assert is_gone(int(pid_file.read_text()))


def test_an_end_is_seen_although_a_grandchild_holds_the_pipe(tmp_path, monkeypatch):
    pid_file = tmp_path / "pid"
    known, _, _ = follow(tmp_path, monkeypatch, "weights", weights={"before": [{"spawn": str(pid_file)}, {"exit": 5}]})
    assert known["weights"].exit_status == 5
    assert is_gone(int(pid_file.read_text()))


def test_no_thread_is_left_behind(tmp_path, monkeypatch):
    before = threading.active_count()
    follow(tmp_path, monkeypatch, forward={"before": ["SIGKILL"]})
    assert threading.active_count() == before


def trial(name, **more):
    return {"trial": name, **more}


DEADLY = {"before": [trial("1: a"), trial("2: b", dies="SIGSEGV"), trial("3: c", holds=False)]}


def test_behind_a_trial_that_killed_its_process_the_step_goes_on(tmp_path, monkeypatch):
    known, listener, _ = follow(
        tmp_path, monkeypatch, "bisect", "reduce", "trace", trials=TrialLog(tmp_path), reduce=DEADLY
    )
    assert endings(known) == {}
    assert starts(tmp_path) == 2
    assert TrialLog(tmp_path).known == {"1: a": True, "2: b": None, "3: c": False}
    notes = [words for kind, *words in listener.heard if kind == "note"]
    assert notes == [["the process was ended by SIGSEGV in trial 2: b; going on behind it"]]


def test_a_trial_is_on_disk_before_it_starts(tmp_path, monkeypatch):
    follow(tmp_path, monkeypatch, "reduce", trials=TrialLog(tmp_path), reduce=DEADLY)
    lines = [json.loads(line) for line in (tmp_path / TRIALS).read_text().splitlines()]
    assert lines == [
        {"trial": "1: a", "holds": None}, {"trial": "1: a", "holds": True}, {"trial": "2: b", "holds": None},
        {"trial": "2: b", "holds": None, "died": True},
        {"trial": "3: c", "holds": None}, {"trial": "3: c", "holds": False},
    ]  # fmt: skip


def test_the_restart_is_given_the_answers_and_no_step_that_has_ended(tmp_path, monkeypatch):
    follow(tmp_path, monkeypatch, "bisect", "reduce", trials=TrialLog(tmp_path), reduce=DEADLY)
    plan = json.loads((tmp_path / "plan.restart.json").read_text())
    assert (plan["steps"], plan["trials"]) == (["reduce"], {"1: a": True, "2: b": None})


def test_another_run_into_the_same_folder_knows_the_trials(tmp_path, monkeypatch):
    follow(tmp_path, monkeypatch, "reduce", trials=TrialLog(tmp_path), reduce=DEADLY)
    before = (tmp_path / TRIALS).read_text()
    known, _, _ = follow(tmp_path, monkeypatch, "reduce", trials=TrialLog(tmp_path), reduce=DEADLY)
    assert endings(known) == {}
    assert (starts(tmp_path), (tmp_path / TRIALS).read_text()) == (3, before)


def test_a_reduction_of_which_every_trial_kills_is_given_up_as_a_crash(tmp_path, monkeypatch):
    told = {"before": [trial(f"{number}: a", dies="SIGKILL") for number in range(100)]}
    known, _, _ = follow(tmp_path, monkeypatch, "reduce", "trace", trials=TrialLog(tmp_path), reduce=told)
    assert endings(known) == {"reduce": "crashed"}
    assert known["reduce"].failure.signal == "SIGKILL"
    # Somebody else may have ended the first ones; the last one runs what is behind the step.
    assert starts(tmp_path) == CRASHES + PATIENCE + 2
    assert TrialLog(tmp_path).open == CRASHES  # the last one is the step's own


@pytest.mark.parametrize(("begun", "known"), [(1, {}), (2, {}), (3, {"1: a": None})])
def test_a_trial_that_was_cut_off_is_asked_again_but_not_for_ever(tmp_path, begun, known):
    (tmp_path / TRIALS).write_text('{"trial": "1: a", "holds": null}\n' * begun)
    assert TrialLog(tmp_path).known == known


def test_without_a_log_of_trials_a_death_in_one_is_that_of_the_step(tmp_path, monkeypatch):
    known, _, _ = follow(tmp_path, monkeypatch, "reduce", "trace", reduce=DEADLY)
    assert endings(known) == {"reduce": "crashed"}


def test_a_death_between_two_trials_is_that_of_the_step(tmp_path, monkeypatch):
    told = {"before": [trial("1: a"), "SIGKILL"]}
    known, _, _ = follow(tmp_path, monkeypatch, "reduce", "trace", trials=TrialLog(tmp_path), reduce=told)
    assert endings(known) == {"reduce": "crashed"}


def test_a_line_that_was_cut_short_is_asked_again(tmp_path):
    (tmp_path / TRIALS).write_text('{"trial": "1: a", "holds": true}\n{"trial": "2: b", "ho')
    assert TrialLog(tmp_path).known == {"1: a": True}


def test_a_log_of_trials_that_cannot_be_read_or_written_is_an_error(tmp_path):
    log = TrialLog(tmp_path)
    (tmp_path / TRIALS).mkdir()
    with pytest.raises(EvidenceError, match=r"could not write .*trials\.jsonl: Is a directory.*another folder"):
        log.append("1: a", None)
    with pytest.raises(EvidenceError, match=r"trials\.jsonl is no file"):
        TrialLog(tmp_path)


@pytest.mark.parametrize(
    ("status", "name", "words"),
    [
        (-11, "SIGSEGV", "was ended by SIGSEGV"),
        (-9, "SIGKILL", "was ended by SIGKILL (the out-of-memory killer is a usual cause)"),
        (139, "SIGSEGV", "ended with exit status 139 (a shell's word for SIGSEGV)"),
        (1, None, "ended with exit status 1"),
        (0, None, "ended with exit status 0"),
        (255, None, "ended with exit status 255"),
    ],
)
def test_how_a_process_ended_in_words(status, name, words):
    assert death(status) == (name, words)


# Text of any size


def printing(folder, code):
    """What a program leaves in kit.log and in the tail, and how many lines of its stdout were handed on."""
    with Process((sys.executable, "-c", code), folder) as process:
        lines = list(process.lines())
        process.finish()
        process.exit_status()
        tail = process.stderr_tail
    return (folder / LOG).read_bytes(), tail, lines


def test_of_a_long_stderr_the_first_and_the_last_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.engine.process.LOG_HEAD", 1 << 18)
    monkeypatch.setattr("repro.engine.process.LOG_TAIL", 1 << 16)
    log, tail, _ = printing(tmp_path, "import sys\nfor n in range(200_000): print('line', n, file=sys.stderr)")
    assert log.startswith(b"line 0\n")
    assert log.endswith(b"line 199999\n")
    assert b"bytes are left out here" in log
    assert len(log) < (1 << 18) + (1 << 16) + (1 << 17)
    assert tail[-1] == "line 199999"


def test_a_line_without_an_end_is_read_in_linear_time_and_shortened(tmp_path):
    log, tail, _ = printing(tmp_path, "import sys; sys.stderr.write('y' * 30_000_000 + 'z')")
    assert log.endswith(b"z")
    assert max(map(len, tail)) <= SHOWN_LINE + 10
    assert tail[-1].endswith("z")


def test_a_line_of_stdout_longer_than_any_event_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.engine.process.LONGEST_EVENT", 1 << 16)
    _, _, lines = printing(tmp_path, "print('x' * 1_000_000); print('after')")
    assert [len(line) for line in lines] == [SHOWN_LINE, len(b"after\n")]


def test_a_program_that_prints_without_end_is_taken_for_no_kit(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.engine.runner.MOST_STRAY", 50)
    endless = tmp_path / "endless"
    endless.write_text(f"#!{sys.executable}\nwhile True: print('yes')\n")
    endless.chmod(0o755)
    heard = Listener()
    known = run(setting(tmp_path, "environment", python=endless), lambda _: None, heard)
    assert known["environment"].verdict.outcome is Outcome.SKIP
    assert len([one for one in heard.heard if one[0] == "note"]) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="a stop is seen where waitid is")
@pytest.mark.parametrize("step", ["load", "forward"])
def test_a_kit_that_is_stopped_is_told_and_its_step_ended(tmp_path, monkeypatch, step):
    known, listener, _ = follow(
        tmp_path, monkeypatch, "load", "forward", limits={"step_seconds": 0.5}, **{step: {"before": ["SIGSTOP"]}}
    )
    assert endings(known)[step] == "timed_out"
    assert "a signal had stopped the process" in known[step].verdict.reason
    (note,) = [text for kind, text in listener.heard if kind == "note"]
    words = r"a signal has stopped the kit \(process (\d+)\): `kill -CONT \1` lets it go on; .* in 0.5 s"
    assert re.fullmatch(words, note)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a process is not found")
def test_what_leaves_the_session_of_a_kit_ends_with_it(tmp_path, monkeypatch):
    (tmp_path / "daemon.py").write_text(DAEMON)
    act = {"before": [{"daemon": [str(tmp_path / "daemon.py"), str(tmp_path / "pid")]}]}
    follow(tmp_path, monkeypatch, "load", "forward", load=act)
    pid = int((tmp_path / "pid").read_text())
    assert is_gone(pid)
    assert f"[repro] ended what was left behind: {pid}" in (tmp_path / LOG).read_text()


DAEMON = """
import os, pathlib, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        pathlib.Path(sys.argv[1] + ".part").write_text(str(os.getpid()))
        os.rename(sys.argv[1] + ".part", sys.argv[1])
        time.sleep(600)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize(("dies", "again"), [("SIGKILL", True), ("SIGSEGV", False)])
def test_a_trial_whose_process_somebody_else_has_ended_is_asked_again(tmp_path, dies, again):
    log = TrialLog(tmp_path)
    log.append("1: a", None)
    assert (log.died("1: a", dies), "1: a" in log.known) == (again, not again)
    for _ in range(PATIENCE - 1):
        log.append("1: a", None)
    assert not log.died("1: a", dies)
