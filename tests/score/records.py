"""What a case of the score is, and what must be answered. Plain data; no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """One place at which the fault is born: all of what is given must be answered.

    Args:
        module: The module's name; None where the program has no modules there.
        ops: Beginnings of the operator's name, such as "aten.add". Several are the same arithmetic by another name.
        line: In a script, the number of the line.
        forward: The operator is that of the forward pass, behind a backward operator; so is the line.
    """

    module: str | None = None
    ops: tuple[str, ...] = ()
    line: int | None = None
    forward: bool = False


@dataclass(frozen=True)
class Truth:
    """What must be answered, by the injection and plain arithmetic.

    Args:
        places: Where it is born. Several only where they are equally true; ``why`` then says so.
        mechanisms: Each is right.
        owners: Each is right. Leaving the owner open is never wrong.
        why: What was changed, and what must happen first because of it.
        tensors: The names of the weight or buffer that is bad, if one is; several where weights are tied.
        index: Where in it, as the file has it.
        phase: "forward", "loss", "backward" or "generate", where that is asked.
    """

    places: tuple[Place, ...]
    mechanisms: tuple[str, ...]
    owners: tuple[str, ...]
    why: str
    tensors: tuple[str, ...] = ()
    index: tuple[int, ...] | None = None
    phase: str | None = None


@dataclass(frozen=True)
class Case:
    """One thing that is examined: a fault, or its sound twin.

    Args:
        name: ``architecture/fault/place/dtype/way``; a twin's ends with "/sound".
        way: folder, script, backward, loss, generate, compiled, quantised, vision, audio or inputs.
        write: Writes it into an empty folder, and returns the model folder or the script.
        truth: What must be answered; None for a sound twin. A call, for it may take the model to say it.
        check: Asks plain torch whether the truth is true, of the fault and of its twin; answers what is not.
        dtype, attn: As ``--dtype`` and ``--attn``; of a model folder alone.
        prompt: Text for the folder's tokenizer.
        trusted: Code that comes with the folder may run.
        seconds: After which it is given up.
    """

    name: str
    architecture: str
    fault: str
    way: str
    write: Callable[[Path], Path]
    truth: Callable[[], Truth] | None
    check: Callable[[], str | None]
    dtype: str | None = None
    attn: str | None = None
    prompt: str | None = None
    trusted: bool = False
    seconds: float = 60.0

    @property
    def is_script(self) -> bool:
        """Whether a script is examined, and not a model folder."""
        return self.dtype is None
