"""Scripts that show a broken file of a checkpoint with the standard library alone.

They check whatever file they are given, so that an intact one passes.
"""

import dataclasses
import re

from repro.core.answer import Answer
from repro.core.encoding import replace
from repro.core.payloads import Finding
from repro.reproducer.code.tensors import literal
from repro.reproducer.script import Script
from repro.reproducer.scripts.checkpoint import Checkpoint, folder_lines, needs_checkpoint, reading_script
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
print(f"seen {{seen}} bytes, right is {{expected}} according to the file's own header")
assert seen == expected, f"the file has {{seen}} bytes, and its header describes {{expected}}"
"""

HEADER = """
import json
import math
import os
path = os.path.join(folder, {file})
WIDTHS = dict(F64=8, F32=4, F16=2, BF16=2, I64=8, I32=4, I16=2, I8=1, U64=8, U32=4, U16=2, U8=1, BOOL=1)

def once(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)

def problem(stream, size):
    length = int.from_bytes(stream.read(8), "little")
    if length > size - 8:
        return f"a header of {{length}} bytes in a file of {{size}} bytes"
    try:
        header = json.loads(stream.read(length), object_pairs_hook=once)
        entries = [(*entry["data_offsets"], entry["dtype"], entry["shape"], name)
                   for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"an invalid header: {{error!r}}"
    at = 0
    for begin, end, dtype, shape, name in sorted(entries):
        if begin != at or end - begin != math.prod(shape) * WIDTHS.get(dtype, (end - begin) / max(math.prod(shape), 1)):
            return f"{{name}} of shape {{shape}} in {{dtype}} at bytes {{begin}} to {{end}}, where {{at}} is next"
        at = end
    if 8 + length + at != size:
        return f"{{size}} bytes where the header describes {{8 + length + at}}"

with open(path, "rb") as stream:
    seen = problem(stream, os.path.getsize(path))
print(f"seen {{seen or 'no fault'}}, right is a valid safetensors file")
assert not seen, seen
"""
"""Source of the format: https://huggingface.co/docs/safetensors/index#format"""

SHARDS = """
import json
import os
with open(os.path.join(folder, {index})) as stream:
    shards = json.load(stream)["weight_map"].values()
missing = [name for name in sorted(set(shards)) if not os.path.isfile(os.path.join(folder, name))]
print(f"seen {{missing}} missing, right is every file that the index names")
assert not missing, "the index names files that are not there"
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
print(f"seen {{lost}} missing there, right is every tensor in the file that the index names")
assert not lost, "the index names files that do not have its tensors"
"""

INDEX = """
import json
import os
try:
    with open(os.path.join(folder, {index}), encoding="utf-8") as stream:
        shards = sorted(set(json.load(stream)["weight_map"].values()))
except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
    print(f"seen {{error!r}}, right is an index with a weight_map")
    raise AssertionError("the index cannot be read") from error
nameless = [name for name in shards if not isinstance(name, str) or name in ("", ".", "..")]
print(f"seen an index that names {{shards}}, right is a file's name for every tensor")
assert shards and not nameless, f"the index names no file: {{nameless or shards}}"
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
print(f"seen calls of {{code}} on unpickling, right is nothing but tensors")
assert not code, "unpickling this file calls functions"
"""

KINDS: tuple[tuple[str, str, str], ...] = (
    (r"is not there|and not there|a blob that is gone", SHARDS, "is missing"),
    (r"it puts tensor|outside the folder", PLACES, "does not match the files that it names"),
    (r"the index cannot be read", INDEX, "cannot be read"),
    (r"it names no (file|tensor)", INDEX, "does not name a file for every tensor"),
    (r"is cut|belong to nothing", SIZE, "is not as long as its header says"),
    (r"header|a hole|an overlap|its shape|data_offsets|offsets of|the shape of", HEADER,
     "is not a valid safetensors file"),
)  # fmt: skip
"""What the kit says of a file, the script that shows it, and that in a few words."""


def file_script(answer: Answer, checkpoint: Checkpoint) -> Script | None:
    """The first fault of the files; None where no script here shows it, as for a damaged copy in somebody's cache."""
    files = answer.files
    if files is None:
        return None
    refused = re.match(r"(\S+) was refused", files.reason)
    if refused and files.format == "pickle":
        return _made(answer, checkpoint, refused[1], PICKLE, "holds more than tensors and was not loaded")
    for row in files.findings:
        for pattern, template, words in KINDS:
            if row.severity == "bad" and re.search(pattern, row.problem):
                return _made(answer, checkpoint, str(row.file), template, words, row)
    return None


def _made(
    answer: Answer, checkpoint: Checkpoint, file: str, template: str, words: str, finding: Finding | None = None
) -> Script:
    index = INDEXES[".bin" not in file]
    filled = template.format(file=literal(file), index=literal(index))
    code = [*folder_lines(checkpoint, check=False), *filled.strip("\n").split("\n")]
    problem = "" if finding is None else f": {finding.problem.replace(checkpoint.path, checkpoint.files.id)}"
    own = {name: value for name, value in checkpoint.files.sha256.items() if name == file}
    this = dataclasses.replace(checkpoint, files=replace(checkpoint.files, sha256=own))
    about = [
        f"{file} {words}{problem}.", "The fault is in the file, not in a package.",
        needs_checkpoint(this), generated(answer),
    ]  # fmt: skip
    return reading_script(answer, checkpoint, "files", (), about, code, "checks the files with the standard library")
