"""Which prompts failed, read from a run of many prompts, a list of skipped ones, or the log of a job.

A run also tells which prompts passed. A list and a log do not, so what they were drawn from has to be named.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from repro.core.errors import UsageError
from repro.core.foreign import check_is_file
from repro.core.sentences import listed
from repro.jobs.content import many
from repro.jobs.overlap.compare import normalised
from repro.jobs.prompt_files import RUN, SUFFIXES, examples, is_run

SHORTENED = ("...", "…")
"""How a log ends a text that it has cut."""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The prompts that failed in one place; texts are ``normalised``.

    ``kind`` is "run", "list" or "log". ``asked`` are all that were run and gave an answer, None where that is not
    known. ``entries`` counts what was read as failing, before texts that are the same became one.
    """

    name: str
    path: str
    kind: str
    failed: frozenset[str]
    asked: frozenset[str] | None
    entries: int
    notes: tuple[str, ...] = ()


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
    found = [(normalised(one.name), one.verdict) for one in entries if one.name.strip()]
    withheld = sum(one.text is None and not one.name for one in entries)
    if withheld:
        notes.append(f"{many(withheld, 'prompt')} with a withheld text left out.")
    # A list of what was skipped may have verdicts too, but only a record of all prompts has good ones.
    of_run = is_run(file) or any(verdict == "good" for _, verdict in found)
    failed = [text for text, verdict in found if verdict in (None, "bad")]
    different = frozenset(failed)
    skipped = sum(verdict == "skip" for _, verdict in found)
    if len(different) < len(failed):
        notes.append(
            f"{many(len(failed), 'failing entry', 'failing entries')}, {many(len(different), 'distinct prompt')}."
        )
    if skipped:
        notes.append(f"{many(skipped, 'prompt')} without a verdict (skip) left out.")
    return PromptSet(
        name=path.name if path.is_dir() else path.stem,
        path=str(path),
        kind="run" if of_run else "list",
        failed=different,
        asked=frozenset(text for text, verdict in found if verdict in ("good", "bad")) if of_run else None,
        entries=len(failed),
        notes=tuple(notes),
    )


def population_of(
    sets: Sequence[PromptSet], given: str | None, field: str | None = None, *, pairs: bool = False
) -> int | frozenset[str] | None:
    """What the sets were drawn from: a number, the texts, or None where that is not known.

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
        return (frozenset.intersection(*known) or None) if len(known) == len(sets) else None
    if given.isdecimal():
        return int(given)
    if not Path(given).exists():
        raise UsageError(f"--population {given} is neither a number nor a file. Give how many prompts were run.")
    every = read(Path(given), field, pairs=pairs)
    return every.failed if every.asked is None else every.asked


def completed(sets: Sequence[PromptSet], population: Iterable[str] = ()) -> tuple[PromptSet, ...]:
    """The sets with texts that were cut by a log put in full, where exactly one prompt begins so.

    A text that a run, a list or the population has exactly so was not cut.

    Args:
        sets: The sets; each also lends its texts to the others.
        population: More texts to look in.
    """
    every = set(population).union(*(item.failed | (item.asked or frozenset()) for item in sets))
    full = sorted(text for text in every if not text.endswith(SHORTENED))
    done = []
    for item in sets:
        whole = set(population).union(item.asked or (), *(other.failed for other in sets if _is_whole(other, item)))
        done.append(_completed(item, full, whole))
    return tuple(done)


def _is_whole(other: PromptSet, item: PromptSet) -> bool:
    return other is not item and other.kind != "log"


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
    texts = [_cut(prompt.text, cut=prompt.first.text_cut) for prompt in prompts if prompt.text]
    notes = []
    nameless = len(prompts) - len(texts) + sum(section.unnamed for section in sections)
    if nameless:
        notes.append(f"{many(nameless, 'failure')} without a text in the log left out.")
    models = list(dict.fromkeys(section.model for section in sections if section.model and section.prompts))
    if len(models) > 1:
        notes.append(f"it covers {listed(models)}; their failing prompts are pooled.")
    totals = sorted({total for section in sections for total in section.totals})
    if totals:
        notes.append(f"the log reports {listed([f'{total:,}' for total in totals])} prompts in all.")
    failed = frozenset(texts)
    return PromptSet(file.name, str(file), "log", failed, None, len(texts), tuple(notes))


def _cut(text: str, *, cut: bool) -> str:
    """A text of a log; where it was cut, that can be seen at its end."""
    plain = normalised(text)
    return f"{plain}…" if cut and not plain.endswith(SHORTENED) else plain


def _completed(item: PromptSet, full: Sequence[str], whole: Set[str]) -> PromptSet:
    """One set with its cut texts in full; those that could stand for several, or for none, stay as they are.

    ``full`` are the texts to choose from, in order; ``whole`` those that are known not to be cut.
    """
    put: dict[str, str] = {}
    unclear = 0
    for text in item.failed:
        if text in whole or not text.endswith(SHORTENED):
            continue
        start = text.removesuffix("...").removesuffix("…").rstrip()
        place = bisect_left(full, start)
        found = [other for other in full[place : place + 2] if start and other.startswith(start)]
        if len(found) == 1:
            put[text] = found[0]
        elif found:
            unclear += 1
    notes = list(item.notes)
    if put:
        notes.append(f"{many(len(put), 'truncated text')} completed: only one known prompt starts that way.")
    if unclear:
        notes.append(f"{many(unclear, 'truncated text')} left as is: several known prompts start that way.")
    failed = frozenset(put.get(text, text) for text in item.failed)
    return replace(item, failed=failed, notes=tuple(notes))


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
