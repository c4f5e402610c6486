"""Why these prompts: what tells the failing prompts of a run from the passing ones, and whether that could be chance.

    records -> questions -> comparison (significance: scipy) -> findings -> answer, in words

"No pattern" is an answer. Nothing here reads a file, and nothing knows a model.
"""

from repro.sweeps.prompts.reasons.answer import reasons
from repro.sweeps.prompts.reasons.findings import Finding, Group, Outcome, Reasons

__all__ = ["Finding", "Group", "Outcome", "Reasons", "reasons"]
