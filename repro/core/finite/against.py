"""What a model may be held against, as the command line names it."""

from collections.abc import Mapping
from pathlib import Path

from repro.core.case import case_from
from repro.core.errors import UsageError
from repro.core.foreign import check_is_file
from repro.core.records import Case

WAYS: Mapping[str, str] = {
    "float64": "the same weights in float64",
    "float32": "in float32",
    "bfloat16": "in bfloat16",
    "float16": "in float16",
    "eager": "with eager attention",
    "sdpa": "with scaled_dot_product_attention",
    "cache": "a prefill, then token by token with the key-value cache",
    "batch": "in one batch, padded on the left",
    "batch:right": "in one batch, padded on the right",
    "training": "in training mode, with every dropout at 0",
    "training:checkpointing": "the same, with gradient checkpointing",
    "cpu": "on the CPU",
    "cuda": "on a CUDA GPU",
    "mps": "on Apple's GPU",
}
"""The ways of running a loaded model, and what each is."""


EXPECTED = (
    f"expected one of {', '.join(WAYS)}, compile, @REVISION, another model folder, an interpreter, the id of a cell,"
    " record:FOLDER, held:FOLDER, or logits in a .safetensors file."
)
TRACES = ("record", "held")
"""A folder into which the way is recorded, and one that holds a recording, made in whatever environment."""
BACKENDS = ("eager", "aot_eager", "inductor")
"""Of torch.compile, from the first stage to the last."""


def against_from(text: str, case: Case) -> str:
    """The other way, as the kit reads it; not that of an interpreter, which ``cli`` looks for.

    Raises:
        UsageError: there is no such way, file or folder.
    """
    name = {"batch:left": "batch"}.get(text, text)
    kind, _, rest = name.partition(":")
    if name in WAYS or name == "compile" or (kind == "compile" and rest in BACKENDS):
        return name
    if kind in TRACES and rest:
        return f"{kind}:{Path(rest).expanduser().absolute()}"
    if text.endswith(".safetensors"):
        path = Path(text).expanduser()
        if not path.exists():
            raise UsageError(f"--against {text}: there is no such file (looked for {path.absolute()}).")
        check_is_file(path)
        return f"file:{path.absolute()}"
    if text.startswith("@"):
        if case.factory is not None or Path(case.model).is_absolute():
            raise UsageError(f"--against {text}: a revision only means something where MODEL is a Hub id.")
        return f"model:{case.model}{text}"
    if Path(text).expanduser().exists() or "@" in text or "/" in text:
        if case.factory is not None:
            raise UsageError("--factory gives a module, and another folder is another model. Give MODEL alone.")
        try:
            other = case_from(text)
        except UsageError as error:
            raise UsageError(f"--against {text}: {error}") from None
        if other.is_script:
            raise UsageError(f"--against {text} is a script. {EXPECTED}")
        return f"model:{other.model}" + (f"@{other.revision}" if other.revision else "")
    raise UsageError(f"--against {text!r}: {EXPECTED}")
