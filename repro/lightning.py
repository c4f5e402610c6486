"""``repro.lightning.Callback``, for Lightning's Trainer. Importing this imports lightning."""

from repro.inprocess.lightning import Callback

__all__ = ["Callback"]
