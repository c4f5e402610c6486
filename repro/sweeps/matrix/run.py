"""The same question in many cells: build, ask, keep each answer, join them. Reads top to bottom as a list of steps.

Each cell has a folder of its own below the matrix's, with the whole run in it and ``row.json``, its row of the table.
So Ctrl-C and a crash lose only the cell in flight, and a cell that has answered need not be asked again.

A matrix of one cell is a run: its answer, report and bundle are in the cell's folder, and there is no table. The table
is written into the matrix's folder as soon as a second cell has a row there.
"""

import concurrent.futures
import dataclasses
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from repro import __version__
from repro.core import paths
from repro.core.answer import NAME
from repro.core.encoding import SCHEMA, Record, encode, replace
from repro.core.errors import BuildError, RecordError, Stopped, UsageError
from repro.core.folders import Claim, check_held_still, claim, seen
from repro.core.locks import folder_held
from repro.core.records import Case, Cell, Ending, Outcome, Recipe, Verdict
from repro.core.sweep_answers import CellRow
from repro.engine.evidence import FROM_OUTSIDE
from repro.engine.evidence import NAME as EVIDENCE
from repro.environments.store import Announcer, Store, disk_use, fingerprint, missing_device
from repro.run import output
from repro.run.child import Children, Ran
from repro.run.conversion import convert_once
from repro.run.run import Request, Result, Terminated, terminable
from repro.sweeps.matrix.join import bring_scripts, join, newest, nothing, read_answer
from repro.sweeps.matrix.rows import answered, unanswered

HEADER = "matrix.json"
ROW = "row.json"
POLL_SECONDS = 0.5
"""How often the wait for a cell looks up: on Windows, a wait without an end would not see Ctrl-C."""


class Header(Claim, frozen=True, kw_only=True):
    """The content of ``matrix.json``: what every cell of the folder is asked."""

    case: Case


class RowFile(Record, frozen=True, kw_only=True):
    """The content of ``row.json``.

    ``fingerprint`` is that of the recipe. ``ran``: whether the cell gave its answer, so that it is not asked again.
    ``row`` is None for a cell that has begun.
    """

    fingerprint: str
    ran: bool
    row: CellRow | None
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class Matrix:
    """What is asked, and where.

    Attributes:
        request: The run that each cell is asked for; its cell, device and folder are each cell's own.
        known: Every recipe there is.
        asked: Those to be run, in order.
        out: The matrix's folder; None for a new one.
        jobs: How many cells run side by side.
        resume: Whether a folder that holds this matrix already may be resumed.
        envs: The folder of the recipes, where they are not the shipped ones.
    """

    request: Request
    known: tuple[Recipe, ...]
    asked: tuple[Recipe, ...]
    out: Path | None = None
    jobs: int = 1
    resume: bool = False
    envs: Path | None = None

    @property
    def question(self) -> tuple[str, ...]:
        """The command that asks every cell, without the folder."""
        argv = self.request.argv()
        return ("repro", "matrix", *argv[1:], *(() if self.envs is None else ("--envs", str(self.envs))))

    @property
    def words(self) -> str:
        """The command without its options, which may hold private prompts."""
        return shlex.join(["repro", "matrix", self.request.named])

    def argv(self, cells: Iterable[str]) -> tuple[str, ...]:
        """The command that asks these cells; none of them is named where they are all that there are."""
        chosen = list(cells)
        every = {recipe.id for recipe in self.known} == set(chosen)
        return (*self.question, *(() if every else [word for cell in chosen for word in ("--cell", cell)]))


def run(matrix: Matrix, store: Store, announcer: Announcer) -> Result:
    """Ask every cell, and write the table that joins the answers; of a single cell, its run.

    Raises:
        UsageError: the folder holds something else, another matrix is writing there, or one that nobody asked to
            resume.
        EvidenceError: the folder cannot be written.
        Stopped: Ctrl-C or SIGTERM; the cells that have answered stay.
    """
    folder = paths.make(matrix.out or paths.run_folder(matrix.request.case, datetime.now(UTC), "matrix"))
    with folder_held(folder, matrix.words, announcer.line):
        return _run(folder, matrix, store, announcer)


