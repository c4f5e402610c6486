"""What the steps of one process share, and the steps by name: the model is found once and loaded once."""

import functools
from typing import Any, Callable, Optional

from .checkpoint import files, weights
from .checkpoint.resolve import Source, is_script, resolve
from .machine import environment
from .model.compat import CannotLoad
from .protocol.wire import Emitter

Outcome = tuple[str, str, Optional[dict[str, Any]]]
STEPS = ("environment", "files", "weights", "load", "forward", "bisect", "reduce", "trace", "prompts", "script")
SCRIPT_STEPS = ("environment", "script", "bisect", "reduce", "trace")


class Session:
    """One case in one process. Attributes are made when the first step needs them."""

    def __init__(
        self,
        case: dict[str, Any],
        cache: str,
        emitter: Emitter,
        trials: Optional[dict[str, Optional[bool]]] = None,
        prompts: Optional[dict[str, Any]] = None,
    ) -> None:
        self.case = case
        self.examples = prompts
        self.trials = trials
        self.cache = cache
        self.emitter = emitter
        self._source: Optional[Source] = None
        self._loaded: Any = None
        self._load_outcome: Optional[Outcome] = None
        self._inputs: Any = None
        self._passes: Any = None
        self._bisected: Optional[Outcome] = None
        self._suspect: Any = None

    def source(self) -> Source:
        """Where the files are; a .gguf file is converted into the cache the first time it is met.

        Raises:
            CannotResolve: they are not to be had here.
        """
        if self._source is None:
            found = resolve(self.case)
            if found.kind == "gguf":
                from .model.gguf import converted

                found = converted(found, self.cache, self.emitter.progress)
            self._source = found
        return self._source

    def loaded(self) -> Any:
        """The model, loaded and checked."""
        if self._loaded is None:
            from .model.load import load
            from .model.loadcheck import check

            source = self.source()
            if source.folder is not None:
                listed = files.list_weights(source.folder)
                refused = files.check_pickles(source.folder, listed) if listed.format == "pickle" else None
                if refused:
                    raise CannotLoad(refused)
            loaded = load(self.case, source)
            self._load_outcome = check(loaded)
            self._loaded = loaded
        return self._loaded

    def inputs(self) -> Any:
        if self._inputs is None:
            from .model.inputs import make_inputs

            self._inputs = make_inputs(
                self.loaded(), list(self.case.get("prompts") or []), bool(self.case.get("trust_remote_code"))
            )
        return self._inputs

    def passes(self) -> Any:
        """The case's own forward passes, made once."""
        if self._passes is None:
            from .model.forward import look

            model, passes = self.loaded().model, []
            for done, made in enumerate(self.inputs(), 1):
                passes.append(look(model, made))
                self.emitter.progress(done, len(self.inputs()), "prompts")
            self._passes = passes
        return self._passes

    def environment(self) -> Outcome:
        found = environment.measure()
        known = [("Python", "python"), ("torch", "torch"), ("transformers", "transformers")]
        reason = ", ".join(f"{name} {found[key]}" for name, key in known if found[key])
        return "good", reason, found

    def files(self) -> Outcome:
        source = self.source()
        if source.folder is None:
            payload: dict[str, Any] = {
                "source": source.kind,
                "folder": None,
                "revision": None,
                "format": "none",
                "files": [],
                "findings": [],
            }
            return "skip", f"random weights of seed {source.seed}: no file is read", payload
        verdict, reason, payload = files.check(source, self.emitter.progress)
        return verdict, "; ".join(filter(None, [reason, source.note])), payload

    def weights(self) -> Outcome:
        source = self.source()
        if source.folder is None:
            return "skip", f"random weights of seed {source.seed}: no file is read", None
        return weights.check(source.folder, self.emitter.progress)

    def load(self) -> Outcome:
        self.loaded()
        assert self._load_outcome is not None  # loaded() sets both
        return self._load_outcome

    def forward(self) -> Outcome:
        from .model.forward import judge

        return judge(self.passes(), self.source().seed is not None)

    def bisect(self) -> Outcome:
        if is_script(self.case.get("model")):
            from .script import suspects

            verdict, reason, payload, self._suspect = suspects.find(self.case["model"])
            self._bisected = (verdict, reason, payload)
            return self._bisected
        from .origin.search import bisect

        self._bisected = bisect(self.loaded(), self.passes())
        return self._bisected

    def reduce(self) -> Outcome:
        from .reduce import reduce
        from .reduce.trials import Trials
        from .script import suspects

        verdict, reason, payload = self._bisected or self.bisect()
        trials = Trials(functools.partial(self.emitter.event, step="reduce"), self.trials)
        if is_script(self.case.get("model")):
            return suspects.reduce(self._suspect, trials) if verdict == "bad" else (verdict, reason, None)
        trust = bool(self.case.get("trust_remote_code"))
        return reduce.reduce(self.loaded(), self.passes(), (payload or {}).get("origin"), trials, trust)

    def prompts(self) -> Outcome:
        from .prompts import run

        if not self.examples:
            return "skip", "the plan names no file of prompts", None
        trust = bool(self.case.get("trust_remote_code"))
        return run.run(self.loaded(), self.examples, self.emitter, self.trials or {}, trust)

    def ablation(self, name: str) -> Outcome:
        from .steps import ablations

        if name not in ablations.ABLATIONS:
            return "skip", "there is no ablation {!r}; known: {}".format(name, ", ".join(ablations.ABLATIONS)), None
        return ablations.check(name, self.loaded(), self._passes or [], self.inputs(), self.case)

    def script(self) -> Outcome:
        from .script.run import run_script

        return run_script(self.case["model"]).outcome

    def trace(self) -> Outcome:
        from .steps import trace

        if is_script(self.case.get("model")):
            return trace.of_script(self.case["model"])
        return trace.of_model(self.loaded(), self.inputs()[0])

    def run(self, step: str) -> Outcome:
        """One step by its name.

        Raises:
            CannotResolve, CannotLoad: with a message for the user. Anything else is a fault of the model's code or of
            this kit.
        """
        scripted = is_script(self.case.get("model"))
        if scripted and step not in SCRIPT_STEPS:
            return "skip", f"a script has no {step} step: what it ends with is the answer", None
        if step == "script" and not scripted:
            return "skip", "{} is no script: a script is a .py file".format(self.case.get("model")), None
        if step.startswith("ablation:"):
            return self.ablation(step[len("ablation:") :])
        if step not in STEPS:
            return "skip", "there is no step {!r}; known: {}, ablation:NAME".format(step, ", ".join(STEPS)), None
        found: Callable[[], Outcome] = getattr(self, step)
        return found()
