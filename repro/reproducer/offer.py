"""Which scripts a run gets: made, run in a clean interpreter, and the smallest that shows the fault chosen."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from repro.core.answer import Answer, Change, Reproducer, ScriptRecord
from repro.core.encoding import replace
from repro.core.paths import sha256
from repro.core.payloads import Origin, Reduction
from repro.core.records import Outcome
from repro.reproducer.frame import model_name
from repro.reproducer.script import LEVELS, Script
from repro.reproducer.scripts.change import change_script
from repro.reproducer.scripts.checkpoint import NO_HASHES, checkpoint_of
from repro.reproducer.scripts.configuration import configuration_script
from repro.reproducer.scripts.files import file_script
from repro.reproducer.scripts.listing import listing_script
from repro.reproducer.scripts.load import load_script
from repro.reproducer.scripts.model import crash_script, model_script
from repro.reproducer.scripts.module import module_script
from repro.reproducer.scripts.operators import operator_scripts
from repro.reproducer.scripts.weights import weight_script
from repro.reproducer.verify import NOTHING, RUNS, Verification, verify

NAME = "reproducer.py"
OTHER = "reproducer_{level}.py"
CHANGED = "reproducer_changed.py"
ADDRESSED: Mapping[str | None, tuple[str, ...]] = {
    "pytorch": ("operator", "operators", "script of torch"),
    "caller": ("change", "script"),
    "checkpoint": ("weights", "files"),
    "transformers": ("configuration", "script of transformers", "load", "published", "module", "model"),
}
"""Which scripts the owner of a fault can act on, the most telling first: PyTorch wants PyTorch alone, and a script that
does not import Transformers is no report to Transformers. A whole model is before one of its layers where anybody can
fetch it, and behind it where not. The caller gets the lines to change, else the own script made smaller, and the makers
of another package a script that imports it. A checkpoint's authors get what reads the tensor, or the files. Where there
is no such script, it is the smallest."""

BYTES_OF_PARAMETER = 8
SHARE = 1 / 8
"""Of the memory that the parameters of a model may take, for several runs that load it to go on at the same time."""
UNSEEDED_RUNS = 20
"""Of a script that draws random numbers without a seed: one that shows its fault nine times of ten passes three runs in
73 % of all cases, and twenty in 12 %."""
FILES = 4
"""How many of the files that a script reads are named."""

OWN_CODE = ("script", "published", "model", "module")
"""The same where the fault is in code that comes with the model. Its authors are no project, and know their own class:
an operator and its inputs say nothing to them."""

LIBRARIES = (None, "torch", "transformers", "__main__")
"""Whose code is none that comes with a model: nobody's, as far as is known, a library's, or the script's own."""

PUT_BACK = "Private words are masked in its file. It was run with them, and does not show the fault without."

R = TypeVar("R", bound=ScriptRecord)


class Run(Protocol):
    """Runs a script, as ``verify`` does."""

    def __call__(
        self,
        python: str,
        text: str,
        argv: Sequence[str],
        *,
        together: bool,
        runs: int = RUNS,
        beside: Mapping[str, Path] = NOTHING,
    ) -> Verification: ...


class Hand(Protocol):
    """Takes what is private out of what is handed on."""

    def text(self, text: str) -> str: ...

    def answer(self, answer: Answer) -> Answer: ...

    def script(self, text: str) -> str: ...

    def write(self, path: Path, text: str) -> None: ...


class Told(Protocol):
    """Is told what happens while it happens."""

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Tried:
    """A script as it is handed on, and what came of it.

    ``masked``: it is what came of the script before something private was masked in it.
    """

    script: Script
    result: Verification
    masked: bool = False

    def record(self, kind: type[R], path: str | None, reason: str, **more: object) -> R:
        """As it stands in verdict.json."""
        script, result = self.script, self.result
        return kind(
            path=path,
            level=script.level,
            needs=script.needs,
            verified=result.verified,
            runs=len(result.exit_statuses),
            lines=script.lines,
            sha256=script.sha256,
            checkpoint=script.checkpoint,
            usage=script.usage,
            output=result.output,
            exit_statuses=result.exit_statuses,
            reason=f"{reason} {PUT_BACK}" if self.masked else reason,
            masked=self.masked,
            seconds=result.seconds,
            reads=script.reads,
            **more,
        )


