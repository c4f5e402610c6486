"""How many inputs a fuzzer makes: some in the suite, the whole number in `nox -s attacks`."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, settings

EXAMPLES = int(os.environ.get("REPRO_FUZZ_EXAMPLES", "100"))

VARIANTS = 80 if EXAMPLES >= 2000 else 5
"""Inputs that come of one that hypothesis has made: itself, and some with a few bytes changed. Most of the time goes
into making structured inputs, and damaged ones are as telling."""
PIECES = (b"\0", b"\xff\xfe", b'"', b"\n", b"[" * 1100, b"9" * 5000, b"{", b"}", b",", b"-", b"\\", b"nan")

# The inputs of the suite are always the same. The session draws new ones each time; what falls is printed as a test.
fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize="REPRO_FUZZ_EXAMPLES" not in os.environ,
    deadline=30_000,  # milliseconds: it is there to find what hangs, on a busy machine too
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
varied = settings(fuzzed, max_examples=max(1, EXAMPLES // VARIANTS))
"""For a test that reads every one of ``variants``."""


def variants(content: bytes) -> Iterator[bytes]:
    """The input, and the same with some bytes changed, put in, taken away or cut off; always the same ones."""
    yield content
    chance = random.Random(content)
    for _ in range(VARIANTS - 1):
        data = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            at, gone = chance.randint(0, len(data)), chance.choice((0, 1, 1, 5))
            data[at : at + gone] = chance.choice((*PIECES, chance.randbytes(chance.randint(0, 5))))
        yield bytes(data[: chance.randint(0, len(data))] if chance.random() < 0.2 else data)
