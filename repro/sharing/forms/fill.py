"""A form filled from a run: as much of the report as there is room for, and a URL that opens the form filled.

The reporter's own words come first. What the tool wrote stands under a heading that says so: the lines that decide, the
script with what it printed, what was expected, the table of cells or ablations; all else is folded.

Where room is short, sections of the report and all scripts but one are left out, the least necessary before the others.
A script is never cut: where none fits by itself, it is attached.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlencode

from repro.core.answer import Answer
from repro.core.encoding import replace
from repro.core.sentences import listed, named_mechanism, sentence
from repro.report import opening
from repro.report.markdown import code, text
from repro.report.render import LIMIT, NOTHING_PRIVATE, Part, render
from repro.sharing.forms.environment import environment
from repro.sharing.forms.first import Releases, first_lines, has_border, whose
from repro.sharing.forms.forms import Field, Form, body, boxes
from repro.sharing.forms.sections import (
    Quoted,
    attached,
    expected,
    markdown,
    printed,
    script,
    sections,
)
from repro.sharing.tried import Tried

TITLE_LIMIT = 256
"""GitHub's limit for the title of an issue, in characters."""
URL_LIMIT = 8_191
"""The longest address that GitHub answers, in bytes; a longer one gives status 414."""
PLACEHOLDER = (
    "<!-- Please write here, in your own words, what you were doing and what you expected. Replace this line, or "
    "write into words.md in the run's folder and make the report again. -->"
)
"""What stands where the reporter's own words belong; it does not show in an issue."""
BUNDLE = "bundle.zip"
TABLES = ("Cells", "Ablations")
"""Sections of which the first that there is stands in the open, behind the script."""
BEFORE_SCRIPTS = 2
"""How many sections are more necessary than a second script."""

Piece = Quoted | Part


@dataclass(frozen=True, slots=True)
class Filled:
    """A filled form.

    Args:
        form: Which.
        title: Of the issue, at most 256 characters.
        texts: Those of its fields, in order; empty where there is nothing to say.
        url: Opens the form filled, or a plain issue; None where it would be too long, or nothing can be prefilled.
        left_out: What of the report and of the scripts is not in ``texts``, by name.
        left_out_of_url: The same for the URL.
    """

    form: Form
    title: str
    texts: tuple[str, ...]
    url: str | None
    left_out: tuple[str, ...]
    left_out_of_url: tuple[str, ...]

    @property
    def body(self) -> str:
        """The issue's body as GitHub makes it."""
        return body(self.form, self.texts)

    @property
    def to_tick(self) -> tuple[str, ...]:
        """The boxes to tick by hand, which no URL can."""
        return tuple(box for field in self.form.fields for box in field.ticked)


def fill(
    form: Form,
    answer: Answer,
    quoted: Sequence[Quoted],
    mask: Callable[[str], str],
    *,
    words: str | None = None,
    latest: Tried | None = None,
    releases: Releases | None = None,
) -> Filled:
    """The form, filled.

    Args:
        form: Which.
        answer: The run's, without what is private.
        quoted: The scripts, the most telling first.
        mask: Masks what is put together of them, before it goes into a file or an address.
        words: The reporter's own, as Markdown; None leaves a place for them.
        latest: What the newest release gave with the first of the scripts.
        releases: What the releases of the form's package gave.
    """
    report = sections(render(replace(answer, environment=None), NOTHING_PRIVATE))
    title = mask(_title(form, answer))

    def short(texts: Sequence[str]) -> bool:
        return len(body(form, texts)) <= LIMIT

    def fits_url(texts: Sequence[str]) -> bool:
        return len(_url(form, title, texts).encode()) <= URL_LIMIT

    draft = partial(_Draft, form, answer, report, mask, words, latest, releases or {})
    drafts = [draft(order, whole=True) for order in (quoted, quoted[::-1])]
    texts, left_out = (_first(drafts, short) or draft(quoted, whole=False)).as_much_as(short)
    in_url = _first(drafts, fits_url) if form.prefill != "nothing" else None
    filled, left_out_of_url = in_url.as_much_as(fits_url) if in_url else ((), ())
    url = _url(form, title, filled) if in_url else None
    return Filled(form, title, texts, url, left_out, left_out_of_url)


