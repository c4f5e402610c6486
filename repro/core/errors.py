"""What can go wrong on the host's side, and the exit status of each.

::

    ReproError (125: could not tell)
    +-- UsageError (2: the command line or the files it names)
    +-- RecordError (a line or file that is no record of this schema)
    +-- EvidenceError (the run folder cannot be read or written)
    +-- CellError (the interpreter of the cell cannot run the kit)
    +-- BuildError (the environment of a cell cannot be built here)
    +-- FetchError (a sample could not be fetched)
    +-- NotPrinted (stdout takes no answer)
    |   +-- NobodyReads (its reader has gone away, as `head` does)
    +-- Stopped (130: by Ctrl-C; 143: by SIGTERM)

A message says what was wrong, what was found and what to do. It is raised once and printed once, in ``cli``.
"""


class ReproError(Exception):
    """Base of every error that is printed as one line, without a traceback."""

    exit_status = 125


class UsageError(ReproError):
    """The command line, or a path on it, cannot be used as it is."""

    exit_status = 2


class RecordError(ReproError):
    """JSON data does not fit the record it should become."""


class EvidenceError(ReproError):
    """The run folder cannot be read or written."""


class CellError(ReproError):
    """The interpreter of the cell cannot run the probe kit."""


class BuildError(ReproError):
    """The environment of a cell cannot be built or run on this machine: an answer for that cell, not the run's end."""


class FetchError(ReproError):
    """A sample could not be fetched, or is not what it should be."""


class NotPrinted(ReproError):
    """The answer could not be printed: stdout is closed, or where it leads is full."""


class NobodyReads(NotPrinted):
    """Whoever read stdout has seen enough."""


class Stopped(ReproError):
    """The run was told to stop, by Ctrl-C or by a scheduler's SIGTERM.

    Args:
        exit_status: 128 and the number of the signal.
        command: The command that resumes it.
    """

    def __init__(self, exit_status: int, command: str) -> None:
        self.what = "stopped; what was recorded stays."
        super().__init__(f"{self.what} To go on: {command}")
        self.exit_status = exit_status
        self.command = command
