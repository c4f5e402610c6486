"""One thing that is wrong with a report, or worth knowing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or worth knowing.

    ``kind`` is "refused" for what maintainers reject, "unknown" for what could not be told, and "note" for the rest.
    """

    kind: str
    what: str
    found: str
    to_do: str

    @property
    def line(self) -> str:
        """One line: what, found, what to do."""
        return f"{self.kind}: {self.what}: {self.found}. {self.to_do}"
