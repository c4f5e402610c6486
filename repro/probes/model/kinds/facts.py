"""What a model says about its inputs: the parameters of its forward pass, and its configuration."""

import inspect
from typing import Any, Optional

from torch import nn

from ..compat import config_parts

IDS = "input_ids"
NOT_DATA = frozenset((IDS, "attention_mask", "decoder_input_ids", "decoder_attention_mask"))


class Facts:
    """One model's forward parameters and settings."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        parameters = inspect.signature(type(model).forward).parameters
        plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        known = [(name, row) for at, (name, row) in enumerate(parameters.items()) if at and row.kind in plain]
        self.parameters = frozenset(name for name, _ in known)
        self.needed = frozenset(name for name, row in known if row.default is inspect.Parameter.empty)
        self.open = any(row.kind is inspect.Parameter.VAR_KEYWORD for row in parameters.values())
        self.is_foreign = not type(model).__module__.startswith("transformers.models.")
        self.main = _main_inputs(model)

    @property
    def config(self) -> Any:
        """None for a module that has no configuration of Transformers' kind."""
        return getattr(self.model, "config", None)

    def setting(self, *names: str, inside: tuple[str, ...] = ()) -> Any:
        """The first of these settings that the configuration, or one inside it, has; those in the parts ``inside``
        come first.
        """
        first = [part for part in (getattr(self.config, name, None) for name in inside) if part is not None]
        for part in [*first, *config_parts(self.config)]:
            for name in names:
                value = getattr(part, name, None)
                if value is not None:
                    return value
        return None

    def number(self, *names: str, default: int, inside: tuple[str, ...] = ()) -> int:
        """The same, where it is a whole number above 0."""
        value = self.setting(*names, inside=inside)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default

    def token(self, *names: str) -> Optional[int]:
        """The id of a special token."""
        value = self.setting(*names)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    def hidden(self) -> Optional[int]:
        """The width of the text's hidden states."""
        for part in (getattr(self.config, "text_config", None), self.config):
            value = getattr(part, "hidden_size", None)
            if isinstance(value, int):
                return value
        return None


def _main_inputs(model: Any) -> tuple[str, ...]:
    """The inputs that the model's class calls its main ones."""
    named = getattr(model, "main_input_name", None)
    return () if named is None else (named,) if isinstance(named, str) else tuple(map(str, named))
