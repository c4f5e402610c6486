"""The step ``forecast``: in which narrower dtype the model would overflow, told from the run that it has."""

from typing import Any

import torch

from ..model.compat import quiet
from ..protocol.failures import in_words
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    from ..narrow.forecast import NARROW, forecast
    from ..narrow.words import sentence

    loaded, passes = session.loaded(), session.passes()
    why = None
    if any(seen.bad for seen in passes):
        why = "the run is bad in its own dtype"
    elif loaded.quantised is not None:
        why = f"{loaded.quantised} is quantised in memory: it has no other dtype"
    elif loaded.dtype == NARROW or torch.finfo(loaded.dtype).bits < 16:
        why = "the run is in float16 itself"
    if why is not None:
        return "good", f"nothing to forecast: {why}", None
    try:
        with quiet():
            payload = forecast(loaded, passes)
    except Exception as error:  # noqa: BLE001 - the model's own code, which may look at its tensors in any way
        return "skip", f"a run in float16 cannot be told from this one: {in_words(error)}", None
    return "good", sentence(payload), payload
