"""What is said of code that ran in the user's own process: a verdict, an origin, and the report of both."""

import html
import sys
from functools import cached_property
from pathlib import Path

from repro.core import paths
from repro.core.answer import Answer
from repro.core.errors import UsageError
from repro.core.folders import check_unused
from repro.core.payloads import Origin
from repro.core.records import Observation, Outcome
from repro.core.sentences import plain
from repro.inprocess.recording import Recording
from repro.probes.live.answers import OfCall, OfOperators
from repro.probes.live.find import Found
from repro.probes.live.saved import save_call

LABELS = (
    ("module", "module"), ("op", "operator"), ("source", "line"), ("phase", "phase"), ("forward_op", "backward of"),
    ("forward_source", "at"), ("gradient", "gradient"), ("token", "token"), ("token_index", "token index"),
    ("channel_index", "channel"), ("tensor", "tensor"), ("value", "value"), ("reference_value", "reference"),
    ("limit", "limit"), ("confirmed_by", "confirmed by"),
)  # fmt: skip
"""Fields of an origin that are shown, and their names for people."""


VARIABLE = "the variable "
"""How the words begin that say that something arrived in one."""

MEANT = (
    "If it is meant, such as the Inf of a distance without a path: a variable that is deleted in the block, or whose "
    "name begins with _, is not looked at."
)

GUARD = (
    "repro.Guard(model, optimizer, out=FOLDER) around the loop saves the step that goes bad; repro.watch(model) knows "
    "the calls of that model."
)


class Finding:
    """One answer.

    Attributes:
        verdict: "good", "bad", or "skip" where it could not be told.
        reason: The answer in one or two sentences.
        origin: Where the first bad value is born, with the fields of ``verdict.json``'s origin (``module``, ``op``,
            ``mechanism``, ``source``, ``forward_source``, ``phase``, ``token_index``, ...); None where there is none.
        answer: All of it, as ``verdict.json`` holds it.
    """

    def __init__(self, recording: Recording, deciding: str) -> None:
        self._recording = recording
        self.verdict, self.reason = recording.told[deciding][:2]
        self._folder: Path | None = None

    def __bool__(self) -> bool:
        """Whether there is a fault."""
        return self.verdict == Outcome.BAD.value

    @cached_property
    def answer(self) -> Answer:
        return self._recording.answer()

    @property
    def origin(self) -> Origin | None:
        return self.answer.origin if self else None

    def report(self, out: str | Path) -> Path:
        """Ask what is left to ask (ablations, the smallest case), and write the same folder as the command ``repro``:
        report.md, report.html, verdict.json, evidence.jsonl, bundle.zip, and reproducer.py where one was verified.

        The module is asked as it is now: call this before it changes.

        Args:
            out: A new or empty folder.

        Returns:
            The path of report.md.

        Raises:
            repro.core.errors.UsageError: the folder holds something else.
            repro.core.errors.EvidenceError: it cannot be written.
        """
        result = self._recording.write(Path(out), _Listener())
        self.answer = result.answer
        if not self and self.answer.verdict is Outcome.BAD:  # finite, and wrong
            self.verdict, self.reason = self.answer.verdict.value, self.answer.reason
        self._folder = result.folder
        return result.folder / "report.md"

    def save_step(self, folder: str | Path) -> Path:
        """Save the bad call of the module: its inputs, the random state, the autocast and the weights. It is made again
        elsewhere by ``repro replay FOLDER --factory FILE.py:function``, or ``repro.replay(FOLDER, model)``.

        Args:
            folder: A new or empty folder.

        Returns:
            The folder.

        Raises:
            repro.core.errors.UsageError: there is no such call, or the module has changed since; the message says what
                to do. Or the folder holds something.
            OSError: it cannot be written.
        """
        call = self._call
        if call is None:
            raise UsageError(self._no_step)
        if not call.is_as_it_was:
            raise UsageError(
                f"The module's weights or mode were changed after the bad call, so it cannot be saved. {GUARD}"
            )
        made = paths.make(Path(folder))
        check_unused(made)
        save_call(str(made), call)
        return made

    @property
    def _call(self) -> Found | None:
        """The call that gave a NaN or Inf; None where the fault is none of one call's, or it cannot be made again."""
        session = self._recording.session
        call = session.call if self and isinstance(session, (OfCall, OfOperators)) else None
        return call if call is not None and call.forward[0] == Outcome.BAD.value else None

    @property
    def _no_step(self) -> str:
        """Why there is nothing to save, and what saves it."""
        if not self:
            return "There is no bad call of the module, so there is nothing to save."
        return f"This is not known to be the fault of one call of a module that was named, so no step is kept. {GUARD}"

    @property
    def text(self) -> str:
        """The answer in words."""
        return self.answer.headline if self else f"{self.reason[:1].upper()}{self.reason[1:]}."

    def __repr__(self) -> str:
        origin = self.origin
        lines = [f"{self.verdict.upper()}  {self.text}"]
        if origin is not None:
            width = max(len(label) for _, label in LABELS)
            lines += [f"  {label:<{width}}  {value}" for label, value in _rows(origin)]
        if self and self.answer.watch is not None and (self.answer.watch.arrived or "").startswith(VARIABLE):
            lines.append(f"  {MEANT}")
        if self._call is not None:
            lines.append("  .save_step(FOLDER) saves the call for `repro replay`.")
        if self and self._folder is None:
            lines.append("  .report(FOLDER) writes the report and the script that shows it.")
        elif self._folder is not None:
            lines.append(f"  Report: {self._folder / 'report.md'}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        colour = {"good": "#1a7f37", "bad": "#cf222e"}.get(self.verdict, "#9a6700")
        origin = self.origin
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left'>{html.escape(label)}</th>"
            f"<td style='text-align:left'><code>{html.escape(value)}</code></td></tr>"
            for label, value in (_rows(origin) if origin is not None else ())
        )
        table = f"<table>{rows}</table>" if rows else ""
        return (
            f"<div><p><strong style='color:{colour}'>{self.verdict.upper()}</strong> {html.escape(self.text)}</p>"
            f"{table}</div>"
        )


def _rows(origin: Origin) -> list[tuple[str, str]]:
    """Label and value of each field that says something."""
    found = [(label, getattr(origin, name)) for name, label in LABELS]
    return [
        (label, plain(value) if isinstance(value, float) else str(value))
        for label, value in found
        if value is not None and value != ""
    ]


class _Listener:
    """Says what goes on while a report is made, where somebody looks."""

    def __init__(self) -> None:
        self._shows = sys.stderr is not None and sys.stderr.isatty()

    def started(self, step: str) -> None:
        if self._shows:
            sys.stderr.write(f"repro: {step} ...\n")

    def progress(self, step: str, done: int, total: int, unit: str) -> None:
        """A step in this process is not interrupted to be told about."""

    def ended(self, observation: Observation) -> None:
        """What comes next says it."""

    def note(self, text: str) -> None:
        if self._shows:
            sys.stderr.write(f"repro: {text}\n")
