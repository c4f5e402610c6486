"""What was found in this process, as the records that a command's kit gives: the same judge, report and bundle."""

import io
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from repro import __version__
from repro.core import paths
from repro.core.answer import Answer
from repro.core.errors import UsageError
from repro.core.folders import check_unused
from repro.core.locks import folder_held
from repro.core.records import Case, Cell, Ending, Header, Observation, Outcome, Verdict
from repro.diagnosis.answer import answer
from repro.diagnosis.verdict import judge
from repro.engine.evidence import Evidence
from repro.engine.kit import pack
from repro.probes.live.answers import OfCall
from repro.probes.model.ready import left_alone
from repro.probes.model.session import Session
from repro.probes.observe.watch import aside
from repro.probes.protocol.failures import in_words
from repro.probes.protocol.wire import Emitter, jsonable
from repro.probes.steps import registry
from repro.run.run import Request, Result, conclude

Told = tuple[str, str, dict[str, Any] | None]
"""Verdict, reason and payload of a step."""
BESIDE = ("step",)
"""What a guard has put into the folder before."""
MEMORY = "memory"
"""Where the weights come from: they are in memory, and no file is known that holds them."""


@dataclass(slots=True)
class Recording:
    """The steps that were answered in this process so far.

    ``command`` is "find" or "watch"; ``name`` the model's class, or what stands for it. ``session`` answers the steps
    that are left, in this process, from the very module and inputs.
    """

    command: str
    name: str
    told: dict[str, Told]
    session: Session | None = None
    device: str | None = None
    dtype: str | None = None
    attn: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def request(self) -> Request:
        """As a command would have asked it."""
        case = Case(model=self.name, weights=MEMORY, device=self.device, dtype=self.dtype, attn=self.attn)
        return Request(self.command, self.name, case, Cell(sys.executable), program=program())

    def answer(self) -> Answer:
        """What is known by now, without a folder."""
        request = self.request()
        known = {step: self._observation(request, step, told) for step, told in self._measured().items()}
        return answer(judge(known, request.case, request.deciding), known, self._header(request))

    def ask(self, step: str) -> bool:
        """Answer a step now, from the very module, which is left alone; whether it is bad."""
        assert isinstance(self.session, OfCall)
        with aside(), left_alone(self.session.loaded().model):
            self.told[step] = self._asked(step)
        return self.told[step][0] == Outcome.BAD.value

    def write(self, folder: Path, listener: Any) -> Result:
        """Answer the steps that are left, and write the same folder as a command.

        Raises:
            UsageError: the folder holds something else, or is in use.
            EvidenceError: it cannot be written.
        """
        request = self.request()
        folder = paths.make(folder)
        with folder_held(folder, request.words, listener.note):
            check_unused(folder, *BESIDE)
            evidence = Evidence(folder)
            if evidence.header is not None:
                raise UsageError(f"{folder} holds a run already. Give another folder.")
            evidence.begin(self._header(request))
            known = self._measured()
            for step in request.steps:
                listener.started(step)
                begin = time.monotonic()
                told = known[step] if step in known else self._asked(step)
                seconds = self.seconds.get(step, time.monotonic() - begin)
                observation = self._observation(request, step, told, seconds)
                evidence.append(observation)
                listener.ended(observation)
            return conclude(request, folder, evidence, listener)

    def _measured(self) -> dict[str, Told]:
        if "environment" not in self.told:
            self.told["environment"] = registry.run(_session({}), "environment", False)
        return {step: self.told[step] for step in self.request().steps if step in self.told}

    def _asked(self, step: str) -> Told:
        """A step that is answered now. What it raises is its answer."""
        if self.session is None:
            return "skip", "what was watched cannot be run again", None
        try:
            found: Told = registry.run(self.session, step, False)
        except Exception as error:  # noqa: BLE001 - the model's own code may raise anything
            return "skip", in_words(error), None
        return found

    def _header(self, request: Request) -> Header:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Header(request.case, request.cell, _kit_sha256(), __version__, request.argv(), now)

    def _observation(self, request: Request, step: str, told: Told, seconds: float = 0.0) -> Observation:
        verdict, reason, payload = told
        return Observation(
            step=step,
            ending=Ending.ENDED,
            verdict=Verdict(Outcome(verdict), reason),
            seconds=seconds,
            argv=program(),
            cell=request.cell,
            kit_sha256=_kit_sha256(),
            payload=jsonable(payload),
        )


def _session(case: dict[str, Any]) -> Session:
    return Session(case, str(paths.cache_folder()), Emitter(io.StringIO()))


_sha: list[str] = []


def _kit_sha256() -> str:
    if not _sha:
        _sha.append(pack().sha256)
    return _sha[0]


def program() -> tuple[str, ...]:
    """How this process's program is started, as far as it can be told."""
    named = sys.argv[0] if sys.argv else ""
    return ("python", *sys.argv) if named.endswith(".py") and "ipykernel" not in named else ("python",)
