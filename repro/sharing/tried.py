"""latest.json: what a run's script gave in the newest release of a package."""

from pathlib import Path

from msgspec import field

from repro.core.encoding import SCHEMA, Record, replace
from repro.core.errors import RecordError
from repro.core.paths import read_record
from repro.core.records import Outcome

NAME = "latest.json"


class Tried(Record, frozen=True, kw_only=True):
    """One release, and what was seen there.

    ``with_`` are the other packages that were installed there. ``script`` and its hash are None where the run itself
    used that release.
    """

    package: str
    version: str
    verdict: Outcome
    reason: str
    output: str | None = None
    exit_statuses: tuple[int | None, ...] = ()
    with_: dict[str, str] = field(default_factory=dict, name="with")
    script: str | None = None
    script_sha256: str | None = None


class Latest(Tried, frozen=True, kw_only=True):
    """The whole file: the release that was tried last, and those of other packages."""

    schema: int = SCHEMA
    others: tuple[Tried, ...] = ()


def answers(folder: Path) -> tuple[Tried, ...]:
    """What the latest.json of a run says, one answer for each package; nothing where there is no such file.

    Raises:
        RecordError: it cannot be read; the message names the file and the place.
    """
    path = folder / NAME
    if not path.exists():
        return ()
    try:
        latest = read_record(path, Latest)
    except RecordError as error:
        raise RecordError(f"{path} cannot be used: {error}. Remove it, and ask again with --try-latest.") from None
    return (replace(latest, others=()), *latest.others)
