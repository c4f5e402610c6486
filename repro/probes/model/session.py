"""What the steps of one process share: the model is found once, loaded once and run once."""

import json
from typing import Any, Optional

from ..checkpoint import files
from ..checkpoint.resolve import CannotResolve, Source, is_script, refuse_odd_files, resolve
from ..protocol.wire import Emitter, Outcome
from .compat import CannotLoad


class Session:
    """One case in one process. What it holds is made when the first step needs it.

    ``examples`` is the plan's file of prompts, ``files`` its files of tensors, ``trials`` the known answers of a
    reduction. ``bisected`` is what the bisect step left for the reduction.
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
        self.bisected: Optional[Outcome] = None
        self._script: Any = None

    @property
    def is_script(self) -> bool:
        return is_script(self.case.get("model"))

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

    def source(self) -> Source:
        """Where the files are; a .gguf file is converted into the cache the first time it is met.

        Raises:
            CannotResolve: they are not to be had here.
        """
        if self._source is None:
            found = resolve(self.case, self.emitter.progress)
            refuse_odd_files(found)
            if found.kind == "gguf":
                from .gguf import converted

                found = converted(found, self.cache, self.emitter.progress)
            self._source = found
        return self._source

    def loaded(self) -> Any:
        """The model, loaded and checked."""
        if self._load_failed is not None:
            raise self._load_failed  # the answer would be the same, and may have taken long
        if self._loaded is None:
            from .load import load
            from .loadcheck import check

            source = self.source()
            if source.folder is not None:
                listed = files.list_weights(source.folder)
                refused = files.check_pickles(source.folder, listed) if listed.format == "pickle" else None
                if refused:
                    raise CannotLoad(refused)
            try:
                loaded = load(self.case, source)
            except Exception as error:
                self._load_failed = error
                raise
            self._load_outcome = check(loaded)
            self._loaded = loaded
        return self._loaded

    def inputs(self) -> Any:
        if self._inputs is None:
            from .inputs import make_inputs

            self._inputs = make_inputs(self.loaded(), self.prompts(), self.trusted, self.withheld)
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

    def load_outcome(self) -> Outcome:
        """What the load checks found."""
        self.loaded()
        assert self._load_outcome is not None  # loaded() sets both
        return self._load_outcome
