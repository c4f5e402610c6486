"""The command that gives all of it again, and the hashes of what gave it."""

from repro.report.markdown import block
from repro.report.section import Section, Shown, Variables

TEMPLATE = """
{{ command }}

{{ "Probe kit: `probes.pyz`, SHA-256 `" ~ kit_sha256 ~ "`." if kit_sha256 }}
{{ "What each step answered: `evidence.jsonl`, SHA-256 `" ~ evidence_sha256 ~ "`." if evidence_sha256 }}
"""


def fill(shown: Shown) -> Variables:
    answer = shown.answer
    return {
        "command": block(answer.command, "sh"),
        "kit_sha256": answer.kit_sha256,
        "evidence_sha256": answer.evidence_sha256,
    }


SECTION = Section("Reproduce", fill, TEMPLATE)
