"""Known faults, each with the one further test that tells it from its neighbours; and what models' makers rule out.

Both are data, below ``repro/known/``: one TOML file for each, which ``entries`` reads strictly. ``fingerprint`` takes
from a run what faults are recognised by. ``looks_like`` gives the known faults that a run looks like, with what the
further test says, and ``excluded`` the documentation that rules the run's dtype out.
"""

from repro.diagnosis.known.likeness import Exclusion, Match, excluded, looks_like

__all__ = ["Exclusion", "Match", "excluded", "looks_like"]
