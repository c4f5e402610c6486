"""One thing changed while a program runs: set before its first line, put back behind its last.

Each asks whether the fault goes away with it. "compile=..." replaces the backend of torch.compile, so that the layer
that a fault needs can be named.
"""

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any, Callable

BACKENDS = ("eager", "aot_eager")  # the layers in front of the backend that a program asks for
NOT_NARROW = "the script asks PyTorch for nothing narrower than float32"
NOT_COMPILED = "the script compiles nothing"
_applied: "set[str]" = set()  # sentences of IDLE that do not hold in this process


class NotHere(Exception):
    """This PyTorch has no such setting. The message says which."""


@contextlib.contextmanager
def applied(names: tuple[str, ...]) -> Iterator[None]:
    """The settings of these names, while the block lasts."""
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(SETTINGS[name]())
        yield


def idle(names: tuple[str, ...]) -> "list[str]":
    """Why those of these settings that can tell it changed nothing in this process. Where all of them did not, the
    program ran as it does without them, and its end says nothing of them.
    """
    return [IDLE[name] for name in names if name in IDLE and IDLE[name] not in _applied]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextlib.contextmanager
def no_fast_path() -> Iterator[None]:
    """PyTorch's transformer layers as their Python code has them, without the fused kernels and nested tensors."""
    import torch

    found = getattr(getattr(torch.backends, "mha", None), "set_fastpath_enabled", None)
    if found is None:
        raise NotHere(f"PyTorch {torch.__version__} has no switch for the fast path of its transformer layers")
    before = torch.backends.mha.get_fastpath_enabled()
    found(False)
    try:
        yield
    finally:
        found(before)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """scaled_dot_product_attention by its plain formula."""
    import torch

    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        chosen: Any = sdpa_kernel(SDPBackend.MATH)
    except ImportError:
        chosen = torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False, enable_math=True)
    with chosen:
        yield


@contextlib.contextmanager
def no_onednn() -> Iterator[None]:
    import torch

    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # not mkldnn.flags(), which also sets what it was not given
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Every float16 and bfloat16 that the program asks PyTorch for is float32; autocast does nothing."""
    import torch
    from torch.overrides import TorchFunctionMode

    narrow = (torch.float16, torch.bfloat16)
    methods = {torch.Tensor.half: torch.Tensor.float, torch.Tensor.bfloat16: torch.Tensor.float}

    def wide(item: Any) -> Any:
        if not (isinstance(item, torch.dtype) and item in narrow):
            return item
        _applied.add(NOT_NARROW)
        return torch.float32

    class Widen(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = {key: wide(item) for key, item in (kwargs or {}).items()}
            if func in methods:
                _applied.add(NOT_NARROW)
            return methods.get(func, func)(*map(wide, args), **given)

    default = torch.set_default_dtype
    autocast = torch.amp.autocast_mode.autocast
    enter = autocast.__enter__

    def off(self: Any) -> Any:
        if self._enabled:
            _applied.add(NOT_NARROW)
        self._enabled = False
        return enter(self)

    torch.set_default_dtype = lambda dtype: default(wide(dtype))
    autocast.__enter__ = off  # type: ignore[method-assign]
    try:
        with Widen():
            yield
    finally:
        torch.set_default_dtype = default
        autocast.__enter__ = enter  # type: ignore[method-assign]


@contextlib.contextmanager
def not_compiled() -> Iterator[None]:
    """torch.compile gives back what it is given, and what is compiled already runs eagerly."""
    import torch

    def same(model: Any = None, **_: Any) -> Any:
        return model if model is not None else lambda wrapped: wrapped

    stance = getattr(torch.compiler, "set_stance", None) if hasattr(torch, "compiler") else None
    eager = stance("force_eager") if stance and "torch._dynamo" in sys.modules else contextlib.nullcontext()
    with _compile_is(same), eager:
        yield


@contextlib.contextmanager
def compiled_with(backend_for: Callable[[dict[str, Any]], Any]) -> Iterator[None]:
    """torch.compile with the backend that ``backend_for`` gives for the arguments that the program compiles with."""
    import torch

    before = torch.compile

    def other(*args: Any, **given: Any) -> Any:
        kept = {key: value for key, value in given.items() if key not in ("mode", "options")}  # these are Inductor's
        return before(*args, **{**kept, "backend": backend_for(given)})

    with _compile_is(other):
        yield


@contextlib.contextmanager
def _compile_is(other: Callable[..., Any]) -> Iterator[None]:
    """``other`` in place of torch.compile, which Module.compile looks up when it is called."""
    import torch

    before = torch.compile

    @functools.wraps(before)
    def noted(*args: Any, **given: Any) -> Any:
        _applied.add(NOT_COMPILED)
        return other(*args, **given)

    torch.compile = noted
    try:
        yield
    finally:
        torch.compile = before


def _always(backend: str, given: dict[str, Any]) -> str:
    return backend


SETTINGS: dict[str, Callable[[], "contextlib.AbstractContextManager[None]"]] = {
    "dtype=float32": in_float32,
    "attn=math": plain_attention,
    "fast_path=off": no_fast_path,
    "compile=off": not_compiled,
    "threads=1": one_thread,
    "deterministic=true": deterministic,
    "mkldnn=off": no_onednn,
    **{f"compile={name}": functools.partial(compiled_with, functools.partial(_always, name)) for name in BACKENDS},
}
IDLE = {
    "dtype=float32": NOT_NARROW,
    "compile=off": NOT_COMPILED,
    **{f"compile={name}": NOT_COMPILED for name in BACKENDS},
}
"""Settings that know whether they changed anything, and what is so where they did not."""
