"""A copy of a process that has imported much, made what a fresh interpreter would be, and what that then runs.

What a fresh interpreter has is taken from where this one began: the names in ``sys.modules``, ``sys.path``, the filters
of warnings, the variables. A library that was imported in advance is not seen until somebody would import it: the host
has what the host imports, and only the kit has PyTorch.
"""

from __future__ import annotations

import ast
import atexit
import concurrent.futures.thread
import contextlib
import contextvars
import ctypes
import faulthandler
import gc
import importlib.abc
import importlib.machinery
import io
import logging
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import types
import warnings
import weakref
import zipimport
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from .command import THREADS, Command, fits

ROOT = Path(__file__).parents[3]
HOSTS = ("click", "filelock", "markdown_it", "msgspec", "packaging", "platformdirs", "rich", "vl_convert", "yaml")
LIBRARIES = ("gguf", "huggingface_hub", "numpy", "packaging", "safetensors", "tokenizers", "torch", "transformers")
"""Of what the host and the kit import, that which is imported in advance, with all of its modules that they name."""
MODELS = (
    "torch._dynamo", "torch._meta_registrations", "transformers:AutoModelForCausalLM", "transformers:AutoTokenizer",
    "transformers:PreTrainedTokenizerFast", "transformers:AutoConfig", "transformers:PreTrainedModel",
    "transformers:GPT2LMHeadModel", "transformers:LlamaForCausalLM", "transformers:GenerationConfig",
)  # fmt: skip
"""What loading one of the tests' models imports besides."""
TESTS = ("hypothesis", "hypothesis.strategies", "pytest", "_pytest.main")
"""What the fuzzers import besides."""
PR_SET_PDEATHSIG = 1
_kept: list[Any] = []
"""What a process had before: its files have the numbers of others now, and must never be closed."""
UNBUFFERED = bool(os.environ.get("PYTHONUNBUFFERED"))
"""Whether this interpreter was started so; one of another kind is never asked for."""
UNSEEN = (signal.SIGKILL, signal.SIGSTOP)


@dataclass(frozen=True)
class View:
    """What one kind of process has imported: modules, finders, filters of warnings; and the variables that this set."""

    modules: Mapping[str, types.ModuleType]
    finders: Sequence[Any]
    filters: Sequence[Any]
    variables: Mapping[str, str]

    @staticmethod
    def taken(env: Mapping[str, str], without: Callable[[str], bool]) -> View:
        """As this process is now, but for some modules."""
        modules = {name: module for name, module in sys.modules.items() if not without(name)}
        added = {name: value for name, value in os.environ.items() if env.get(name) != value}
        return View(modules, tuple(sys.meta_path), tuple(warnings.filters), added)

    def put(self) -> None:
        """Make this process's modules those of the view. What differs is touched alone: memory that is written to is
        memory of its own.
        """
        _kept.extend([sys.modules.pop(name) for name in sys.modules.keys() - self.modules.keys()])
        sys.modules.update({name: module for name, module in self.modules.items() if name not in sys.modules})
        sys.meta_path[:] = self.finders
        warnings.filters[:] = list(self.filters)  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class World:
    """What every copy is made from.

    Args:
        env: The variables that this process was started with.
        path: Its ``sys.path`` without the first, which is of one command.
        own: Those of the path that PYTHONPATH names.
        host, kit, tests: What each kind of process has imported.
        codes: The kit's modules, compiled: from a text to what it was compiled to.
    """

    env: Mapping[str, str]
    path: Sequence[str]
    own: Sequence[str]
    host: View
    kit: View
    tests: View
    codes: Mapping[bytes, types.CodeType]

    @staticmethod
    def imported() -> World:
        """Import what the host and the kit import, and keep how it was in between."""
        _stderr()
        env, path = dict(os.environ), [place for place in sys.path if place]
        own = [os.path.abspath(place) for place in env.get("PYTHONPATH", "").split(os.pathsep) if place]
        sources = sorted((ROOT / "repro").rglob("*.py"))
        of_kit = [path for path in sources if path.is_relative_to(ROOT / "repro" / "probes")]
        for source in sources:
            place = source.relative_to(ROOT)
            if len(place.parts) > 2 and place.parts[1] not in ("inprocess", "probes"):  # the rooms of the host
                importlib.import_module(".".join(place.with_suffix("").parts).removesuffix(".__init__"))
        _import(_named((source for source in sources if source not in of_kit), HOSTS))
        host = View.taken(env, lambda name: name.split(".")[0] in ("support", "__main__"))
        assert "torch" not in host.modules
        _import(_named(of_kit, LIBRARIES))
        _import(MODELS)
        kit = View.taken(env, _is_ours)
        _import(TESTS)
        tests = View.taken(env, _is_ours)
        # Most of the copies are hosts.
        host = replace(host, finders=(_Hidden(kit), *host.finders))
        host.put()
        return World(env, path, own, host, kit, tests, dict(_compiled(of_kit)))

    def view(self, command: Command) -> View:
        """What the process of a command may have imported."""
        if command.what == "pytest":
            return self.tests
        is_host = command.what == "repro" or "repro.cli.main" in command.what
        return self.host if is_host else self.kit


