"""Sibling models asked the same, one after the other, and what their answers have in common.

Each model has a folder of its own below the comparison's, with the whole run in it. A model that fails in a narrow
dtype is asked once more in a wider one, because only that shows how large its values would be. What has answered is not
asked again, so a comparison that was stopped resumes where it was.
"""

import concurrent.futures
import dataclasses
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from repro import __version__
from repro.core import paths
from repro.core.answer import Answer
from repro.core.encoding import replace
from repro.core.errors import Stopped, UsageError
from repro.core.folders import Claim, check_held_still, claim, seen
from repro.core.locks import folder_held
from repro.core.payloads import Plain
from repro.core.records import Kind, Outcome, Verdict
from repro.core.sentences import listed
from repro.core.sweep_answers import Comparison, SiblingModel
from repro.environments.store import Announcer
from repro.run import output
from repro.run.child import Children, Ran
from repro.run.run import Request, Result, Terminated, terminable
from repro.sweeps.matrix.join import nothing
from repro.sweeps.models.model import headrooms, settings_of, sibling
from repro.sweeps.models.settings import differing
from repro.sweeps.models.threshold import threshold

HEADER = "compare.json"
WIDER = {"float16": "float32", "bfloat16": "float32", "float32": "float64"}
"""The dtype in which a model that is bad in another one is asked again: the next one with a larger range, or, from
bfloat16 and float32 on, with more digits."""
POLL_SECONDS = 0.5
"""How often the wait for a model looks up: on Windows, a wait without an end would not see Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Comparing:
    """What is asked. ``requests`` has one for each model, all alike but for the model.

    ``many``: whether the prompts are those of a file, which then is the first word of each request's ``extra``.
    ``measure``: whether a model that is bad is asked in a wider dtype too.
    """

    requests: tuple[Request, ...]
    many: bool = False
    measure: bool = True
    out: Path | None = None

    def argv(self) -> tuple[str, ...]:
        """The command that gives all of it again, without the folder."""
        first = self.requests[0]
        made = [str(one.case.factory) for one in self.requests if not one.model]
        case = dataclasses.replace(first.case, factory=None) if made else first.case
        settings = dataclasses.replace(first, case=case, model="", extra=()).argv()[2:]
        models = [one.model for one in self.requests if one.model]
        models += [word for name in made for word in ("--factory", name)]
        file = ("--prompts", *first.extra) if self.many else ()
        switches = {"--no-measure": self.measure, "--no-bundle": first.deliver}
        left_out = [switch for switch, on in switches.items() if not on and switch not in settings]
        return ("repro", "compare", *models, *file, *settings, *left_out)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the runs of one model left; ``wider`` is None where it was not asked in a wider dtype."""

    request: Request
    name: str
    ran: Ran
    wider: Ran | None = None


def run(comparing: Comparing, announcer: Announcer) -> Result:
    """Ask every model, and write what follows from all of them.

    Raises:
        UsageError: there is nothing to compare, the folder holds something else, or another comparison is writing
            there.
        EvidenceError: the folder cannot be written.
        Stopped: Ctrl-C or SIGTERM; the models that have answered stay.
    """
    _check(comparing.requests)
    first = comparing.requests[0]
    folder = paths.make(comparing.out or paths.run_folder(first.case, datetime.now(UTC), "compare"))
    words = shlex.join(["repro", "compare", *(one.named for one in comparing.requests)])
    with folder_held(folder, words, announcer.line):
        return _run(folder, comparing, announcer)


def _run(folder: Path, comparing: Comparing, announcer: Announcer) -> Result:
    inputs = _inputs(comparing)
    claim(folder / HEADER, Claim(command=comparing.argv(), inputs=inputs), "a comparison of")
    children, asked = Children(), []
    names = _names(comparing.requests)
    try:
        with terminable():
            for number, (name, request) in enumerate(zip(names, comparing.requests, strict=True), 1):
                announcer.line(f"[{number}/{len(names)}] {name}")
                asked.append(_ask(comparing, request, name, folder, children, announcer))
    except KeyboardInterrupt as error:
        again = shlex.join([*comparing.argv(), "--out", str(paths.relative(folder))])
        raise Stopped(143 if isinstance(error, Terminated) else 130, again) from None
    check_held_still(inputs, _inputs(comparing), folder)
    answer = conclude(comparing, asked, folder)
    return Result(folder, output.write(folder, answer, whole=comparing.requests[0].deliver))


def _inputs(comparing: Comparing) -> dict[str, str]:
    """What identifies the files of every model, below the model's own name."""
    return {f"{one.named}: {name}": what for one in comparing.requests for name, what in seen(one.case).items()}


