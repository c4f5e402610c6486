"""What is asked, of whom, and what was observed, as frozen records: a change gives a new record."""

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Outcome(enum.Enum):
    """The three answers. "Could not tell" is never folded into the other two."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


class Kind(enum.Enum):
    """What kind of fault a bad run shows; ``CRASH`` also names the reason of a skip."""

    NONFINITE = "nonfinite"
    DIVERGENT = "divergent"
    WEIGHTS = "weights"
    LOAD = "load"
    FILES = "files"
    CRASH = "crash"


class Fault(enum.Enum):
    """The fault that is hunted: a crash is bad only where the crash is it."""

    NONFINITE = "nonfinite"
    CRASH = "crash"


class Ending(enum.Enum):
    """How a step came to its end."""

    ENDED = "ended"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    NOT_RUN = "not_run"


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """An answer with its reason, one sentence."""

    outcome: Outcome
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """Model, weights source, inputs, dtype, device and settings, as the kit reads them from the plan.

    ``model`` is a Hub id, or the absolute path of a folder, a .gguf file or a script (.py). ``weights`` is "checkpoint"
    or "random:SEED". ``config`` is the path of a configuration that ships with the package (random weights only).
    None for ``device``, ``dtype`` or ``attn`` leaves the choice to the kit, which records it. ``texts`` is the path of
    the file that holds the prompts where they are withheld; then ``prompts`` has a placeholder for each. ``image``,
    ``audio`` and ``inputs`` are absolute paths of what the model is given: a picture and a sound for its processor, or
    a file of tensors that are its exact inputs.

    ``factory`` is "FILE.py:function", with the file's absolute path, or "package.module:function": a function that
    gives the model; ``model`` is then the same, or the weights that are loaded into it. ``generate`` is the number of
    tokens of a generation, ``train_step`` that of the steps of a training, ``accumulate`` that of the micro batches of
    a step; None for a forward pass alone, and for a batch that is not split. ``against``
    is another way of running the model, that it is held against. ``keep_float32`` and ``keep_bfloat16`` are "auto"
    where it is asked which modules must stay in that dtype.
    """

    model: str
    revision: str | None = None
    weights: str = "checkpoint"
    config: str | None = None
    device: str | None = None
    dtype: str | None = None
    attn: str | None = None
    prompts: tuple[str, ...] = ()
    trust_remote_code: bool = False
    texts: str | None = None
    factory: str | None = None
    generate: int | None = None
    train_step: int | None = None
    accumulate: int | None = None
    keep_float32: str | None = None
    keep_bfloat16: str | None = None
    image: str | None = None
    audio: str | None = None
    inputs: str | None = None
    against: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """The files that the model is given, by the option that names each."""
        named = {"--image": self.image, "--audio": self.audio, "--inputs": self.inputs}
        return {option: path for option, path in named.items() if path is not None}

    @property
    def phase(self) -> str:
        """What is asked of the model, which is the step that answers: "forward", "generate" or "train"."""
        if self.generate is not None:
            return "generate"
        return "forward" if self.train_step is None else "train"

    @property
    def phase_words(self) -> tuple[str, ...]:
        """The options that ask for the phase; none for a forward pass."""
        counts = {"--generate": self.generate, "--train-step": self.train_step, "--accumulate": self.accumulate}
        return tuple(word for option, count in counts.items() if count is not None for word in (option, str(count)))

    @property
    def is_script(self) -> bool:
        """A script answers by its own exit status; no model is loaded for it."""
        return self.model.endswith(".py") and Path(self.model).is_absolute()


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One environment: the interpreter that runs the kit."""

    python: str


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """What a cell is built from.

    ``python`` is a version such as "3.13", ``pins`` maps each package that is asked for to one exact version, and
    ``why`` is one sentence: what this cell can tell that no other can. ``lock`` is the path of a file with every
    package of the closure, or None where the closure is resolved when the cell is built.
    """

    id: str
    python: str
    device: str
    why: str
    pins: Mapping[str, str]
    lock: str | None = None

    @property
    def words(self) -> str:
        """``Python 3.13, torch 2.9.1, transformers 4.57.3``."""
        named = [f"{name} {self.pins[name]}" for name in ("torch", "transformers") if name in self.pins]
        return ", ".join([f"Python {self.python}", *named])


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What the kit is asked: the steps in order, the case, and the folder it may keep things in.

    ``prompts`` says which file of prompts is run, and how. ``trials`` are answers of a reduction that is gone on with,
    by the trial's name; None for one that never ended. ``files`` are the files of tensors that the scan step looks at.
    ``passed``: whether an earlier process has made the case's own passes to their end, so that they can be made again.
    """

    steps: tuple[str, ...]
    case: Case
    cache: str
    trials: Mapping[str, bool | None] | None = None
    prompts: Mapping[str, Any] | None = None
    files: tuple[str, ...] | None = None
    passed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why a step has no payload: an exception in the kit, or the end of its process."""

    type: str
    message: str
    traceback: str | None = None
    signal: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """A step's answer or failure, whole.

    ``exit_status`` is None while the process that answered runs. ``payload`` is JSON data as the kit sent it.
    """

    step: str
    ending: Ending
    verdict: Verdict
    seconds: float
    argv: tuple[str, ...]
    cell: Cell
    kit_sha256: str
    exit_status: int | None = None
    stderr_tail: tuple[str, ...] = ()
    payload: Mapping[str, Any] | None = None
    failure: Failure | None = None

    @property
    def fatal(self) -> bool:
        """Nothing behind this step can run."""
        return self.payload is not None and self.payload.get("fatal") is True


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """The first line of the evidence: what was asked, of whom, with which kit.

    ``inputs``: what identifies the files that are read and the packages of the interpreter, by name.
    """

    case: Case
    cell: Cell
    kit_sha256: str
    tool: str
    command: tuple[str, ...]
    started: str
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """The owner of the fault, where the evidence supports an answer; else ``project`` is None and the reason says why.

    ``advice`` says how to call it instead, where the call is at fault.
    """

    project: str | None
    reason: str
    advice: str | None = None
