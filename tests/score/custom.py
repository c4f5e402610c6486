"""The corpus's faults in custom code, which comes with the model: no table makes them, so they are taken as they are.

`tests/end_to_end/test_corpus.py` is their oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from corpus.faults import BY_NAME, FAULTS, InjectedFault

from .records import Case, Place, Truth


def _write(fault: InjectedFault, folder: Path) -> Path:
    fault.build(folder / "model")
    return folder / "model"


def _truth(fault: InjectedFault) -> Truth:
    """That the model's own code is at fault is no owner: its authors are not known. Large weights are the file's."""
    known = fault.truth
    place = Place(known.module, () if known.op is None else (known.op,))
    owners = ("checkpoint", "caller") if known.mechanism == "overflow" else ()
    why = f"{fault.fault.replace('_', ' ')}, as tests/corpus/README.md says"
    return Truth((place,), tuple(filter(None, (known.mechanism, *known.also_mechanism))), owners, why)


def _checked() -> None:
    """The corpus has its own test."""


def cases() -> Iterator[Case]:
    """Each fault in custom code with a place, and its twin."""
    for fault in FAULTS:
        if fault.family != "custom" or fault.truth.module is None or fault.twin is None:
            continue
        name = f"custom/{fault.fault}/{fault.truth.module}/{fault.dtype}/folder"
        for one in (fault, BY_NAME[fault.twin]):
            yield Case(
                name if one is fault else f"{name}/sound", "custom", fault.fault, "folder", partial(_write, one),
                partial(_truth, fault) if one is fault else None, _checked, one.dtype, one.attn, one.prompt,
                trusted=True,
            )  # fmt: skip
