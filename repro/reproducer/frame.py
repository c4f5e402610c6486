"""What every script has around its code: the header that says what it needs, the docstring, the way that it ends."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from repro.reproducer.values import WIDTH

Document = Mapping[str, Any]

HOOK = "sys.excepthook = lambda *error: sys.__excepthook__(*error) or sys.exit(125)  # 125: could not be asked"
"""A Python program that ends by an exception ends with 1, which would pass for the fault: this one ends with 125, for
which ``git bisect run`` skips. It stands before the imports, which are the first that can fail."""
SHORT = 8
"""Lines of code behind the imports."""
STATUSES = "# 1: the fault is there, 0: it is gone"
VERSION = re.compile(r"[0-9][0-9A-Za-z.!]*")
NUMPY_2 = (2, 3)
"""The first PyTorch whose wheels go with NumPy 2. Source: https://github.com/pytorch/pytorch/releases/tag/v2.3.0"""


def frame(document: Document, needs: Sequence[str], about: Sequence[str], code: Sequence[str]) -> str:
    """The text of a script.

    Args:
        document: The content of verdict.json, of which the header takes the versions.
        needs: The packages that the code imports.
        about: Sentences for the docstring.
        code: Its lines, with ``import sys`` where they need it: the first line of every script is that already.
    """
    imports = [line for line in code if re.match(r"(import|from) ", line)]
    rest = [line for line in code if line not in imports]
    parts = [*header(document, needs), *docstring(" ".join(about)), *_plain(imports), HOOK, *_packages(imports)]
    gap = [] if len(rest) <= SHORT else [""]  # a script that is seen at a glance needs no paragraphs
    return "\n".join([*parts, *gap, *rest, ""])


def header(document: Document, needs: Sequence[str]) -> list[str]:
    """The inline metadata that ``uv run`` and ``pipx run`` read, with the very versions that showed the fault.

    Source: https://packaging.python.org/en/latest/specifications/inline-script-metadata/
    """
    python = re.match(r"\d+\.\d+", str(document["cell"].get("python") or ""))
    wanted = f"=={python[0]}.*" if python and needs else ">=3.9"  # wheels are made for some releases of Python
    pins = [_pin(document, name) for name in needs]
    if "transformers" in needs and _release(version_of(document, "torch")) < NUMPY_2:
        pins.append(_pin(document, "numpy"))
    listed = ", ".join(f'"{pin}"' for pin in pins)
    lines = [f"# dependencies = [{listed}]"]
    return ["# /// script", f'# requires-python = "{wanted}"', *lines, "# ///"]


def version_of(document: Document, package: str) -> str | None:
    """The release of a package in the run's environment, without a local part such as ``+cpu``."""
    packages = (document.get("environment") or {}).get("packages") or {}
    found = document["cell"].get(package) or packages.get(package)
    match = VERSION.match(str(found or ""))
    return match[0] if match else None


def _pin(document: Document, package: str) -> str:
    version = version_of(document, package)
    return package if version is None else f"{package}=={version}"


def _release(version: str | None) -> tuple[int, ...]:
    """The first two numbers of a version; of an unknown one, larger than any."""
    numbers = re.findall(r"\d+", version or "")[:2]
    return tuple(map(int, numbers)) if numbers else (9999,)


def before(document: Document, package: str, release: tuple[int, int]) -> bool:
    """Whether the run's release of a package is older than this one; False where it is not known."""
    return _release(version_of(document, package)) < release


def docstring(text: str) -> list[str]:
    """A text as a docstring: in ASCII, wrapped, and nothing in it can end it or be read as something else."""
    plain = " ".join(text.split()).encode("ascii", "backslashreplace").decode().replace("\\", "\\\\")
    plain = "".join(character for character in plain if character.isprintable()).replace('"', "'")
    lines = textwrap.wrap(f'"""{plain}"""', WIDTH, break_on_hyphens=False, break_long_words=True)
    return [f" {line}" if line.startswith("#") else line for line in lines]


def _plain(imports: Sequence[str]) -> list[str]:
    """The imports of the standard library, ``sys`` among them."""
    return sorted({"import sys", *(line for line in imports if not _is_package(line))})


def _packages(imports: Sequence[str]) -> list[str]:
    return [line for line in imports if _is_package(line)]


def _is_package(line: str) -> bool:
    return line.split()[1].split(".")[0] in ("torch", "transformers", "safetensors", "huggingface_hub")


def model_name(document: Document) -> str:
    """The model as it may be told to anybody: a Hub id whole, of a path its last part."""
    name = str(document["model"]["id"])
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(name).is_absolute():
            return kind(name).name
    return name
