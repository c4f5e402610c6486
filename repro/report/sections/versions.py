"""A search over releases: the interval, what changed, and every release that was tested."""

from collections.abc import Mapping

from repro.core.sentences import listed
from repro.core.sweep_answers import Boundary, Release, Versions
from repro.report.markdown import DASH, Row, cell, commands, first_of, or_dash, text, thinned, verdict
from repro.report.opening import full_stop
from repro.report.plots.verdicts import versions
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ sentences | join("\\n\\n") }}

{{ facts(numbers) }}

{{ "All boundaries found:" if boundaries }}

{{ table(["last good", "first bad", "skipped between them"], boundaries) }}

{{ boundaries_note }}

{{ "Releases tested, in this order:" if rows }}

{{ table(["versions", "verdict", "votes", "reason"], rows) }}

{{ note }}

{{ "To test each release again:" if commands }}

{{ commands }}
"""
DIRECTIONS = {"regression": "newer releases are bad", "fix": "newer releases are good"}


def fill(shown: Shown) -> Variables | None:
    found = shown.answer.versions
    if found is None:
        return None
    ends = {found.last_good, found.first_bad}
    keep = {index for index, item in enumerate(found.probes) if item.pins.get(found.package) in ends}
    chosen, note = thinned(found.probes, shown.rows, keep)
    boundaries, more = first_of(found.boundaries, shown.rows, "boundaries")
    compared = found.all_changes or (found.changes,)
    said = [None if found.sentence == shown.answer.headline else found.sentence]
    said += [*(item.sentence for item in compared if item), found.attribution, *found.notes]
    return {
        "sentences": [text(full_stop(line)) for line in said if line],
        "numbers": _facts(found),
        "boundaries": [[or_dash(item.last_good), or_dash(item.first_bad), _skipped(item)] for item in boundaries],
        "boundaries_note": more,
        "rows": [_row(item) for item in chosen],
        "note": note,
        "commands": commands(item.command for item in chosen),
    }


def _facts(found: Versions) -> list[Row]:
    named = {
        "package": cell(found.package),
        "direction": text(DIRECTIONS.get(found.direction, found.direction)) if found.direction else None,
        "last good": cell(found.last_good) if found.last_good else None,
        "first bad": cell(found.first_bad) if found.first_bad else None,
        "skipped between them": _skipped(found) if found.skipped else None,
        "with": _pins(found.with_),
        "Python": text(found.python) if found.python else None,
        "releases in the range": text(found.releases) if found.releases else None,
        "environments": text(found.environments) if found.environments else None,
    }
    return [[name, value] for name, value in named.items() if value]


def _skipped(found: Versions | Boundary) -> str:
    return listed([cell(version) for version in found.skipped]) or DASH


def _pins(pins: Mapping[str, str]) -> str:
    return ", ".join(cell(f"{name} {version}") for name, version in pins.items())


def _row(item: Release) -> Row:
    return [_pins(item.pins), verdict(item.verdict), or_dash(item.votes), text(item.reason)]


SECTION = Section("Versions", fill, TEMPLATE, plot=versions, rank=5)