def scripts(answer: Answer, sha256: Mapping[str, str] = NO_HASHES) -> tuple[Script, ...]:
    """The scripts that may show the fault of a run, the smallest first. Pure: nothing is read, nothing is run.

    Args:
        answer: Of the run, with its reduction if it has one.
        sha256: The hash of each weight file, by name, as far as they are known.
    """
    reduction = answer.reduction or Reduction()
    found: list[Script | None] = []
    if reduction.program is not None:
        found += operator_scripts(answer, reduction.program)
    if reduction.listing is not None and not reduction.listing.whole:
        found.append(listing_script(answer, reduction.listing))
    if reduction.configuration is not None:
        found.append(configuration_script(answer, reduction.configuration))
    if reduction.module is not None:
        found.append(module_script(answer, reduction.module))
    checkpoint = checkpoint_of(answer, sha256)
    if checkpoint is not None:
        found += [file_script(answer, checkpoint), weight_script(answer, checkpoint)]
        if answer.files is None or answer.files.adapter is None:  # else they would load the base model alone
            found += [make(answer, checkpoint) for make in (load_script, model_script, crash_script)]
    if reduction.listing is not None and reduction.listing.whole:
        found.append(listing_script(answer, reduction.listing))
    if checkpoint is not None and (answer.files is None or answer.files.adapter is None):
        found.append(change_script(answer, checkpoint))
    return tuple(script for script in found if script is not None)


def offer(
    answer: Answer,
    python: str,
    folder: Path,
    hand: Hand,
    listener: Told | None = None,
    run: Run = verify,
    project_of: Callable[[Answer], str | None] = lambda answer: None,
) -> Reproducer | None:
    """Make the scripts, run them in a clean interpreter, and write those that show the fault.

    What is run is what is handed on, with everything private masked. Only where that does not show the fault is the
    script run as it was made, and the record says so.

    The smallest that shows the fault is looked for first: whose fault it is can depend on it. Then those that the owner
    can act on, in the order of ``ADDRESSED``. The first of these becomes reproducer.py, or else the smallest; any other
    that shows the fault is kept beside it, and so is a user's script made smaller. Where none does, the smallest is
    written and recorded as not verified.

    Args:
        answer: Of the run.
        python: The interpreter of the run, in which the scripts are verified.
        folder: Of the run.
        hand: Masks the scripts and writes them.
        listener: Is told of each script before it is run.
        run: Runs a script.
        project_of: Whose the fault is, for the answer with the smallest script; None where that is not known.

    Returns:
        What verdict.json says about it; None where there is nothing to show.

    Raises:
        EvidenceError: the folder cannot be written.
        CellError: the interpreter cannot be started.
    """
    hashes = _hashes(answer)
    candidates = () if answer.verdict is Outcome.GOOD else scripts(answer, hashes)
    for old in (NAME, CHANGED, *(OTHER.format(level=level) for level in LEVELS)):
        (folder / old).unlink(missing_ok=True)  # of an earlier run into this folder
    pairs = list(zip(candidates, _masked(candidates, answer, hashes, hand), strict=True))
    tried: list[Tried] = []

    def ask(script: Script, handed: str) -> Tried:
        if listener is not None:
            listener.note(f"verifying the reproducer that {script.does}")
        together = script.checkpoint is None or _fits_again(answer)
        found = _tried(script, handed, python, _run_of(script, answer, run), together=together)
        if found.result.verified and not _beside_it(script, answer):  # it does without what it looks for
            found = dataclasses.replace(found, script=dataclasses.replace(found.script, reads=()))
        tried.append(dataclasses.replace(found, result=_qualified(found.script, found.result)))
        return tried[-1]

    for_all = [pair for pair in pairs if pair[0].level != "change"]
    smallest = next((item for item in itertools.starmap(ask, for_all) if item.result.verified), None)
    if not tried:
        return None
    best = smallest or tried[0]
    project = project_of(replace(answer, reproducer=best.record(Reproducer, NAME, "")))
    if smallest is not None:
        own = _own_script(pairs, tried, ask)
        best = _addressed(_kinds_for(project, answer.origin), project, pairs, tried, ask) or min(
            (smallest, *own), key=lambda item: item.script.lines
        )
    hand.write(folder / NAME, best.script.text)
    others = [item for item in tried if item.script.level != best.script.level]
    failed = [item for item in others if best.result.verified and not item.result.verified]
    beside = tuple(item.record(ScriptRecord, _beside(item, folder, hand), item.result.reason) for item in others)
    change = _changed(_changing(project, best, tried), answer, python, folder, hand, run)
    return best.record(Reproducer, NAME, _words(best, failed), others=beside, change=change)


