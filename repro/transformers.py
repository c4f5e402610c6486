"""``repro.transformers.Callback``, for ``transformers.Trainer``. Importing this imports transformers."""

from repro.inprocess.trainer import Callback

__all__ = ["Callback"]
