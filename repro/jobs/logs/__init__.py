"""Earlier job logs become records.

::

    file -> reading (decompressed, decoded, in blocks) -> scanning (only lines that hold a known word)
         -> heads (rank, time) -> patterns (what a line says) -> assembly (lines of one failure, by rank)
         -> tallies (what a log holds of each model) -> tables, conclusions -> document -> terminal, files

What lines say is data: ``patterns/*.toml`` and ``heads.toml``. Memory grows with the number of different prompts that
failed, never with the size of a log.
"""

from repro.jobs.logs.logs import read_log
from repro.jobs.logs.records import Failure, Prompt, Reading, Section

__all__ = ["Failure", "Prompt", "Reading", "Section", "read_log"]
