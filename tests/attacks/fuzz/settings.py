"""How many inputs a fuzzer makes: some in the suite, the whole number in `nox -s attacks`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("REPRO_FUZZ_EXAMPLES", "200"))

# The inputs of the suite are always the same. The session draws new ones each time; what falls is printed as a test.
fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize="REPRO_FUZZ_EXAMPLES" not in os.environ,
    deadline=2000,  # milliseconds for one input
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
