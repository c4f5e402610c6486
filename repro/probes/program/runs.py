"""What the search needs of something that can be run again, and nothing else."""

from typing import Any, Optional, Protocol

from .capture import Found, Wanted
from .makers import Rule


class Ended(Protocol):
    """How one run ended.

    ``found``: what the watch around it found; None where nothing watched.
    """

    @property
    def verdict(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def found(self) -> Any: ...


class Runs(Protocol):
    """Runs of one program, each from the same state.

    ``noun``: what it is called in a sentence. ``seconds``: how long the search may take. ``plain``: the run that
    nothing watched.
    """

    @property
    def noun(self) -> str: ...

    @property
    def seconds(self) -> float: ...

    @property
    def is_over(self) -> bool: ...

    @property
    def plain(self) -> Ended: ...

    def look(self, rule: Rule) -> Ended:
        """Watched, with what the rule names repaired; what it found is ``Seen``."""

    def capture(self, wanted: Wanted) -> Optional[Found]:
        """Up to the candidate that is wanted."""

    def unwatched(self, *settings: str) -> Ended:
        """Not watched, with these settings."""

    def with_settings(self, *settings: str) -> "Runs":
        """The same program with these settings in every run."""

    def same(self, ended: Any) -> bool:
        """Whether it failed as the plain run did."""

    def well(self, ended: Any) -> bool:
        """Whether the failure is gone."""
