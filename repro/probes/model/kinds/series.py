"""Time series, and the paths of decisions that some models read as such."""

import torch

from .draws import ONES, WHOLE, Draw, Part
from .facts import Facts

NAMES = ("past_values",)
DECISIONS = ("states",)
STEPS = 13  # of a path of decisions
CONTEXT = 32  # values of a series where none is configured


def series(facts: Facts) -> list[Part]:
    """The past of one series, with what goes with it; the future as well, where the forward pass reads it."""
    channels = facts.number("num_input_channels", "input_size", default=1)
    lags = facts.setting("lags_sequence")
    before = max(lags) if isinstance(lags, (list, tuple)) and lags else 0
    past = facts.number("context_length", default=CONTEXT) + before
    future = facts.number("prediction_length", default=1)
    found = []
    for values in dict.fromkeys([(1, past) if channels == 1 else (1, past, channels), (1, past, channels)]):
        later = (1, future, *values[2:])
        draws = [Draw("past_values", values)]
        draws += _beside(facts, values, later)
        found.append(Part(tuple(draws)))
    return found


def _beside(facts: Facts, past: tuple[int, ...], future: tuple[int, ...]) -> list[Draw]:
    has = facts.parameters.__contains__
    found = [Draw(name, past, ONES) for name in ("past_observed_mask", "observed_mask") if has(name)]
    if not has("past_time_features"):
        return found
    times = facts.setting("num_time_features") or 0
    found.append(Draw("past_time_features", (*past[:2], times)))
    kinds, numbers = facts.setting("num_static_categorical_features"), facts.setting("num_static_real_features")
    if kinds:
        below = min(facts.setting("cardinality") or [2])
        found.append(Draw("static_categorical_features", (1, kinds), WHOLE, below))
    if numbers:
        found.append(Draw("static_real_features", (1, numbers)))
    return [*found, Draw("future_values", future), Draw("future_time_features", (*future[:2], times))]


def decisions(facts: Facts) -> list[Part]:
    """States, actions and rewards, one of each at each step."""
    wide = facts.number("state_dim", default=17), facts.number("act_dim", default=4)
    draws = [Draw("states", (1, STEPS, wide[0])), Draw("actions", (1, STEPS, wide[1]))]
    draws += [Draw(name, (1, STEPS, 1)) for name in ("rewards", "returns_to_go") if name in facts.parameters]
    steps = Draw("timesteps", (1, STEPS), WHOLE, facts.number("max_ep_len", default=STEPS))
    mask = Draw("attention_mask", (1, STEPS), ONES, dtype=torch.int64)
    return [Part((*draws, steps, mask))]