def _run(folder: Path, matrix: Matrix, store: Store, announcer: Announcer) -> Result:
    case = matrix.request.case
    header = Header(command=matrix.question, case=case, inputs=seen(case))
    if claim(folder / HEADER, header, "a matrix of") is not None and not matrix.resume:
        raise UsageError(f"--out {folder} holds this matrix already. Add --resume to go on, or give another folder.")
    asking = _Asking(matrix, folder, store, announcer)
    try:
        with terminable():
            asking.prepare()
            asking.all()
            asking.script()
        if asking.built_some:
            announcer.line(disk_use(store))
    except KeyboardInterrupt as error:
        if any(file.row is not None for _, file in row_files(folder)):
            _conclude(matrix, folder, announcer.line)
        again = [*matrix.argv(recipe.id for recipe in matrix.asked), "--out", str(paths.relative(folder)), "--resume"]
        raise Stopped(143 if isinstance(error, Terminated) else 130, shlex.join(again)) from None
    check_held_still(header.inputs, seen(case), folder)
    return _conclude(matrix, folder, announcer.line)


def _conclude(matrix: Matrix, folder: Path, say: Callable[[str], None]) -> Result:
    """The table of every cell that has answered, now or before; where that is one cell, its run."""
    found = [(place, file.row) for place, file in row_files(folder) if file.row is not None]
    rows = [row for _, row in found]
    argv = matrix.argv(row.id for row in rows)
    if len(rows) == 1 and not (folder / NAME).exists():  # a folder that has a table keeps it
        place, row = found[0]
        with folder_held(place, matrix.words, say):
            return _single(matrix, place, row, argv)
    answer = join(rows, folder, argv, __version__, matrix.request.case)
    bring_scripts(folder, answer)
    return Result(folder, output.write(folder, answer, whole=True))


def _single(matrix: Matrix, place: Path, row: CellRow, argv: tuple[str, ...]) -> Result:
    """The run of the only cell, with the command that also builds its environment; of one without a run, the reason."""
    answer = read_answer(place) if row.folder is not None else None
    if answer is None:
        answer = nothing(Verdict(row.verdict, row.reason), matrix.request.case, argv, __version__)
    return Result(place, output.write(place, replace(answer, command=shlex.join(argv)), whole=True))


