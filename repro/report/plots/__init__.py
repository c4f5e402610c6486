"""verdict.json's content -> plots. Each shows what stands in the document, and is made only where that has something.

``chart`` holds the pieces that all share and draws them, ``layers`` how layers are named and thinned; ``magnitude``,
``spread`` and ``verdicts`` make the plots.
"""

from pathlib import Path

from repro.report.plots.chart import Plot, png
from repro.report.plots.magnitude import magnitude
from repro.report.plots.spread import spread
from repro.report.plots.verdicts import ablations, cells, versions
from repro.report.privacy.redact import Private, redact_json, scope
from repro.report.tables import Json

FOLDER = "plots"


def plots(document: Json) -> list[Plot]:
    """The plots that the document has data for, in the order of the report.

    Args:
        document: The content of verdict.json, masked. The names in it may be any text.
    """
    made = (cells(document), versions(document), spread(document), magnitude(document), ablations(document))
    return [plot for plot in made if plot is not None]


def write_plots(folder: Path, document: Json, private: Private | None = None) -> list[Path]:
    """Draw ``plots/NAME.png`` in the folder of a run, one for each plot; pictures of an earlier answer are removed.

    Where vl_convert is not there, none is drawn, and report.html says so.

    Args:
        folder: Of the run.
        document: The content of verdict.json.
        private: What must not be in them.

    Raises:
        OSError: they cannot be written.
    """
    place = folder / FOLDER
    shown = redact_json(document, *scope(document, private or Private()))
    try:
        pictures = {place / f"{plot.name}.png": png(plot) for plot in plots(shown)}
    except ImportError:
        pictures = {}
    for path in set(place.glob("*.png")) - set(pictures):
        path.unlink()
    if pictures:
        place.mkdir(exist_ok=True)
    for path, picture in pictures.items():
        path.write_bytes(picture)
    return list(pictures)
