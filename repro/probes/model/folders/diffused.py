"""Folders of the package diffusers: a part of a pipeline, or a pipeline as one module.

A pass of a part is one of its own: a step of a denoiser, a picture through a coder and back. A pass of a pipeline is
the whole way of it, in few steps and on a small picture: text encoder, denoiser, decoder.
"""

import contextlib
import importlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ...checkpoint import limits
from ...checkpoint.opening import read_json, shown
from ...checkpoint.others import PIPELINE, parts_of
from ...checkpoint.resolve import Source
from ...protocol.failures import in_words
from ...values.figures import is_bad, tensors_in
from ..compat import CannotLoad, quiet
from ..given.factory import Made, ready_alone
from ..inputs import DEFAULT_PROMPT
from ..load import Loaded, pick_device
from ..ready import ready
from .noised import inputs_for

SEED = 0
LIBRARIES = ("diffusers", "transformers")
STEPS = 2  # the first and the last of a schedule are made unlike the others, and one alone may divide by zero
SIDE = 256  # of the picture; what a pipeline makes by itself takes minutes on a processor
FRAMES = 9  # of a video; coders that take 4 or 8 frames together want a multiple of these and one more


def make(case: dict[str, Any], source: Source, prompts: list[str]) -> Made:
    """The module of a folder and what it is called with.

    Raises:
        CannotLoad: this release does not know its class, does not load it, or runs it with nothing that is made here.
    """
    device = pick_device(case.get("device"))
    dtype = getattr(torch, case["dtype"]) if case.get("dtype") else torch.float32  # the library's own default
    trust = bool(case.get("trust_remote_code"))
    folder = str(source.folder or source.config)
    if case.get("attn"):
        raise CannotLoad("A model of diffusers does not choose its attention by --attn: leave it out.")
    torch.manual_seed(SEED)  # keys that the files lack are drawn: the same way in every run
    is_pipeline = bool(parts_of(folder))
    module: nn.Module
    info: dict[str, list[Any]] = {}
    with quiet():
        library: Any = importlib.import_module("diffusers")
        if is_pipeline:
            if source.seed is not None:
                raise CannotLoad("A pipeline has no random weights: give one of its parts with --weights random:SEED.")
            module = _pipeline(library, folder, dtype, trust, prompts)
        else:
            module, info = _part(library, folder, dtype, source.seed)
    module.eval().to(device)
    if case.get("inputs"):
        loaded, given = ready_alone(module), None
    else:
        inputs = {"latents": module.noise()} if isinstance(module, Pipeline) else inputs_for(module, dtype)
        with torch.no_grad():
            loaded, given = ready(module, (), inputs)
    loaded.info.update(info)
    return Made(_named(loaded, source, is_pipeline), given, None)


def _named(loaded: Loaded, source: Source, is_pipeline: bool) -> Loaded:
    """Where it came from; of a part, what was loaded can be compared with its file, name by name."""
    return replace(loaded, source=replace(loaded.source, package=source.package) if is_pipeline else source)


def _part(library: Any, folder: str, dtype: torch.dtype, seed: Optional[int]) -> tuple[nn.Module, dict[str, list[Any]]]:
    name = str(_object(folder, "config.json").get("_class_name"))
    chosen: Any = getattr(library, name, None)
    is_model = isinstance(chosen, type) and issubclass(chosen, library.ModelMixin)
    if not is_model:
        version = library.__version__
        raise CannotLoad(f"diffusers {version} has no model {name}, which the folder's configuration names.")
    if seed is not None:
        torch.manual_seed(seed)
        return chosen.from_config(_object(folder, "config.json")).to(dtype), {}
    try:
        module, info = chosen.from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True,
            low_cpu_mem_usage=False,
        )  # fmt: skip
    except Exception as error:
        raise CannotLoad(f"diffusers {library.__version__} does not load this {name}: {in_words(error)}") from error
    return module, {key: list(value) for key, value in info.items() if isinstance(value, (list, set, tuple))}


def _pipeline(library: Any, folder: str, dtype: torch.dtype, trust: bool, prompts: list[str]) -> "Pipeline":
    # A checker of pictures paints those over that it does not like, and with that what is wrong with them.
    index = _object(folder, PIPELINE)
    if not trust:
        _refuse_other_code(library, index)
    checked = "safety_checker" in index
    without: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False} if checked else {}
    try:
        pipeline = library.DiffusionPipeline.from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, trust_remote_code=trust, **without
        )
    except Exception as error:
        version = library.__version__
        raise CannotLoad(f"diffusers {version} does not load this pipeline: {in_words(error)}") from error
    return Pipeline(pipeline, prompts or [DEFAULT_PROMPT])


