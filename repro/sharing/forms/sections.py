"""What the fields of a form say: the fault, its script with what it printed, what was expected, and the report's parts.

Everything here is Markdown, made of a document that holds nothing private any more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.core.encoding import number
from repro.core.sentences import listed, plain, sentence
from repro.report import cells, opening
from repro.report.markdown import block, code, text
from repro.sharing.forms.forms import outside_code

NAMES = {"transformers": "Transformers", "accelerate": "Accelerate", "pytorch": "PyTorch", "vllm": "vLLM"}
EXPECTED = {
    "nonfinite": "A finite output.",
    "weights": "Only finite values in the file.",
    "files": "Files that are whole and can be read to their end.",
    "load": "What is loaded is what the file holds, and nothing of the model is left unset.",
    "crash": "The process goes on to its end.",
}
"""What was expected, in a word, by the kind of fault."""
TIMES = {1: "once", 2: "twice", 3: "three times"}
IMPORTANCE = (
    "Where it is born",
    "One change at a time",
    "The smallest script",
    "Known faults that it looks like",
    "Versions",
    "Cells",
    "Whose fault it is",
    "Tensors with NaN or Inf in the file",
    "Findings",
    "Steps",
    "Inputs",
    "How it spreads",
    "Headroom",
)
"""Sections of the report, the most necessary first; those that are not named come last."""


@dataclass(frozen=True, slots=True)
class Quoted:
    """A script as it is quoted: its entry in verdict.json, its text, and whether something private was masked in it."""

    entry: Mapping[str, Any]
    text: str
    masked: bool = False

    @property
    def path(self) -> str:
        """Its file's name in the run's folder."""
        return str(self.entry["path"])


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report, which may be left out where room is short."""

    heading: str
    text: str

    @property
    def markdown(self) -> str:
        """With a heading that is of no form."""
        return f"#### {self.heading}\n\n{self.text}"


def statement(document: Mapping[str, Any]) -> str:
    """The fault in two sentences, as the report begins."""
    found = cells.complete(document)
    lead = cells.lead(found)
    said = [opening.headline(found), opening.second_sentence(found) if lead is None else lead]
    return " ".join(text(line) for line in said if line)


def script(document: Mapping[str, Any], quoted: Quoted) -> str:
    """A script whole, how it was run by itself, and what it printed."""
    parts = [_introduction(quoted), block(quoted.text.rstrip("\n"), "python"), _verification(document, quoted)]
    return "\n\n".join([*parts, *printed(quoted)])


def printed(quoted: Quoted) -> list[str]:
    """What the script printed when it was run by itself; empty where it printed nothing."""
    said = str(quoted.entry.get("output") or "").rstrip("\n")
    return ["It printed:", block(said, "text")] if said else []


def attached(document: Mapping[str, Any], quoted: Quoted) -> str:
    """A script that is too long to be quoted: where it is, and how it is known again."""
    lines = len(quoted.text.splitlines())
    known = f", SHA-256 {code(quoted.entry['sha256'])}" if quoted.entry.get("sha256") else ""
    where = f"The script is too long to be quoted: it is {code(quoted.path)} in the attached `bundle.zip`"
    parts = [f"{where} ({lines:,} lines{known}). {_introduction(quoted)}", _verification(document, quoted)]
    return "\n\n".join([*parts, *printed(quoted)])


def _introduction(quoted: Quoted) -> str:
    entry = quoted.entry
    needs = [NAMES.get(name, str(name)) for name in entry.get("needs") or ()]
    said = f"{code(quoted.path)} shows it"
    said += f" with {listed(needs)}{' alone' if len(needs) == 1 else ''}" if needs else ""
    checkpoint = entry.get("checkpoint")
    if checkpoint:
        revision = f" at revision {code(checkpoint['revision'])}" if checkpoint.get("revision") else ""
        hashes = [f"{code(name)} {code(digest)}" for name, digest in (checkpoint.get("sha256") or {}).items()]
        said += f". It reads the checkpoint {code(checkpoint.get('id'))}{revision}"
        said += f", SHA-256 of {listed(hashes)}" if hashes else ""
    elif needs:
        said += ", without a download"
    said += ". Its exit status is 1 while the fault is there, and 0 when it is gone."
    if entry.get("usage"):
        said += f" To run it: {code(' '.join(['python', quoted.path, *map(str, entry['usage'])]))}."
    if quoted.masked:
        said += " Private words are masked in it, so it is not byte for byte the file that was run."
    return said


