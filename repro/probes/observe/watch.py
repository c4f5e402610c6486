"""Every operator of a forward pass, with the module that ran it: the ground on which tape, counterfactual and
reference stand.

An operator's address is module path + call of that module + operator + how often that operator ran in that call
before. It is the same in another dtype, and in another version that runs the same code, where a position in the whole
trace is not.
"""

import collections
import contextlib
import inspect
import threading
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .mode import mode


@dataclass(frozen=True)
class Address:
    """One operator call: the ``occurrence``-th ``op`` that ``module`` itself (not a child) ran in its
    ``call_index``-th call.
    """

    module: str
    call_index: int
    op: str
    occurrence: int

    @property
    def base_name(self) -> str:
        """ "add" of "aten.add_.Tensor"."""
        return base_name(self.op)

    def record(self, model: nn.Module) -> dict[str, Any]:
        """What the record of an operator of this model begins with."""
        return {
            "module": self.module,
            "module_class": type(dict(model.named_modules())[self.module]).__name__,
            "op": self.op,
            "call_index": self.call_index,
            "occurrence": self.occurrence,
        }


def base_name(op: str) -> str:
    """ "add" of "aten.add_.Tensor"."""
    parts = op.split(".")
    return (parts[1] if len(parts) > 1 else parts[0]).rstrip("_") or parts[-1]


# Hooks that also run when a module's forward raises (and the model catches that), which torch has since 2.1.
ALWAYS = {"always_call": True} if "always_call" in inspect.signature(nn.Module.register_forward_hook).parameters else {}
PLAIN = (
    Tensor, nn.Parameter, nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer,
    *([nn.Buffer] if hasattr(nn, "Buffer") else []),
)  # fmt: skip
FAKE = "FakeTensor"
COMPILED = "_orig_mod"  # how torch.compile's wrapper holds what it wraps: no level of the program's own
WITH_FAST_PATH = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
OUTSIDE = ("", -1)  # an operator that runs while no module does: before, between and after calls


class _Here(threading.local):
    """How deep this thread is in the kit's own work."""

    depth = 0


_here = _Here()


def depth() -> int:
    """How deep this thread is in the kit's own work; 0 while the program's code runs."""
    return _here.depth


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """What runs inside is the kit's own: a watch that was begun outside of it sees none of it. Watches may lie inside
    of each other, and the work of the inner one is no part of the program.
    """
    _here.depth += 1
    try:
        yield
    finally:
        _here.depth -= 1


def of_this_thread() -> Callable[[], bool]:
    """Whether a call is the program's in this thread, to be asked where it is made: a module may be called by several
    threads of Python's at once, and none of their calls is one of a pass that another began. A thread of autograd's own
    works for whoever waits for it, as where a layer runs again in the backward pass.
    """
    here = threading.get_ident()

    def is_here() -> bool:
        return threading.get_ident() == here or isinstance(threading.current_thread(), threading._DummyThread)

    return is_here


