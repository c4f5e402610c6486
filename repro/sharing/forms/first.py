"""The first lines of a filled form: what decides whether anybody reads on.

Is it a regression, and is it still there; is it silent; which operator, called from which module and line; and what
makes it go away.
"""

from collections.abc import Mapping, Set

from repro.core.answer import Answer
from repro.core.records import Kind, Outcome
from repro.core.sentences import listed, named_mechanism, sentence
from repro.report.markdown import code, text
from repro.report.opening import full_stop
from repro.report.sections.owner import owner_name
from repro.sharing.forms.forms import Form, named
from repro.sharing.tried import Tried

SHOWN = 6
"""How many releases are named one by one."""
VERDICTS = {Outcome.GOOD: "good", Outcome.BAD: "bad", Outcome.SKIP: "could not be tested"}

Releases = Mapping[str, Set[Outcome]]
"""The releases of a package that gave an answer, the oldest first, and which."""


def first_lines(answer: Answer, package: str, tried: Releases, latest: Tried | None) -> str:
    """A list of Markdown, a line for each question that the run has an answer to.

    Args:
        answer: Of the run, without what is private.
        package: The one whose maintainers read it.
        tried: What its releases gave.
        latest: What the newest one gave.
    """
    said = {
        "Regression": _regression(answer, package, tried, latest),
        "Silent or loud": _loudness(answer),
        "Where": _where(answer),
        "Goes away with": listed([code(name) for name in answer.workarounds]),
    }
    return "\n".join(f"- **{name}:** {words}" for name, words in said.items() if words)


def whose(answer: Answer, form: Form) -> str:
    """A line of the same list: why the run says that the fault is theirs; or that it is another's, or none: who reads
    the form learns it before anything else.
    """
    owner = answer.owner
    if owner is None or (owner.project is None and not answer.is_rounding):
        return ""
    if form.is_for(owner.project):
        return f"- **Why here:** {text(full_stop(owner.reason))}"
    name = f"{owner_name(owner.project)}, by this run. " if owner.project else ""
    return f"- **Owner:** {name}{text(full_stop(owner.reason))}"


def has_border(answer: Answer, package: str) -> bool:
    """Whether a search found between which releases of the package the fault came or went."""
    found = answer.versions
    return bool(found and found.package == package and found.last_good and found.first_bad)


def _regression(answer: Answer, package: str, tried: Releases, latest: Tried | None) -> str:
    name, newest = named(package), _newest(package, latest)
    versions = answer.versions
    if versions and has_border(answer, package):
        last_good, first_bad = text(str(versions.last_good)), text(str(versions.first_bad))
        if versions.direction == "fix":
            return f"no: bad up to {name} {first_bad}, good from {last_good} on{newest}"
        return f"good in {name} {last_good}, bad in {first_bad}{newest}"
    good = [release for release, verdicts in tried.items() if verdicts == {Outcome.GOOD}]
    bad = [release for release, verdicts in tried.items() if verdicts == {Outcome.BAD}]
    order = list(tried)
    before = [release for release in good if bad and order.index(release) < order.index(bad[0])]
    if before:
        return f"good in {name} {text(before[-1])}, bad in {_some(bad)}{newest}"
    if good and bad:
        return f"no: bad in {name} {_some(bad)}, good in {_some(good)}{newest}"
    if bad:
        return f"not known. Bad in {name} {_some(bad)}; no older release was tried{newest}"
    return f"not known: no release of {name} was tried" if not latest else f"not known{newest}"


def _some(releases: list[str]) -> str:
    shown = [text(release) for release in releases]
    return listed(shown) if len(shown) <= SHOWN else f"{len(shown)} releases from {shown[0]} to {shown[-1]}"


def _newest(package: str, latest: Tried | None) -> str:
    if latest is None:
        return f". No newer release of {named(package)} was tried"
    seen = f"{'' if latest.verdict is Outcome.SKIP else 'is '}{VERDICTS[latest.verdict]}"
    nightly = " No nightly build was tried." if package == "torch" else ""
    return f". The newest release, {text(latest.version)}, {seen}: {text(full_stop(latest.reason))}{nightly}"


def _loudness(answer: Answer) -> str:
    if answer.kind is Kind.CRASH:
        return "loud: the process is killed"
    if answer.kind is Kind.NONFINITE:
        return "silent: the call returns, and no exception says that the numbers are not finite"
    if answer.kind is Kind.DIVERGENT:
        return "silent: the call returns finite numbers that rounding does not explain"
    if answer.kind is Kind.LOAD:
        return "silent: from_pretrained returns a model"
    return ""


def _where(answer: Answer) -> str:
    origin = answer.origin
    if origin is None:
        return ""
    what = named_mechanism(origin, answer.bisect).partition(" (")[0]
    said = f"{text(what)} in {code(origin.op)}"
    said += f", in the backward of {code(origin.forward_op)}" if origin.forward_op else ""
    if origin.module:
        said += f", called by {code(origin.module)}"
        said += f" ({code(origin.module_class)})" if origin.module_class else ""
    line = origin.forward_source or origin.source
    said += f" at {code(line)}" if line else ""
    return sentence(full_stop(said)).rstrip(".")
