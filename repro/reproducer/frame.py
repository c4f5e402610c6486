"""What every script has around its code: a header with its dependencies, the docstring, and its end.

A script ends in what it prints and an ``assert``: its exit status is 1 while the fault is there and 0 once it is gone.
An import that fails gives 1 as well, which ``verify`` and `repro SCRIPT` tell apart by the exception.
"""

import re
import textwrap
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath

from repro.core.answer import Answer
from repro.reproducer.code.tensors import WIDTH

SHORT = 8
"""Up to so many lines of code behind the imports, a script has no blank lines."""
VERSION = re.compile(r"[0-9][0-9A-Za-z.!]*")
NUMPY_2 = (2, 3)
"""The first PyTorch whose wheels go with NumPy 2. Source: https://github.com/pytorch/pytorch/releases/tag/v2.3.0"""


def frame(answer: Answer, needs: Sequence[str], about: Sequence[str], code: Sequence[str]) -> str:
    """The text of a script.

    Args:
        answer: Of which the header takes the versions.
        needs: The packages that the code imports.
        about: Sentences for the docstring.
        code: Its lines, imports among them.
    """
    imports = [line for line in code if re.match(r"(import|from) ", line)]
    rest = [line for line in code if line not in imports]
    own = sorted({line for line in imports if not _is_package(line)})
    packages = list(dict.fromkeys(line for line in imports if _is_package(line)))
    parts = [*header(answer, needs), *docstring(" ".join(about)), *own, *packages]
    gap = [] if len(rest) <= SHORT else [""]
    return "\n".join([*parts, *gap, *rest, ""])


def ending(shown: str, holds: str, message: str) -> list[str]:
    """What is printed, and the assertion that fails while the fault is there.

    Args:
        shown: What was seen and what is right, as the inside of an f-string in double quotes.
        holds: The condition of a sound result.
        message: Of the assertion, as the inside of such a string as well.
    """
    text = f'{"f" if "{" in message else ""}"{message}"'
    line = f"assert {holds}, {text}"
    return [f'print(f"{shown}")', *([line] if len(line) <= WIDTH else [f"assert {holds}, (", f"    {text}", ")"])]


def header(answer: Answer, needs: Sequence[str]) -> list[str]:
    """The inline metadata that ``uv run`` and ``pipx run`` read, with the versions that showed the fault.

    Source: https://packaging.python.org/en/latest/specifications/inline-script-metadata/
    """
    python = re.match(r"\d+\.\d+", answer.cell.python or "")
    wanted = f"=={python[0]}.*" if python and needs else ">=3.9"  # wheels are made for some releases of Python
    pins = [_pin(answer, name) for name in needs]
    if "transformers" in needs and _release(version_of(answer, "torch")) < NUMPY_2:
        pins.append(_pin(answer, "numpy"))
    listed = ", ".join(f'"{pin}"' for pin in pins)
    lines = [f"# dependencies = [{listed}]"]
    return ["# /// script", f'# requires-python = "{wanted}"', *lines, "# ///"]


def version_of(answer: Answer, package: str) -> str | None:
    """The release of a package in the run's environment, without a local part such as ``+cpu``."""
    cell = {"torch": answer.cell.torch, "transformers": answer.cell.transformers}
    installed = None if answer.environment is None else answer.environment.version(package)
    match = VERSION.match(cell.get(package) or installed or "")
    return match[0] if match else None


def _pin(answer: Answer, package: str) -> str:
    version = version_of(answer, package)
    return package if version is None else f"{package}=={version}"


def _release(version: str | None) -> tuple[int, ...]:
    """The first two numbers of a version; an unknown one counts as newer than any."""
    numbers = re.findall(r"\d+", version or "")[:2]
    return tuple(map(int, numbers)) if numbers else (9999,)


def before(answer: Answer, package: str, release: tuple[int, int]) -> bool:
    """Whether the run's release of a package is older than this one; False where it is not known."""
    return _release(version_of(answer, package)) < release


def docstring(text: str) -> list[str]:
    """A text as a docstring: ASCII, wrapped; nothing in it can end the string or pass for an inline-metadata header."""
    plain = " ".join(text.split()).encode("ascii", "backslashreplace").decode().replace("\\", "\\\\")
    plain = "".join(character for character in plain if character.isprintable()).replace('"', "'")
    lines = textwrap.wrap(f'"""{plain}"""', WIDTH, break_on_hyphens=False, break_long_words=True)
    return [f" {line}" if line.startswith("#") else line for line in lines]


def _is_package(line: str) -> bool:
    return line.split()[1].split(".")[0] in ("torch", "transformers", "safetensors", "huggingface_hub")


def model_name(answer: Answer) -> str:
    """The model's public name: a Hub id as it is, a path's last part."""
    name = answer.model.id
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(name).is_absolute():
            return kind(name).name
    return name
