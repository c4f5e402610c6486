"""Prompts that must not be shared: their texts live in one file of the run's folder and nowhere else.

The kit reads them from there and answers without them: no text of a prompt, none of its tokens but special ones, no
token ids but those of the reduced input. So everything else of the run can be handed on, and the bundle leaves that
file out.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from repro.core import paths
from repro.core.encoding import SCHEMA, encode
from repro.core.errors import RecordError, UsageError

if TYPE_CHECKING:
    from repro.run.run import Request

NAME = "inputs.json"
PLACEHOLDER = "(withheld)"
"""What stands for a prompt everywhere else; the kit uses the same word."""


def withheld(request: "Request", folder: Path) -> "Request":
    """The request with its prompts moved into ``inputs.json`` of the run's folder.

    Raises:
        UsageError: the folder holds a run of other prompts.
        EvidenceError: the file cannot be written.
    """
    prompts = list(request.case.prompts)
    batches = None if request.batches is None else {**request.batches, "withheld": True}
    if not prompts:
        return dataclasses.replace(request, batches=batches)
    path = folder.absolute() / NAME
    if path.exists():
        try:
            before = paths.read_object(path).get("prompts")
        except RecordError as error:
            raise UsageError(f"{path} cannot be read ({error}). Give another folder with --out.") from None
        if before != prompts:
            raise UsageError(f"--out {folder} holds a run of other prompts. Give another folder.")
    else:
        paths.write(path, encode({"schema": SCHEMA, "prompts": prompts}, indent=1) + "\n")
    case = dataclasses.replace(request.case, prompts=(PLACEHOLDER,) * len(prompts), texts=str(path))
    return dataclasses.replace(request, case=case, batches=batches)