def _check(requests: Sequence[Request]) -> None:
    models = [(one.case.model, one.case.revision) for one in requests]
    if len(models) < 2:
        raise UsageError("a comparison needs at least two models: repro compare MODEL MODEL.")
    twice = next((one.named for one, model in zip(requests, models, strict=True) if models.count(model) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is named twice: it has nothing to be compared with there. Name it once.")
    script = next((one.model for one in requests if one.case.is_script), None)
    if script is not None:
        raise UsageError(f"{script} is a script, which has no size and no settings. Give models.")


def _names(requests: Sequence[Request]) -> list[str]:
    """A short name for each model that no other has, which is its folder's as well; of a factory, its function's."""
    names: list[str] = []
    for request in requests:
        named = Path(request.model).name or str(request.case.factory).rpartition(":")[2]
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", named).strip("-.")[:60] or "model"
        name, number = stem, 2
        while name.lower() in [taken.lower() for taken in names]:  # some file systems know no case
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names


def _ask(
    comparing: Comparing, request: Request, name: str, folder: Path, children: Children, announcer: Announcer
) -> Asked:
    """One model, and where it is bad the same in a wider dtype."""
    ran = _wait(children, request, folder / name)
    dtype = None if ran.answer is None else _narrow(ran.answer)
    if not comparing.measure or dtype is None:
        return Asked(request, name, ran)
    announcer.line(f"{name} is bad in {dtype}; in {WIDER[dtype]}, to see how large its values would be:")
    case = dataclasses.replace(request.case, dtype=WIDER[dtype])
    wider = _wait(children, dataclasses.replace(request, case=case), _wider_folder(folder / name, dtype))
    return Asked(request, name, ran, wider)


def _wider_folder(folder: Path, dtype: str) -> Path:
    return folder / WIDER[dtype]


def _narrow(answer: Answer) -> str | None:
    """The dtype that a bad model ran in, where there is a wider one."""
    bad = answer.verdict is Outcome.BAD and answer.kind is Kind.NONFINITE
    return answer.cell.dtype if bad and answer.cell.dtype in WIDER else None


def _wait(children: Children, request: Request, place: Path) -> Ran:
    """One run in a process of its own. The wait is in another thread, so that a signal is seen here."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            running = pool.submit(children.ask, request, request.cell, place, aloud=True, reduce=request.reduce)
            while not concurrent.futures.wait([running], timeout=POLL_SECONDS).done:
                pass
            return running.result()
        except BaseException:
            children.stop()  # before the pool is left, which waits for them
            raise


def conclude(comparing: Comparing, asked: Sequence[Asked], folder: Path) -> Answer:
    """The answer of all models.

    The smallest bad model, else the largest good one, represents them all: its steps and environment are the
    report's. The verdict is the whole comparison's.
    """
    pairs = [(_sibling(one, folder), one.ran.answer) for one in asked]
    pairs.sort(key=lambda pair: (pair[0].parameters is None, pair[0].parameters or 0))
    siblings = [one for one, _ in pairs]
    verdict, found, shown = _verdict(siblings), threshold(siblings), _shown(siblings)
    settings: list[Plain] = [{} if answer is None else settings_of(answer) for _, answer in pairs]
    different, same = differing(
        [one.name for one in siblings],
        settings,
        [one.parameters for one in siblings],
        [one.verdict for one in siblings],
    )
    first = comparing.requests[0]
    base = next((answer for one, answer in pairs if one is shown), None)
    reason = f"{verdict.reason[:1].upper()}{verdict.reason[1:]}."
    return replace(
        base or nothing(verdict, first.case, comparing.argv(), __version__),
        verdict=verdict.outcome,
        reason=reason,
        headline=" ".join([reason, *found.sentences[:1]]),
        command=shlex.join(comparing.argv()),
        private_prompts=first.private_prompts,
        comparison=Comparison(
            models=tuple(siblings),
            threshold=found,
            settings=different,
            same_settings=same,
            shown_model=None if shown is None else shown.name,
        ),
    )


def _sibling(asked: Asked, folder: Path) -> SiblingModel:
    answer, place = asked.ran.answer, folder / asked.name
    if answer is None:
        return SiblingModel(
            name=asked.name,
            model=asked.request.case.model,
            verdict=Outcome.SKIP,
            reason=str(asked.ran.reason),
            headroom=headrooms(None),
        )
    wider = None if asked.wider is None else asked.wider.answer
    dtype = _narrow(answer)
    return sibling(asked.name, place, answer, wider, place if dtype is None else _wider_folder(place, dtype))


def _verdict(siblings: Sequence[SiblingModel]) -> Verdict:
    """Bad if any model is; good if one is and none is bad; else skip. The reason names them."""
    told = {Outcome.BAD: "bad", Outcome.GOOD: "good", Outcome.SKIP: "without an answer"}
    named = {outcome: [one.name for one in siblings if one.verdict is outcome] for outcome in told}
    outcome = next(one for one in told if named[one])
    parts = [
        f"{len(names)} of {len(siblings)} models {'is' if len(names) == 1 else 'are'} {told[one]} ({listed(names)})"
        for one, names in named.items()
        if names
    ]
    return Verdict(outcome, "; ".join(parts))


def _shown(siblings: Sequence[SiblingModel]) -> SiblingModel | None:
    """The smallest bad model, else the largest good one; of several models, sorted by size."""
    bad = [one for one in siblings if one.verdict is Outcome.BAD]
    good = [one for one in siblings if one.verdict is Outcome.GOOD]
    return bad[0] if bad else good[-1] if good else None
