"""MODEL -> where its files are.

A folder or a ``.gguf`` file is taken as it is. A Hub id is looked for in the cache first and on the network if there
is one; without either, the error says what was looked for and what can be done.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from . import limits
from .opening import check_is_file, read_json
from .others import needs_another_package

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?$")
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ADAPTER, MODULES = "adapter_config.json", "modules.json"
READ = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".tiktoken", ".py")  # of what libraries open
WEIGHTS = (".safetensors", ".bin", ".index.json")
# Files that a folder of the same name would hide.
MAIN = (*WEIGHT_FILES, "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
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
    of a sentence encoder; ``folder`` is then that of its transformer.
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


def resolve(case: dict[str, Any]) -> Source:
    """The source of ``case["model"]``.

    Raises:
        CannotResolve: neither a file here, nor in the Hub's cache, nor on the network.
    """
    model = str(case["model"])
    seed = seed_of(str(case.get("weights") or "checkpoint"))
    if seed is not None:
        config = case.get("config") or _config_of(model, case.get("revision"))
        return Source("random", None, config=str(config), seed=seed)
    path = os.path.expanduser(model)
    if os.path.isdir(path):
        place = os.path.abspath(path)
        other = needs_another_package(place)
        if other is not None:
            raise CannotResolve(other)
        return _adapted(place) or _encoder(place) or Source("folder", place)
    if os.path.isfile(path):
        if not path.endswith(".gguf"):
            raise CannotResolve(
                f"{model} is a file, but not a .gguf file. Give a model folder, a .gguf file, or a Hub id."
            )
        return Source("gguf", None, gguf=os.path.abspath(path))
    identifier, revision = split_revision(model, case.get("revision"))
    if not HUB_ID.match(identifier) or model.endswith(".gguf"):
        raise CannotResolve(f"There is no file or folder {model}. Check the path, or give a Hub id such as gpt2.")
    folder, sha = _hub_folder(identifier, revision)
    return Source("hub", folder, revision=sha)


def _adapted(folder: str) -> Optional[Source]:
    """The base model of a folder that holds an adapter and no model; None for any other.

    Raises:
        CannotResolve: the base model is not named, or not to be had.
    """
    config = os.path.join(folder, ADAPTER)
    if not os.path.exists(config) or any(os.path.lexists(os.path.join(folder, name)) for name in WEIGHT_FILES):
        return None
    try:
        check_is_file(config)
        settings = read_json(config, limits.CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise CannotResolve(f"{config} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
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
    return replace(found, adapter=folder, note=f"an adapter (LoRA) on {base}")


def _encoder(folder: str) -> Optional[Source]:
    """The transformer of a folder that holds a sentence encoder; None for any other.

    Raises:
        CannotResolve: its list of modules is none, or begins with something else than a transformer here.
    """
    path = os.path.join(folder, MODULES)
    if not os.path.exists(path):
        return None
    try:
        check_is_file(path)
        rows = read_json(path, limits.CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise CannotResolve(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
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


def _config_of(model: str, revision: Optional[str]) -> str:
    path = os.path.expanduser(model)
    if os.path.isdir(path):
        return path
    identifier, revision = split_revision(model, revision)
    if not HUB_ID.match(identifier):
        raise CannotResolve(f"There is no folder {model}, so its architecture is not known.")
    folder, _ = _hub_folder(identifier, revision, weights=False)
    return folder


def _hub_folder(identifier: str, revision: Optional[str], weights: bool = True) -> tuple[str, Optional[str]]:
    """The snapshot folder of a Hub model, from the cache or the network.

    A snapshot counts as cached when it holds config.json and, where ``weights`` are wanted, a weight file or its
    index: whether all shards of that index are there is the files step's question, and it must be able to answer "no".
    """
    from huggingface_hub import constants, snapshot_download

    tried: list[str] = []
    try:
        folder = snapshot_download(identifier, revision=revision, local_files_only=True)
        if _usable(folder, weights):
            return folder, os.path.basename(folder)
        tried.append("the cached snapshot {} has no {}".format(folder, "weights" if weights else "config.json"))
    except Exception as error:  # noqa: BLE001 - the Hub library's dozen error classes differ by release
        tried.append(f"it is not in the cache {constants.HF_HUB_CACHE} ({type(error).__name__})")
    if constants.HF_HUB_OFFLINE:
        tried.append("HF_HUB_OFFLINE is set, so the network was not asked")
    else:
        try:
            folder = snapshot_download(
                identifier, revision=revision, allow_patterns=_patterns(identifier, revision, weights)
            )
            if _usable(folder, weights):
                return folder, os.path.basename(folder)
            tried.append(
                "the Hub's copy has no {}".format("safetensors or pickle weights" if weights else "config.json")
            )
        except Exception as error:  # noqa: BLE001 - as above
            tried.append(f"the network did not bring it ({type(error).__name__}: {first_line(error)})")
    at = "@" + revision if revision else ""
    raise CannotResolve(
        "{}{} could not be found: there is no folder of that name; {}. Download it where there is a network"
        " (hf download {}), set HF_HOME to a cache that has it, or give a folder{}.".format(
            identifier, at, "; ".join(tried), identifier, ", or build it with --weights random:0" if weights else ""
        )
    )


def _patterns(identifier: str, revision: Optional[str], weights: bool) -> list[str]:
    """Which of the repository's files to bring: one format of weights, safetensors before pickle."""
    if not weights:
        return ["*.json", "*.py"]
    from huggingface_hub import HfApi

    names = HfApi().list_repo_files(identifier, revision=revision)
    safetensors = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    return list(SUPPORT_PATTERNS) + (safetensors or ["pytorch_model*.bin"])


def _usable(folder: str, weights: bool) -> bool:
    has = set(os.listdir(folder))
    return "config.json" in has and (not weights or any(name in has for name in WEIGHT_FILES))


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
