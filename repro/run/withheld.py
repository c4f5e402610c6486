"""Prompts that must not be shared: their texts live in one file of the run's folder and nowhere else.

The kit reads them from there and answers without them: no text of a prompt, none of its tokens but special ones, no
token ids but those of the reduced input. So everything else of the run can be shared, and the bundle leaves that
file out.
"""

import dataclasses
from pathlib import Path

from repro.core import paths
from repro.core.encoding import SCHEMA, Record, encode
from repro.core.errors import RecordError, UsageError
from repro.core.records import Case

NAME = "inputs.json"
PLACEHOLDER = "(withheld)"
"""What stands for a prompt everywhere else; the kit uses the same word."""


class Texts(Record, frozen=True, kw_only=True):
    """The content of ``inputs.json``."""

    prompts: tuple[str, ...]
    schema: int = SCHEMA


def withheld(case: Case, folder: Path) -> Case:
    """The case with its prompts moved into ``inputs.json`` of the run's folder.

    Raises:
        UsageError: the folder holds a run of other prompts.
        EvidenceError: the file cannot be written.
    """
    prompts = list(case.prompts)
    if not prompts:
        return case
    path = folder.absolute() / NAME
    if path.exists():
        try:
            before = list(paths.read_record(path, Texts).prompts)
        except RecordError as error:
            raise UsageError(f"{path} cannot be read ({error}). Give another folder with --out.") from None
        if before != prompts:
            raise UsageError(f"--out {folder} holds a run of other prompts. Give another folder.")
    else:
        paths.write(path, encode(Texts(prompts=case.prompts), indent=1) + "\n")
    return dataclasses.replace(case, prompts=(PLACEHOLDER,) * len(prompts), texts=str(path))
