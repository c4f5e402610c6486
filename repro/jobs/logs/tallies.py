"""Totals for each model in a log, added up failure by failure: only distinct prompts and distinct counts are kept."""

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace

from repro.core.case import MODELS, SHIPPED
from repro.jobs.logs.identity import Kept, key_of, told_apart
from repro.jobs.logs.loops.scalers import Scaler
from repro.jobs.logs.patterns import PLACES_OF_A_STEP, SETTINGS
from repro.jobs.logs.records import Failure, Quantity, Section

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32"}
MOST_PROMPTS = 100_000
"""Distinct prompts that are told apart in one section, some 1.3 KB each: a job of that many failures needs no list."""
MOST_VALUES = 10_000
"""Distinct NaN counts, numbers of prompts, values of a setting, and row counts of one prompt that are told apart."""
MOST_QUANTITIES = 1_000
"""Names that are NaN or Inf and are told apart; a model that prints each of its tensors has some hundreds."""
A_CHECK = "a check"
"""What a line without a name is counted as."""
LEAST_AT_WIDTH = 3
"""Texts that must be of the same greatest length before a fixed width is believed to have truncated them."""
LEAST_WIDTH = 20
SENTENCE_ENDS = (".", "?", "!", '"', "'", ")", ":", "…")
WIDTHS = ("hidden_size", "n_embd", "d_model")
"""Names of the hidden size in configurations."""


