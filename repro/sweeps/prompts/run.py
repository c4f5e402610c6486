"""Many prompts in one run: the file read, the batches run, each answer kept as it comes, and what they amount to.

Memory does not grow with the number of prompts: the file is streamed, the kit keeps one batch, and of the answers only
what is counted stays.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from repro.core import paths
from repro.core.encoding import encode, replace
from repro.core.errors import EvidenceError, UsageError
from repro.core.folders import Claim, claim
from repro.core.locks import folder_held
from repro.core.sweep_answers import Prompts
from repro.engine.evidence import NAME as EVIDENCE
from repro.engine.runner import Listener
from repro.jobs.prompt_files import asked_examples, sha256
from repro.run import output
from repro.run.run import Request, Result, run_into
from repro.sweeps.prompts.answer import concluded, summary
from repro.sweeps.prompts.records import PromptRecords

HEADER = "prompts.json"
EXAMPLES = "examples.jsonl"
RECORDS = "prompts.jsonl"
VECTORS = "vectors.safetensors"


class Header(Claim, frozen=True, kw_only=True):
    """The content of ``prompts.json``: of which file, with how many examples, the folder's answers are."""

    total: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Asked:
    """Which prompts are run, and how. ``request`` has the model and the settings."""

    request: Request
    file: Path
    field: str | None = None
    pairs: bool = False
    layers: tuple[int, ...] = ()
    batch_size: int = 8
    max_length: int | None = None
    padding_side: str | None = None
    vectors: Path | None = None
    ablations: bool = False
    chat_template: bool = True

    def argv(self) -> tuple[str, ...]:
        """What of the command line says so, behind MODEL."""
        words = [str(self.file)]
        named = {"--field": self.field, "--max-length": self.max_length, "--padding-side": self.padding_side}
        named["--batch-size"] = self.batch_size
        for option, value in named.items():
            words += [] if value is None else [option, str(value)]
        for layer in self.layers:
            words += ["--layer", str(layer)]
        words += ["--pairs"] if self.pairs else []
        words += ["--ablations"] if self.ablations else []
        words += [] if self.chat_template else ["--no-chat-template"]
        return (*words, *(["--vectors", str(self.vectors)] if self.vectors else []))


def run(asked: Asked, listener: Listener) -> Result:
    """Run the prompts, or resume where an earlier run into the folder stopped.

    Raises:
        UsageError: the file cannot be read or holds no prompt, or the folder holds another question or was begun with
            other prompts.
        EvidenceError, CellError, Stopped: as a run of one prompt.
    """
    request = dataclasses.replace(asked.request, extra=asked.argv())
    total = _checked(asked)
    folder = paths.make(request.out or paths.run_folder(request.case, datetime.now(UTC), "prompts"))
    with folder_held(folder, request.words, listener.note):
        return _run(folder, asked, request, total, listener)


def _run(folder: Path, asked: Asked, request: Request, total: int, listener: Listener) -> Result:
    _claim(folder, asked, request, total)
    _write_examples(asked, folder)
    vectors = None if asked.vectors is None else str(asked.vectors.absolute())
    batches = {
        "file": str(folder / EXAMPLES),
        "total": total,
        "batch_size": asked.batch_size,
        "max_length": asked.max_length,
        "padding_side": asked.padding_side,
        "layers": list(asked.layers) or None,
        "vectors": vectors,
        "ablations": asked.ablations,
        "answers": str(folder / RECORDS),
    }
    kept = PromptRecords(folder / RECORDS)
    if kept.dropped:
        listener.note(f"the last line of {RECORDS} was cut off and is dropped")
    result = run_into(folder, dataclasses.replace(request, batches=batches), listener, kept.append)
    of_step = result.answer.prompts or Prompts()
    found, counted = summary(kept, of_step), of_step.good + of_step.bad + of_step.skip
    if found.asked < counted:
        raise EvidenceError(
            f"{kept.path} has {found.asked:,} of the {counted:,} answers that {EVIDENCE} counts: something else has "
            "written there. Give a new folder with --out."
        )
    if not found.asked:
        return result  # no model, or no layers: nothing was run
    answer = concluded(folder, kept, result.answer, request, replace(found, total=total))
    return Result(folder, output.write(folder, answer, whole=request.deliver))


def _checked(asked: Asked) -> int:
    """How many examples the file has. Reading it once in front costs little, and a wrong line shows before the load."""
    return sum(1 for _ in _examples(asked))


def _examples(asked: Asked) -> Iterator[dict[str, Any]]:
    return asked_examples(asked.file, asked.field, pairs=asked.pairs, chat_template=asked.chat_template)


def _claim(folder: Path, asked: Asked, request: Request, total: int) -> None:
    """Take the folder for this question; one that is resumed must be about the same prompts."""
    header = Header(command=request.argv(), total=total, sha256=sha256(asked.file))
    before = claim(folder / HEADER, header, "the prompts of")
    if before is not None and before.sha256 != header.sha256:
        raise UsageError(f"{asked.file} has changed since --out {folder} was begun with it. Give another folder.")


def _write_examples(asked: Asked, folder: Path) -> None:
    if (folder / EXAMPLES).exists():
        return
    beside = folder / f"{EXAMPLES}.part"
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.writelines(encode(item) + "\n" for item in _examples(asked))
        beside.replace(folder / EXAMPLES)
    except OSError as error:
        raise paths.not_written(beside, error) from error


def refuse_script(model: str) -> None:
    """Raises UsageError: a script has no layers to look into."""
    raise UsageError(f"{model} is a script: it runs its own prompts. Give a model.")
