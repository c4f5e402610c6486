"""``model.generate`` as a program: prefill, each decoding step, logits processors and the choice of the token.

Its ends are the logits of each step and the scores that the processors make of them. A -inf among the scores is how a
processor takes a token away; a row that has nothing else is bad, as no token is left.
"""

import math
from collections.abc import Iterator
from typing import Any, Optional

import torch
from torch import Tensor

from ..model.compat import CannotLoad
from ..model.inputs import Inputs
from ..model.load import Loaded, own_dtype
from ..program.callable import Program

SEED = 0
SECONDS = 600.0


class Seen:
    """A logits processor that changes nothing: it keeps the tokens that there are at each step."""

    def __init__(self) -> None:
        self.begin: Optional[int] = None
        self.ids: Optional[Tensor] = None
        self.widths: list[int] = []  # how many tokens each pass of the model was given, as far as it was told by name

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.begin = int(input_ids.shape[1]) if self.begin is None else self.begin
        self.ids = input_ids
        return scores

    def passes(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """A hook in front of the model."""
        ids = kwargs.get("decoder_input_ids", kwargs.get("input_ids"))
        self.widths.append(int(ids.shape[1]) if isinstance(ids, Tensor) and ids.dim() == 2 else 0)

    @property
    def new(self) -> list[int]:
        """The tokens that had been generated when the last one was asked for, of the first sequence."""
        return [] if self.ids is None else [int(item) for item in self.ids[0, self.begin :]]


class Generation:
    """A generation of ``tokens`` new tokens behind one prompt. settings: what is set beside the generation config.

    ``plain``: the tokens of the first run, which nothing watches.
    """

    def __init__(self, loaded: Loaded, inputs: Inputs, tokens: int, **settings: Any) -> None:
        self.loaded = loaded
        self.inputs = inputs
        self.tokens = tokens
        self.settings = settings
        self.plain = Seen()
        self.judged = 0
        check_generates(loaded)

    def run(self) -> Any:
        """One generation, its random choices from a seed of their own."""
        torch.manual_seed(SEED)
        model: Any = self.loaded.model
        given = self.inputs.arguments(own_dtype(model) if self.inputs.is_cast else None)
        given.pop("decoder_input_ids", None)  # it makes its own
        given.update(self.settings)
        seen = Seen()
        if self.plain.begin is not None:
            return self._generated(given, seen)
        self.plain = seen
        handle = model.register_forward_pre_hook(seen.passes, with_kwargs=True)
        try:
            return self._generated(given, seen)
        finally:
            handle.remove()

    def _generated(self, given: dict[str, Any], seen: Seen) -> Any:
        model: Any = self.loaded.model
        return model.generate(
            **given, max_new_tokens=self.tokens, logits_processor=[seen], return_dict_in_generate=True,
            output_scores=True, **_logits_too(),
        )  # fmt: skip

    def ends(self, result: Any) -> Iterator[tuple[str, Tensor]]:
        """The logits and scores of each step by name."""
        steps = 0
        for name, kept in (("logits", lambda item: item), ("scores", without_masks)):
            for step, tensor in enumerate(getattr(result, name, None) or ()):
                steps += 1
                yield f"{name} of step {step}", kept(tensor)
        self.judged = max(self.judged, steps)

    def program(self) -> Program:
        """It as something that can be run again. Of weights no copy is made: no generation writes to one."""
        model = self.loaded.model
        return Program(
            self.run, [model], self.ends, noun="the generation", seconds=SECONDS, unchanged=list(model.parameters())
        )

    @property
    def is_cached(self) -> bool:
        """Whether each pass behind the first was given one token alone."""
        return len(self.plain.widths) > 1 and set(self.plain.widths[1:]) == {1}


def check_generates(loaded: Loaded) -> None:
    """
    Raises:
        CannotLoad: the model does not generate.
    """
    model: Any = loaded.model
    can = getattr(model, "can_generate", None)
    if not callable(getattr(model, "generate", None)) or (can is not None and not can()):
        raise CannotLoad(f"{loaded.class_name} does not generate: it has no language model's head, or no generate().")


def is_greedy(loaded: Loaded) -> bool:
    """Whether the generation config chooses the likeliest token."""
    return not bool(getattr(getattr(loaded.model, "generation_config", None), "do_sample", False))


def without_masks(scores: Tensor) -> Tensor:
    """Scores with 0 for a token that was taken away, and NaN where none is left."""
    away = scores == -math.inf
    kept = torch.where(away, torch.zeros((), dtype=scores.dtype, device=scores.device), scores)
    return torch.where(away.all(-1, keepdim=True), torch.full_like(scores, math.nan), kept)


def _logits_too() -> dict[str, Any]:
    """The raw logits of each step, in releases of Transformers that give them."""
    import transformers

    known = hasattr(transformers.GenerationConfig(), "output_logits")
    return {"output_logits": True} if known else {}
