"""Why these prompts: what tells the failing prompts of a run from the passing ones, and whether that could be chance.

    records -> questions -> comparison (significance: scipy) -> answer

"No pattern" is an answer. Nothing here reads a file, and nothing knows a model.
"""

from repro.sweeps.prompts.reasons.answer import reasons

__all__ = ["reasons"]
