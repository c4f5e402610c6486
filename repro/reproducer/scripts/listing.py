"""A user's own script, made smaller or as it is: with the header of all scripts, and nothing else of ours."""

import ast
import sys

from repro.core.answer import Answer
from repro.core.encoding import replace
from repro.core.payloads import Environment, Listing
from repro.core.sentences import many
from repro.reproducer.frame import docstring, header
from repro.reproducer.script import Script
from repro.reproducer.words import found_in, generated

DISTRIBUTIONS = {
    "PIL": "pillow", "cv2": "opencv-python", "sklearn": "scikit-learn", "skimage": "scikit-image", "yaml": "pyyaml",
    "pytorch_lightning": "pytorch-lightning", "sentence_transformers": "sentence-transformers",
    "huggingface_hub": "huggingface-hub", "torch_geometric": "torch-geometric", "bs4": "beautifulsoup4",
    "google": "protobuf", "attr": "attrs", "dateutil": "python-dateutil",
}  # fmt: skip
"""The names of packages whose modules have others, where the run's environment does not list them. Source: their pages
on https://pypi.org"""


def listing_script(answer: Answer, listing: Listing) -> Script:
    """The script; of one that is as its author wrote it, the text is not touched."""
    needs = needs_of(listing.text, answer.environment)
    if listing.whole:
        does = "is the script that was examined, as it is"
        return Script(
            level="script",
            text=listing.text,
            needs=needs,
            does=does,
            last=True,
            change=listing.change,
            unseeded=listing.unseeded,
            reads=listing.reads,
        )
    before = many(listing.lines_before, "line")
    about = [f"Made smaller from a script of {before}, with the same fault.", found_in(answer), generated(answer)]
    lines = [*header(answer, needs), *docstring(" ".join(about)), ""]
    change = listing.change
    if change is not None:
        change = replace(
            change, text="\n".join([*header(answer, needs_of(change.text, answer.environment)), ""]) + change.text
        )
    return Script(
        level="script",
        text="\n".join(lines) + listing.text,
        needs=needs,
        does=f"is the script made smaller, from {listing.lines_before} lines to {listing.lines}",
        change=change,
        unseeded=listing.unseeded,
        reads=listing.reads,
    )


def distribution(module: str, environment: Environment | None) -> str:
    """The name under which the package of a module is installed: where the run has it, as it is there."""
    found = environment or Environment()
    name = found.distribution(module)
    return name if found.version(name) else DISTRIBUTIONS.get(module, name)


def needs_of(text: str, environment: Environment | None) -> tuple[str, ...]:
    """The packages that a script imports, by the names under which they are installed; none of what is no Python, as a
    script may be with private words masked.
    """
    found: dict[str, None] = {}
    try:
        module = ast.parse(text)
    except SyntaxError:
        return ()
    for node in ast.walk(module):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for name in names:
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names:
                found[distribution(top, environment)] = None
    first = ("torch", "transformers")
    return tuple(sorted(found, key=lambda name: (first.index(name) if name in first else len(first), name)))