class _Hidden(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what was imported in advance and is not seen: a library such as NumPy cannot be loaded twice."""

    def __init__(self, view: View) -> None:
        self.modules = view.modules

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """For the import system."""
        return importlib.machinery.ModuleSpec(name, self) if name in self.modules else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """The module as it is; what it says of itself is its own."""
        module = self.modules[spec.name]
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """It has been executed."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def _is_ours(name: str) -> bool:
    return name.split(".")[0] in ("repro", "probes", "support", "__main__")


def _named(sources: Iterable[Path], libraries: Sequence[str]) -> list[str]:
    """What the texts import of these: MODULE, or MODULE:NAME."""
    found = set()
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found |= {f"{node.module}:{name.name}" for name in node.names}
    return sorted(name for name in found if name.partition(":")[0].split(".")[0] in libraries)


def _import(names: Iterable[str]) -> None:
    """Import what is there of it."""
    for name in names:
        module, _, inner = name.partition(":")
        with contextlib.suppress(ImportError, AttributeError):
            found = importlib.import_module(module)
            if inner:
                getattr(found, inner)


def _compiled(sources: Iterable[Path]) -> Iterator[tuple[bytes, types.CodeType]]:
    for path in sources:
        text = path.read_bytes()
        yield text, compile(text, str(path), "exec", dont_inherit=True)


# The copy


def end_with_parent() -> None:
    """The end of the process that has started this one ends this one."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def begin(streams: Sequence[int], session: bool, limits: Mapping[str, Sequence[int]]) -> None:
    """What ``subprocess`` does between its fork and its exec: session, streams, limits, no descriptor beyond these."""
    if session:
        os.setsid()
    high = [os.dup(stream) if stream < 3 else stream for stream in streams]
    for number, stream in enumerate(high):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for name, values in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (values[0], values[1]))


def become(world: World, command: Command | None, cwd: str | None, env: Mapping[str, str]) -> NoReturn:
    """Run the command as a fresh interpreter would; there is no way back."""
    status = 70
    try:
        assert command is not None
        gc.freeze()
        if cwd is not None:
            os.chdir(cwd)
        view = world.view(command)
        _renew(world, view, command, env)
        _write_words(command.words)
        status = contextvars.Context().run(_ended, lambda: _run(command))
    except BaseException:  # noqa: BLE001 - a fault of this module, which whoever has asked should see
        os.write(2, f"it could not be forked: {traceback.format_exc()}".encode())
    finally:
        os._exit(status)


def _renew(world: World, view: View, command: Command, env: Mapping[str, str]) -> None:
    """The state of the interpreter, as it is at its start."""
    os.environ.clear()
    os.environ.update({**env, **{name: value for name, value in view.variables.items() if name not in env}})
    _signals()
    if "-X faulthandler" in command.options:
        faulthandler.enable()
    else:
        faulthandler.disable()
    view.put()
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__builtins__ = sys.modules["builtins"]  # type: ignore[attr-defined]
    own = () if command.isolated or "PYTHONPATH" not in env else world.own
    sys.path[:] = [place for place in world.path if place in own or place not in world.own]
    sys.orig_argv = list(command.words)
    sys._xoptions.clear()
    sys._xoptions.update({option[3:]: True for option in command.options if option.startswith("-X ")})
    sys.dont_write_bytecode = "-B" in command.options or bool(sys.flags.dont_write_bytecode and not command.isolated)
    _streams(utf8="-X utf8" in command.options, unbuffered=UNBUFFERED and not command.isolated)
    sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__
    threading.excepthook = threading.__excepthook__
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    logging.captureWarnings(False)
    tempfile.tempdir = None
    _endings()
    concurrent.futures.thread._threads_queues.clear()  # type: ignore[attr-defined] # of threads that were not copied
    zipimport._zip_directory_cache.clear()  # type: ignore[attr-defined]
    _chance_and_threads(world, env)
    zipimport._compile_source = _compiling(world.codes)  # type: ignore[attr-defined]
    subprocess._fork_exec = _forking(world)  # type: ignore[attr-defined]


def _endings() -> None:
    """What is done at the end is what this process will have asked for: the folders that another one would remove are
    that one's. Of the libraries' own, PyTorch takes its operators apart again, which nobody sees.
    """
    atexit._clear()
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    for one in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        one.atexit = False
    atexit.register(logging.shutdown)
    if processes := sys.modules.get("multiprocessing.util"):
        processes._finalizer_registry.clear()
        atexit.register(processes._exit_function)


def _signals() -> None:
    """As behind an exec: handlers are gone, what was ignored is ignored; then what Python sets by itself."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {*UNSEEN}:
        if signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(OSError):
                signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stderr() -> None:
    """A stderr like that of a process whose stderr is a pipe; libraries keep it, and the copies write through it."""
    read, write = os.pipe()
    log = os.dup(2)
    os.dup2(write, 2)
    raw = io.FileIO(2, "w", closefd=False)
    raw.name = "<stderr>"
    stream = io.TextIOWrapper(
        raw if UNBUFFERED else io.BufferedWriter(raw), encoding=sys.__stderr__.encoding,  # type: ignore[type-var]
        errors="backslashreplace", newline="\n",
    )  # fmt: skip
    stream.mode = "w"
    sys.stderr = sys.__stderr__ = stream
    os.dup2(log, 2)
    for end in (read, write, log):
        os.close(end)


def _streams(*, utf8: bool, unbuffered: bool) -> None:
    """New ones; but for stderr, which libraries have kept, and which has nothing in it."""
    error = "surrogateescape" if utf8 else sys.__stdout__.errors
    for number, name in enumerate(("stdin", "stdout")):
        raw = io.FileIO(number, "w" if number else "r", closefd=False)
        raw.name = f"<{name}>"
        buffer: Any = io.BufferedReader(raw) if not number else raw if unbuffered else io.BufferedWriter(raw)
        stream = io.TextIOWrapper(
            buffer, encoding="utf-8" if utf8 else sys.__stdout__.encoding, errors=error,
            newline="\n" if number else None, line_buffering=os.isatty(number) and not unbuffered,
            write_through=unbuffered,
        )  # fmt: skip
        stream.mode = "w" if number else "r"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stderr = sys.__stderr__
    sys.stderr.reconfigure(line_buffering=not unbuffered, write_through=unbuffered)  # type: ignore[union-attr]


def _chance_and_threads(world: World, env: Mapping[str, str]) -> None:
    """NumPy's numbers are of no seed; and the number of threads is as the variables have it."""
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()
    torch = sys.modules.get("torch")
    if torch is not None and any(name in world.env and name not in env for name in THREADS):
        torch.set_num_threads(len(os.sched_getaffinity(0)))


def _compiling(codes: Mapping[bytes, types.CodeType]) -> Callable[[str, bytes], types.CodeType]:
    """In place of zipimport's own, which compiles the kit anew in each process."""
    import _imp

    original = zipimport._compile_source  # type: ignore[attr-defined]

    def compiled(path: str, text: bytes) -> types.CodeType:
        found = codes.get(text)
        if found is None:
            return original(path, text)  # type: ignore[no-any-return]
        _imp._fix_co_filename(found, path)
        return found

    return compiled


def _forking(world: World) -> Callable[..., int]:
    """In place of the function by which ``subprocess`` forks and executes: what may be forked alone is."""
    original = subprocess._fork_exec  # type: ignore[attr-defined]

    def fork_exec(*given: Any) -> int:
        args, _, close_fds, fds, cwd, env_list, *streams = given[:12]
        _, _, _, session, group, gid, gids, uid, umask, before = given[12:22]
        command = Command.read([os.fsdecode(word) for word in args])
        env = dict(os.environ)
        if env_list is not None:
            env = dict(os.fsdecode(item).split("=", 1) for item in env_list)
        plain = close_fds and len(fds) == 1 and [group, gid, gids, uid, umask, before] == [-1, *[None] * 3, -1, None]
        if command is None or not plain or not fits(command, env, world.env):
            return original(*given)  # type: ignore[no-any-return]
        pid = os.fork()
        if not pid:
            mine, theirs, others = streams[0], streams[3], streams[5]
            begin([end if end >= 0 else own for own, end in enumerate((mine, theirs, others))], session, {})
            become(world, command, None if cwd is None else os.fsdecode(cwd), env)
        return pid

    return fork_exec


def _write_words(words: Sequence[str]) -> None:
    """The command line that others see of this process, where that of the server stands."""
    fields = Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    first, last = int(fields[45]), int(fields[46])  # arg_start and arg_end, the 48th and 49th: proc(5)
    text = b"".join(os.fsencode(word) + b"\0" for word in words)[: last - first - 1]
    ctypes.memmove(first, text.ljust(last - first, b"\0"), last - first)


# What it runs


def _run(command: Command) -> None:
    """As the interpreter does with a module, a code or an archive."""
    if command.kind == "-m":
        sys.argv = ["-m", *command.rest]
        if "-P" not in command.options and not command.isolated:
            sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as Python does
        runpy._run_module_as_main(command.what)  # type: ignore[attr-defined]
    elif command.kind == "kit":
        sys.argv = [command.what, *command.rest]
        sys.path.insert(0, command.what)
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
    else:
        sys.argv = ["-c", *command.rest]
        exec(compile(command.what, "<string>", "exec"), sys.modules["__main__"].__dict__)


def _ended(run: Callable[[], None]) -> int:
    """The exit status, after all that an interpreter does at its end but for clearing its memory."""
    try:
        run()
        status = 0
    except SystemExit as asked:
        status = _status(asked.code)
    except BaseException as raised:  # noqa: BLE001 - what nobody caught
        status = -signal.SIGINT if isinstance(raised, KeyboardInterrupt) else 1
        trace = raised.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        try:
            sys.excepthook(type(raised), raised.with_traceback(trace), trace)
        except SystemExit as asked:  # as a script's own hook may
            status = _status(asked.code)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            try:
                stream.flush()
            except (OSError, ValueError) as error:
                status = 120
                if stream is sys.stdout and sys.stderr is not None:
                    print(f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}", file=sys.stderr)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status & 0xFF


def _status(code: Any) -> int:
    """Of ``sys.exit(code)``."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1
