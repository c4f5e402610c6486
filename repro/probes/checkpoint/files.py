"""Are the files whole? Headers, shards, sizes, and in the Hub's cache every blob against the hash that is its name.

Nothing here reads a tensor's values, and no pickle is run: pickle files are opened with ``weights_only`` on the meta
device.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from torch import Tensor

from . import limits, pickled
from .header import BadHeader, Header, read_header
from .limits import OverLimit
from .opening import BadJson, open_foreign, read_json, shown
from .others import PIPELINE, parts_of
from .resolve import FORMS, Source

CHUNK = 1 << 22
SAFE = ".safetensors"
OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack")
LONGEST_NAME = 255  # of a file, on all common systems
MOST_FOUND = 20  # findings of one kind; more would bury the others
UNREAD = "unread"
Progress = Callable[[int, int, str], None]


@dataclass
class WeightFiles:
    """The weight files that from_pretrained would take from a folder, and what is wrong with them.

    format: "safetensors", "pickle" or "none". headers: of the safetensors files that are whole, in file order.
    findings: {"file", "problem", "severity"}; severity "bad" means that the checkpoint is broken, "unread" that a file
    could not be read, so that nobody knows, "note" that it is worth knowing.
    """

    format: str
    names: list[str] = field(default_factory=list)
    headers: list[Header] = field(default_factory=list)
    findings: list[dict[str, str]] = field(default_factory=list)

    def find(self, file: str, problem: str, severity: str = "bad") -> None:
        self.findings.append({"file": file, "problem": problem, "severity": severity})

    @property
    def broken(self) -> bool:
        return any(finding["severity"] == "bad" for finding in self.findings)


def list_weights(folder: str) -> WeightFiles:
    """Which weight files a folder has, in from_pretrained's own order of preference, each header read and checked.

    Raises:
        OverLimit: a file asks for more work than is done without being asked.
    """
    parts = parts_of(folder)
    if parts:
        return _of_parts(folder, parts)
    if not os.path.isfile(os.path.join(folder, "config.json")):
        found = WeightFiles("none")
        found.find("config.json", f"it is not in {folder}: this is no model folder")
        return found
    for kind, whole, index in FORMS:
        found = WeightFiles(kind)
        if os.path.lexists(os.path.join(folder, whole)):
            found.names = [whole]
        elif os.path.lexists(os.path.join(folder, index)):
            mapping = _read_index(folder, index, found)
            found.names = sorted(set(mapping.values()))
        else:
            continue
        if kind == "safetensors":
            _read_headers(folder, found)
            if found.names != [whole]:
                _check_index(mapping, found, index)
        else:
            for name in found.names:
                if not _there(os.path.join(folder, name)):
                    found.find(name, f"this shard is named in {index} and is not there")
        return found
    found = WeightFiles("none")
    found.find("model.safetensors", f"there is no weight file in {folder}{_instead(folder)}")
    return found


def _of_parts(folder: str, parts: list[str]) -> WeightFiles:
    """The weight files of a pipeline: those of each of its parts that has a configuration and weights."""
    each = [(part, list_weights(os.path.join(folder, part))) for part in parts]
    each = [(part, found) for part, found in each if found.format != "none"]
    kinds = {found.format for _, found in each}
    whole = WeightFiles("pickle" if "pickle" in kinds else "safetensors" if kinds else "none")
    for part, found in each:
        whole.names += [f"{part}/{name}" for name in found.names]
        whole.headers += found.headers
        whole.findings += [{**finding, "file": f"{part}/{finding['file']}"} for finding in found.findings]
    if not each:
        whole.find(PIPELINE, f"none of its parts in {folder} has a weight file")
    return whole


def adapter_weights(folder: str) -> WeightFiles:
    """The weight file of an adapter, its header read and checked."""
    for kind, name in (("safetensors", "adapter_model.safetensors"), ("pickle", "adapter_model.bin")):
        if os.path.lexists(os.path.join(folder, name)):
            found = WeightFiles(kind, [name])
            if kind == "safetensors":
                _read_headers(folder, found)
            return found
    found = WeightFiles("none")
    found.find("adapter_model.safetensors", f"there is no weight file of the adapter in {folder}")
    return found


# What a folder with a configuration has in place of weights, by the names of files, and what can be done with it.
IN_PLACE: tuple[tuple[str, str], ...] = (
    (r"adapter_model\..*|adapter_config\.json", "it is an adapter; give it without the config.json of another model"),
    (r"global_step\d+|zero_to_fp32\.py", "it is a checkpoint of DeepSpeed in pieces; run its zero_to_fp32.py"),
    (r"pytorch_model_fsdp_\d+|.*\.distcp", "it is a checkpoint of FSDP in pieces; merge it (accelerate merge-weights)"),
    (r".*\.onnx", "it is a model in ONNX form, which PyTorch does not run; give the one that it was exported from"),
    (r"openvino_model\..*", "it is a model in OpenVINO form; give the one that it was exported from"),
    (r"tf_model.*\.h5|saved_model\.pb", "it is a model of TensorFlow; give its PyTorch form"),
    (r"flax_model.*\.msgpack", "it is a model of Flax (JAX); give its PyTorch form"),
    (r".*\.ckpt", "it is a checkpoint of Lightning or TensorFlow; save it with save_pretrained()"),
    (r".*\.gguf", "give the .gguf file itself"),
)


def _instead(folder: str) -> str:
    """What is there in place of a whole model's weights, and what can be done with it."""
    names = sorted(os.listdir(folder))
    for pattern, words in IN_PLACE:
        found = next((name for name in names if re.fullmatch(pattern, name)), None)
        if found is not None:
            return f" (found: {shown(found)}): {words}"
    other = [name for name in names if name.endswith(OTHER_WEIGHTS)]
    if other:
        listed = ", ".join(other[:3]) + (", ..." if len(other) > 3 else "")
        return f" of a name that from_pretrained reads (found: {listed}); rename or convert it"
    return "; --weights random:0 would need none"


