"""Which prompts failed, read from a run of many prompts, a list of skipped ones, or the log of a job.

A run also tells which prompts passed. A list and a log do not, so what they were drawn from has to be named.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro.core.errors import UsageError
from repro.core.foreign import check_is_file
from repro.core.sentences import listed
from repro.jobs.content import many, number
from repro.jobs.overlap.compare import normalised
from repro.jobs.overlap.matching import NOTHING_KNOWN, Matched, Member, Population, match
from repro.jobs.prompt_files import RUN, SUFFIXES, examples, is_run

if TYPE_CHECKING:
    from repro.jobs.logs.records import Prompt

SHORTENED = ("...", "…")
"""How a log ends a text that it has cut."""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The prompts that failed in one place; texts are ``normalised``.

    ``kind`` is "run", "list" or "log". ``asked`` are all that were run and gave an answer, None where that is not
    known. ``entries`` counts what was read as failing, before texts that are the same became one. ``members`` are the
    failing prompts before they were matched with those of other sets: truncated texts are in ``failed`` as they stand.
    ``total``: how many prompts a log says were run. ``places`` has each text that was read, with its places in the
    file: failing or not in a run.
    """

    name: str
    path: str
    kind: str
    failed: frozenset[str]
    asked: frozenset[str] | None
    entries: int
    notes: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()
    total: int | None = None
    places: Population = field(default_factory=dict)


def read_sets(paths: Sequence[Path], field: str | None = None, *, pairs: bool = False) -> tuple[PromptSet, ...]:
    """Each place as a set with a name of its own.

    Args:
        paths: Folders of runs, prompt files, or job logs.
        field: Where an entry of a prompt file has its text; see ``prompt_files.examples``.
        pairs: Whether each entry of a prompt file is a pair; then both sides are prompts.

    Raises:
        UsageError: a place cannot be read, or holds something else.
    """
    return tuple(
        replace(read(path, field, pairs=pairs), name=name) for path, name in zip(paths, _names(paths), strict=True)
    )


def read(path: Path, field: str | None = None, *, pairs: bool = False) -> PromptSet:
    """One place as a set; see ``read_sets``. A .txt file is a log where failed prompts of a job are found in it."""
    file = path / RUN if path.is_dir() else path
    if not file.exists():
        raise UsageError(f"{path}: expected the folder of a `repro prompts` run; it has no {RUN}.")
    check_is_file(file)
    if file.suffix.lower() not in SUFFIXES:
        return _log(file)
    if file.suffix.lower() == ".txt" and (log := _log(file)).entries:
        return log
    notes: list[str] = []
    # The options are meant for those of the files that have fields.
    plain = is_run(file) or file.suffix.lower() == ".txt"
    entries = list(examples(file, None if plain else field, pairs=pairs and not plain, note=notes.append))
    named = [one for one in entries if one.name.strip()]
    found = [(normalised(one.name), one.verdict) for one in named]
    withheld = sum(one.text is None and not one.name for one in entries)
    if withheld:
        notes.append(f"{many(withheld, 'prompt')} with a withheld text left out.")
    # A list of what was skipped may have verdicts too, but only a record of all prompts has good ones.
    of_run = is_run(file) or any(verdict == "good" for _, verdict in found)
    kept = [(one, text) for one, (text, verdict) in zip(named, found, strict=True) if verdict in (None, "bad")]
    failed = [text for _, text in kept]
    different = frozenset(failed)
    skipped = sum(verdict == "skip" for _, verdict in found)
    if len(different) < len(failed):
        notes.append(
            f"{many(len(failed), 'failing entry', 'failing entries')}, {many(len(different), 'distinct prompt')}."
        )
    if skipped:
        notes.append(f"{many(skipped, 'prompt')} without a verdict (skip) left out.")
    places: dict[str, list[int]] = defaultdict(list)
    for one, (text, _) in zip(named, found, strict=True):
        places[text].append(one.index)
    return PromptSet(
        name=path.name if path.is_dir() else path.stem,
        path=str(path),
        kind="run" if of_run else "list",
        failed=different,
        asked=frozenset(text for text, verdict in found if verdict in ("good", "bad")) if of_run else None,
        entries=len(failed),
        notes=tuple(notes),
        members=tuple({text: _member(text, one.index if is_run(file) else None) for one, text in kept}.values()),
        places=dict(places),
    )


