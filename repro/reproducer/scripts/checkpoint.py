"""What scripts that read the model's own files share: where the files are, and how the model is loaded from them.

The text never says where the files are on this machine. A local model is the script's argument, and one of the Hub is
fetched by its id and revision. Where the fault is in how the files are used, other files than these are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repro.core.answer import Answer, CheckpointFiles
from repro.reproducer.code.tensors import call_lines, literal
from repro.reproducer.frame import before, frame, model_name
from repro.reproducer.script import Script

NO_HASHES: Mapping[str, str] = {}
PATTERNS = ("*.json", "*.safetensors", "*.bin", "*.py", "*.model", "*.txt")
"""The files of a model folder that from_pretrained reads."""
HEADS = (
    ("ForCausalLM", "AutoModelForCausalLM"),
    ("ForConditionalGeneration", "AutoModelForSeq2SeqLM"),
    ("ForMaskedLM", "AutoModelForMaskedLM"),
)
"""Which of Transformers' own classes loads a model with its own code."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a model's files are.

    Args:
        source: folder, hub or gguf.
        path: The folder or .gguf file on this machine.
        files: What is public of them: the Hub id, or the last part of the path; the revision; the SHA-256 of each
            weight file, where it was computed.
    """

    source: str
    path: str
    files: CheckpointFiles

    @property
    def argv(self) -> tuple[str, ...]:
        """What a script is given on this machine."""
        return () if self.source == "hub" else (self.path,)

    @property
    def usage(self) -> tuple[str, ...]:
        """The same, as a stranger would read it."""
        return () if self.source == "hub" else (self.files.id,)


def checkpoint_of(answer: Answer, sha256: Mapping[str, str] = NO_HASHES) -> Checkpoint | None:
    """The files of the run's model; None where it has none, as with random weights."""
    files, model = answer.files, answer.model
    if model.weights != "checkpoint" or files is None or not files.folder:
        return None
    if files.source not in ("folder", "hub", "gguf"):
        return None
    path = model.id if files.source == "gguf" else files.folder
    if files.adapter is not None and _is_in_adapter(answer):
        path = files.adapter
    public = CheckpointFiles(id=model_name(answer), revision=files.revision, sha256=dict(sha256))
    return Checkpoint(files.source, path, public)


def _is_in_adapter(answer: Answer) -> bool:
    """Whether the bad tensor lies in the adapter's own file, and not in its base model's."""
    findings = () if answer.weights is None else answer.weights.findings
    return bool(findings) and str(findings[0].file).startswith("adapter_model.")


def needs_checkpoint(checkpoint: Checkpoint, code: bool = False, hashes: bool = True) -> str:
    """What a docstring says of the files that a script reads.

    Args:
        checkpoint: The files.
        code: Whether the script runs the model's own code.
        hashes: With the hash of each file; not where the script's code has them already, to check them.
    """
    files = checkpoint.files
    listed = "; ".join(f"SHA-256 of {name}: {digest}" for name, digest in files.sha256.items() if hashes)
    revision = f", revision {files.revision}" if files.revision else ""
    kind = {"hub": "the model", "gguf": "the file", "folder": "the folder"}[checkpoint.source]
    given = "" if checkpoint.source == "hub" else " as its argument"
    runs = " It runs the model's own code." if code else ""
    return f"It needs {kind} {files.id}{revision}{given}{f' ({listed})' if listed else ''}.{runs}"


