"""Job logs as records: which prompts failed, with what counts, and what follows.

::

    file -> reading (decompress, decode, cut into blocks) -> scanning (lines with a known word)
         -> heads (rank, time) -> patterns (what a line says) -> assembly (the lines of one failure, by rank)
         -> tallies, identity (totals and prompts for each model in a log) -> tables, answer -> files, and repro.cli

What lines mean is data: ``patterns/*.toml`` and ``heads.toml``. Memory grows with the number of distinct prompts that
failed, up to ``tallies.MOST_PROMPTS`` of them, not with the size of a log.
"""

from repro.jobs.logs.logs import read_log
from repro.jobs.logs.records import Failure, Prompt, Reading, Section

__all__ = ["Failure", "Prompt", "Reading", "Section", "read_log"]