def population_of(
    sets: Sequence[PromptSet], given: str | None, field: str | None = None, *, pairs: bool = False
) -> int | Population | None:
    """What the sets were drawn from: a number, the texts with their places, or None where that is not known.

    Args:
        sets: The sets; where all of them are runs, the prompts that every one of them answered are the population.
        given: A number, or a file with every prompt.
        field: As for ``read_sets``.
        pairs: As for ``read_sets``.

    Raises:
        UsageError: it is neither.
    """
    if given is None:
        known = [item.asked for item in sets if item.asked is not None]
        in_all = frozenset.intersection(*known) if known and len(known) == len(sets) else frozenset()
        return dict.fromkeys(in_all, ()) or None
    if given.isdecimal():
        return int(given)
    if not Path(given).exists():
        raise UsageError(f"--population {given} is neither a number nor a file. Give how many prompts were run.")
    every = read(Path(given), field, pairs=pairs)
    return {text: every.places.get(text, ()) for text in (every.failed if every.asked is None else every.asked)}


def assumed(sets: Sequence[PromptSet]) -> int | None:
    """How many prompts each log says it ran, where all sets are logs and say the same: then these are taken for the
    same prompts.
    """
    totals = {item.total for item in sets}
    return totals.pop() if len(totals) == 1 else None


def completed(
    sets: Sequence[PromptSet], population: Population = NOTHING_KNOWN
) -> tuple[tuple[PromptSet, ...], Matched]:
    """The sets with the same text for the same prompt, truncated texts in full where it is known which prompt of the
    population they stand for; and how they were matched.

    Args:
        sets: The sets.
        population: All prompts that were run; without it, what a truncated text stands for is never known.
    """
    further = frozenset().union(*(item.asked or () for item in sets))
    found = match({item.name: item.members for item in sets}, population, further)
    done = []
    for item in sets:
        notes = list(item.notes)
        by_index = found.by_index[item.name]
        if put := found.completed[item.name] - by_index:
            notes.append(f"{many(put, 'truncated text')} completed: only one prompt of the population starts that way.")
        if by_index:
            notes.append(f"{many(by_index, 'prompt')} looked up in the population by index.")
        counts: Counter[str] = Counter()
        for (name, _), those in found.unclear.items():
            counts |= Counter(those) if name == item.name else Counter()  # the greater of both
        if several := sum(count > 1 for count in counts.values()):
            notes.append(f"{many(several, 'prompt')} could not be told: several fit the truncated text.")
        done.append(replace(item, failed=found.sets[item.name], notes=tuple(notes)))
    return tuple(done), found


def _log(file: Path) -> PromptSet:
    """The prompts that a job's log says have failed, with how many of its failures cannot be compared."""
    from repro.jobs.logs import read_log

    sections = read_log(file).sections
    untold = sum(section.untold for section in sections)
    if untold:
        raise UsageError(
            f"{file}: {many(untold, 'failure')} of more prompts than are told apart in a log. Split it, or give a list."
        )
    prompts = [prompt for section in sections for prompt in section.prompts]
    members = [member_of(prompt) for prompt in prompts if prompt.text or prompt.first.index is not None]
    texts = [one.shown for one in members]
    notes = []
    if by_index := sum(not one.text for one in members):
        notes.append(f"{many(by_index, 'failure')} with an index and no text.")
    nameless = len(prompts) - len(texts) + sum(section.unnamed for section in sections)
    if nameless:
        notes.append(f"{many(nameless, 'failure')} without a text or an index in the log left out.")
    models = list(dict.fromkeys(section.model for section in sections if section.model and section.prompts))
    if len(models) > 1:
        notes.append(f"it covers {listed(models)}; their failing prompts are pooled.")
    totals = sorted({total for section in sections for total in section.totals})
    if totals:
        notes.append(f"the log reports {listed([*map(number, totals[:-1]), many(totals[-1], 'prompt')])} in all.")
    failed = frozenset(texts)
    total = totals[0] if len(totals) == 1 else None
    return PromptSet(file.name, str(file), "log", failed, None, len(texts), tuple(notes), tuple(members), total)


def member_of(prompt: "Prompt") -> Member:
    """A prompt of a log, with its index."""
    if not prompt.text:
        return Member("", True, prompt.first.index)
    return replace(_member(normalised(prompt.text), prompt.first.index), cut=prompt.first.text_cut, dots=False)


def _member(text: str, index: int | None) -> Member:
    """A text that ends in dots may go on."""
    cut = text.endswith(SHORTENED)
    return Member(text.removesuffix("...").removesuffix("…").rstrip() if cut else text, cut, index, dots=cut)


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each path: the last part, with as many parts before it as tell them all apart.

    Raises:
        UsageError: a path is given twice.
    """
    whole = [path.absolute().parent if path.name == RUN else path.absolute() for path in paths]
    twice = next((path for place, path in enumerate(paths) if whole[place] in whole[:place]), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice. Give different sets.")
    short = [path.with_name(path.stem) if path.suffix.lower() in SUFFIXES else path for path in whole]
    for names_of in (short, whole):
        for count in range(1, max(len(path.parts) for path in names_of) + 1):
            names = ["/".join(path.parts[-count:]) for path in names_of]
            if len(set(names)) == len(names):
                return names
    raise AssertionError("different paths have different names")