def folder_lines(checkpoint: Checkpoint, check: bool) -> list[str]:
    """Where the files are; with ``check``, only if they are the very files of the run."""
    files = checkpoint.files
    if checkpoint.source == "hub":
        revision = f", revision={literal(files.revision)}" if files.revision else ""
        lines = [
            "from huggingface_hub import snapshot_download",
            f"folder = snapshot_download({literal(files.id)}{revision}, allow_patterns={literal(PATTERNS)})",
        ]
    elif checkpoint.source == "gguf":
        lines = ["import os", *_given("file", "the .gguf file"), "folder, name = os.path.split(os.path.abspath(file))"]
    else:
        lines = _given("folder", "the folder of the model")
    if not check or not files.sha256:
        return lines
    file = "name" if checkpoint.source == "gguf" else "file"
    return [
        *lines, "import hashlib", "import mmap", "import os",
        "SHA256 = {  # the fault was seen with these files; others may not have it",
        *(f"    {literal(name)}: {literal(digest)}," for name, digest in files.sha256.items()),
        "}",
        "for file, digest in SHA256.items():",
        f'    with open(os.path.join(folder, {file}), "rb") as stream:',
        "        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)",
        "        if hashlib.sha256(content).hexdigest() != digest:",
        '            raise ValueError(f"{file} is not the file that the fault was seen with: its SHA-256 differs")',
    ]  # fmt: skip


def _given(name: str, what: str) -> list[str]:
    """What the script is called with; without it, it ends with 2 and says so: 1 would say that the fault is there."""
    return [
        "import argparse",
        "parser = argparse.ArgumentParser()",
        f'parser.add_argument("{name}", help="{what}")',
        f"{name} = parser.parse_args().{name}",
    ]


@dataclass(frozen=True, slots=True)
class Loading:
    """How from_pretrained is called: the class, its arguments, the packages needed, whether the model's code is run.

    ``published`` is what stands for the folder where the files are on the Hub.
    """

    class_name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    trusts: bool = False
    published: tuple[str, ...] = ()

    def lines(self, before: str = "model = ", more: Sequence[str] = (), *, by_id: bool = False) -> list[str]:
        """The call, behind what it is assigned to, with further arguments. ``by_id``: with the model's id on the Hub,
        where it has one, and else with the folder that the script has found.
        """
        model = self.published if by_id and self.published else ("folder",)
        return call_lines(f"{before}{self.class_name}.from_pretrained(", [*model, *self.arguments, *more])


def loading(answer: Answer, checkpoint: Checkpoint) -> Loading:
    """The call that loads the model as the run did."""
    case = answer.case
    own = (answer.load and answer.load.class_) or answer.model.class_ or ""
    automatic = next(
        (auto for ending, auto in HEADS if own.endswith(ending)), "AutoModelForCausalLM" if not own else "AutoModel"
    )
    options: dict[str, str] = {}
    if case.dtype and answer.cell.dtype:
        options["torch_dtype" if before(answer, "transformers", (4, 56)) else "dtype"] = f"torch.{answer.cell.dtype}"
    if case.attn and not before(answer, "transformers", (4, 36)):
        options["attn_implementation"] = literal(case.attn)
    needs: tuple[str, ...] = ("torch", "transformers")
    if checkpoint.source == "gguf":
        options["gguf_file"] = "name"
        needs = (*needs, "accelerate", "gguf")
    if case.trust_remote_code:
        options["trust_remote_code"] = "True"
    arguments = tuple(f"{name}={value}" for name, value in options.items())
    name = automatic if case.trust_remote_code or not own else own
    return Loading(name, arguments, needs, case.trust_remote_code, _published(checkpoint))


def _published(checkpoint: Checkpoint) -> tuple[str, ...]:
    """How from_pretrained is told the very files of the Hub: the id, and a revision, which never changes."""
    files = checkpoint.files
    if checkpoint.source != "hub" or not files.revision:
        return ()
    return literal(files.id), f"revision={literal(files.revision)}"


def reading_script(
    answer: Answer,
    checkpoint: Checkpoint,
    level: str,
    needs: tuple[str, ...],
    about: list[str],
    code: list[str],
    does: str,
) -> Script:
    """A script that reads the checkpoint."""
    more = ("huggingface_hub",) if checkpoint.source == "hub" and "transformers" not in needs else ()
    needs = (*needs, *more)
    text = frame(answer, needs, about, code)
    return Script(level, text, needs, does, checkpoint.argv, checkpoint.usage, checkpoint.files)
