"""MODEL -> where its files are.

A folder or a ``.gguf`` file is taken as it is. A Hub id is looked for in the cache first and on the network if there
is one; without either, the error says what was looked for and what can be done.
"""

import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from . import limits
from .opening import check_is_file, read_json
from .others import PIPELINE, of_another_package, parts_of

Progress = Callable[[int, int, str], None]
TOLD_EVERY = 0.5  # seconds between two reports of a download
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?$")
FORMS = (
    ("safetensors", "model.safetensors", "model.safetensors.index.json"),
    ("safetensors", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
    ("pickle", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    ("pickle", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.bin.index.json"),
)
"""Format, the name of a file with all weights, and that of an index of shards; those of diffusers' parts too."""
WEIGHT_FILES = tuple(name for _, *names in FORMS for name in names)
ADAPTER, MODULES = "adapter_config.json", "modules.json"
READ = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".tiktoken", ".py")  # of what libraries open
WEIGHTS = (".safetensors", ".bin", ".index.json")
# Files that a folder of the same name would hide.
MAIN = (*WEIGHT_FILES, "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
# The weights of a pipeline's parts, with their shards; not the same once more in another precision, or in one file.
OF_PART = re.compile(r"(?P<part>[^/]+)/(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors")
CHECKER = "safety_checker"  # of pictures; it is not run
# What a forward pass needs; the same model in ONNX, TensorFlow or Flax form would only cost time.
SUPPORT_PATTERNS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")


class CannotResolve(Exception):
    """The model's files are not to be had here. The message says what was looked for and what can be done."""


@dataclass(frozen=True)
class Source:
    """Where a model's files are.

    kind: "folder", "hub", "gguf" or "random" (no weight file is read; ``config`` names the architecture).
    note: what was done to get there, if anything was.
    folder: what from_pretrained is given; for "gguf" it is set once the file is converted.
    adapter: a folder with a LoRA adapter; ``folder`` is then that of its base model. encoder: a folder with the modules
    of a sentence encoder; ``folder`` is then that of its transformer. package: the package that runs the folder, where
    that is not Transformers.
    stored_as: for "gguf", the name that the file itself has for each of the folder's tensors, where it is known.
    """

    kind: str
    folder: Optional[str]
    revision: Optional[str] = None
    gguf: Optional[str] = None
    config: Optional[str] = None
    seed: Optional[int] = None
    note: Optional[str] = None
    adapter: Optional[str] = None
    encoder: Optional[str] = None
    package: Optional[str] = None
    stored_as: Mapping[str, str] = field(default_factory=dict)


def seed_of(weights: str) -> Optional[int]:
    """The seed of "random:SEED"; None for "checkpoint".

    Raises:
        ValueError: it is neither.
    """
    if weights == "checkpoint":
        return None
    if not re.fullmatch(r"random:[0-9]+", weights):
        raise ValueError(f"weights are checkpoint or random:SEED with a whole number for SEED, not {weights!r}")
    return int(weights.split(":", 1)[1])


def is_script(model: Optional[str]) -> bool:
    """Whether MODEL is a script: the path of a .py file, which need not be there."""
    return model is not None and model.endswith(".py") and not os.path.isdir(os.path.expanduser(model))


def _silent(done: int, total: int, unit: str) -> None:
    """Nobody is told."""


def resolve(case: dict[str, Any], progress: Progress = _silent) -> Source:
    """The source of ``case["model"]``; ``progress`` is told how much of a download is done.

    Raises:
        CannotResolve: neither a file here, nor in the Hub's cache, nor on the network.
    """
    model = str(case["model"])
    seed = seed_of(str(case.get("weights") or "checkpoint"))
    if seed is not None:
        config = case.get("config") or _config_of(model, case.get("revision"), progress)
        found = Source("random", None, config=str(config), seed=seed)
        return _packaged(found, str(config)) or found
    path = os.path.expanduser(model)
    if os.path.isdir(path):
        place = os.path.abspath(path)
        return (
            _packaged(Source("folder", place), place) or _adapted(place) or _encoder(place) or Source("folder", place)
        )
    if os.path.isfile(path):
        if not path.endswith(".gguf"):
            raise CannotResolve(
                f"{model} is a file, but not a .gguf file. Give a model folder, a .gguf file, or a Hub id."
            )
        return Source("gguf", None, gguf=os.path.abspath(path))
    identifier, revision = split_revision(model, case.get("revision"))
    if not HUB_ID.match(identifier) or model.endswith(".gguf"):
        raise CannotResolve(f"There is no file or folder {model}. Check the path, or give a Hub id such as gpt2.")
    folder, sha = _hub_folder(identifier, revision, progress)
    found = Source("hub", folder, revision=sha)
    return _packaged(found, folder) or found


def _packaged(source: Source, folder: str) -> Optional[Source]:
    """The same for a folder that another package runs; None for any other.

    Raises:
        CannotResolve: the interpreter does not have that package.
    """
    other = of_another_package(folder)
    if other is not None and not other.can_run:
        raise CannotResolve(other.refusal(folder))
    return None if other is None else replace(source, package=other.package, note=other.what)


def _adapted(folder: str) -> Optional[Source]:
    """The base model of a folder that holds an adapter and no model; None for any other.

    Raises:
        CannotResolve: the base model is not named, or not to be had.
    """
    config = os.path.join(folder, ADAPTER)
    if not os.path.exists(config) or any(os.path.lexists(os.path.join(folder, name)) for name in WEIGHT_FILES):
        return None
    settings = _content(config)
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if not isinstance(base, str) or not base:
        raise CannotResolve(
            f"{folder} is an adapter, and its {ADAPTER} names no base model: write its folder or Hub id as"
            " base_model_name_or_path."
        )
    beside = os.path.join(folder, os.path.expanduser(base))
    place = beside if os.path.isdir(beside) else os.path.expanduser(base)
    if os.path.abspath(place) == folder or os.path.exists(os.path.join(place, ADAPTER)):
        raise CannotResolve(f"{folder} is an adapter on {place}, which is an adapter as well: merge that one first.")
    try:
        found = resolve({"model": place, "revision": settings.get("revision")})
    except CannotResolve as error:
        raise CannotResolve(
            f"{folder} is an adapter on {base}, which is not here. Put its folder there, or correct"
            f" base_model_name_or_path in {ADAPTER}. ({error})"
        ) from None
    return replace(found, adapter=folder, note=f"an adapter on {base}")


def _content(path: str) -> Any:
    """The JSON of a small file.

    Raises:
        CannotResolve: it cannot be read.
    """
    try:
        check_is_file(path)
        return read_json(path, limits.CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise CannotResolve(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _encoder(folder: str) -> Optional[Source]:
    """The transformer of a folder that holds a sentence encoder; None for any other.

    Raises:
        CannotResolve: its list of modules is none, or begins with something else than a transformer here.
    """
    path = os.path.join(folder, MODULES)
    if not os.path.exists(path):
        return None
    rows = _content(path)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise CannotResolve(f"{path} is no list of modules, as sentence-transformers writes one.")
    first = str(rows[0].get("path", ""))
    place = os.path.join(folder, first) if first else folder
    if first != os.path.basename(first) or not os.path.exists(os.path.join(place, "config.json")):
        raise CannotResolve(
            f"{folder} is a sentence encoder, and its first module ({str(rows[0].get('type', ''))[:80]}) is no"
            " transformer with a config.json here. The package sentence-transformers runs it: give a script that does."
        )
    return Source("folder", place, encoder=folder, note="the transformer of a sentence encoder")


def refuse_odd_files(source: Source) -> None:
    """Refuse what a library would read of the source and is no file: reading it might never end.

    Raises:
        CannotResolve: naming it.
        OverLimit: the tokenizer's file is larger than is read without being asked.
    """
    place = source.config or source.folder
    if place is None or not os.path.isdir(place):
        paths = [place] if place is not None else []
    else:
        paths = [os.path.join(place, name) for name in sorted(os.listdir(place)) if name.endswith(READ)]
    for path in paths:
        if not os.path.exists(path) or (os.path.isdir(path) and os.path.basename(path) not in MAIN):
            continue  # a link to nothing is the files step's finding; any other folder is left alone
        try:
            check_is_file(path)
        except OSError as error:
            raise CannotResolve(f"{path} cannot be read: {error.strerror}. Give a file.") from None
        if os.path.basename(path) in MAIN and not path.endswith(WEIGHTS):
            most = limits.CONFIG_BYTES if path.endswith("config.json") else limits.TOKENIZER_BYTES
            limits.check(path, os.path.getsize(path), most, "bytes")


def split_revision(model: str, revision: Optional[str]) -> tuple[str, Optional[str]]:
    """("gpt2", "abc") from "gpt2@abc"."""
    if "@" in model:
        model, at = model.split("@", 1)
        return model, at or revision
    return model, revision


def _config_of(model: str, revision: Optional[str], progress: Progress) -> str:
    path = os.path.expanduser(model)
    if os.path.isdir(path):
        return path
    identifier, revision = split_revision(model, revision)
    if not HUB_ID.match(identifier):
        raise CannotResolve(f"There is no folder {model}, so its architecture is not known.")
    folder, _ = _hub_folder(identifier, revision, progress, weights=False)
    return folder


def _hub_folder(
    identifier: str, revision: Optional[str], progress: Progress, weights: bool = True
) -> tuple[str, Optional[str]]:
    """The snapshot folder of a Hub model, from the cache or the network.

    A snapshot counts as cached when it holds config.json and, where ``weights`` are wanted, a weight file or its
    index. One that lacks files is left by a download that was cut: it is completed if the network brings the rest, and
    taken as it is otherwise. What is missing then is the files step's finding.
    """
    from huggingface_hub import constants

    tried: list[str] = []
    in_part: Optional[str] = None
    advice = f"Download it where there is a network (hf download {identifier}), set HF_HOME to a cache that has it"
    cached, whole, why = _cached(identifier, revision)
    if cached is None:
        tried.append(f"it is not in the cache {constants.HF_HUB_CACHE} ({why})")
    elif not _usable(cached, weights):
        tried.append("the cached snapshot {} has no {}".format(cached, "weights" if weights else "config.json"))
    elif not weights or (whole and _has_all_shards(cached)):
        return cached, os.path.basename(cached)
    else:
        in_part = cached
    if constants.HF_HUB_OFFLINE:
        tried.append("HF_HUB_OFFLINE is set, so the network was not asked")
    else:
        try:
            folder = _downloaded(identifier, revision, _patterns(identifier, revision, weights), progress)
            if _usable(folder, weights):
                return folder, os.path.basename(folder)
            tried.append(
                "the Hub's copy has no {}".format("safetensors or pickle weights" if weights else "config.json")
            )
        except Exception as error:  # noqa: BLE001 - as above
            tried.append(f"the network did not bring it ({type(error).__name__}: {first_line(error)})")
            advice = _advice(identifier, revision, error) or advice
    if in_part is not None:
        return in_part, os.path.basename(in_part)
    at = "@" + revision if revision else ""
    raise CannotResolve(
        "{}{} is not to be had: there is no folder of that name; {}. {}, or give a folder{}.".format(
            identifier, at, "; ".join(tried), advice, ", or build it with --weights random:0" if weights else ""
        )
    )


def _cached(identifier: str, revision: Optional[str]) -> tuple[Optional[str], bool, str]:
    """The cached snapshot, whether all of it that is wanted is there, and why there is none.

    A library that remembers the repository's list of files refuses a snapshot without those that were never asked for,
    so that snapshot is looked for by the cache's documented layout.
    """
    from huggingface_hub import constants, snapshot_download

    wanted = [*SUPPORT_PATTERNS, "*.safetensors"]
    try:
        return snapshot_download(identifier, revision=revision, local_files_only=True, allow_patterns=wanted), True, ""
    except Exception as error:  # noqa: BLE001 - the Hub library's dozen error classes differ by release
        why = type(error).__name__
    root = os.path.join(constants.HF_HUB_CACHE, "models--" + identifier.replace("/", "--"))
    commit = revision or "main"
    ref = os.path.join(root, "refs", *commit.split("/"))
    try:
        if os.path.isfile(ref):
            with open(ref, encoding="utf-8") as stream:
                commit = stream.read(64).strip()
    except (OSError, ValueError):
        pass  # the revision may be a commit itself
    folder = os.path.join(root, "snapshots", commit)
    whole_name = re.fullmatch(r"[0-9a-f]{40}", commit)
    return (folder if whole_name and os.path.isdir(folder) else None), False, why


def _advice(identifier: str, revision: Optional[str], error: BaseException) -> Optional[str]:
    """What to do about an answer of the Hub's own; None where there was no answer."""
    from huggingface_hub import constants

    names = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in names:
        page = f"{constants.ENDPOINT}/{identifier}"
        return f"The Hub has it, but it is gated: ask for access on {page}, and log in with `hf auth login`"
    if "RepositoryNotFoundError" in names:
        return (
            f"The Hub has no {identifier}, or it is private:"
            " check the name, or log in with `hf auth login` to an account that may read it"
        )
    if "RevisionNotFoundError" in names:
        return f"The Hub has {identifier}, but no revision {revision}: check the branch, the tag or the commit"
    return None


def _downloaded(identifier: str, revision: Optional[str], patterns: list[str], progress: Progress) -> str:
    """The snapshot, downloaded. The library works in threads of its own; this one tells how far it is."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    bars: list[Any] = []

    class Counted(tqdm):
        """A bar that draws nothing, and counts."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})
            self.in_bytes, self.whole = options.get("unit") == "B", options.get("total") or 0
            self.done = options.get("initial") or 0
            bars.append(self)

        def update(self, n: Any = 1) -> None:
            self.done += n or 0

    ended: list[Any] = []

    def work() -> None:
        try:
            ended.append(snapshot_download(identifier, revision=revision, allow_patterns=patterns, tqdm_class=Counted))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            ended.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(TOLD_EVERY)
        _tell(bars, progress)
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return str(ended[0])


def _tell(bars: list[Any], progress: Progress) -> None:
    """How many bytes, or files where the library does not count bytes, are there."""
    counted = [bar for bar in bars if bar.in_bytes] or bars
    if counted:
        widest = max(counted, key=lambda bar: max(bar.whole, getattr(bar, "total", None) or 0))
        whole = int(max(widest.whole, getattr(widest, "total", None) or 0))
        progress(int(widest.done), whole, "bytes" if widest.in_bytes else "files")


def _has_all_shards(folder: str) -> bool:
    """Whether each shard that an index names is there; an index that cannot be read is the files step's finding."""
    parts = [os.path.join(folder, part) for part in parts_of(folder)]
    if parts:
        return all(map(_has_all_shards, parts))
    for name in WEIGHT_FILES:
        path = os.path.join(folder, name)
        if not name.endswith(".index.json") or not os.path.isfile(path):
            continue
        try:
            with open(path, encoding="utf-8") as stream:
                shards = set(json.load(stream)["weight_map"].values())
            if not all(os.path.exists(os.path.join(folder, str(shard))) for shard in shards):
                return False
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return True


def _patterns(identifier: str, revision: Optional[str], weights: bool) -> list[str]:
    """Which of the repository's files to bring: one format of weights, safetensors before pickle."""
    if not weights:
        return ["*.json", "*.py"]
    from huggingface_hub import HfApi

    names = HfApi().list_repo_files(identifier, revision=revision)
    if PIPELINE in names:
        of_parts = [match for match in map(OF_PART.fullmatch, names) if match and match["part"] != CHECKER]
        return [PIPELINE, *SUPPORT_PATTERNS, *(match[0] for match in of_parts)]
    safetensors = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    return list(SUPPORT_PATTERNS) + (safetensors or ["pytorch_model*.bin"])


def _usable(folder: str, weights: bool) -> bool:
    has = set(os.listdir(folder))
    if PIPELINE in has:
        return not weights or any(_usable(os.path.join(folder, part), True) for part in parts_of(folder))
    return "config.json" in has and (not weights or any(name in has for name in WEIGHT_FILES))


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