def _there(path: str) -> bool:
    """Whether something of this name is there; a name too long for a file is that of none."""
    try:
        return os.path.exists(path)
    except (OSError, ValueError):  # from Python 3.12 on os.path.exists never raises
        return False


def _read_index(folder: str, name: str, found: WeightFiles) -> dict[str, str]:
    """The shard of each tensor, as far as the index can be followed; what is wrong with it becomes a finding."""
    try:
        data = read_json(os.path.join(folder, name), limits.INDEX_BYTES)
    except OSError as error:
        found.find(name, f"the index cannot be read: {error.strerror}", UNREAD)
        return {}
    except BadJson as error:
        found.find(name, f"the index cannot be read: {error}")
        return {}
    if not isinstance(data, dict) or not isinstance(data.get("weight_map"), dict):
        held = "no weight_map" if isinstance(data, dict) and "weight_map" not in data else shown(data)
        found.find(name, f"the index cannot be read: expected an object of file names under weight_map, found {held}")
        return {}
    mapping = data["weight_map"]
    limits.check(name, len(mapping), limits.TENSORS, "tensors in its weight_map")
    if not mapping:
        found.find(name, "its weight_map is empty: it names no tensor and no file")
    odd = [key for key, shard in mapping.items() if not isinstance(shard, str) or _nameless(shard)]
    if odd:
        more = f" ({len(odd)} such entries)" if len(odd) > 1 else ""
        found.find(name, f"it names no file for {shown(odd[0])}: {shown(mapping[odd[0]])}{more}")
    shards = {key: shard for key, shard in mapping.items() if isinstance(shard, str) and not _nameless(shard)}
    # a name that leaves the folder would make every later step read somebody else's file
    outside = {shard for shard in shards.values() if os.path.basename(shard) != shard or "\0" in shard}
    for shard in sorted(outside)[:MOST_FOUND]:
        found.find(name, f"it names a shard outside the folder: {shown(shard)}")
    return {key: shard for key, shard in shards.items() if shard not in outside}


def _nameless(shard: str) -> bool:
    """Whether no file of a folder can have such a name."""
    return shard in ("", ".", "..") or len(shard) > LONGEST_NAME


def _read_headers(folder: str, found: WeightFiles) -> None:
    for name in found.names:
        path = os.path.join(folder, name)
        if not _there(path):
            gone = "a link to a blob that is gone" if os.path.islink(path) else "named in the index and not there"
            found.find(name, f"this shard is {gone}")
            continue
        try:
            header = read_header(path)
        except BadHeader as error:
            found.find(name, str(error))
            continue
        except OSError as error:
            found.find(name, f"it cannot be read: {error.strerror or error}", UNREAD)
            continue
        found.headers.append(header)
        if header.data_start % 8:
            found.find(
                name,
                f"the data start at byte {header.data_start}, {header.data_start % 8} beyond a multiple of 8:"
                " tensors mapped from this file are not aligned",
                "note",
            )


def _check_index(mapping: dict[str, str], found: WeightFiles, index: str) -> None:
    """Every tensor that the index names is in the shard that it names; what else the shards hold is noted."""
    where: dict[str, set[str]] = {}
    for header in found.headers:
        for entry in header.entries:
            where.setdefault(entry.name, set()).add(entry.file)
    read = {os.path.basename(header.path) for header in found.headers}
    lost = sorted(name for name, shard in mapping.items() if shard in read and shard not in where.get(name, ()))
    for name in lost[:MOST_FOUND]:
        found.find(index, f"it puts tensor {shown(name)} into {mapping[name]}, which does not have it")
    extra = sorted(set(where) - set(mapping))
    if extra:
        found.find(
            index,
            f"{len(extra)} tensors of the shards are not in the index, the first is {shown(extra[0])}",
            "note",
        )


