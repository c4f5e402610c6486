"""Scripts that show a broken file of a checkpoint with the standard library alone.

They ask whatever file they are given, so that a whole one is found to be whole.
"""

import re
from dataclasses import replace

from repro.reproducer.checkpoint import Checkpoint, folder_lines, needs_checkpoint, reading_script
from repro.reproducer.frame import STATUSES, Document
from repro.reproducer.script import Script
from repro.reproducer.values import Json, literal
from repro.reproducer.words import generated

INDEXES = {True: "model.safetensors.index.json", False: "pytorch_model.bin.index.json"}
"""The index of a checkpoint of several files, by whether they are safetensors."""

SIZE = """
import json
import os
path = os.path.join(folder, {file})
with open(path, "rb") as stream:
    length = int.from_bytes(stream.read(8), "little")
    header = json.loads(stream.read(length))
header.pop("__metadata__", None)
expected = 8 + length + max(entry["data_offsets"][1] for entry in header.values())
seen = os.path.getsize(path)
print(f"expected {{expected}} bytes, as the file's own header says, seen {{seen}}")
sys.exit(1 if seen != expected else 0)  {statuses}
"""

HEADER = """
import json
import math
import os
path = os.path.join(folder, {file})
WIDTHS = dict(F64=8, F32=4, F16=2, BF16=2, I64=8, I32=4, I16=2, I8=1, U64=8, U32=4, U16=2, U8=1, BOOL=1)

def once(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands there twice")
    return dict(pairs)

def problem(stream, size):
    length = int.from_bytes(stream.read(8), "little")
    if length > size - 8:
        return f"a header of {{length}} bytes in a file of {{size}}"
    try:
        header = json.loads(stream.read(length), object_pairs_hook=once)
        entries = [(*entry["data_offsets"], entry["dtype"], entry["shape"], name)
                   for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"a header that is none: {{error!r}}"
    at = 0
    for begin, end, dtype, shape, name in sorted(entries):
        if begin != at or end - begin != math.prod(shape) * WIDTHS.get(dtype, (end - begin) / max(math.prod(shape), 1)):
            return f"{{name}} of shape {{shape}} in {{dtype}} at bytes {{begin}} to {{end}}, behind {{at}}"
        at = end
    if 8 + length + at != size:
        return f"{{size}} bytes where the header promises {{8 + length + at}}"

with open(path, "rb") as stream:
    seen = problem(stream, os.path.getsize(path))
print(f"expected a whole safetensors file, seen {{seen or 'one'}}")
sys.exit(1 if seen else 0)  {statuses}
"""
"""Source of the format: https://huggingface.co/docs/safetensors/index#format"""

SHARDS = """
import json
import os
with open(os.path.join(folder, {index})) as stream:
    shards = json.load(stream)["weight_map"].values()
missing = [name for name in sorted(set(shards)) if not os.path.isfile(os.path.join(folder, name))]
print(f"expected every file that the index names, seen none of {{missing}}")
sys.exit(1 if missing else 0)  {statuses}
"""

PLACES = """
import json
import os

def names_in(path):
    with open(path, "rb") as stream:
        return json.loads(stream.read(int.from_bytes(stream.read(8), "little")))

with open(os.path.join(folder, {index})) as stream:
    index = json.load(stream)["weight_map"]
lost = [name for name, shard in index.items()
        if os.path.basename(shard) != shard or name not in names_in(os.path.join(folder, shard))]
print(f"expected every tensor where the index puts it, seen others in the place of {{lost}}")
sys.exit(1 if lost else 0)  {statuses}
"""

INDEX = """
import json
import os
try:
    with open(os.path.join(folder, {index}), encoding="utf-8") as stream:
        shards = sorted(set(json.load(stream)["weight_map"].values()))
except (ValueError, KeyError, AttributeError, TypeError) as error:
    print(f"expected an index with a weight_map, seen {{error!r}}")
    sys.exit(1)
print(f"expected an index with a weight_map, seen one of {{shards}}")
sys.exit(0)
"""

PICKLE = """
import os
import pickletools
import zipfile
path = os.path.join(folder, {file})
with zipfile.ZipFile(path) as opened:
    pickles = [opened.read(name) for name in opened.namelist() if name.endswith("/data.pkl")]
seen, words = set(), []
for opcode, argument, _ in (operation for content in pickles for operation in pickletools.genops(content)):
    if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE"):
        words.append(argument)
    if opcode.name == "GLOBAL":
        seen.add(argument.replace(" ", "."))
    if opcode.name == "STACK_GLOBAL":
        seen.add(".".join(words[-2:]))
code = sorted(name for name in seen if not name.startswith("torch.") and name != "collections.OrderedDict")
print(f"expected tensors alone, seen that unpickling would call {{code}}")
sys.exit(1 if code else 0)  {statuses}
"""

KINDS: tuple[tuple[str, str, str], ...] = (
    (r"is not there|and not there|a blob that is gone", SHARDS, "is missing"),
    (r"it puts tensor|outside the folder", PLACES, "does not say where the tensors are"),
    (r"the index cannot be read", INDEX, "cannot be read"),
    (r"is cut|belong to nothing", SIZE, "is not as long as its header says"),
    (r"header|a hole|an overlap|its shape|data_offsets|offsets of", HEADER,
     "is no whole safetensors file"),
)  # fmt: skip
"""What the kit says of a file, the script that shows it, and in a few words what that is."""


def file_script(document: Document, checkpoint: Checkpoint) -> Script | None:
    """The first fault of the files; None where no script here shows it, as for a damaged copy in a cache, which is
    nobody's but its owner's.
    """
    files = document.get("files") or {}
    refused = re.match(r"(\S+) was refused", str(files.get("reason") or ""))
    if refused and files.get("format") == "pickle":
        return _made(document, checkpoint, refused[1], PICKLE, "holds more than tensors, and was not loaded")
    bad = [row for row in files.get("findings") or () if row.get("severity") == "bad"]
    for row in bad:
        for pattern, template, words in KINDS:
            if re.search(pattern, str(row["problem"])):
                return _made(document, checkpoint, str(row["file"]), template, words, row)
    return None


def _made(
    document: Document, checkpoint: Checkpoint, file: str, template: str, words: str, finding: Json | None = None
) -> Script:
    index = INDEXES[".bin" not in file]
    filled = template.format(file=literal(file), index=literal(index), statuses=STATUSES)
    code = [*folder_lines(checkpoint, check=False), *filled.strip("\n").split("\n")]
    problem = "" if finding is None else str(finding["problem"]).replace(checkpoint.path, checkpoint.name)
    own = replace(checkpoint, sha256={name: value for name, value in checkpoint.sha256.items() if name == file})
    about = [
        f"{file} {words}{f': {problem}' if problem else ''}.", "No package is to blame: it is the file.",
        needs_checkpoint(own), generated(document),
    ]  # fmt: skip
    return reading_script(document, checkpoint, "files", (), about, code, "the files alone, with the standard library")
