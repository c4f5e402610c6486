"""The plots of a report: each belongs to a section, and is made only where the answer has something for it."""

from pathlib import Path

from repro.core.answer import Answer
from repro.report.plots.chart import Plot, png
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.report.section import named, names

FOLDER = "plots"


def plots(answer: Answer) -> dict[str, Plot]:
    """The plots that the answer has data for, by their sections' headings.

    Args:
        answer: Redacted. The names in it may be any text.
    """
    made = {found.heading: found.plot(answer) for found in map(named, names()) if found.plot}
    return {heading: plot for heading, plot in made.items() if plot is not None}


def write_plots(folder: Path, answer: Answer, private: Private | None = None) -> list[Path]:
    """Draw ``plots/NAME.png`` in the folder of a run, one for each plot; pictures of an earlier answer are removed.

    Where vl_convert is not there, none is drawn; report.html has drawings of its own.

    Args:
        folder: Of the run.
        answer: Whole.
        private: What must not be in them.

    Raises:
        OSError: they cannot be written.
    """
    place = folder / FOLDER
    try:
        made = plots(Mask.of(answer, private or Private()).answer(answer)).values()
        pictures = {place / f"{plot.name}.png": png(plot) for plot in made}
    except ImportError:
        pictures = {}
    for path in set(place.glob("*.png")) - set(pictures):
        path.unlink()
    if pictures:
        place.mkdir(exist_ok=True)
    for path, picture in pictures.items():
        path.write_bytes(picture)
    return list(pictures)
