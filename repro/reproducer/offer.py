"""From what a run found to the script that goes with its report: made, verified, chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from repro.core.paths import sha256, write
from repro.reproducer.checkpoint import NOTHING, checkpoint_of
from repro.reproducer.files import file_script
from repro.reproducer.frame import Document
from repro.reproducer.loads import load_script
from repro.reproducer.module import module_script
from repro.reproducer.program import program_scripts
from repro.reproducer.running import crash_script, model_script
from repro.reproducer.script import LEVELS, Script
from repro.reproducer.tensors import weight_script
from repro.reproducer.verify import RUNS, TIMEOUT_SECONDS, Verification, verify

NAME = "reproducer.py"
OTHER = "reproducer_{level}.py"


class Told(Protocol):
    """Is told what happens while it happens."""

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Tried:
    """A script and what came of it."""

    script: Script
    result: Verification


def scripts(document: Document, sha256: Mapping[str, str] = NOTHING) -> tuple[Script, ...]:
    """The scripts that may show the fault of a run, the smallest first. Pure: nothing is read, nothing is run.

    Args:
        document: The content of verdict.json, with ``reduction`` where the run has one.
        sha256: The hash of each weight file, by name, as far as they are known.
    """
    reduction = document.get("reduction") or {}
    found: list[Script | None] = []
    if reduction.get("program"):
        found += program_scripts(document, reduction["program"])
    if reduction.get("module"):
        found.append(module_script(document, reduction["module"]))
    checkpoint = checkpoint_of(document, sha256)
    if checkpoint is not None:
        makers = (file_script, weight_script, load_script, model_script, crash_script)
        found += [make(document, checkpoint) for make in makers]
    return tuple(script for script in found if script is not None)


def offer(
    document: Document,
    python: str,
    folder: Path,
    listener: Told | None = None,
    runs: int = RUNS,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> dict[str, Any] | None:
    """Make the scripts, run them in a clean interpreter, write those that are worth having.

    The smallest that shows the fault becomes reproducer.py, and the one with a layer of Transformers stands beside it.
    Larger ones are not tried behind a smaller one that shows it. Where none does, the smallest is written all the same,
    and said not to be verified.

    Args:
        document: The content of verdict.json.
        python: The interpreter of the run, in which the scripts are verified.
        folder: Of the run.
        listener: Is told of each script before it is run.
        runs, timeout_seconds: As for ``verify``.

    Returns:
        The value of ``reproducer`` in verdict.json; None where there is nothing to show.

    Raises:
        EvidenceError: the folder cannot be written.
        CellError: the interpreter cannot be started.
    """
    sound = document.get("verdict") == "good"
    candidates = () if sound else scripts(document, _hashes(document))
    for old in (NAME, *(OTHER.format(level=level) for level in LEVELS)):
        (folder / old).unlink(missing_ok=True)  # of an earlier run into this folder
    tried: list[Tried] = []
    for script in candidates:
        if not _is_wanted(script, tried):
            continue
        if listener is not None:
            listener.note(f"verifying a script: {script.reason}")
        result = _same_fault(script, verify(python, script.text, script.argv, runs, timeout_seconds))
        tried.append(Tried(script, result))
    if not tried:
        return None
    best = next((item for item in tried if item.result.verified), tried[0])
    write(folder / NAME, best.script.text)
    others = [item for item in tried if item is not best and not _is_twin(item, best)]
    failed = [item for item in tried[: tried.index(best)] if not _is_twin(item, best)] if best.result.verified else []
    return {
        **_record(best, NAME, _words(best, failed)),
        "others": [_record(item, _beside(item, folder), item.result.reason) for item in others],
    }


def _is_wanted(script: Script, tried: list[Tried]) -> bool:
    """Whether a script is worth a try behind what was tried: nothing smaller did it, or it shows another side."""
    done = [item.script.level for item in tried if item.result.verified]
    return not done or (script.level == "module" and "module" not in done)


def _same_fault(script: Script, result: Verification) -> Verification:
    """A script that shows another bad value than the reduction saw shows another fault."""
    if not result.verified or script.seen is None or f"seen {script.seen} " in result.output:
        return result
    reason = f"It shows another value than {script.seen}, so another fault: {result.output.splitlines()[-1]}"
    return Verification(result.exit_statuses, result.output, False, reason)


def _is_twin(item: Tried, best: Tried) -> bool:
    """The same operator in another spelling."""
    return item.script.level == best.script.level


def _words(best: Tried, failed: list[Tried]) -> str:
    """Why this one is offered."""
    words = f"The script has {best.script.reason}. {best.result.reason}"
    for item in failed:
        words += f" A smaller one ({item.script.reason}) did not show it. {item.result.reason}"
    return words


def _beside(item: Tried, folder: Path) -> str | None:
    """Where a further script is kept; None for one that does not show the fault."""
    if not item.result.verified:
        return None
    path = folder / OTHER.format(level=item.script.level)
    write(path, item.script.text)
    return path.name


def _record(item: Tried, path: str | None, reason: str) -> dict[str, Any]:
    script, result = item.script, item.result
    return {
        "path": path,
        "needs": list(script.needs),
        "verified": result.verified,
        "runs": len(result.exit_statuses),
        "level": script.level,
        "lines": script.lines,
        "sha256": script.sha256,
        "checkpoint": None if script.checkpoint is None else dict(script.checkpoint),
        "usage": list(script.usage),
        "output": result.output,
        "exit_statuses": list(result.exit_statuses),
        "reason": reason,
    }


def _hashes(document: Document) -> dict[str, str]:
    """The SHA-256 of the weight files, where a script may need them; of a .gguf file as the run knows it already."""
    reduction = document.get("reduction") or {}
    checkpoint = checkpoint_of(document)
    if checkpoint is None or reduction.get("program") or reduction.get("module"):
        return {}
    if checkpoint.source == "gguf":
        return {checkpoint.name: Path(str(document["files"]["folder"])).name}
    found: dict[str, str] = {}
    for row in document["files"].get("files") or ():
        path = Path(checkpoint.path) / str(row["name"])
        if path.is_file():
            found[str(row["name"])] = sha256(path)
    return found
