"""What a part of a diffusion pipeline is called with: noise, a time, and embeddings, drawn in the shapes that its
configuration asks for.
"""

import inspect
import itertools
from collections.abc import Iterator
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from ...values.nest import rebuild
from ..compat import CannotLoad

SEED = 0
LARGEST, IMAGE = 64, 256  # places of a latent and of an image along a side; larger ones take long on a processor
FRAMES, WORDS = 5, 77
TIME = 500  # of 1,000
CHANNELS = ("in_channels", "latent_channels")
WIDTHS = ("encoder_hid_dim", "caption_channels", "text_dim", "joint_attention_dim", "cross_attention_dim")
NOISY, SIDE = ("sample", "hidden_states", "x"), 32
NOT_DATA = ("return_dict", "sample_posterior")


def inputs_for(part: nn.Module, dtype: torch.dtype) -> dict[str, Any]:
    """The first of the layouts that are usual for such parts in which a pass ends.

    Args:
        part: A module of diffusers: (batch, channels, height, width) of an image or a latent, the same with frames, or
            (batch, places, channels); a time; embeddings of (batch, words, width).
        dtype: That of the floating ones.

    Returns:
        The arguments by name, on the part's device.

    Raises:
        CannotLoad: it runs in none of them.
    """
    names = {
        name: one
        for name, one in inspect.signature(part.forward).parameters.items()
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and name not in NOT_DATA
    }
    device = next(part.parameters(), torch.empty(0)).device
    raised = "nothing"
    for layout in _layouts(part.config):
        drawn = _Drawn(part.config, layout, dtype).all(names)
        given: dict[str, Any] = rebuild(drawn, Tensor, lambda tensor: tensor.to(device))
        missing = [name for name, one in names.items() if one.default is one.empty and name not in given]
        if missing:
            raised = f"a missing {', '.join(missing)}"
            continue
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                part(**given)
        except Exception as error:  # noqa: BLE001 - another layout is tried
            raised = f"{type(error).__name__}: {error}"
            continue
        return given
    raise CannotLoad(
        f"{type(part).__name__} takes {', '.join(names)}, and runs with none of the inputs that can be made for it here"
        f" (the last pass raised {raised[:200]}). Give exact ones with --inputs FILE."
    )


def _layouts(config: Any) -> Iterator[tuple[str, bool]]:
    """The layout of what is denoised or coded, and whether the time is a whole number."""
    is_coder = "latent_channels" in config or "vq_embed_dim" in config
    kinds = ("image", "frames", "places")
    yield from itertools.product(kinds, (True,) if is_coder else (True, False))


class _Drawn:
    """The arguments of one layout, each drawn from the same seed."""

    def __init__(self, config: Any, layout: tuple[str, bool], dtype: torch.dtype) -> None:
        self._config, (self._layout, self._whole), self._dtype = config, layout, dtype

    def all(self, names: dict[str, inspect.Parameter]) -> dict[str, Any]:
        made: dict[str, Callable[[], Any]] = {
            **dict.fromkeys(NOISY, self._noisy),
            **dict.fromkeys(("timestep", "timesteps", "t"), self._time),
            "encoder_hidden_states": lambda: self._by_width(WORDS),
            "pooled_projections": lambda: self._normal(1, self._number("pooled_projection_dim")),
            "encoder_hidden_states_mask": lambda: torch.ones(1, WORDS, dtype=torch.bool),
            "img_shapes": lambda: [[(1, self._side(), self._side())]],
            "img_ids": lambda: torch.zeros(self._side() ** 2, self._axes(), dtype=self._dtype),
            "txt_ids": lambda: torch.zeros(WORDS, self._axes(), dtype=self._dtype),
            "guidance": lambda: torch.full((1,), 3.5) if self._of("guidance_embeds") else None,
            "added_cond_kwargs": self._added,
            "class_labels": self._label,
            "controlnet_cond": self._condition,
        }
        found = {name: made[name]() for name in names if name in made}
        return {name: value for name, value in found.items() if value is not None}

    def _of(self, name: str) -> Any:
        return self._config.get(name)

    def _number(self, *names: str) -> Optional[int]:
        """The first of these settings that is a number, or a list that begins with one."""
        for name in names:
            value = self._of(name)
            value = value[0] if isinstance(value, (list, tuple)) and value else value
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None

    def _normal(self, *shape: Optional[int]) -> Optional[Tensor]:
        if None in shape:
            return None
        drawn = torch.randn([size or 0 for size in shape], generator=torch.Generator().manual_seed(SEED))
        return drawn.to(self._dtype)

    def _uniform(self, *shape: int) -> Tensor:
        drawn = torch.rand(shape, generator=torch.Generator().manual_seed(SEED))
        return (drawn * 2 - 1).to(self._dtype)

    def _side(self) -> int:
        coder = self._is_coder
        return min(
            self._number("sample_size", "input_size") or (SIDE * 2 if coder else SIDE), IMAGE if coder else LARGEST
        )

    @property
    def _is_coder(self) -> bool:
        return "latent_channels" in self._config

    def _noisy(self) -> Optional[Tensor]:
        channels, side = self._number(*CHANNELS), self._side()
        if channels is None:
            return None
        if self._layout == "places":
            return self._normal(1, side**2, channels)
        shape = (1, channels, side, side) if self._layout == "image" else (1, channels, FRAMES, side, side)
        return self._uniform(*shape) if self._is_coder else self._normal(*shape)

    def _time(self) -> Tensor:
        return torch.tensor([TIME]) if self._whole else torch.tensor([TIME / 1000], dtype=self._dtype)

    def _by_width(self, count: int) -> Optional[Tensor]:
        return self._normal(1, count, self._number(*WIDTHS))

    def _axes(self) -> int:
        """Columns of a place's coordinates."""
        return len(self._of("axes_dims_rope") or (0, 0, 0))

    def _condition(self) -> Tensor:
        """A picture, which a control network halves once less often than it has sizes of channels."""
        side = self._side() * 2 ** (len(self._of("conditioning_embedding_out_channels") or (0, 0, 0, 0)) - 1)
        return self._uniform(1, 3, side, side)

    def _added(self) -> Optional[dict[str, Any]]:
        """What SDXL's network takes beside its text: sizes and crops, and a pooled embedding."""
        if self._of("addition_embed_type") == "text_time":
            width = (self._number("projection_class_embeddings_input_dim") or 0) - 6 * (
                self._number("addition_time_embed_dim") or 0
            )
            sizes = torch.tensor([[1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]], dtype=self._dtype)
            return {"text_embeds": self._normal(1, width), "time_ids": sizes}
        return {"resolution": None, "aspect_ratio": None} if self._of("use_additional_conditions") is False else None

    def _label(self) -> Optional[Tensor]:
        classes = self._number("num_class_embeds", "num_embeds_ada_norm")
        return None if classes is None else torch.tensor([0])
