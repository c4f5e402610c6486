"""A stand-in for the probe kit that speaks its wire: what it answers stands in the file that ``FAKE_KIT`` names.

The file is JSON: a step's name -> {"verdict", "reason", "payload", "error", "before", "after"}. ``before`` lists
things to do between the step's start and its end: a signal's name (sent to itself), {"print": text} or
{"stderr": text}, {"exit": status}, {"sleep": seconds}, {"meet": folder, "count": n} (wait until so many processes do
the same), {"spawn": path} (a child that sleeps, its pid written to the path), {"daemon": [script, path]} (run a script
that leaves a process behind and writes the path), {"progress": [done, total]}, {"trial":
name, "holds": true, "dies": a signal's name} (a trial of a reduction as the kit makes it: what the plan has an answer
for is not asked; it dies in the middle where it is told to). ``after`` is the same, behind the end.
{"batches": {"bad", "skip", "dies", "waits"}} goes through the plan's file of prompts as the kit does, and says of each
example what a word in it tells: see ``batches``.
The steps "hello" and "done" can be told to do things too. Run as the kit is: the plan is the last argument.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

UNSEEN = ("SIGKILL", "SIGSTOP")  # no process can say what it does with these


def say(**event):
    print(json.dumps(event), flush=True)


def wait(sleep=30, meet=None, count=0):
    """Some seconds; with ``meet`` at most these, until so many processes have left a file in that folder."""
    if meet:
        Path(meet, str(os.getpid())).touch()
    deadline = time.monotonic() + sleep
    while time.monotonic() < deadline and not (meet and len(list(Path(meet).iterdir())) >= count):
        time.sleep(0.02)


def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.02)


def act(thing, step, trials=None):
    if isinstance(thing, str):
        signal.signal(signal.Signals[thing], signal.SIG_DFL) if thing not in UNSEEN else None
        os.kill(os.getpid(), signal.Signals[thing])
    elif "print" in thing:
        print(thing["print"], flush=True)
    elif "stderr" in thing:
        print(thing["stderr"], file=sys.stderr, flush=True)
    elif "progress" in thing:
        say(event="progress", step=step, done=thing["progress"][0], total=thing["progress"][1], unit="tensors")
    elif "trial" in thing:
        if thing["trial"] not in (trials or {}):
            say(event="trial", step=step, trial=thing["trial"], holds=None)
            if "dies" in thing:
                act(thing["dies"], step)
            say(event="trial", step=step, trial=thing["trial"], holds=thing.get("holds", True))
    elif "sleep" in thing or "meet" in thing:
        wait(**thing)
    elif "spawn" in thing:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(thing["spawn"]).write_text(str(child.pid))
    elif "daemon" in thing:
        subprocess.run([sys.executable, *thing["daemon"]], check=True)
        wait_for(thing["daemon"][1])
    elif "exit" in thing:
        os._exit(thing["exit"])


def batches(step, plan, bad=None, skip=None, dies=None, waits=None):
    """Every example is good, but one with the word ``bad`` or ``skip``; the process dies at ``dies``, and waits in the
    last but one batch as long as there is a file ``waits``. Batches that the plan knows are left out.
    """
    options, known = plan["prompts"], plan.get("trials") or {}
    examples = [json.loads(line) for line in Path(options["file"]).read_text(encoding="utf-8").splitlines()]
    size = options["batch_size"]
    found = [examples[place : place + size] for place in range(0, len(examples), size)]
    for number, batch in enumerate(found):
        name = f"batch {number}"
        if known.get(name) is not None:
            continue
        died = name in known
        if not died:
            say(event="trial", step=step, trial=name, holds=None)
            while waits and number == len(found) - 2 and Path(waits).exists():
                time.sleep(0.02)
        for example in batch:
            words = (example.get("text") or "").split() + [f"w{number}" for number in example.get("ids") or ()]
            if dies in words and not died:
                os.kill(os.getpid(), signal.SIGKILL)
            verdict = "skip" if died or skip in words else "bad" if bad in words else "good"
            record = {**example, "batch": number, "verdict": verdict, "reason": f"it is {verdict}", "layer": "layers.1"}
            say(event="example", step=step, record=record)
        say(event="trial", step=step, trial=name, holds=True)


def main():
    answers = json.loads(Path(os.environ["FAKE_KIT"]).read_text()) if "FAKE_KIT" in os.environ else {}
    plan = json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    for thing in answers.get("hello", {}).get("before", []):
        act(thing, None)
    say(event="hello", schema=answers.get("hello", {}).get("schema", 2), pid=os.getpid(), python="3.11.7")
    for step in plan["steps"]:
        answer = answers.get(step, {})
        say(event="start", step=step)
        for thing in answer.get("before", []):
            if "batches" in thing:
                batches(step, plan, **thing["batches"])
            else:
                act(thing, step, plan.get("trials"))
        say(
            event="end",
            step=step,
            verdict=answer.get("verdict", "good"),
            reason=answer.get("reason", f"{step} is fine"),
            seconds=0.5,
            payload=answer.get("payload"),
            error=answer.get("error"),
        )
        for thing in answer.get("after", []):
            act(thing, step)
    say(event="done")
    for thing in answers.get("done", {}).get("before", []):
        act(thing, None)


if __name__ == "__main__":
    main()