@dataclass(frozen=True, slots=True)
class _Draft:
    """What a form could be filled with. ``quoted`` are the scripts, of which the first is always there; with ``whole``
    it is quoted, and else named as an attachment.
    """

    form: Form
    answer: Answer
    report: Sequence[Part]
    mask: Callable[[str], str]
    words: str | None
    latest: Tried | None
    releases: Releases
    quoted: Sequence[Quoted]
    whole: bool

    @property
    def pieces(self) -> list[Piece]:
        """What may be left out, the most necessary first: place and workarounds, the other scripts, the rest."""
        return [*self.report[:BEFORE_SCRIPTS], *self.quoted[1:], *self.report[BEFORE_SCRIPTS:]]

    def as_much_as(self, fits: Callable[[Sequence[str]], bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(the fields' texts with as many pieces as fit, the names of what is left out of them)."""
        kept = frozenset[str]()
        for piece in self.pieces:
            if fits(self.texts(kept | {_name(piece)})):
                kept |= {_name(piece)}
        missing = tuple(_name(piece) for piece in self.pieces if _name(piece) not in kept)
        attached_first = () if self.whole or not self.quoted else (self.quoted[0].path,)
        return self.texts(kept), (*attached_first, *missing)

    def _search(self) -> str:
        """What a search over releases found, where the first line does not say it."""
        versions = self.answer.versions
        if not versions or not versions.sentence or has_border(self.answer, self.form.package):
            return ""
        return text(opening.full_stop(versions.sentence))

    def _left_out(self, names: Sequence[str]) -> list[str]:
        if not names:
            return []
        said = f"Left out here: {listed([code(name) for name in names])}."
        return [said if self.form.self_contained else f"{said} All of it is in the attached `{BUNDLE}`."]

    def texts(self, kept: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """The texts of all fields, with those pieces that are named."""
        answer, quoted = self.answer, self.quoted
        wanted = f"**Expected:** {expected(answer, quoted)}"
        theirs, said_first = (
            whose(answer, self.form),
            first_lines(answer, self.form.package, self.releases, self.latest),
        )
        own = answer.owner is not None and self.form.is_for(answer.owner.project)
        first = [said_first, theirs] if own else [theirs, said_first]
        decide = "\n".join(filter(None, first))
        shown = [decide, self._search(), *_scripts(answer, quoted, kept, whole=self.whole)]
        table = next((part for name in TABLES for part in self.report if part.heading == name), None)
        opened = [markdown(table)] if table and table.heading in kept else []
        rest = [opening.statement(answer)]
        rest += [markdown(part) for part in self.report if part.heading in kept and part is not table]
        rest += self._left_out([_name(piece) for piece in self.pieces if _name(piece) not in kept])
        said: dict[str, Callable[[], str]] = {
            "everything": lambda: _generated(answer, [*shown, wanted, *opened], rest),
            "reproduction": lambda: _generated(answer, [*shown, *opened], rest),
            "expected": lambda: expected(answer, quoted),
            "environment": lambda: environment(answer, self.form.environment),
            "output": lambda: _generated(answer, printed(quoted[0]) if quoted else [], []),
            "nothing": str,
        }

        def filled(field: Field) -> str:
            text = boxes(field) if field.content == "boxes" else self.mask(said[field.content]())
            return f"{self.words or PLACEHOLDER}\n\n{text}" if field.label == self.form.own_words and text else text

        return tuple(filled(field) for field in self.form.fields)


def _first(drafts: Sequence[_Draft], fits: Callable[[Sequence[str]], bool]) -> _Draft | None:
    """The first draft that fits by itself, without anything that may be left out."""
    return next((draft for draft in drafts if fits(draft.texts())), None)


def _name(piece: Piece) -> str:
    return piece.path if isinstance(piece, Quoted) else piece.heading


def _scripts(answer: Answer, quoted: Sequence[Quoted], kept: frozenset[str], *, whole: bool) -> list[str]:
    if not quoted:
        reason = answer.reproducer and answer.reproducer.reason
        return [f"There is no reproducer{f': {text(reason)}' if reason else '.'}"]
    first = script(answer, quoted[0]) if whole else attached(answer, quoted[0])
    return [first, *(script(answer, item) for item in quoted[1:] if item.path in kept)]


def _generated(answer: Answer, parts: Sequence[str], folded: Sequence[str]) -> str:
    """Parts under a heading that says what wrote them, the less necessary ones folded; empty where there are none."""
    said = [part for part in parts if part]
    if not said:
        return ""
    heading = f"#### Generated by repro {answer.tool} from a recorded run, not written by a person"
    more = [part for part in folded if part]
    block = ["<details>\n<summary>More from the recorded run</summary>", *more, "</details>"] if more else []
    return "\n\n".join([heading, *said, *block])


def _title(form: Form, answer: Answer) -> str:
    """Of a user's script, whose name tells nobody anything, the fault and the release; else that of the report."""
    origin, package = answer.origin, form.package
    said = opening.title(answer)
    if answer.script is not None and origin is not None:
        op = f"the backward of {origin.forward_op}" if origin.forward_op else origin.op
        place = op if package == "torch" else origin.module_class or origin.source or op
        what = sentence(named_mechanism(origin, answer.bisect).partition(" (")[0])
        cell = {"torch": answer.cell.torch, "transformers": answer.cell.transformers}
        version = cell.get(package) or (answer.environment and answer.environment.version(package))
        release = f" ({package} {version}, {answer.cell.device or 'cpu'})" if version else ""
        said = f"{what} in {place}{release}"
    title = " ".join(f"{form.title}{said}".split())
    return title if len(title) <= TITLE_LIMIT else title[: TITLE_LIMIT - 4] + " ..."


def _url(form: Form, title: str, texts: Sequence[str]) -> str:
    """The address with permitted parameters only: any other can give a page that does not exist."""
    if form.prefill == "ids":
        filled = {
            str(field.id): said
            for field, said in zip(form.fields, texts, strict=True)
            if field.id and said and field.content not in ("boxes", "nothing")
        }
        values = {"template": form.template, "title": title, **filled}
    else:
        values = {"title": title, "body": body(form, texts)}
    return f"https://github.com/{form.repository}/issues/new?{urlencode(values)}"
