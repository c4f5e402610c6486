"""What a run, a matrix or a search leaves in its folder: the answer for programs, the report for people, the bundle."""

from pathlib import Path

from repro.core import paths
from repro.core.answer import NAME, Answer, Outputs
from repro.core.encoding import encode, replace
from repro.report.privacy.machine import private_words
from repro.report.privacy.mask import Mask
from repro.report.render import render, scripts_of
from repro.run.bundle.write import NAME as BUNDLE
from repro.run.bundle.write import bundle

HTML = "report.html"
KEPT = "keep_{}.py"


def write(folder: Path, content: Answer, *, whole: bool) -> Answer:
    """Write verdict.json, report.md, and the code that keeps modules in another dtype where there is any; where
    ``whole`` is set also plots, report.html and bundle.zip.

    verdict.json stays whole, for it stays here. Everything that is made to be shared is masked.

    Returns:
        The content of verdict.json.

    Raises:
        EvidenceError: a file cannot be written.
    """
    document = replace(content, outputs=Outputs(html=HTML, bundle=BUNDLE) if whole else None)
    private = private_words()
    mask = Mask.of(document, private)
    paths.write(folder / NAME, encode(document, indent=1) + "\n")
    for keep in (document.keep, document.keep_bfloat16):
        if keep is not None and keep.code is not None:
            paths.write(folder / KEPT.format(keep.kept_in), keep.code)
    scripts = scripts_of(folder, document)
    mask.write(folder / "report.md", render(document, private, scripts))
    if whole:
        from repro.report.html import render_html
        from repro.report.pictures import FOLDER as PLOTS
        from repro.report.pictures import write_plots

        try:
            write_plots(folder, document, private)
        except OSError as error:
            raise paths.not_written(folder / PLOTS, error, folder) from error
        mask.write(folder / HTML, render_html(document, private, scripts))
        bundle(folder, document, private)
    return document