def check(source: Source, progress: Progress) -> tuple[str, str, dict[str, Any]]:
    """Verdict, reason and payload of the files step for a folder or a Hub snapshot."""
    folder = source.folder or ""
    try:
        found = list_weights(folder)
    except OverLimit as error:
        return "skip", str(error), {**_payload(source, WeightFiles("none"), []), "fatal": True}
    if found.format == "pickle":
        refused = check_pickles(folder, found)
        if refused:
            return "skip", refused, {**_payload(source, found, []), "fatal": True}
    hashes = _check_blobs(folder, found, progress)
    rows = [_row(folder, name, found, hashes.get(name)) for name in sorted(set(found.names) | set(hashes))]
    if source.adapter is not None:
        own = adapter_weights(source.adapter)
        refused = check_pickles(source.adapter, own) if own.format == "pickle" else None
        if refused:
            return "skip", refused, {**_payload(source, found, rows), "fatal": True}
        rows += [_row(source.adapter, name, own, None) for name in own.names]
        found.findings += own.findings
        found.names += own.names
    payload = _payload(source, found, rows)
    bad = [finding for finding in found.findings if finding["severity"] == "bad"]
    if bad:
        more = f" ({len(bad)} findings in all)" if len(bad) > 1 else ""
        payload["fatal"] = found.format == "none"
        verdict = "skip" if payload["fatal"] else "bad"
        return verdict, "{}: {}{}".format(bad[0]["file"], bad[0]["problem"], more), payload
    unread = [finding for finding in found.findings if finding["severity"] == UNREAD]
    if unread:
        return "skip", "{}: {}".format(unread[0]["file"], unread[0]["problem"]), {**payload, "fatal": True}
    checked = sum(row["sha256"] == "match" for row in rows)
    tensors = sum(row["tensors"] or 0 for row in rows)
    reason = "{} weight file{} whole".format(len(found.names), "" if len(found.names) == 1 else "s")
    if found.format == "safetensors":
        reason += f", {tensors} tensors"
    if checked:
        reason += f", {checked} cached files have the hash of their name"
    if found.format == "pickle":
        reason += "; pickle files are untrusted: only opened with weights_only"
    return "good", reason, payload


def _payload(source: Source, found: WeightFiles, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "source": source.kind,
        "package": source.package,
        "folder": source.folder,
        "adapter": source.adapter,
        "revision": source.revision,
        "format": found.format,
        "untrusted_pickle": found.format == "pickle",
        "files": rows,
        "findings": found.findings,
    }


def _row(folder: str, name: str, found: WeightFiles, verdict: Optional[str]) -> dict[str, Any]:
    path = os.path.join(folder, name)
    header = next((h for h in found.headers if os.path.relpath(h.path, folder) == os.path.normpath(name)), None)
    return {
        "name": name,
        "bytes": os.path.getsize(path) if _there(path) else None,
        "tensors": len(header.entries) if header else None,
        "data_start": header.data_start if header else None,
        "data_start_mod_8": header.data_start % 8 if header else None,
        "sha256": verdict,
    }


def _check_blobs(folder: str, found: WeightFiles, progress: Progress) -> dict[str, str]:
    """In a Hub cache each file is a link to a blob whose name is its hash: SHA-256 for large files, git's SHA-1 for
    small ones.

    Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    blobs: dict[str, str] = {}
    inside = [f"{part}/{name}" for part in parts_of(folder) for name in os.listdir(os.path.join(folder, part))]
    for name in sorted([*os.listdir(folder), *inside]):
        real = os.path.realpath(os.path.join(folder, name))
        named_by_hash = re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", os.path.basename(real))
        if named_by_hash and os.path.basename(os.path.dirname(real)) == "blobs" and os.path.isfile(real):
            blobs[name] = real
    total = sum(os.path.getsize(real) for real in blobs.values())
    done = 0
    verdicts: dict[str, str] = {}
    for name, real in blobs.items():
        wanted = os.path.basename(real)
        sha: Any = hashlib.sha256() if len(wanted) == 64 else hashlib.sha1(b"blob %d\0" % os.path.getsize(real))
        with open_foreign(real) as stream:
            for chunk in iter(lambda: stream.read(CHUNK), b""):
                sha.update(chunk)
                done += len(chunk)
                progress(done, total, "bytes")
        verdicts[name] = "match" if sha.hexdigest() == wanted else "differs"
        if verdicts[name] == "differs":
            found.find(
                name,
                f"the cached blob is corrupt: its name is {wanted[:12]}...,"
                f" its bytes hash to {sha.hexdigest()[:12]}...;"
                " delete it and download it again",
            )
    return verdicts


def check_pickles(folder: str, found: WeightFiles) -> Optional[str]:
    """Why a pickle file is refused, or None.

    Nothing is executed: the unpickler of ``weights_only`` knows tensors and containers.
    """
    for name in found.names:
        path = os.path.join(folder, name)
        if name.endswith(SAFE) or not _there(path):
            continue
        found.find(
            name, "a pickle file: untrusted by nature, opened with weights_only; safetensors cannot carry code", "note"
        )
        try:
            load_pickle(path, "meta")
        except Exception as error:  # noqa: BLE001 - of any kind: it was not loaded
            return (
                f"{name} was refused and nothing of it was run: {pickled.why_refused(error)}."
                " Only plain tensors are loaded from pickle files; get the model as safetensors."
            )
    return None


def load_pickle(path: str, device: str) -> dict[str, Any]:
    """The tensors of a pickle file, by name, with ``weights_only``: no code of the file runs."""
    loaded = pickled.load(path, device)
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}, not a state dict")
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