def _changing(project: str | None, best: Tried, tried: Sequence[Tried]) -> Tried | None:
    """The script whose lines can be changed: what is offered to the caller, and to anybody else the caller's own made
    smaller, which is how they get around a fault that is not theirs.
    """
    own = [best] if project == "caller" else [item for item in (best, *tried) if item.script.level == "script"]
    return next((item for item in own if item.result.verified and item.script.change is not None), None)


def _changed(of: Tried | None, answer: Answer, python: str, folder: Path, hand: Hand, run: Run) -> Change | None:
    """What the caller changes. A changed script of its own is run as well, and kept where it is good each time."""
    change = None if of is None else of.script.change
    if of is None or change is None:
        return None
    made = Change(
        before=tuple(map(hand.text, change.before)),
        after=tuple(map(hand.text, change.after)),
        script_before=tuple(map(hand.text, change.script_before)),
        script_after=tuple(map(hand.text, change.script_after)),
        verified=True,
        runs=len(of.result.exit_statuses),
        reason="The script runs both.",
    )
    if not change.text:
        return made
    text = hand.script(change.text)
    result = _run_of(of.script, answer, run)(python, text, (), together=True)
    if set(result.exit_statuses) != {0}:
        return None
    hand.write(folder / CHANGED, text)
    runs = len(result.exit_statuses)
    reason = f"The changed script was run {runs} times in a clean interpreter, with exit status 0 each time."
    return replace(made, path=CHANGED, runs=runs, reason=reason)


def _own_script(
    pairs: Sequence[tuple[Script, str]], tried: list[Tried], ask: Callable[[Script, str], Tried]
) -> list[Tried]:
    """The user's script made smaller, where it shows the fault: it is kept beside whatever is offered."""
    return _showing(pairs, tried, ask, lambda script: script.level == "script" and not script.last)


def _kinds_for(project: str | None, origin: Origin | None) -> tuple[str, ...]:
    """Which scripts the owner can act on, the most telling first."""
    if project is None and origin is not None and origin.code not in LIBRARIES:
        return OWN_CODE
    kinds = ADDRESSED.get(project, ())
    if project == "pytorch" and origin is not None and origin.library:
        return kinds[::-1]  # its own Python code is at fault, and an operator by itself is right
    return kinds


def _addressed(
    kinds: tuple[str, ...],
    project: str | None,
    pairs: Sequence[tuple[Script, str]],
    tried: list[Tried],
    ask: Callable[[Script, str], Tried],
) -> Tried | None:
    """The first script of these kinds that shows the fault; None where there is none."""
    wanted: list[Callable[[Script], bool]] = [functools.partial(_is_for, kind) for kind in kinds]
    if project is not None and project not in ADDRESSED:  # another package's: a script that imports it
        wanted = [lambda script: project in script.needs]
    for is_wanted in wanted:
        shown = _showing(pairs, tried, ask, is_wanted)
        if shown:
            return shown[0]
    return None


def _showing(
    pairs: Sequence[tuple[Script, str]],
    tried: list[Tried],
    ask: Callable[[Script, str], Tried],
    is_wanted: Callable[[Script], bool],
) -> list[Tried]:
    """Those of the wanted scripts that show the fault. They are run where none of them was run before."""
    known = [item for item in tried if is_wanted(item.script)]
    asked = known or [ask(*pair) for pair in pairs if is_wanted(pair[0])]
    return [item for item in asked if item.result.verified]


def _is_for(kind: str, script: Script) -> bool:
    return kind in _kinds(script)


def _kinds(script: Script) -> tuple[str, ...]:
    """What a script is for ``ADDRESSED``: its level; a model that anybody can fetch; what a user's script needs."""
    if script.level == "change" or (script.level == "script" and script.change is not None):
        return (script.level, "change", *_packages(script))
    if script.level == "model":
        return ("model",) if script.argv else ("model", "published")
    if script.level != "script":
        return (script.level,)
    return ("script", *_packages(script))


def _packages(script: Script) -> tuple[str, ...]:
    if script.level != "script":
        return ()
    if "transformers" in script.needs:
        return ("script of transformers",)
    return ("script of torch",) if script.needs == ("torch",) else ()


