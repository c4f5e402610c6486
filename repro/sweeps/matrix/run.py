"""The same question in many cells: build, ask, keep each answer, join them. Reads top to bottom as a list of steps.

Each cell has a folder of its own below the matrix's, with the whole run in it and ``row.json``, its row of the table.
So Ctrl-C and a crash lose the cell in flight and no other, and what was asked before need not be asked again.
"""

import concurrent.futures
import dataclasses
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from repro import __version__
from repro.core import paths
from repro.core.encoding import SCHEMA, encode
from repro.core.errors import BuildError, RecordError, Stopped, UsageError
from repro.core.records import Cell, Recipe
from repro.environments.store import Announcer, Store, disk_use, fingerprint, missing_device
from repro.run import output
from repro.run.child import Answer, Children
from repro.run.conversion import convert_once
from repro.run.run import Request, Result, Terminated, terminable
from repro.sweeps.matrix.join import bring_scripts, join, newest, read_document
from repro.sweeps.matrix.rows import Row, answered, unanswered

HEADER = "matrix.json"
ROW = "row.json"
POLL_SECONDS = 0.5
"""How often the wait for a cell looks up: a lock that is never left would not see Ctrl-C on Windows."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """What is asked, and where.

    Attributes:
        request: The run that each cell is asked for; its cell, device and folder are each cell's own.
        known: Every recipe there is.
        asked: Those to be run, in order.
        out: The matrix's folder; None for a new one.
        jobs: How many cells run side by side.
        resume: Whether a folder that holds a matrix already may be gone on with.
    """

    request: Request
    known: tuple[Recipe, ...]
    asked: tuple[Recipe, ...]
    out: Path | None = None
    jobs: int = 1
    resume: bool = False

    @property
    def question(self) -> tuple[str, ...]:
        """The command that asks every cell, without the folder."""
        argv = self.request.argv()
        return ("repro", "matrix", *argv[1:])

    def argv(self, cells: Iterable[str]) -> tuple[str, ...]:
        """The command that asks these cells; none of them is named where they are all that there are."""
        chosen = list(cells)
        every = {recipe.id for recipe in self.known} == set(chosen)
        return (*self.question, *(() if every else [word for cell in chosen for word in ("--cell", cell)]))


def run(matrix: Matrix, store: Store, announcer: Announcer) -> Result:
    """Ask every cell, and write the table that joins the answers.

    Raises:
        UsageError: the folder holds something else, or a matrix that nobody said to go on with.
        EvidenceError: the folder cannot be written.
        Stopped: Ctrl-C or SIGTERM; the cells that have answered stay.
    """
    folder = paths.make(matrix.out or paths.run_folder(matrix.request.case, datetime.now(UTC), "matrix"))
    taken = paths.claim(folder / HEADER, matrix.question, "a matrix of", case=matrix.request.case)
    if taken and not matrix.resume:
        raise UsageError(
            f"--out {folder} holds this matrix already. --resume goes on with it; else give another folder."
        )
    asking = _Asking(matrix, folder, store, announcer)
    try:
        with terminable():
            asking.prepare()
            asking.all()
            asking.script()
        if asking.built_some:
            announcer.line(disk_use(store))
    except KeyboardInterrupt as error:
        _conclude(matrix, folder)
        again = [*matrix.argv(recipe.id for recipe in matrix.asked), "--out", str(paths.relative(folder)), "--resume"]
        raise Stopped(143 if isinstance(error, Terminated) else 130, shlex.join(again)) from None
    return _conclude(matrix, folder)


def _conclude(matrix: Matrix, folder: Path) -> Result:
    """The table of every cell that has answered, now or before."""
    rows = [data["row"] for _, data in answers(folder) if data["row"] is not None]
    document = join(rows, folder, matrix.argv(row["id"] for row in rows), __version__, matrix.request.case)
    bring_scripts(folder, document)
    return Result(folder, output.write(folder, document, whole=True))


class _Asking:
    """The state of one call of ``run``."""

    def __init__(self, matrix: Matrix, folder: Path, store: Store, announcer: Announcer) -> None:
        self.matrix, self.folder, self.store, self.announcer = matrix, folder, store, announcer
        self.children = Children()
        self.seconds: list[float] = []
        self.built_some = False

    def prepare(self) -> None:
        """What every cell would otherwise have to do for itself; a cell that is asked anyway is preferred for it."""
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
        """The smallest script, made in the cell that stands for all, where that is bad and was not asked for one."""
        shown = newest([data["row"] for _, data in answers(self.folder) if data["row"] is not None])
        recipe = next((known for known in self.matrix.known if shown is not None and known.id == shown["id"]), None)
        cell = None if recipe is None else self.store.built(recipe)
        if shown is None or shown["verdict"] != "bad" or recipe is None or cell is None:
            return
        before = read_document(self.folder / recipe.id)
        if before is not None and before.get("reproducer") is None and before.get("reduction") is None:
            self.announcer.line(f"{recipe.id}: looking for the smallest script")
            self.children.ask(self.request(recipe), cell, self.folder / recipe.id, aloud=True, reduce=True)

    def request(self, recipe: Recipe) -> Request:
        """What is asked in this cell. A script chooses its device by itself."""
        request = self.matrix.request
        if request.case.is_script:
            return request
        return dataclasses.replace(request, case=dataclasses.replace(request.case, device=recipe.device))

    def title(self, number: int, recipe: Recipe) -> str:
        """``[3/10] seed-2.9.1: Python 3.13, torch 2.9.1, ..., about 6 min left``."""
        text = f"[{number}/{len(self.matrix.asked)}] {recipe.id}: {recipe.words}, {recipe.device}"
        if self.seconds:
            left = sum(self.seconds) / len(self.seconds) * (len(self.matrix.asked) - number + 1) / self.matrix.jobs
            text += f"; about {max(1, round(left / 60))} min left"
        return text

    def cell(self, recipe: Recipe) -> Cell | None:
        """The cell, ready to be asked; None where it has answered before or cannot run here."""
        place = self.folder / recipe.id
        before = _read(place)
        if before is not None and before["fingerprint"] == fingerprint(recipe) and before["ran"]:
            self.say(before["row"], "answered before")
            return None
        if before is None or before["fingerprint"] != fingerprint(recipe):
            shutil.rmtree(place, ignore_errors=True)  # of another environment: nothing in it may be gone on with
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
            cell = self.store.build(recipe, progress)
        self.announcer.line(f"{recipe.id} was built in {time.monotonic() - begin:.0f} s")
        self.built_some = True
        return cell

    def ask(self, recipe: Recipe, cell: Cell) -> None:
        """One cell's run, from its start to its row. Runs beside others."""
        begin = time.monotonic()
        answer = self.children.ask(self.request(recipe), cell, self.folder / recipe.id, aloud=self.matrix.jobs == 1)
        self.take(recipe, answer, time.monotonic() - begin)

    def take(self, recipe: Recipe, answer: Answer, seconds: float) -> None:
        """Keep an answer; one that gave no verdict is a row too, and is asked again by a run that goes on."""
        self.seconds.append(seconds)
        if answer.document is not None:
            self.keep(recipe, answered(recipe, answer.document, seconds, self.command(recipe)), ran=True)
        else:
            self.keep(recipe, unanswered(recipe, str(answer.reason), self.command(recipe), seconds))

    def command(self, recipe: Recipe) -> str:
        """What gives this cell's answer again."""
        return shlex.join(self.matrix.argv([recipe.id]))

    def keep(self, recipe: Recipe, row: Row | None, *, ran: bool = False) -> None:
        """Write a cell's row; None marks one that has begun."""
        place = paths.make(self.folder / recipe.id)
        data = {"schema": SCHEMA, "fingerprint": fingerprint(recipe), "ran": ran, "row": row}
        paths.write(place / ROW, encode(data, indent=1) + "\n")
        if row is not None:
            self.say(row)

    def say(self, row: Row, note: str = "") -> None:
        """One line for a cell that has its row."""
        words = f" ({note})" if note else ""
        self.announcer.line(f"{row['id']}: {row['verdict']}{words}: {row['reason']}")


def _wait(running: set[concurrent.futures.Future[None]], most: int) -> set[concurrent.futures.Future[None]]:
    """Those that still run, once at most ``most`` do; what one of them raised is raised here."""
    while len(running) > most:
        done, running = concurrent.futures.wait(
            running, timeout=POLL_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in done:
            future.result()
    return running


def _read(place: Path) -> dict[str, Any] | None:
    """A cell's ``row.json``; None where there is none that can be used."""
    try:
        data = paths.read_object(place / ROW)
    except RecordError:
        return None
    known = data.keys() >= {"fingerprint", "ran", "row"} and data.get("schema") == SCHEMA
    return data if known else None


def answers(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(folder, content of its row.json) of each cell below a matrix's folder, in order."""
    for path in sorted(folder.glob(f"*/{ROW}")):
        data = _read(path.parent)
        if data is not None:
            yield path.parent, data
