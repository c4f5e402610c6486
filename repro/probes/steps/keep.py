"""The steps ``keep`` and ``keep:bfloat16``: the smallest set of modules that must stay in float32, or in bfloat16."""

from typing import Any

import torch

from ..model.compat import quiet
from ..protocol.failures import in_words
from ..protocol.wire import Outcome


def run(session: Any, step: str) -> Outcome:
    from ..model.precision import DigitsLost
    from ..narrow.keep import NotSound
    from ..narrow.kept import keep
    from ..narrow.shadow import CannotFollow
    from ..values.figures import dtype_name

    loaded, dtype = session.loaded(), getattr(torch, step.partition(":")[2] or "float32")
    if loaded.dtype not in (torch.float16, torch.bfloat16):
        return "skip", f"the case is in {dtype_name(loaded.dtype)}: --dtype says what the rest is to be in", None
    if loaded.dtype == dtype:
        return "skip", f"the case itself is in {dtype_name(dtype)}: --dtype float16 asks what float16 needs", None
    try:
        with quiet():
            reason, payload = keep(loaded, session.inputs(), session.case, session.cache, dtype)
    except (CannotFollow, DigitsLost, NotSound) as error:
        return "skip", in_words(error) if not str(error) else str(error), None
    return "skip" if payload["modules"] is None else "good", reason, payload
