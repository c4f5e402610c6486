"""Run a user's script: what it ends with is the answer.

Ending normally or with status 0 is good; status 1 is bad, and so is an AssertionError that the script itself raises.
Status 125, any other status and any other exception are "could not tell": a script that fails on the way has not
answered. PyTorch raises AssertionError as well ("Torch not compiled with CUDA enabled"); that is none of the script's.
What torch.testing, numpy.testing, unittest and pytest raise where the script calls them is its own comparison.
"""

import dataclasses
import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any, Optional

from ..checkpoint.opening import check_is_file, open_foreign
from ..checkpoint.resolve import CannotResolve
from ..protocol.failures import words_of
from . import child
from .child import Ended, Job

Key = tuple[Any, ...]
WARNING = re.compile(r"\S.*:\d+: \w*Warning: |\[W[\d:. ]+ ")  # Python's own, and those of PyTorch's C++
DECORATING = ("contextlib.py", "functools.py")
UNPLACED = ("inner", "inner_line", "code", "line", "compares")
COMPARING = re.compile(r"(site-packages|dist-packages|python3\.\d+)/([\w.]+/)*(testing|unittest|_pytest)/")


@dataclass(frozen=True)
class Ran:
    """How a script ended.

    ``exit_status`` is the operating system's. ``lines``: the last that it printed. ``key``: what makes two runs end
    alike: the status, or what was raised and on which line. ``raised``: whether an exception ended it that is no answer
    of the script's own. ``found``: what the watch found. ``idle``: why settings changed nothing, where they did not.
    """

    verdict: str
    reason: str
    exit_status: int
    lines: tuple[str, ...]
    errors: tuple[str, ...]
    sha256: str
    key: Key
    raised: bool
    found: Any
    idle: tuple[str, ...] = ()

    @property
    def outcome(self) -> tuple[str, str, dict[str, Any]]:
        payload = {"exit_status": self.exit_status, "lines": list(self.lines), "script_sha256": self.sha256}
        return self.verdict, self.reason, payload

    @property
    def crashed(self) -> bool:
        """Whether a signal ended it."""
        return self.exit_status < 0


def run_plainly(path: str) -> Ran:
    """The script as ``python path`` runs it; what it prints also goes to this process's own streams.

    Where it ends with status 1 and says something of an exception, a second run tells whether one ended it, and which.

    Raises:
        CannotResolve: it cannot be read.
    """
    sha256 = _sha256(path)
    ended = child.plain(path)
    if ended.status == 1 and (ended.traceback or _printed(ended.errors, path)):
        again, said = child.run(Job(path)), _printed(ended.errors, path)
        told = again.how or {}
        if again.status == 1 and (said is None or told.get("how") != "raised" or told["type"] == said["type"]):
            ended = dataclasses.replace(ended, how=again.how)
        else:  # it does not end the same way twice: what was printed has to do
            ended = dataclasses.replace(ended, how=said)
    return _ran(ended, path, sha256)


def _printed(errors: tuple[str, ...], path: str) -> Optional[dict[str, Any]]:
    """What a traceback says was raised, and where."""
    last = next((line for line in reversed(errors) if line.strip()), "")
    if not re.match(r"[A-Za-z_][\w.]*(Error|Exception|Warning|Interrupt|Iteration|Group)(:|$)", last):
        return None
    name, _, text = last.partition(": ")
    found = {"how": "raised", "type": name.rpartition(".")[2], "text": text, **dict.fromkeys(UNPLACED)}
    places = [re.match(r'  File "(.+)", line (\d+)', line) for line in errors]
    inner = next((place for place in reversed(places) if place is not None), None)
    if inner is None:
        return found
    told = [place for place in places if place is not None]
    own = next((at for at in reversed(range(len(told))) if told[at][1] == path), None)
    behind = [] if own is None else [place[1] for place in told[own + 1 :] if not place[1].endswith(DECORATING)]
    return {
        **found,
        "inner": inner[1],
        "inner_line": int(inner[2]),
        "line": None if own is None else int(told[own][2]),
        "compares": bool(behind) and COMPARING.search(behind[0].replace(os.sep, "/")) is not None,
    }


def run_script(job: Job) -> Ran:
    """Run the script in a process of its own, watched or changed.

    Raises:
        CannotResolve: it cannot be read.
    """
    try:
        check_is_file(job.path)  # running it would wait for ever, or have no end
    except OSError as error:
        raise CannotResolve(f"The script {job.path} cannot be read: {error.strerror}. Check the path.") from None
    return _ran(child.run(job), job.path, _sha256(job.path))


def _sha256(path: str) -> str:
    try:
        with open_foreign(path) as opened:
            return hashlib.sha256(opened.read()).hexdigest()
    except OSError as error:
        raise CannotResolve(f"The script {path} cannot be read: {error.strerror}. Check the path.") from None


def _ran(ended: Ended, path: str, sha256: str) -> Ran:
    verdict, reason = judge(ended, path)
    how = ended.how or {}
    raised = how.get("how") == "raised"
    key: Key = (how["type"], how["line"]) if raised else (ended.status,)
    return Ran(
        verdict, reason, ended.status, ended.lines, ended.errors, sha256, key, raised and verdict == "skip",
        ended.found, tuple(how.get("idle", ())),
    )  # fmt: skip


def judge(ended: Ended, path: str) -> tuple[str, str]:
    """Verdict and reason."""
    how = ended.how or {}
    if ended.status < 0:
        return "skip", f"the script was ended by signal {-ended.status}"
    if how.get("how") == "raised" and ended.status == 1:
        return judge_exception(how, path)
    return judge_status(ended.status, ended.lines if any(map(str.strip, ended.lines)) else _said(ended.errors))


def _said(errors: tuple[str, ...]) -> tuple[str, ...]:
    """What was printed on standard error without Python's warnings, each of which ends with a line of source."""
    kept, in_warning = [], False
    for line in errors:
        source = in_warning and line[:1].isspace()
        in_warning = WARNING.match(line) is not None
        if not source and not in_warning:
            kept.append(line)
    return tuple(kept)


def judge_status(status: int, lines: tuple[str, ...]) -> tuple[str, str]:
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")[:500]
    verdict = {0: "good", 1: "bad"}.get(status, "skip")
    if status in (0, 1, 125):
        return verdict, last or f"the script ended with status {status} and printed nothing"
    return verdict, f"the script ended with status {status}" + (f": {last}" if last else "")


def judge_exception(how: dict[str, Any], path: str) -> tuple[str, str]:
    said = words_of(how["type"], how["text"])
    if how["type"] != "AssertionError":
        return "skip", said
    if how["inner"] == path or how["compares"]:
        what = " ".join(how["text"].split())[:500] or how["code"] or ""
        return "bad", f"{os.path.basename(path)}:{how['line']}: AssertionError: {what}"
    where = f"{os.path.basename(how['inner'])}:{how['inner_line']}" if how["inner"] else "outside of the script"
    return "skip", f"{said} (raised in {where}, not by the script; a script says bad with sys.exit(1))"
