"""Which other setting shows what is right: one that the run has tried and found good."""

from dataclasses import dataclass

from repro.core.answer import Answer
from repro.core.records import Outcome
from repro.reproducer.frame import ending

DTYPES = ("float32", "bfloat16", "float64")
ATTENTIONS = ("eager", "sdpa")
WIDER = {"float16": "float32", "bfloat16": "float32"}


@dataclass(frozen=True, slots=True)
class Right:
    """A setting to compare with.

    ``varies``: "dtype", "attn", or None where no such setting is known. ``tried``: whether the run found it good.
    """

    varies: str | None = None
    value: str = ""
    tried: bool = False

    @property
    def label(self) -> str:
        """The setting in a word or two."""
        return self.value if self.varies == "dtype" else f"{self.value} attention"

    @property
    def words(self) -> str:
        """What is right, as a sentence without a full stop; empty where nothing is known."""
        return f"With {self.label} they are finite." if self.tried else ""


def right_of(answer: Answer, dtype: str | None, attn: str | None) -> Right:
    """The setting: a wider dtype that was good, else another attention that was; a wider dtype that nobody tried.

    Args:
        answer: Of the run.
        dtype: That of the case.
        attn: The attention of the case.
    """
    verdicts = {row.name: row.verdict for row in answer.ablations}
    for kind, values, own in (("dtype", DTYPES, dtype), ("attn", ATTENTIONS, attn)):
        for value in values:
            if value != own and verdicts.get(f"{kind}={value}") is Outcome.GOOD:
                return Right(kind, value, tried=True)
    wider = WIDER.get(dtype or "")
    return Right("dtype", wider) if wider and f"dtype={wider}" not in verdicts else Right()


def judged(name: str, right: Right) -> list[str]:
    """The end of a script in which ``seen`` is the output of the case, and ``right`` that of a setting that is right.

    Args:
        name: Of the output: "logits".
        right: The setting.
    """
    counted = ["bad = int((~seen.isfinite()).sum())"]
    told = f"seen {{bad}} NaN or Inf in the {name} ({{seen.dtype}}), right is 0"
    if right.varies is not None:
        counted.append("others = int((~right.isfinite()).sum())")
        told += f" ({right.label} has {{others}})"
    return [*counted, *ending(told, "not bad", f"the {name} are not finite")]
