"""By which mechanism a bad value is born: one table, read by the verdict, the owner, the report and the scripts.

The kit decides which mechanism it is (``repro/probes/origin/``); what is said about it, and who can be to blame, stands
here. To add one: the kit's decision, a row here, a test.
"""

from dataclasses import dataclass

PYTORCH, CODE, CHECKPOINT = "pytorch", "code", "checkpoint"
"""Who can own a fault: the operator's makers, whoever calls it with such inputs, or whoever made the weights."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One mechanism.

    Args:
        name: In verdict.json.
        words: In a sentence or a table.
        of_dtype: Whether the dtype belongs to it: "float16 overflow".
        script: What a script's docstring says that happened, where no figures say more.
        blame: What the caller of the right operator did, for the owner's reason; None where the operator is not right.
        owners: Who can own it.
        confirmed: How it is confirmed.
    """

    name: str
    words: str
    script: str
    owners: tuple[str, ...]
    confirmed: str
    of_dtype: bool = False
    blame: str | None = None


TABLE = (
    Mechanism(
        "overflow",
        "overflow",
        "the result is beyond the dtype's largest number",
        (CODE, CHECKPOINT),
        "float64 arithmetic of the same inputs is finite, and the result or a partial result is beyond the dtype",
        of_dtype=True,
        blame="its result exceeds what the dtype holds",
    ),
    Mechanism(
        "divide_by_zero",
        "division by zero",
        "a division by zero, or the pole of a function",
        (CODE,),
        "float64 arithmetic of the same inputs is infinite",
        of_dtype=True,
        blame="float64 arithmetic gives no number for these inputs either",
    ),
    Mechanism(
        "invalid",
        "invalid operation (such as inf - inf, 0 * inf or 0/0)",
        "an invalid operation such as inf - inf, 0 * inf or 0 / 0",
        (CODE,),
        "float64 arithmetic of the same inputs is NaN",
        of_dtype=True,
        blame="float64 arithmetic gives no number for these inputs either",
    ),
    Mechanism(
        "masked_row",
        "softmax of a fully masked row",
        "the softmax of a row that is -inf throughout is 0 / 0",
        (CODE, PYTORCH),
        "every score of the row is -inf",
        blame="a whole row is masked, and the softmax of a row that is -inf throughout is 0 / 0",
    ),
    Mechanism(
        "bad_weights",
        "NaN or Inf in a weight",
        "the weight itself is NaN or Inf",
        (CHECKPOINT,),
        "the same value stands in the file",
    ),
    Mechanism(
        "unset_memory",
        "unset memory",
        "memory is read before anything is written to it",
        (CODE,),
        "nothing was written to that memory before it was read, or two loads differ in it",
        blame="it hands out memory as it is, and that memory is read before anything is written to it",
    ),
    Mechanism(
        "misaligned",
        "misaligned storage",
        "the storage is not aligned to its item size",
        (PYTORCH, CODE),
        "an aligned copy of the same numbers gives another result",
    ),
    Mechanism(
        "kernel",
        "a kernel that disagrees with its reference",
        "the kernel disagrees with float64 arithmetic of the same finite inputs",
        (PYTORCH,),
        "float64 arithmetic of the same finite inputs, and every partial result of it, is within the dtype's range",
    ),
    Mechanism(
        "unknown",
        "first bad value",
        "a bad value comes from finite inputs",
        (),
        "nothing else could be shown",
    ),
)
BY_NAME = {row.name: row for row in TABLE}


def mechanism(name: str) -> Mechanism:
    """The row of this name; one of its own for a name that this version does not know."""
    return BY_NAME.get(name) or Mechanism(name, name, name, (), "")