def _refuse_other_code(library: Any, index: dict[str, Any]) -> None:
    """Raises:
    CannotLoad: the pipeline names a class of its own, or a module to import that is none of the two libraries': the
        name comes from somebody else's file.
    """
    if not isinstance(index.get("_class_name"), str):
        own = shown(index.get("_class_name"))
        raise CannotLoad(f"The pipeline's class is {own}: code of its own only runs with --trust-remote-code.")
    for part, value in index.items():
        named: Any = value[0] if isinstance(value, list) and value else None
        if named in (None, *LIBRARIES) or (isinstance(named, str) and hasattr(library.pipelines, named)):
            continue
        raise CannotLoad(
            f"{shown(part)} of the pipeline is to be imported from {shown(named)}, which is neither diffusers nor"
            " transformers. Add --trust-remote-code if you trust it, or give one of the pipeline's parts."
        )


def _object(folder: str, name: str) -> dict[str, Any]:
    """A file of settings.

    Raises:
        CannotLoad: it cannot be read, or holds none.
    """
    try:
        found = read_json(os.path.join(folder, name), limits.CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise CannotLoad(f"{name} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


class Pipeline(nn.Module):
    """A pipeline that makes pictures or videos from prompts, as one module of its parts.

    A pass gives the pictures, (batch, 3, height, width) in 0 to 1, or the videos, (batch, frames, 3, height, width),
    and what the decoder gave before it was brought into that range, where an Inf would be lost. Of a decoder that is
    called piece by piece it is the first piece with a NaN or Inf, else the last.
    """

    def __init__(self, pipeline: Any, prompts: list[str]) -> None:
        super().__init__()
        self._pipeline = pipeline
        self._decoded: Any = None
        for name, part in pipeline.components.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
        takes = inspect.signature(pipeline.__call__).parameters
        if not {"prompt", "latents", "num_inference_steps"} <= set(takes) or not hasattr(pipeline, "prepare_latents"):
            parts = ", ".join(name for name, _ in self.named_children())
            raise CannotLoad(
                f"{type(pipeline).__name__} does not make pictures from a prompt and latents, which is the kind of"
                f" pipeline that is run here. Give one of its parts: {parts}."
            )
        self._call = {"prompt": prompts, "num_inference_steps": STEPS, "output_type": "pt"}
        if "height" in takes and "width" in takes:
            side = min(_side(pipeline), SIDE)
            self._call.update(height=side, width=side)
        if "num_frames" in takes:
            self._call["num_frames"] = FRAMES
        pipeline.set_progress_bar_config(disable=True)
        decoder = getattr(getattr(pipeline, "vae", None), "decoder", None)
        if isinstance(decoder, nn.Module):
            decoder.register_forward_hook(self._note)

    def _note(self, _owner: nn.Module, _given: Any, output: Any) -> None:
        if self._decoded is None or not any(is_bad(tensor) for tensor in tensors_in(self._decoded)):
            self._decoded = output

    def forward(self, latents: Tensor) -> dict[str, Any]:
        """latents: the noise that is denoised, in the layout that the pipeline itself draws."""
        self._decoded = None
        made = self._pipeline(**self._call, latents=latents)
        kind = "frames" if hasattr(made, "frames") else "images"
        return {"decoded": self._decoded, kind: getattr(made, kind)}

    def noise(self) -> Tensor:
        """Noise of the shape that the pipeline would draw, where it would be, from a seed: the same in every dtype."""
        found: list[Tensor] = []
        with _met(self._pipeline, found), contextlib.suppress(_Met), torch.no_grad():
            self._pipeline(**self._call)
        if not found:
            raise CannotLoad(f"{type(self._pipeline).__name__} draws no latents. Give one of its parts.")
        drawn = torch.randn(found[0].shape, generator=torch.Generator().manual_seed(SEED))
        return drawn.to(found[0])


class _Met(Exception):
    """The pipeline has drawn its latents."""


@contextlib.contextmanager
def _met(pipeline: Any, found: list[Tensor]) -> Iterator[None]:
    """A pipeline that stops where it has drawn its latents, which ``found`` then has."""
    own = pipeline.prepare_latents

    def stop(*given: Any, **named: Any) -> Any:
        drawn = own(*given, **named)
        found.append(drawn[0] if isinstance(drawn, tuple) else drawn)
        raise _Met

    pipeline.prepare_latents = stop
    try:
        yield
    finally:
        del pipeline.prepare_latents


def _side(pipeline: Any) -> int:
    """Pixels along a side of what the pipeline makes by itself."""
    size: Optional[int] = getattr(pipeline, "default_sample_size", None)
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    size = size or getattr(getattr(denoiser, "config", None), "sample_size", None)
    scale = getattr(pipeline, "vae_scale_factor", 8)
    return int(size * scale) if isinstance(size, int) else SIDE