class _Asking:
    """The state of one call of ``run``."""

    def __init__(self, matrix: Matrix, folder: Path, store: Store, announcer: Announcer) -> None:
        self.matrix, self.folder, self.store, self.announcer = matrix, folder, store, announcer
        self.children = Children()
        self.seconds: list[float] = []
        self.built_some = False
        ids = {recipe.id for recipe in matrix.asked}
        others = (file.row for _, file in row_files(folder) if file.row is not None and file.row.id not in ids)
        self.alone = len(ids) == 1 and not any(others)

    def prepare(self) -> None:
        """What every cell would otherwise do for itself, preferably in a cell that is asked anyway."""
        matrix = self.matrix
        place = self.folder / "conversion"
        recipes = (*matrix.asked, *matrix.known)
        convert_once(matrix.request, recipes, self.build, self.children, place, self.announcer.line)

    def all(self) -> None:
        """Each cell in turn, as many side by side as were asked for; environments are built one at a time."""
        with concurrent.futures.ThreadPoolExecutor(self.matrix.jobs) as pool:
            running: set[concurrent.futures.Future[None]] = set()
            try:
                for number, recipe in enumerate(self.matrix.asked, 1):
                    running = _wait(running, self.matrix.jobs - 1)
                    self.announcer.line(self.title(number, recipe))
                    cell = self.cell(recipe)
                    if cell is not None:
                        running.add(pool.submit(self.ask, recipe, cell))
                _wait(running, 0)
            except BaseException:
                self.children.stop()  # before the pool is left, which waits for them
                raise

    def script(self) -> None:
        """The reproducer, made in the cell that represents all, where that is bad and was not asked for one."""
        shown = newest([file.row for _, file in row_files(self.folder) if file.row is not None])
        recipe = next((known for known in self.matrix.known if shown is not None and known.id == shown.id), None)
        cell = None if recipe is None else self.store.built(recipe)
        if shown is None or shown.verdict is not Outcome.BAD or recipe is None or cell is None:
            return
        before = read_answer(self.folder / recipe.id)
        if before is not None and before.reproducer is None and before.reduction is None:
            self.announcer.line(f"{recipe.id}: looking for a reproducer")
            self.children.ask(self.request(recipe), cell, self.folder / recipe.id, aloud=True, reduce=True)

    def request(self, recipe: Recipe) -> Request:
        """What is asked in this cell. A script chooses its device by itself."""
        request = dataclasses.replace(self.matrix.request, sketch=not self.alone)
        if request.case.is_script:
            return request
        return dataclasses.replace(request, case=dataclasses.replace(request.case, device=recipe.device))

    def title(self, number: int, recipe: Recipe) -> str:
        """``[3/10] seed-2.9.1: Python 3.13, torch 2.9.1, ..., about 6 min left``; no count for a cell alone."""
        count = "" if self.alone else f"[{number}/{len(self.matrix.asked)}] "
        text = f"{count}{recipe.id}: {recipe.words}, {recipe.device}"
        if self.seconds:
            left = sum(self.seconds) / len(self.seconds) * (len(self.matrix.asked) - number + 1) / self.matrix.jobs
            text += f"; about {max(1, round(left / 60))} min left"
        return text

    def cell(self, recipe: Recipe) -> Cell | None:
        """The cell, ready to be asked; None where it has answered before or cannot run here."""
        place = self.folder / recipe.id
        before = _read(place)
        same = before is not None and before.fingerprint == fingerprint(recipe)
        if before is not None and before.row is not None and same and before.ran:
            self.say(before.row, "answered before")
            return None
        if not same or not (place / EVIDENCE).exists():
            shutil.rmtree(place, ignore_errors=True)  # of another environment, or of no run: nothing to resume in it
        self.keep(recipe, None)
        reason = missing_device(recipe.device)
        if reason is None:
            try:
                return self.build(recipe)
            except BuildError as error:
                reason = f"not built: {error}"
        self.keep(recipe, unanswered(recipe, reason, self.command(recipe)))
        return None

    def build(self, recipe: Recipe) -> Cell:
        """The environment, with its progress where it is not there yet."""
        standing = self.store.built(recipe)
        if standing is not None:
            return standing
        begin = time.monotonic()
        with self.announcer.task(f"building {recipe.id}") as progress:
            cell = self.store.build(recipe, progress, self.announcer.line)
        self.announcer.line(f"{recipe.id} was built in {time.monotonic() - begin:.0f} s")
        self.built_some = True
        return cell

    def ask(self, recipe: Recipe, cell: Cell) -> None:
        """One cell's run, from its start to its row. Runs beside others.

        A cell alone also looks for a reproducer, in the process that has the model loaded. Of several only the one that
        represents all does, once it is known which that is.
        """
        begin = time.monotonic()
        aloud = self.alone or self.matrix.jobs == 1
        place = self.folder / recipe.id
        ran = self.children.ask(self.request(recipe), cell, place, aloud=aloud, reduce=self.alone)
        self.take(recipe, ran, time.monotonic() - begin)

    def take(self, recipe: Recipe, ran: Ran, seconds: float) -> None:
        """Keep an answer. A run that gave no verdict has a row too, and is asked again when the matrix resumes; so is
        one in which the time was up or somebody else has ended the kit.
        """
        self.seconds.append(seconds)
        if ran.answer is not None:
            cut = any(row.ending is Ending.TIMED_OUT or row.signal in FROM_OUTSIDE for row in ran.answer.steps)
            self.keep(recipe, answered(recipe, ran.answer, seconds, self.command(recipe)), ran=not cut)
        else:
            self.keep(recipe, unanswered(recipe, str(ran.reason), self.command(recipe), seconds))

    def command(self, recipe: Recipe) -> str:
        """What gives this cell's answer again."""
        return shlex.join(self.matrix.argv([recipe.id]))

    def keep(self, recipe: Recipe, row: CellRow | None, *, ran: bool = False) -> None:
        """Write a cell's row; None marks one that has begun."""
        place = paths.make(self.folder / recipe.id)
        file = RowFile(fingerprint=fingerprint(recipe), ran=ran, row=row)
        paths.write(place / ROW, encode(file, indent=1) + "\n")
        if row is not None and not self.alone:  # the progress and the summary of a run alone say it
            self.say(row)

    def say(self, row: CellRow, note: str = "") -> None:
        """One line for a cell that has its row."""
        words = f" ({note})" if note else ""
        self.announcer.line(f"{row.id}: {row.verdict.value}{words}: {row.reason}")


def _wait(running: set[concurrent.futures.Future[None]], most: int) -> set[concurrent.futures.Future[None]]:
    """Those that still run, once at most ``most`` do; what one of them raised is raised here."""
    while len(running) > most:
        done, running = concurrent.futures.wait(
            running, timeout=POLL_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in done:
            future.result()
    return running


def _read(place: Path) -> RowFile | None:
    """A cell's ``row.json``; None where there is none.

    Raises:
        UsageError: it is of another shape.
    """
    path = place / ROW
    try:
        return paths.read_record(path, RowFile) if path.is_file() else None
    except RecordError as error:
        raise UsageError(f"{path} cannot be read ({error}). Remove that cell's folder to go on without it.") from None


def row_files(folder: Path) -> Iterator[tuple[Path, RowFile]]:
    """(folder, content of its row.json) of each cell below a matrix's folder, in order.

    Raises:
        UsageError: one of them is of another shape.
    """
    for path in sorted(folder.glob(f"*/{ROW}")):
        file = _read(path.parent)
        if file is not None:
            yield path.parent, file
