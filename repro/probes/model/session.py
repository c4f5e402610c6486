"""What the steps of one process share: the model is found once, loaded once and run once."""

import json
from typing import Any, Optional

from ..checkpoint import files
from ..checkpoint.others import DIFFUSERS, TIMM
from ..checkpoint.resolve import CannotResolve, Source, is_script, refuse_odd_files, resolve
from ..protocol.wire import Emitter, Outcome
from .compat import CannotLoad


class Session:
    """One case in one process. What it holds is made when the first step needs it.

    ``examples`` is the plan's file of prompts, ``files`` its files of tensors, ``trials`` the known answers of a
    reduction. ``bisected``, ``departure`` and ``swallowed`` are what the bisect and the reference step left for
    the reduction.
    """

    def __init__(
        self,
        case: dict[str, Any],
        cache: str,
        emitter: Emitter,
        trials: Optional[dict[str, Optional[bool]]] = None,
        prompts: Optional[dict[str, Any]] = None,
        files: Optional[list[str]] = None,
        passed: Optional[bool] = None,
    ) -> None:
        self.passed = passed
        self.case = case
        self.examples = prompts
        self.files = files
        self.trials = trials
        self.cache = cache
        self.emitter = emitter
        self._source: Optional[Source] = None
        self._loaded: Any = None
        self._load_failed: Optional[Exception] = None
        self._load_outcome: Optional[Outcome] = None
        self._inputs: Any = None
        self._passes: Any = None
        self._made: Any = None
        self._phase: Any = None
        self._refused: Optional[tuple[Any]] = None
        self.bisected: Optional[Outcome] = None
        self.departure: Any = None
        self.swallowed: Any = None
        self._script: Any = None

    @property
    def is_whole(self) -> bool:
        """Whether there is a model to ask; not where all that is left are the operators that show the fault."""
        return True

    @property
    def is_script(self) -> bool:
        return is_script(self.case.get("model"))

    @property
    def has_factory(self) -> bool:
        """Whether a function of somebody's own gives the model."""
        return self.case.get("factory") is not None

    @property
    def trusted(self) -> bool:
        """Whether code that comes with the model may run."""
        return bool(self.case.get("trust_remote_code"))

    @property
    def withheld(self) -> bool:
        """Whether the texts of the prompts lie in a file of their own and must not go out."""
        return self.case.get("texts") is not None

    def prompts(self) -> list[str]:
        """The case's prompts.

        Raises:
            CannotResolve: they are withheld, and the file that holds them is not here.
        """
        if not self.withheld:
            return list(self.case.get("prompts") or [])
        try:
            with open(self.case["texts"], encoding="utf-8") as opened:
                prompts: list[str] = json.load(opened)["prompts"]
        except (OSError, ValueError, KeyError) as error:
            raise CannotResolve(f"The prompts of this run are withheld: {self.case['texts']} is not here.") from error
        self.emitter.withhold(prompts)
        return prompts

    @property
    def known_passes(self) -> list[Any]:
        """The case's own passes: those of this process, or made again where they ended well in an earlier one."""
        return self.passes() if self.passed else self._passes or []

    @property
    def has_passed(self) -> bool:
        """Whether the case's own passes came to an end, well or not, in this process or an earlier one: one that has
        ended the process would end this one as well.
        """
        return bool(self.passed) or self._passes is not None or self._refused is not None

    def source(self) -> Source:
        """Where the files are; a .gguf file is converted into the cache the first time it is met.

        Raises:
            CannotResolve: they are not to be had here.
        """
        if self._source is None:
            if self.has_factory:
                loaded: Source = self.made().loaded.source
                return loaded
            found = resolve(self.case, self.emitter.progress)
            refuse_odd_files(found)
            if found.kind == "gguf":
                from .gguf import converted

                found = converted(found, self.cache, self.emitter.progress)
            self._source = found
        return self._source

    @property
    def _to_load(self) -> dict[str, Any]:
        """The case as it is loaded: what is trained under autocast has its weights in float32."""
        narrow = self.case.get("dtype") in ("float16", "bfloat16")
        return {**self.case, "dtype": "float32"} if narrow and self.case.get("train_step") is not None else self.case

    @property
    def _is_made(self) -> bool:
        """Whether the model and its inputs come together: from a factory, or as another package than Transformers runs
        the folder.
        """
        return self.has_factory or self.source().package is not None

    def made(self) -> Any:
        """What the factory gives, or the other package, asked once."""
        if self._made is None and self.has_factory:
            from .given.factory import make

            self._made = make(self._to_load)
        elif self._made is None:
            from .folders import diffused, pictured

            source = self._checked_source()
            by = {DIFFUSERS: diffused.make, TIMM: pictured.make}[str(source.package)]
            self._made = by(self._to_load, source, self.prompts())
        return self._made

    def loaded(self) -> Any:
        """The model, loaded and checked."""
        if self._load_failed is not None:
            raise self._load_failed  # the answer would be the same, and may have taken long
        if self._loaded is None:
            from .load import load
            from .loadcheck import check

            try:
                source = None if self.has_factory else self._checked_source()
                if source is None or source.package is not None:
                    loaded = self.made().loaded
                else:
                    loaded = load(self._to_load, source)
            except Exception as error:
                self._load_failed = error
                raise
            self._load_outcome = check(loaded)
            if source is not None and source.adapter is not None:
                self._load_outcome = self._with_adapter(loaded, source.adapter, self._load_outcome)
            if source is not None and source.encoder is not None:
                self._load_outcome = self._with_modules(loaded, source.encoder, self._load_outcome)
            self._loaded = loaded
        return self._loaded

    def let_go(self) -> None:
        """The model is wanted no more: another one is to have its memory."""
        self._loaded = self._passes = None

    def _checked_source(self) -> Source:
        source = self.source()
        if source.folder is not None:
            listed = files.list_weights(source.folder)
            refused = files.check_pickles(source.folder, listed) if listed.format == "pickle" else None
            if refused:
                raise CannotLoad(refused)
        return source

    def _with_adapter(self, loaded: Any, folder: str, outcome: Outcome) -> Outcome:
        """What the load step says of the base model, and of the adapter that is put on it."""
        from .folders.lora import put_on

        try:
            adapter = put_on(loaded, folder)
        except Exception as error:
            self._load_failed = error
            raise
        verdict, reason, payload = outcome
        payload = dict(payload or {})
        payload["parameters"] = sum(parameter.numel() for parameter in loaded.model.parameters())
        for text in adapter.faults():
            payload["findings"] = [*payload.get("findings", ()), {"problem": text, "severity": "bad"}]
            reason, verdict = (f"{reason}; {text}" if verdict == "bad" else text), "bad"
        return verdict, f"{reason}; {adapter.words}", payload

    def _with_modules(self, loaded: Any, folder: str, outcome: Outcome) -> Outcome:
        """What the load step says of the transformer, and of what follows it."""
        from .folders.encoder import put_behind

        try:
            behind = put_behind(loaded, folder)
        except Exception as error:
            self._load_failed = error
            raise
        verdict, reason, payload = outcome
        return verdict, f"{reason}; with {behind} behind it" if behind else reason, payload

    def inputs(self) -> Any:
        """What the case gives the model: exact inputs of a file, what its processor makes of a picture or a sound, or
        what can be made here.
        """
        if self._inputs is None:
            loaded, case = self.loaded(), self.case
            if case.get("inputs"):
                from .kinds.exact import exact_inputs

                self._inputs = exact_inputs(loaded, case["inputs"], self.trusted)
            elif case.get("image") or case.get("audio"):
                from .kinds.processed import processed_inputs

                files = case.get("image"), case.get("audio")
                self._inputs = processed_inputs(loaded, *files, self.prompts(), self.trusted, self.withheld)
            elif self._is_made and self.made().inputs is not None:
                self._inputs = [self.made().inputs]
            else:
                from .inputs import make_inputs

                self._inputs = make_inputs(loaded, self.prompts(), self.trusted, self.withheld)
        return self._inputs

    def passes(self) -> Any:
        """The case's own forward passes, made once."""
        if self._passes is None:
            from .forward import look

            model, passes = self.loaded().model, []
            for done, made in enumerate(self.inputs(), 1):
                passes.append(look(model, made))
                self.emitter.progress(done, len(self.inputs()), "prompts")
            self._passes = passes
        return self._passes

    def keep_script(self, make: Any) -> Any:
        """What was asked of the script so far; ``make`` gives it from the script's path the first time."""
        if self._script is None:
            self._script = make(self.case["model"])
        return self._script

    def keep_phase(self, make: Any) -> Any:
        """The generation or training of the case; ``make`` gives it the first time."""
        if self._phase is None:
            self._phase = make()
        return self._phase

    def keep_refused(self, make: Any) -> Any:
        """The forward pass of the case that raises for a NaN, or None; ``make`` gives it the first time."""
        if self._refused is None:
            self._refused = (make(),)
        return self._refused[0]

    def load_outcome(self) -> Outcome:
        """What the load checks found."""
        self.loaded()
        assert self._load_outcome is not None  # loaded() sets both
        return self._load_outcome
