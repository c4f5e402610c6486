"""What the scripts that need the model's own files share: where these are, and how the model is loaded from them.

The text never says where the files are on this machine. A local model is the script's argument; one of the Hub is
fetched by its id and revision. Where the fault is in how the files are used, other files than these are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from repro.reproducer.frame import Document, before, frame, model_name
from repro.reproducer.script import Script
from repro.reproducer.values import call_lines, literal

NOTHING: Mapping[str, str] = {}
PATTERNS = ("*.json", "*.safetensors", "*.bin", "*.py", "*.model", "*.txt")
"""What a model folder is made of, as from_pretrained reads it."""
HEADS = (
    ("ForCausalLM", "AutoModelForCausalLM"),
    ("ForConditionalGeneration", "AutoModelForSeq2SeqLM"),
    ("ForMaskedLM", "AutoModelForMaskedLM"),
)
"""By which of Transformers' own classes a model with code of its own is loaded."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a model's files are.

    Args:
        source: folder, hub or gguf.
        name: The Hub id, or the last part of the path.
        path: The folder or .gguf file on this machine.
        revision: Of a Hub id.
        sha256: Of each weight file, by name, where it was computed.
    """

    source: str
    name: str
    path: str
    revision: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def argv(self) -> tuple[str, ...]:
        """What a script is given on this machine."""
        return () if self.source == "hub" else (self.path,)

    @property
    def usage(self) -> tuple[str, ...]:
        """The same, as anybody may read it."""
        return () if self.source == "hub" else (self.name,)

    def record(self) -> dict[str, Any]:
        """As it stands in verdict.json."""
        return {"id": self.name, "revision": self.revision, "sha256": dict(self.sha256)}


def checkpoint_of(document: Document, sha256: Mapping[str, str] = NOTHING) -> Checkpoint | None:
    """The files of the run's model; None where it has none, as with random weights."""
    files = document.get("files") or {}
    source, folder = files.get("source"), files.get("folder")
    if document["model"].get("weights") != "checkpoint" or source not in ("folder", "hub", "gguf") or not folder:
        return None
    path = str(document["model"]["id"]) if source == "gguf" else str(folder)
    return Checkpoint(source, model_name(document), path, files.get("revision"), sha256)


def needs_checkpoint(checkpoint: Checkpoint, code: bool = False, hashes: bool = True) -> str:
    """What a docstring says of the files that a script reads.

    Args:
        checkpoint: The files.
        code: Whether the model brings code of its own, which the script runs.
        hashes: With the hash of each file; not where the script holds them anyway, to check them.
    """
    listed = "; ".join(f"SHA-256 of {name}: {digest}" for name, digest in checkpoint.sha256.items() if hashes)
    revision = f", revision {checkpoint.revision}" if checkpoint.revision else ""
    kind = {"hub": "the model", "gguf": "the file", "folder": "the folder"}[checkpoint.source]
    given = "" if checkpoint.source == "hub" else " as its argument"
    runs = ", and runs the code that comes with the model" if code else ""
    return f"It needs {kind} {checkpoint.name}{revision}{given}{f' ({listed})' if listed else ''}{runs}."


def folder_lines(checkpoint: Checkpoint, check: bool) -> list[str]:
    """Where the files are; with ``check``, only if they are the very files of the run."""
    if checkpoint.source == "hub":
        revision = f", revision={literal(checkpoint.revision)}" if checkpoint.revision else ""
        lines = [
            "from huggingface_hub import snapshot_download",
            f"folder = snapshot_download({literal(checkpoint.name)}{revision}, allow_patterns={literal(PATTERNS)})",
        ]
    elif checkpoint.source == "gguf":
        lines = ["import os", "folder, name = os.path.split(os.path.abspath(sys.argv[1]))"]
    else:
        lines = ["folder = sys.argv[1]"]
    if not check or not checkpoint.sha256:
        return lines
    file = "name" if checkpoint.source == "gguf" else "file"
    return [
        *lines, "import hashlib", "import mmap", "import os",
        "SHA256 = {  # other files than these are another question",
        *(f"    {literal(name)}: {literal(digest)}," for name, digest in checkpoint.sha256.items()),
        "}",
        "for file, digest in SHA256.items():",
        f'    with open(os.path.join(folder, {file}), "rb") as stream:',
        "        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)",
        "        if hashlib.sha256(content).hexdigest() != digest:",
        '            raise ValueError(f"{file} is another file than the one that the fault was seen with")',
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Loading:
    """How from_pretrained is called: the class, its arguments, what that needs, whether the model's own code is run."""

    class_name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    trusts: bool = False

    def lines(self, before: str = "model = ", more: Sequence[str] = ()) -> list[str]:
        """The call, behind what it is assigned to, with further arguments."""
        return call_lines(f"{before}{self.class_name}.from_pretrained(", ["folder", *self.arguments, *more])


def loading(document: Document, checkpoint: Checkpoint) -> Loading:
    """The call that loads the model as the run did."""
    case, cell = document["case"], document["cell"]
    trust = bool(case.get("trust_remote_code"))
    own = str((document.get("load") or {}).get("class") or document["model"].get("class") or "")
    automatic = next(
        (auto for ending, auto in HEADS if own.endswith(ending)), "AutoModelForCausalLM" if not own else "AutoModel"
    )
    options: dict[str, str] = {}
    dtype = cell.get("dtype") if case.get("dtype") else None
    if dtype:
        options["torch_dtype" if before(document, "transformers", (4, 56)) else "dtype"] = f"torch.{dtype}"
    if case.get("attn") and not before(document, "transformers", (4, 36)):
        options["attn_implementation"] = literal(case["attn"])
    needs: tuple[str, ...] = ("torch", "transformers")
    if checkpoint.source == "gguf":
        options["gguf_file"] = "name"
        needs = (*needs, "accelerate", "gguf")
    if trust:
        options["trust_remote_code"] = "True"
    arguments = tuple(f"{name}={value}" for name, value in options.items())
    return Loading(automatic if trust or not own else own, arguments, needs, trust)


def reading_script(
    document: Document,
    checkpoint: Checkpoint,
    level: str,
    needs: tuple[str, ...],
    about: list[str],
    code: list[str],
    reason: str,
) -> Script:
    """A script that reads the checkpoint."""
    more = ("huggingface_hub",) if checkpoint.source == "hub" and "transformers" not in needs else ()
    needs = (*needs, *more)
    text = frame(document, needs, about, code)
    return Script(level, text, needs, reason, checkpoint.argv, checkpoint.usage, checkpoint.record())
