"""A scan in words for a terminal, and as JSON."""

from collections.abc import Iterator
from typing import Any

from repro.core.encoding import SCHEMA
from repro.core.records import Outcome
from repro.core.sentences import visible
from repro.jobs.scan.findings import Finding, Looked
from repro.jobs.scan.looking import Scan

SHOWN = 10
"""Places of one file that a terminal gets; ``--json`` has all."""
LONGEST_PLACE = 200
"""Characters of a place: a key may be a whole prompt."""


def lines(looked: Looked) -> Iterator[str]:
    """One line for the file, one for each place in it that is bad, and one for each part that was not read."""
    yield f"{looked.verdict.outcome.value:4} {_clean(looked.path)}: {_clean(looked.verdict.reason)}"
    for finding in looked.findings[:SHOWN]:
        yield f"       {_found(finding)}"
    if len(looked.findings) > SHOWN:
        yield f"       and {len(looked.findings) - SHOWN:,} further places (--json has all)"
    if looked.verdict.outcome is Outcome.BAD:
        for reason in looked.unread[:SHOWN]:
            yield f"       not read: {_clean(reason)}"


def summary(scan: Scan, seconds: float) -> Iterator[str]:
    """The answer, what was passed over, and how fast it went."""
    if scan.others:
        named = ", ".join(f"{count:,} {suffix}" for suffix, count in list(scan.others.items())[:SHOWN])
        total = sum(scan.others.values())
        yield f"not looked at, for their kind: {total:,} file{'s' if total != 1 else ''} ({_clean(named)})"
    size = sum(looked.bytes for looked in scan.files)
    rate = f", {size / 1e6 / seconds:,.0f} MB/s" if seconds > 0 else ""
    yield f"{scan.verdict.outcome.value}: {scan.verdict.reason} ({size / 1e6:,.1f} MB in {seconds:.1f} s{rate})"


def document(scan: Scan, seconds: float) -> dict[str, Any]:
    """Everything, with plain numbers."""
    return {
        "schema": SCHEMA,
        "command": "scan",
        "verdict": scan.verdict.outcome.value,
        "reason": scan.verdict.reason,
        "seconds": seconds,
        "files": [_file(looked) for looked in scan.files],
        "not_looked_at": scan.others,
    }


def _file(looked: Looked) -> dict[str, Any]:
    nan, posinf, neginf = looked.counts
    return {
        "path": looked.path,
        "kind": looked.kind,
        "verdict": looked.verdict.outcome.value,
        "reason": looked.verdict.reason,
        "bytes": looked.bytes,
        "numbers": looked.numbers,
        "nan": nan,
        "posinf": posinf,
        "neginf": neginf,
        "places": [_place(finding) for finding in looked.findings],
        "unread": looked.unread,
        "passed_over": looked.passed_over,
    }


def _place(finding: Finding) -> dict[str, Any]:
    return {
        "place": finding.place,
        "dtype": finding.dtype,
        "count": finding.count,
        "nan": finding.nan,
        "posinf": finding.posinf,
        "neginf": finding.neginf,
        "as_text": finding.as_text,
        "share": finding.share,
        "first": finding.first,
    }


def _found(finding: Finding) -> str:
    """``hidden[] (float16): 3 NaN, 1 -inf of 640 (0.63 %), first at [0, 12]``."""
    counts = (("NaN", finding.nan), ("+inf", finding.posinf), ("-inf", finding.neginf))
    named = ", ".join(f"{count:,} {word}" for word, count in counts if count)
    dtype = f" ({finding.dtype})" if finding.dtype else ""
    text = f", {finding.as_text:,} as text" if finding.as_text else ""
    place = _clean(finding.place or "the value itself")
    return f"{place}{dtype}: {named} of {finding.count:,} ({_percent(finding)}){text}, first at {_clean(finding.first)}"


def _percent(finding: Finding) -> str:
    """100 % only where all are bad, and never 0 %."""
    percent = 100 * finding.share
    if percent < 0.01:
        return "below 0.01 %"
    if finding.bad < finding.count:
        percent = min(percent, 99.99)
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def _clean(text: str) -> str:
    """Names out of a file on one line, without what would steer the terminal."""
    plain = visible(text)
    return plain if len(plain) <= LONGEST_PLACE else f"{plain[:LONGEST_PLACE]}..."