class Tally:
    """The section of a log that is about one model, while it is read.

    Args:
        log: The log's name.
        sizes: Row sizes in elements, given by the caller; by default the model's hidden size.
        give: Is given each failure, with its model and rows.
    """

    def __init__(self, log: str, sizes: Iterable[int], give: Callable[[Failure], None]) -> None:
        self.model: str | None = None
        self._log = log
        self._sizes = tuple(sorted(sizes, reverse=True))
        self._give = give
        self._named = shipped_name(log)
        self._settings: dict[str, dict[str, None]] = {}
        self._totals: dict[int, None] = {}
        self._kept: dict[int, None] = {}
        self._prompts: dict[Hashable, Kept] = {}
        self._quantities: dict[str, Quantity] = {}
        self._told: list[int] = []
        self._told_sum = 0
        self._told_grows = True
        self._told_as_bad = False
        self.scaler = Scaler()
        self._counts: Counter[int] = Counter()
        self._patterns: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._unnamed = 0
        self._uncertain = 0
        self._untold = 0
        self.ended: Failure | None = None

    def about(self, fields: Mapping[str, str], *, bad: bool = False) -> None:
        """Take what the log says about its job; ``bad``: it speaks of NaN there."""
        self.model = fields.get("model") or self.model
        if "skipped" in fields and ("steps" in fields or "step" in fields):
            self.scaler.counted(fields)
        elif (told := fields.get("failed") or fields.get("skipped")) is not None:
            self._told_as_bad |= bad
            self._tell(int(told.replace(",", "")))
        for name, kept in (("total", self._totals), ("kept", self._kept)):
            if name in fields and len(kept) < MOST_VALUES:
                kept[int(fields[name].replace(",", ""))] = None
        for name in SETTINGS:
            if name in fields:
                value, values = fields[name].lower(), self._settings.setdefault(name, {})
                if len(values) < MOST_VALUES:
                    values[DTYPES.get(value, value)] = None

    def knows(self, names: Iterable[str]) -> bool:
        """Whether each of these names was bad before."""
        return all(name in self._quantities for name in names)

    def add(self, failure: Failure) -> None:
        """Take one failure."""
        size = self._row_size(failure.nan)
        rows = None if size is None or failure.nan is None else failure.nan // size
        failure = replace(failure, model=self.model or self._named, rows=rows, row_size=size)
        self._give(failure)
        self._kinds[failure.kind] += 1
        if failure.kind == "notice":
            return
        self._patterns[failure.pattern] += 1
        self._uncertain += not failure.certain
        if failure.nan is not None and (failure.nan in self._counts or len(self._counts) < MOST_VALUES):
            self._counts[failure.nan] += 1
        if failure.kind == "example":
            self._prompt(failure)
        else:
            self._count_quantities(failure)

    def section(self) -> Section:
        """All of it as a record."""
        named = self.model or self._named
        prompts, alike = told_apart(self._cut_at_a_width(), self._told_in_all())
        return Section(
            log=self._log,
            model=named,
            model_from=None if named is None else "log" if self.model else "file name",
            settings={name: tuple(values) for name, values in self._settings.items()},
            totals=tuple(self._totals),
            kept=tuple(self._kept),
            failures=self._kinds["example"] + self._kinds["step"],
            prompts=prompts,
            unnamed=self._unnamed,
            steps=self._kinds["step"],
            notices=self._kinds["notice"],
            row_size=max(self._candidates(), key=self._divided, default=None),
            counts=dict(sorted(self._counts.items())),
            by_pattern=dict(self._patterns),
            uncertain=self._uncertain,
            untold=self._untold,
            ended=self.ended,
            quantities=tuple(sorted(self._quantities.values(), key=lambda one: one.line)),
            told=self._told_in_all(),
            told_as_bad=self._told_as_bad,
            alike=alike,
            trouble=self.scaler.trouble(),
        )  # fmt: skip

    def _prompt(self, failure: Failure) -> None:
        if failure.text is None and failure.index is None:
            self._unnamed += 1
            return
        key = key_of(failure)
        kept = self._prompts.get(key)
        if kept is None and len(self._prompts) >= MOST_PROMPTS:
            self._untold += 1
            return
        kept = kept or self._prompts.setdefault(key, Kept(failure))
        kept.times += 1
        if failure.rows is not None and len(kept.rows) < MOST_VALUES:
            kept.rows.add(failure.rows)

    def _cut_at_a_width(self) -> Iterable[Kept]:
        """The prompts; texts are marked as truncated where several end within a sentence, all of one length, and none
        is longer."""
        texts = [one.first.text for one in self._prompts.values() if one.first.text and not one.first.text_cut]
        most = max(map(len, texts), default=0)
        widest = [text for text in texts if len(text) == most and not text.endswith(SENTENCE_ENDS)]
        wide = most >= LEAST_WIDTH and len(widest) >= LEAST_AT_WIDTH
        for one in self._prompts.values():
            text = one.first.text or ""
            near = len(text) >= most - 1  # a blank at its end is lost
            if wide and near and "\n" not in text and not text.endswith(SENTENCE_ENDS):
                one.first = replace(one.first, text_cut=True)
            yield one

    def _count_quantities(self, failure: Failure) -> None:
        names = failure.quantities or {A_CHECK: failure.fields.get("value", "NaN")}
        place = {key: failure.fields[key] for key in PLACES_OF_A_STEP if key in failure.fields}
        for name, value in names.items():
            old = self._quantities.get(name)
            if old is not None:
                self._quantities[name] = replace(old, lines=old.lines + 1)
            elif len(self._quantities) < MOST_QUANTITIES:
                self._quantities[name] = Quantity(name, 1, value, failure.line, place)

    def _tell(self, count: int) -> None:
        self._told_grows &= not self._told or self._told[-1] <= count
        self._told_sum += count
        self._told = [*self._told[:1], count]

    def _told_in_all(self) -> int | None:
        """The log's own number of failures: its last one if they only grow, or what its parts add up to."""
        if not self._told:
            return None
        found = self._kinds["example"]
        if self._told_sum == found or not self._told_grows:
            return self._told_sum if self._told_sum == found else None
        return self._told[-1]

    def _row_size(self, count: int | None) -> int | None:
        """The largest of the sizes that divides the count."""
        return next((size for size in self._candidates() if count is not None and count % size == 0), None)

    def _divided(self, size: int) -> int:
        return sum(times for count, times in self._counts.items() if count % size == 0)

    def _candidates(self) -> tuple[int, ...]:
        shipped = shipped_name(self.model) if self.model else self._named
        return self._sizes or ((hidden_size(shipped),) if shipped else ())


@functools.lru_cache(maxsize=1024)
def shipped_name(words: str) -> str | None:
    """The shipped configuration that a path or a name stands for: ``job_1_gemma3_12b_it.err`` is gemma-3-12b.

    Of several, the longest: ``gpt2-xl`` is not ``gpt2``.
    """
    fitting = [name for name in SHIPPED if _spelt(name).search(words)]
    return max(fitting, key=len, default=None)


@functools.cache
def hidden_size(name: str) -> int:
    """The hidden size in a shipped configuration."""
    config = json.loads((MODELS / f"{name}.json").read_text("utf-8"))
    config = config.get("text_config", config)
    return int(next(config[key] for key in WIDTHS if key in config))


@functools.cache
def _spelt(name: str) -> re.Pattern[str]:
    """A name, however its parts are joined: gemma-3-12b, gemma3_12b, Gemma3-12B."""
    parts = "[-_. ]?".join(re.escape(part) for part in name.split("-"))
    return re.compile(rf"(?<![a-z0-9]){parts}(?![a-z0-9])", re.IGNORECASE)
