"""What a folder of answers is for: which question, asked about which state of the files."""

from repro.core.folders.claims import Claim, check_held_still, check_unchanged, check_unused, claim, unused
from repro.core.folders.inputs import seen

__all__ = ["Claim", "check_held_still", "check_unchanged", "check_unused", "claim", "seen", "unused"]
