"""Places in a picture or on a page: a box for each token, and points and boxes that a segmentation is asked for."""

import torch

from .draws import EXACT, ORDERED, TOKENS, Draw, Part
from .facts import Facts
from .pictures import size_of

BOXES, POINTS = ("bbox",), ("input_points",)
PAGE = 1000  # places along a page, as LayoutLM counts them


def boxes(facts: Facts) -> list[Part]:
    """A box for each token: whole numbers along the page, or parts of it."""
    page = facts.number("max_2d_position_embeddings", default=PAGE + 1) - 1
    whole = Draw("bbox", (1, TOKENS, 4), ORDERED, min(page, PAGE), dtype=torch.int64)
    return [Part((whole,)), Part((Draw("bbox", (1, TOKENS, 4), ORDERED, 1),))]


def points(facts: Facts) -> list[Part]:
    """Two points, one on what is meant and one beside it."""
    _, height, width = size_of(facts)
    values = [[[[width / 4.0, height / 4.0], [width / 2.0, height / 2.0]]]]
    found = [Draw("input_points", (1, 1, 2, 2), EXACT, values=values)]
    if "input_labels" in facts.parameters:
        found.append(Draw("input_labels", (1, 1, 2), EXACT, values=[[[1, 0]]], dtype=torch.int64))
    return [Part(tuple(found))]