def _masked(candidates: Sequence[Script], answer: Answer, hashes: Mapping[str, str], hand: Hand) -> list[str]:
    """The text of each script as it is handed on. It is made of the masked answer: in a text that is wrapped and
    escaped already, not everything would be found.
    """
    if not candidates:
        return []
    shown = hand.answer(answer)
    shown = replace(shown, model=replace(shown.model, id=hand.text(model_name(answer))))
    made = scripts(shown, {hand.text(name): digest for name, digest in hashes.items()})
    if [script.level for script in made] != [script.level for script in candidates]:
        made = tuple(candidates)
    return [hand.script(script.text) for script in made]


def _run_of(script: Script, answer: Answer, run: Run) -> Callable[..., Verification]:
    """Runs a script where it finds what it reads."""
    beside = _beside_it(script, answer)
    return functools.partial(run, beside=beside) if beside else run


def _beside_it(script: Script, answer: Answer) -> dict[str, Path]:
    """What a user's script reads below its own folder or the current one: the file or folder that each of these paths
    begins with.
    """
    found: dict[str, Path] = {}
    for name in dict.fromkeys(path.partition("/")[0] for path in script.reads):
        for folder in (Path(answer.case.model).parent, Path.cwd()):
            if (folder / name).exists():
                found.setdefault(name, (folder / name).absolute())
    return found


def _fits_again(answer: Answer) -> bool:
    """Whether runs of a script that loads the whole model may go on at the same time: on a CPU, where each parameter,
    twice in float32 while it is loaded and converted, fits into a small part of the memory.
    """
    memory = None if answer.environment is None else answer.environment.memory_bytes
    parameters = answer.model.parameters
    if memory is None or parameters is None or answer.cell.device != "cpu":
        return False
    return parameters * BYTES_OF_PARAMETER <= memory * SHARE


def _tried(script: Script, text: str, python: str, run: Callable[..., Verification], *, together: bool) -> Tried:
    """A script run with the text that is handed on; and as it was made, where what is masked is needed to run."""
    handed = dataclasses.replace(script, text=text)
    ask = functools.partial(run, runs=UNSEEDED_RUNS) if script.unseeded else run
    result = _same_fault(script, ask(python, handed.text, script.argv, together=together))
    if result.verified or handed.text == script.text:
        return Tried(handed, result)
    whole = _same_fault(script, ask(python, script.text, script.argv, together=together))
    return Tried(handed, whole, masked=True) if whole.verified else Tried(handed, result)


def _qualified(script: Script, result: Verification) -> Verification:
    """With what chance, or a file that is not handed on, has to do with it."""
    words = ""
    if script.unseeded:
        words += f" It draws random numbers without a seed ({', '.join(script.unseeded)}), so chance has a part in it."
    if script.reads:
        words += f" It reads {', '.join(script.reads[:FILES])}, not handed on with it."
    return dataclasses.replace(result, reason=result.reason + words) if words else result


def _same_fault(script: Script, result: Verification) -> Verification:
    """A script that shows another bad value than the reduction saw shows another fault."""
    if not result.verified or script.seen is None or f"seen {script.seen} " in result.output:
        return result
    if any(script.seen in pair for pair in re.findall(r"seen (\(\S*j\)) ", result.output)):  # a complex number
        return result
    reason = f"It shows another fault, with a value other than {script.seen}: {result.output.splitlines()[-1]}"
    return dataclasses.replace(result, verified=False, reason=reason)


def _words(best: Tried, failed: list[Tried]) -> str:
    """Why this one is offered."""
    words = f"It {best.script.does}. {best.result.reason}"
    for item in failed:
        words += f" A script that {item.script.does} does not show the fault. {item.result.reason}"
    return words


def _beside(item: Tried, folder: Path, hand: Hand) -> str | None:
    """Where a further script is kept; None for one that does not show the fault."""
    if not item.result.verified:
        return None
    path = folder / OTHER.format(level=item.script.level)
    hand.write(path, item.script.text)
    return path.name


def _hashes(answer: Answer) -> dict[str, str]:
    """The SHA-256 of the weight files, where a script may need them; of a .gguf file as the run knows it already."""
    reduction, checkpoint, files = answer.reduction or Reduction(), checkpoint_of(answer), answer.files
    if checkpoint is None or files is None or reduction.program is not None or reduction.module is not None:
        return {}
    if checkpoint.source == "gguf":
        return {checkpoint.files.id: Path(str(files.folder)).name}
    paths = {row.name: Path(checkpoint.path) / row.name for row in files.files}
    return {name: sha256(path) for name, path in paths.items() if path.is_file()}
