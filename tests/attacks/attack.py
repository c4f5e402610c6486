"""What an attack is, and the tables of them. Plain data; no torch.

A row of ``table/KIND.toml``:

    [[attack]]
    name = "a FIFO as weights"               # unique in its file
    model = "model"                          # a folder with a sound model; or, of any kind,
    models = { model = "sound" }             # folders that are put there; which models there are: makers/models.py
    files = [{ path = "a.txt", text = "..." }, { path = "b", base64 = "..." }, { path = "c", link = "/dev/zero" },
             { path = "model/model.safetensors", make = "fifo" }]
    command = ["weights", "model"]           # what `repro` is given; or
    shell = "$REPRO weights model >&-"       # a line for bash; or
    do = "kill"                              # a deed: a function of makers/*.py, which gives what did not hold
    args = { step = "load" }                 # of the deed
    status = [2]                             # the exit statuses that hold; of a deed none are asked
    says = ["is a FIFO"]                     # regular expressions, each found in what was printed
    never = ["secret"]                       # texts that neither stand in what was printed nor in what is handed on
    handed = ["o/**/*"]                      # the files that are handed on, as patterns
    env = { NAME = "value" }
    seconds = 60                             # at most
    memory_mb = 1500                         # at most, of the largest of its processes
    suite = true                             # run in the test suite as well
    fresh = true                             # by fresh interpreters throughout, as a user starts it; see below

``{here}`` in a command, a text or a variable is the attack's own folder. What holds of every attack is in ``drive``.

Where the start of the interpreter is not what is attacked, it is forked off one that has its imports behind it
(``support.forked``). The first row of each kind, every eighth behind it, and those that say how much memory holds are
by fresh interpreters in any case.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parent / "table"
SECONDS = 120.0
MEMORY_MB = 3000
FRESH = 8
"""One row of so many is by fresh interpreters."""


@dataclass(frozen=True)
class Attack:
    """One row, and the kind that its file is named for."""

    kind: str
    row: str
    models: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Mapping[str, Any], ...] = ()
    command: tuple[str, ...] = ()
    shell: str = ""
    do: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    status: tuple[int, ...] = ()
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    handed: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    seconds: float = SECONDS
    memory_mb: int = MEMORY_MB
    suite: bool = False
    fresh: bool = False

    @property
    def name(self) -> str:
        """``kind/row``."""
        return f"{self.kind}/{self.row}"


def every() -> list[Attack]:
    """All attacks, table by table.

    Raises:
        ValueError: a row is none, or two rows of a table have one name.
    """
    found = [attack for path in sorted(TABLES.glob("*.toml")) for attack in of_table(path)]
    names = [attack.name for attack in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two attacks of one name: {', '.join(sorted(twice))}")
    return found


def of_table(path: Path) -> list[Attack]:
    """The attacks of one table."""
    rows = tomllib.loads(path.read_text("utf-8"))["attack"]
    return [_attack(path.stem, {"fresh": not number % FRESH, **row}) for number, row in enumerate(rows)]


def _attack(kind: str, row: dict[str, Any]) -> Attack:
    name = row.pop("name")
    row["fresh"] |= "memory_mb" in row
    if model := row.pop("model", None):
        row["models"] = {model: "sound", **row.get("models", {})}
    lists = {key: tuple(value) for key, value in row.items() if isinstance(value, list)}
    try:
        attack = Attack(kind, name, **{**row, **lists})
    except TypeError as error:
        raise ValueError(f"{kind}/{name}: {error}") from None
    if sum(map(bool, (attack.command, attack.shell, attack.do))) != 1:
        raise ValueError(f"{kind}/{name}: exactly one of command, shell and do")
    if not attack.do and not attack.status:
        raise ValueError(f"{kind}/{name}: no status that holds")
    return attack
