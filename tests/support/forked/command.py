"""Which commands may be forked: those whose start is known to be equal. Anything else is started as it stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FREE = re.compile(
    r"(REPRO|PIP|UV|PYTEST)_\w+|REPRO|HERE|FAKE_KIT|UNDISTURBED|PWD|OLDPWD|SHLVL|_|COLUMNS|LINES|NO_COLOR|FORCE_COLOR"
    r"|TMPDIR|TORCHINDUCTOR_CACHE_DIR|PYTORCH_NVML_BASED_CUDA_CHECK"
)
"""Variables that neither the interpreter nor a library reads while it starts or is imported; and two that PyTorch sets
itself when it is imported, as it has in a test that has imported it."""
READ = re.compile(r"(LD|LC|OMP|GOMP|MKL|KMP|TORCH|PYTORCH|ATEN|DNNL|ONEDNN|CUDA|HIP|ROCR|MALLOC|GLIBC)\w*|LANG|TZ")
"""Variables that PyTorch, what it stands on or the system's library reads when it is loaded."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Of these, the ones that can be made good afterwards; see ``fresh``."""
LIBRARIES = re.compile(r"\b(transformers|huggingface_hub|tokenizers|diffusers|datasets)\b")
"""What reads the place of the Hub's cache when it is imported."""
MODULES = ("repro", "pytest")


@dataclass(frozen=True)
class Command:
    """The command line of an interpreter.

    Args:
        kind: ``-m``, ``-c``, or a path of the kit.
        what: The module, the code, or the path.
        rest: The arguments.
        options: The interpreter's own: ``-I``, ``-B``, ``-P``, ``-X faulthandler``, ``-X utf8``.
        words: The whole.
    """

    kind: Literal["-m", "-c", "kit"]
    what: str
    rest: tuple[str, ...]
    options: frozenset[str]
    words: tuple[str, ...]

    @staticmethod
    def read(words: Sequence[str]) -> Command | None:
        """None for a command that is not to be forked."""
        if not words or words[0] != sys.executable:
            return None
        left, options = list(words[1:]), set()
        while left and left[0] in ("-I", "-B", "-P", "-X"):
            options.add(left.pop(0) if left[0] != "-X" else f"{left.pop(0)} {left.pop(0) if left else ''}")
        if not left or options - {"-I", "-B", "-P", "-X faulthandler", "-X utf8"}:
            return None
        kind = left.pop(0)
        if kind in ("-m", "-c") and left:
            what = left.pop(0)
            known = what in MODULES if kind == "-m" else bool(options & {"-I", "-P"})
            return Command(kind, what, tuple(left), frozenset(options), tuple(words)) if known else None  # type: ignore[arg-type]
        if kind.endswith("probes.pyz"):
            return Command("kit", kind, tuple(left), frozenset(options), tuple(words))
        return None

    @property
    def isolated(self) -> bool:
        """Whether the interpreter reads no variable of its own."""
        return "-I" in self.options


def fits(command: Command, env: Mapping[str, str], base: Mapping[str, str]) -> bool:
    """Whether a process with these variables may be a copy of one that has imported with those of ``base``."""
    differing = {name for name in {*env, *base} if env.get(name) != base.get(name)}
    differing = {name for name in differing if not FREE.fullmatch(name)}
    if "PYTHONPATH" not in env:
        differing.discard("PYTHONPATH")
    if not command.isolated:
        return not differing
    # A script that is verified: it has few variables, and of what they change it asks for PyTorch alone.
    if any(READ.fullmatch(name) for name in differing - {name for name in THREADS if name not in env}):
        return False
    return not any(LIBRARIES.search(_text(word)) for word in command.rest[:1])


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
