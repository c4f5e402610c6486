"""A file of torch.save, opened as untrusted: nothing in it runs, and it takes no more memory than it has bytes.

``weights_only`` keeps code out of a plain pickle. Releases before torch 2.6 pass TorchScript programs and tar archives
on to loaders that do not keep to it, so both are refused here by what they are.
"""

import inspect
import os
import re
import tarfile
import zipfile
from typing import Any, Optional

import torch

from .contents import Unreadable
from .opening import open_foreign
from .resolve import first_line

ZIP = b"PK\x03\x04"
MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # MAGIC_NUMBER of torch/serialization.py, with which the form before 1.6 begins


def load(path: str, device: str = "cpu") -> Any:
    """What a file holds; the storages of the zip form are mapped where this torch can do that.

    Raises:
        Unreadable: it is refused before torch sees it. Anything else is torch's own refusal.
    """
    options: dict[str, Any] = {"map_location": device, "weights_only": True}
    with open_foreign(path) as stream:
        start = stream.read(64)
    if start.startswith(ZIP):
        sizes_of_records(path)
        if device == "cpu" and "mmap" in inspect.signature(torch.load).parameters:  # from torch 2.1 on
            options["mmap"] = True
    elif MAGIC not in start or tarfile.is_tarfile(path):
        raise Unreadable("it is no file of torch.save, and other pickles are not loaded")
    else:
        return _of_old_form(path, options)
    return torch.load(path, **options)


def _of_old_form(path: str, options: dict[str, Any]) -> Any:
    """What a file of the form before torch 1.6 holds: pickles and storages, one behind the other.

    Raises:
        Unreadable: something stands behind them, which torch.load leaves alone and another reader may not.
    """
    with open_foreign(path) as stream:
        held = torch.load(stream, **options)
        behind = os.fstat(stream.fileno()).st_size - stream.tell()
    if behind:
        raise Unreadable(f"{behind:,} bytes stand behind what torch.load reads, and no reader of it looks at them")
    return held


def sizes_of_records(path: str) -> Optional[set[int]]:
    """The sizes of the storages in a file of the zip form, after a check that it is one; None for the older form.

    Raises:
        Unreadable: it is another zip archive, a TorchScript program, or was packed: torch.save packs nothing, and what
            is packed cannot be mapped and may unpack to anything.
    """
    with open_foreign(path) as stream:
        if stream.read(len(ZIP)) != ZIP:
            return None
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, ValueError, IndexError, NotImplementedError) as error:
        raise Unreadable(f"it is no whole zip archive ({first_line(error)}): it was cut, or damaged") from None
    names = [record.filename.partition("/")[2] for record in records]
    if "constants.pkl" in names:
        raise Unreadable("it is a TorchScript program, which is not loaded: save its state_dict()")
    if "data.pkl" not in names:
        raise Unreadable("it is a zip archive without data.pkl, and no file of torch.save")
    more = next((name for name in names if name.endswith(".pkl") and name != "data.pkl"), None)
    if more is not None:
        raise Unreadable(f"it holds a second pickle ({more[:80]!r}), which torch.save never writes")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise Unreadable("its records are packed, which torch.save never does: unpack it and save it again")
    return {record.file_size for record, name in zip(records, names) if name.startswith("data/")}


def why_refused(error: Exception) -> str:
    """What in the file was not loaded, out of torch's long message."""
    text = " ".join(str(error).split())
    held = re.search(r"GLOBAL ([\w.]*\w)|Unsupported class (\S+)", text)
    if held is not None:
        return f"it holds {held.group(1) or held.group(2)}, which is no plain tensor"[:200]
    wanted = re.search(r"(?<=WeightsUnpickler error: ).*?(?=\.? Check the documentation|$)", text)
    return wanted.group(0)[:200] if wanted else first_line(error).split(". ")[0]