class OpCall:
    """One operator as the program calls it: where, what, with which arguments.

    ``run`` calls it, once, however often it is asked: what a visitor does besides can then never run the program's own
    operator twice, nor be taken for it. ``raised``: the exception of the operator itself.
    """

    __slots__ = ("_depth", "_ran", "_result", "address", "args", "func", "kwargs", "raised")

    def __init__(self, address: Address, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.address = address
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.raised: Optional[BaseException] = None
        self._ran = False
        self._result: Any = None
        self._depth = _here.depth

    @property
    def writes(self) -> bool:
        """Whether its schema says that it writes to an argument."""
        schema = getattr(self.func, "_schema", None)
        return schema is not None and schema.is_mutable

    @property
    def has_run(self) -> bool:
        """Whether there is a result."""
        return self._ran

    def run(self) -> Any:
        """The operator's result.

        Raises:
            BaseException: what the operator raises.
        """
        if self.raised is not None:
            raise self.raised
        if not self._ran:
            before, _here.depth = _here.depth, self._depth  # the operator itself is the program's
            try:
                self._result = self.func(*self.args, **self.kwargs)
            except BaseException as error:
                self.raised = error
                raise
            finally:
                _here.depth = before
            self._ran = True
        return self._result


Visitor = Callable[[OpCall], Any]


class StopPass(BaseException):
    """Ends a forward pass that has shown what was wanted. No Exception, so that no handler in the model swallows it."""


class Watch:
    """Knows which module is running and hands each operator to ``visit`` while ``active``.

    outside: module and call of an operator that runs while no module does. own: a subclass of Tensor of the kit's,
    whose operators are told as the program's, not the parts that it takes them apart into. ``unseen``: how many calls
    of each operator the visitor could not look at, for it raised; the program never meets such an exception.
    ``trouble`` is the first.
    """

    def __init__(self, visit: Visitor, outside: tuple[str, int] = ("", 0), own: Optional[type] = None) -> None:
        self._visit = visit
        self.own = own
        self._outside = outside
        self.active = True
        self.stopped = False  # whether the visitor has seen enough
        self.depth = 0  # of the kit's own work in which the watch was begun
        self.unseen: collections.Counter[str] = collections.Counter()
        self.trouble: Optional[str] = None
        self.stack: list[tuple[str, int]] = []
        self.calls: dict[str, int] = {}
        self._occurrences: dict[tuple[str, int, str], int] = {}
        self.entered: Optional[Callable[[str, int], None]] = None
        self.left: Optional[Callable[[str, int, Any], None]] = None

    @property
    def is_deaf(self) -> bool:
        """Whether what runs is the work of a watch inside of this one."""
        return _here.depth > self.depth

    def dispatched(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operator's result, as PyTorch asks a mode for it."""
        other = [kind for kind in types if kind not in PLAIN and kind is not self.own]
        if any(kind.__name__ == FAKE for kind in other):
            # Shapes without numbers, as sharded tensors ask for them. The mode that computes them stands behind this
            # one, and is not asked where NotImplemented is returned.
            return func(*args, **kwargs)
        if other:
            # A subclass with operators of its own takes itself apart, and its parts come here.
            return NotImplemented
        return self.operator(func, args, kwargs)

    def operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.is_deaf:
            return func(*args, **kwargs)
        module, call = self.stack[-1] if self.stack else self._outside
        name = str(func)
        key = (module, call, name)
        occurrence = self._occurrences.get(key, 0)
        self._occurrences[key] = occurrence + 1
        if not self.active:
            return func(*args, **kwargs)
        called = OpCall(Address(module, call, name, occurrence), func, args, kwargs)
        _here.depth += 1
        try:
            return self._visit(called)
        except StopPass:
            self.stopped = True
            raise
        except Exception as error:
            if error is called.raised:
                raise
            self.unseen[name] += 1
            self.trouble = self.trouble or f"{name}: {type(error).__name__}: {error}"
            return called.run()
        finally:
            _here.depth -= 1

    def enter(self, name: str) -> None:
        index = self.calls.get(name, 0)
        self.calls[name] = index + 1
        self.stack.append((name, index))
        if self.entered:
            self.entered(name, index)

    def leave(self, name: str, output: Any) -> None:
        """``output`` is None where the call raised and the model may go on without it.

        A call inside that raised, and of which no hook told (before torch 2.1), ends with this one.
        """
        inner, index = self.stack.pop()
        while inner != name:
            inner, index = self.stack.pop()
        if self.left and output is not None:
            self.left(name, index, output)


@contextlib.contextmanager
def _running(watch: Watch, handles: Iterator[Any]) -> Iterator[None]:
    """Operators go to ``watch``; the hooks are put on one by one as ``handles`` gives them, and are gone afterwards."""
    held: list[Any] = []
    watch.depth = _here.depth
    try:
        held.extend(handles)
        with mode(watch.dispatched), contextlib.suppress(StopPass):
            try:
                yield
            except RuntimeError:  # what TorchScript makes of any exception that comes through it
                if not watch.stopped:
                    raise
    finally:
        for handle in held:
            handle.remove()


def _around_calls(scripted: dict[int, tuple[str, nn.Module]], watch: Watch) -> Iterator[Any]:
    """Hooks of the whole process, for TorchScript modules: these take none of their own. Those inside one are not
    called by Python, and none tells of them. scripted: by their ids.
    """
    is_here = of_this_thread()

    def before(module: nn.Module, args: Any) -> None:
        if id(module) in scripted and is_here():
            watch.enter(scripted[id(module)][0])

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in scripted and is_here():
            watch.leave(scripted[id(module)][0], output)

    yield register_module_forward_pre_hook(before)
    yield register_module_forward_hook(after, **ALWAYS)


@contextlib.contextmanager
def watched(model: nn.Module, watch: Watch) -> Iterator[None]:
    """``model`` under ``watch``; a StopPass from inside ends the block quietly, and the hooks are gone afterwards.

    The hooks stand behind the model's own ones, so that what those change is seen. Calls of other threads are let be.
    """
    is_here = of_this_thread()

    def before(name: str) -> Any:
        return lambda module, args: watch.enter(name) if is_here() else None

    def after(name: str) -> Any:
        return lambda module, args, output: watch.leave(name, output) if is_here() else None

    def handles() -> Iterator[Any]:
        scripted: dict[int, tuple[str, nn.Module]] = {}
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                scripted.setdefault(id(module), (name, module))
                continue
            yield module.register_forward_pre_hook(before(name))
            yield module.register_forward_hook(after(name), **ALWAYS)
        if scripted:
            yield from _around_calls(scripted, watch)

    with _running(watch, handles()):
        yield


def inside(model: nn.Module) -> nn.Module:
    """The module that torch.compile or DistributedDataParallel wraps: its own code is what can be looked into, and a
    step of it can be made again by this process alone.
    """
    inner = getattr(model, COMPILED, None)
    if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
        inner = getattr(model, "module", None)
    return inside(inner) if isinstance(inner, nn.Module) else model


class Names:
    """The path of each module that runs: below the outermost module that is being called.

    The first such root is "", the next one "root1", and so on, by order of their first calls. A part of a root that is
    called by itself later (a checkpointed layer in the backward pass) keeps its path below that root. A module that its
    root does not hold (one in a plain list, one made during the call) is named by its caller and its class:
    "layer.<Linear>". ``classes``: the class of every name that was given.

    known: roots that are there before anything is called, in this order.
    """

    def __init__(self, known: Iterable[nn.Module] = ()) -> None:
        self.classes: dict[str, str] = {}
        # Weak references, for a script may make and drop more modules than fit into memory; they also tell a module
        # from a later one at the same address.
        self._roots: dict[int, tuple[Any, str]] = {}
        self._paths: dict[int, str] = {}
        self._count = 0
        self._fused: set[str] = set()
        self.other_threads = 0  # calls of modules in threads that are not watched
        self.has_fast_path = False  # whether a layer was called that PyTorch has a fast path for
        self._running: list[tuple[int, str]] = []
        for module in known:
            self._label(module)

    def class_at(self, address: Address) -> str:
        """The class of the module that an operator belongs to; empty outside of all modules."""
        return "" if (address.module, address.call_index) == OUTSIDE else self.classes.get(address.module, "")

    def held(self) -> Iterator[tuple[str, str, Tensor]]:
        """("parameter" or "buffer", its whole name, the tensor) of all that these modules hold."""
        for label, root in self.roots():
            for kind, named in (("parameter", root.named_parameters()), ("buffer", root.named_buffers())):
                for name, tensor in named:
                    yield kind, _joined(label, name), tensor

    def is_fused(self, address: Address) -> bool:
        """Whether an operator ran in one of PyTorch's own modules that has inner layers, and not in one of these."""
        return (address.module, address.call_index) != OUTSIDE and address.module in self._fused

    def module(self, name: str) -> Optional[nn.Module]:
        """The module of this name below one of the outermost ones."""
        for label, root in self.roots():
            for path, module in root.named_modules():
                if _joined(label, path) == name and COMPILED not in module._modules:
                    return module
        return None

    def roots(self) -> Iterator[tuple[str, nn.Module]]:
        """The outermost modules that were called and are still there, by name."""
        for ref, label in self._roots.values():
            module = ref()
            if module is not None:
                yield label, module

    def enter(self, module: nn.Module) -> str:
        name = self._inside(module) if self._running else self._root(module)
        self._running.append((id(module), name))
        if name not in self.classes and COMPILED not in module._modules:
            self.classes[name] = type(module).__name__
            if type(module).__module__.startswith("torch.nn.") and next(module.children(), None) is not None:
                self._fused.add(name)
            self.has_fast_path = self.has_fast_path or isinstance(module, WITH_FAST_PATH)
        return name

    def leave(self, module: nn.Module) -> str:
        """The name that ``enter`` gave. A call inside that raised, and of which no hook told, ends with it."""
        key, name = self._running.pop()
        while key != id(module):
            key, name = self._running.pop()
        return name

    def _root(self, module: nn.Module) -> str:
        known, label = self._roots.get(id(module), (None, ""))
        if known is None or known() is not module:
            for name, root in self.roots():
                paths = self._below(root, name)
                if id(module) in paths:
                    self._paths = paths
                    return paths[id(module)]
            label = self._label(module)
        self._paths = self._below(module, label)
        return label

    def _label(self, module: nn.Module) -> str:
        """A new root's name."""
        label = f"root{self._count}" if self._count else ""
        self._count += 1
        self._roots[id(module)] = (weakref.ref(module), label)
        return label

    @staticmethod
    def _below(root: nn.Module, label: str) -> dict[int, str]:
        return {id(module): _joined(label, path) for path, module in root.named_modules()}

    def _inside(self, module: nn.Module) -> str:
        if id(module) in self._paths:
            return self._paths[id(module)]
        return ".".join(filter(None, (self._running[-1][1], f"<{type(module).__name__}>")))


def _joined(label: str, path: str) -> str:
    """A path below a root."""
    return ".".join(part for part in (label, *path.split(".")) if part and part != COMPILED)


@contextlib.contextmanager
def watched_everywhere(watch: Watch, names: Names) -> Iterator[None]:
    """Every module of the process under ``watch``, also those that are made inside, by their ``names``.

    No module gets a hook of its own: PyTorch's transformer layers leave their fused path where they find one. Only
    this thread is watched: a dispatch mode sees no other, and calls of several threads do not nest.
    """
    here = threading.get_ident()

    def before(module: nn.Module, args: Any) -> None:
        if watch.is_deaf:
            return
        if threading.get_ident() == here:
            watch.enter(names.enter(module))
        else:
            names.other_threads += 1

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == here and not watch.is_deaf:
            watch.leave(names.leave(module), output)

    def handles() -> Iterator[Any]:
        yield register_module_forward_pre_hook(before)
        yield register_module_forward_hook(after, **ALWAYS)

    with _running(watch, handles()):
        yield
