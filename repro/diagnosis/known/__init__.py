"""Known faults, each with the one test that tells it from its neighbours; and dtypes that models' makers rule out.

Both are data below ``data/``, one TOML file each, which ``entries`` reads strictly; the user's own entries lie in the
user's configuration. ``fingerprint`` takes from an answer what a fault is recognised by; ``likeness`` says which known
faults a run looks like.
"""

from repro.diagnosis.known.entries import catalogue
from repro.diagnosis.known.likeness import Exclusion, excluded, looks_like

__all__ = ["Exclusion", "catalogue", "excluded", "looks_like"]
