"""The bug forms of other projects, filled from a run. The projects are the files in ``data/``; no list repeats them."""

from pathlib import Path

FOLDER = Path(__file__).with_name("data")


def projects() -> tuple[str, ...]:
    """The names of the projects in order, without reading their forms."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
