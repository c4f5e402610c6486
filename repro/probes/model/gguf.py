"""A .gguf file -> a folder that from_pretrained reads, once; the folder lies in the user's cache under the file's
SHA-256.
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Callable

from ..checkpoint.files import list_weights
from ..checkpoint.gguf_header import read_gguf_header
from ..checkpoint.opening import open_foreign
from ..checkpoint.resolve import CannotResolve, Source, first_line
from .before.room import check_fits
from .compat import quiet

CHUNK = 1 << 22
SUFFIXES = (".weight", ".bias")
PREFIXES = ("model", "transformer")  # a base model's own keys have none
EXPERT = re.compile(r"\.experts\.\d+\.")
DONE = "converted.json"  # written last: a folder without it is half a conversion


def converted(source: Source, cache: str, progress: Callable[[int, int, str], None]) -> Source:
    """``source`` with ``folder`` set to the converted model.

    Raises:
        CannotResolve: no GGUF file, a package is missing, or Transformers cannot read this architecture from GGUF.
        OverLimit: its header asks for too much, or it does not fit into this machine's memory.
    """
    path = source.gguf or ""
    header = read_gguf_header(path)
    sha = _sha256(path, progress)
    folder = os.path.join(cache, "gguf", sha)
    note = "converted from GGUF before"
    if not os.path.isfile(os.path.join(folder, DONE)):
        begin = time.monotonic()
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with _alone(folder + ".lock"):
            if not os.path.isfile(os.path.join(folder, DONE)):
                check_fits(header.numel * 4, "float32, in which it is converted")
                _convert(path, sha, folder)
                note = f"converted from GGUF in {time.monotonic() - begin:.0f} s"
    _name_for_older(os.path.join(folder, "config.json"))  # of a conversion by an earlier release too
    with open(os.path.join(folder, DONE), encoding="utf-8") as stream:
        names = json.load(stream).get("names") or {}  # a conversion of an earlier release kept none
    return replace(source, folder=folder, note=note, stored_as=names)


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Within it, no other process converts the same file: a folder that another one reads must not be replaced.

    Where the file system has no locks, two conversions may be made of one file, each whole.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with contextlib.ExitStack() as held:
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                print(f"waiting for another process, which is converting this file ({path})", file=sys.stderr)
                lock.acquire()
            held.callback(lock.release)
        except (NotImplementedError, OSError) as error:
            print(f"{path} cannot be locked: {error}", file=sys.stderr)
        yield


def _sha256(path: str, progress: Callable[[int, int, str], None]) -> str:
    sha, done, total = hashlib.sha256(), 0, os.path.getsize(path)
    with open_foreign(path) as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            sha.update(chunk)
            done += len(chunk)
            progress(done, total, "bytes")
    return sha.hexdigest()


@contextlib.contextmanager
def one_reader() -> Iterator[None]:
    """Within it, every ``gguf.GGUFReader`` of the same file is the same object, and it reads plain memory.

    Transformers makes a reader each for the configuration, the tokenizer and the model, and a reader makes an array for
    each token of the vocabulary. Slices of ``numpy.memmap`` cost several times those of a plain array over the same
    mapping: Gemma 3 270M (262,144 tokens) took 9.0 s a reader and takes 2.4 s; the conversion took 40 s and
    takes 18 s (2-core machine).
    """
    import gguf

    class PlainReader(gguf.GGUFReader):
        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, mapped: Any) -> None:
            plain_array = type(mapped).__mro__[1]  # numpy.ndarray, which numpy.memmap extends
            self._plain = mapped.view(plain_array)  # the mapping stays open underneath

    before = gguf.GGUFReader
    setattr(gguf, "GGUFReader", functools.lru_cache(maxsize=1)(PlainReader))  # noqa: B010 - mypy forbids the plain form
    try:
        yield
    finally:
        setattr(gguf, "GGUFReader", before)  # noqa: B010 - as above


def own_names(path: str, keys: Iterable[str], config: Any) -> dict[str, str]:
    """The file's own name for each of Transformers' keys that it has a tensor for, by the table with which llama.cpp
    converts models; keys that this table does not know, or whose tensor is not in the file, are left out.
    """
    import gguf

    reader = gguf.GGUFReader(path)
    there = {tensor.name for tensor in reader.tensors}
    field = reader.fields.get("general.architecture")
    kind = field.contents() if field is not None else None
    known = next((arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind), None)
    text = getattr(config, "text_config", None) or config
    if known is None or not isinstance(getattr(text, "num_hidden_layers", None), int):
        return {}
    table = gguf.get_tensor_name_map(known, text.num_hidden_layers)
    found = {}
    for key in keys:
        plain = EXPERT.sub(".experts.", key)  # one tensor of the file holds all experts of a layer
        for spelled in (plain, *(f"{prefix}.{plain}" for prefix in PREFIXES)):
            own = table.get_name(spelled, try_suffixes=SUFFIXES)
            if own is not None and own in there:
                found[key] = own
                break
    return found


def _name_for_older(path: str) -> None:
    """The rotary embedding's settings under the names of Transformers 4 too, which does not know ``rope_parameters``
    and would compute with a base of its own, without a word. Transformers 5 reads both.
    """
    with open(path, encoding="utf-8") as stream:
        config = json.load(stream)
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" in config:
        return
    whole = dict(rope.get("full_attention", rope))  # of models with two kinds of layers, that of the one kind
    older = {name: whole.pop(name) for name in ("rope_theta", "partial_rotary_factor") if name in whole}
    if "rope_theta" in rope.get("sliding_attention", {}):
        older["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    kind = whole.pop("rope_type", "default")
    if kind != "default":
        older["rope_scaling"] = {"type": kind, **whole}  # releases before 4.43 know no "rope_type"
    half = f"{path}.{os.getpid()}"
    with open(half, "w", encoding="utf-8") as stream:
        json.dump({**config, **older}, stream, indent=2, sort_keys=True)
    os.replace(half, path)


def _convert(path: str, sha: str, folder: str) -> None:
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotResolve(
            "Reading {} needs {} beside transformers: pip install {}".format(
                path, " and ".join(missing), " ".join(missing)
            )
        )
    import torch
    import transformers

    half = tempfile.mkdtemp(prefix="half-", dir=os.path.dirname(folder))
    try:
        place, name = os.path.split(path)
        with quiet(), one_reader():
            try:
                from .compat import dtype_argument

                tokenizer = transformers.AutoTokenizer.from_pretrained(place, gguf_file=name)
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    place, gguf_file=name, **dtype_argument(torch.float32)
                )
            except Exception as error:
                raise CannotResolve(
                    f"transformers {transformers.__version__} cannot read {path}: {first_line(error)}"
                ) from error
            # What is saved are plain float32 tensors; without this the library refuses to save a model that came from
            # GGUF.
            vars(model).update(hf_quantizer=None, is_quantized=False)
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(half)
            tokenizer.save_pretrained(half)
            keys = {entry.name for header in list_weights(half).headers for entry in header.entries}
            names = own_names(path, keys | set(model.state_dict()), model.config)
        with open(os.path.join(half, DONE), "w", encoding="utf-8") as stream:
            about = {"file": name, "sha256": sha, "transformers": transformers.__version__, "names": names}
            json.dump(about, stream)
        if os.path.isdir(folder):
            shutil.rmtree(folder)
        os.rename(half, folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
