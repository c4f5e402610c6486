"""What the fields of a form say: the script with what it printed, what was expected, and the parts of the report.

Everything here is Markdown, made of an answer that holds nothing private any more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from repro.core.answer import Answer, ScriptRecord
from repro.core.encoding import number
from repro.core.records import Kind
from repro.core.sentences import listed, plain, sentence
from repro.report.markdown import block, code, text
from repro.report.render import Part, parts
from repro.report.section import LAST, names
from repro.report.section import named as section_of
from repro.sharing.forms.forms import named

EXPECTED = {
    Kind.NONFINITE: "A finite output.",
    Kind.WEIGHTS: "Only finite values in the file.",
    Kind.FILES: "Complete files that can be read to the end.",
    Kind.LOAD: "The model holds the file's values, and nothing of it is left unset.",
    Kind.CRASH: "The process runs to its end.",
    Kind.DIVERGENT: "Numbers that differ from the reference by no more than rounding.",
}
"""What was expected, in a word, by the kind of fault."""
FILES = 4
"""How many of the files that a script reads are named."""
TIMES = {1: "once", 2: "twice", 3: "three times"}


@dataclass(frozen=True, slots=True)
class Quoted:
    """A script as it is quoted: its record in verdict.json, its text, and whether something private is masked in it."""

    record: ScriptRecord
    text: str
    masked: bool = False

    @property
    def path(self) -> str:
        """Its file's name in the run's folder."""
        return str(self.record.path)


def script(answer: Answer, quoted: Quoted) -> str:
    """A script whole, how it was run by itself, and what it printed."""
    parts = [_introduction(quoted), block(quoted.text.rstrip("\n"), "python"), _verification(answer, quoted)]
    return "\n\n".join([*parts, *printed(quoted)])


def printed(quoted: Quoted) -> list[str]:
    """What the script printed when it was run by itself; empty where it printed nothing."""
    said = quoted.record.output.rstrip("\n")
    return ["It printed:", block(said, "text")] if said else []


def attached(answer: Answer, quoted: Quoted) -> str:
    """A script that is too long to be quoted: where it is, and how it is known again."""
    lines = len(quoted.text.splitlines())
    known = f", SHA-256 {code(quoted.record.sha256)}" if quoted.record.sha256 else ""
    where = f"The script is too long to quote: see {code(quoted.path)} in the attached `bundle.zip`"
    parts = [f"{where} ({lines:,} lines{known}). {_introduction(quoted)}", _verification(answer, quoted)]
    return "\n\n".join([*parts, *printed(quoted)])


def _introduction(quoted: Quoted) -> str:
    record, checkpoint = quoted.record, quoted.record.checkpoint
    needs = [named(name) for name in record.needs]
    said = f"{code(quoted.path)} shows it"
    said += f" with {listed(needs)}{' alone' if len(needs) == 1 else ''}" if needs else ""
    if checkpoint:
        revision = f" at revision {code(checkpoint.revision)}" if checkpoint.revision else ""
        hashes = [f"{code(name)} {code(digest)}" for name, digest in checkpoint.sha256.items()]
        said += f". It reads the checkpoint {code(checkpoint.id)}{revision}"
        said += f", SHA-256 of {listed(hashes)}" if hashes else ""
    elif record.reads:
        said += f". It reads {listed([code(name) for name in record.reads[:FILES]])}, not handed on with it"
    elif needs:
        said += ", without a download"
    said += ". It exits with 1 while the fault is there, and with 0 once it is gone."
    if record.usage:
        said += f" To run it: {code(' '.join(['python', quoted.path, *record.usage]))}."
    if quoted.masked:
        said += " Private words are masked in it, so it is not byte for byte the file that was run."
    return said


def _verification(answer: Answer, quoted: Quoted) -> str:
    record, where = quoted.record, answer.cell
    seen = listed([str(status) for status in record.exit_statuses])
    if not record.verified:
        reason = text(sentence(record.reason or "it was not run by itself").rstrip("."))
        return f"**The script is not verified.** {reason}." + (f" Exit status: {seen}." if seen else "")
    used = {"python": where.python, "torch": where.torch, "transformers": where.transformers}
    if answer.environment is not None:
        used |= {name: used.get(name) or answer.environment.version(name) for name in record.needs}
    versions = [f"{name} {version}" for name, version in used.items() if version and name in ("python", *record.needs)]
    how = "in a clean interpreter (`python -I`, an empty folder, no network)"
    times = TIMES.get(record.runs, f"{record.runs} times")
    return f"It was run {times} {how} with {text(', '.join(versions))}: exit status {seen}."


def expected(answer: Answer, quoted: Sequence[Quoted]) -> str:
    """What was expected: the reference's value at the origin, and the workarounds with which the output is finite."""
    said = ["The exit status 0." if answer.kind is None else EXPECTED.get(answer.kind, "The exit status 0.")]
    origin = answer.origin
    reference = origin and origin.reference
    value = number(reference and reference.value)
    if origin and reference and value is not None and math.isfinite(value):
        seen = f"where this run has {origin.value}" if origin.value else "at the origin"
        said.append(f"{reference.dtype or 'The reference'} has {plain(value)} {seen}.")
    wanted = answer.reduction and answer.reduction.program and answer.reduction.program.expected
    value = number(wanted and wanted.value)
    alone = next((item for item in quoted if item.record.level.startswith("operator")), None)
    if wanted and value is not None and math.isfinite(value) and alone is not None:
        said.append(f"From the inputs of {code(alone.path)}, {wanted.dtype} gives {plain(value)}.")
    if answer.workarounds:
        workarounds = listed([code(name) for name in answer.workarounds])
        each = "each of these workarounds alone" if len(answer.workarounds) > 1 else "this workaround"
        said.append(f"With {each} the output is finite: {workarounds}.")
    said += [f"{code(quoted[0].path)} exits with 0 once that holds."] if quoted else []
    return " ".join(said)


def sections(report: str) -> list[Part]:
    """The parts of a report, the most necessary first; without the one above the first heading."""
    rank = {section.heading: section.rank for section in map(section_of, names())}
    return sorted(parts(report)[1:], key=lambda part: rank.get(part.heading, LAST))


def markdown(part: Part) -> str:
    """A part of the report below a heading that no form has."""
    return f"##### {part.heading}\n\n{part.text}"
