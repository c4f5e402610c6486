"""The step ``keep``: the smallest set of modules that must stay in float32."""

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

    loaded = session.loaded()
    if loaded.dtype not in (torch.float16, torch.bfloat16):
        return (
            "skip",
            "the case is in float32 or wider: --dtype float16 or bfloat16 says what the rest is to be in",
            None,
        )
    try:
        with quiet():
            reason, payload = keep(loaded, session.inputs(), session.case, session.cache)
    except (CannotFollow, DigitsLost, NotSound) as error:
        return "skip", in_words(error) if not str(error) else str(error), None
    return "skip" if payload["modules"] is None else "good", reason, payload