def _verification(document: Mapping[str, Any], quoted: Quoted) -> str:
    entry, where = quoted.entry, document["cell"]
    seen = listed([str(status) for status in entry.get("exit_statuses") or ()])
    if not entry.get("verified"):
        reason = text(sentence(str(entry.get("reason") or "it was not run by itself")).rstrip("."))
        return f"**The script is not verified.** {reason}." + (f" Exit status seen: {seen}." if seen else "")
    needed = [name for name in ("torch", "transformers") if name in (entry.get("needs") or ()) and where.get(name)]
    versions = [f"{name} {where[name]}" for name in ("python", *needed) if where.get(name)]
    how = "in a clean interpreter (`python -I`, an empty folder, no network)"
    times = TIMES.get(int(entry.get("runs") or 0), f"{entry.get('runs')} times")
    return f"It was run {times} {how} with {text(', '.join(versions))}: exit status {seen}."


def tried(document: Mapping[str, Any], latest: Mapping[str, Any] | None) -> str:
    """Whether the fault is still there in the latest release, and between which releases it came; empty where neither
    was asked.
    """
    found, said = cells.complete(document)["versions"] or {}, []
    if found.get("sentence"):
        said.append(opening.first_sentence(str(found["sentence"])))
    if latest is not None:
        package = str(latest["package"])
        word = {"bad": "Still there in", "good": "Gone in"}.get(str(latest["verdict"]), "Could not be asked in")
        release = f"{word} {NAMES.get(package, package)} {latest['version']}, the latest release when it was tried"
        said.append(f"{release}: {opening.first_sentence(str(latest['reason']))}")
        said += ["No nightly build was tried."] if package == "torch" else []
    return " ".join(text(line) for line in said)


def expected(document: Mapping[str, Any], quoted: Sequence[Quoted]) -> str:
    """What was expected: the reference's value at the origin, and the changes with which the output is finite."""
    found = cells.complete(document)
    said = [EXPECTED.get(str(found["kind"]), "The exit status 0.")]
    origin = found["origin"] or {}
    reference = origin.get("reference") or {}
    value = number(reference.get("value"))
    if value is not None and math.isfinite(value):
        seen = f"where this run has {origin['value']}" if origin.get("value") else "at the place where it is born"
        said.append(f"{reference.get('dtype') or 'The reference'} has {plain(value)} {seen}.")
    wanted = ((document.get("reduction") or {}).get("program") or {}).get("expected") or {}
    value = number(wanted.get("value"))
    alone = next((item for item in quoted if str(item.entry.get("level")).startswith("operator")), None)
    if value is not None and math.isfinite(value) and alone is not None:
        said.append(f"From the inputs of {code(alone.path)}, {wanted.get('dtype')} gives {plain(value)}.")
    if found["workarounds"]:
        workarounds = listed([code(name) for name in found["workarounds"]])
        each = "each of these changes alone" if len(found["workarounds"]) > 1 else "only this changed"
        said.append(f"With {each} the output is finite: {workarounds}.")
    said += [f"{code(quoted[0].path)} ends with exit status 0 once that holds."] if quoted else []
    return " ".join(said)


def sections(report: str) -> list[Section]:
    """The parts of a filled REPORT_TEMPLATE.md, in order; what stands above the first is ``statement``'s."""
    found: list[tuple[str, list[str]]] = []
    for line, outside in outside_code(report):
        if outside and line.startswith("## "):
            found.append((line.removeprefix("## "), []))
        elif found:
            found[-1][1].append(line)
    return [Section(heading, "\n".join(lines).strip()) for heading, lines in found]


def by_importance(found: Sequence[Section]) -> list[Section]:
    """The most necessary first."""
    place = {heading: index for index, heading in enumerate(IMPORTANCE)}
    return sorted(found, key=lambda section: place.get(section.heading, len(place)))
