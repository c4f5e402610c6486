"""The mechanisms that make a bad value: one table, read by the verdict, the owner, the report and the scripts.

The kit decides which mechanism it is (``repro/probes/origin/``). What is said about it, and who can own it, is here. To
add one: the kit's decision, a row here, a test.
"""

import math
from dataclasses import dataclass

PYTORCH, CODE, CHECKPOINT, CALLER = "pytorch", "code", "checkpoint", "caller"
"""Who can own a fault: PyTorch, the code that calls the operator, the checkpoint, or who gave the data."""
BY_REFERENCE, BY_DEFINITION, NEVER = "by reference", "by definition", "never"
"""When the operator is correct: where float64 of the same inputs gives no number that the dtype holds either; whatever
float64 gives; or never."""


LIMITS = {"float16": 65504.0, "bfloat16": (2 - 2**-7) * 2.0**127, "float32": (2 - 2**-23) * 2.0**127}
"""The largest finite number of each dtype: (2 - 2**-m) * 2**e for m bits of mantissa and the largest exponent e."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One mechanism.

    Args:
        name: In verdict.json.
        words: In a sentence or a table.
        script: What happened, in a script's docstring; empty where there is no more to say.
        owners: Who can own it.
        confirmed: How it is confirmed.
        of_dtype: Whether the dtype belongs to it: "float16 overflow".
        beyond_limit: Whether a number is beyond the dtype's largest, so that a wider dtype helps.
        correct: When the operator is correct for its inputs.
        cause: Why it is, for the docstring and the owner's reason; may name "{dtype}". Empty where it never is.
    """

    name: str
    words: str
    script: str
    owners: tuple[str, ...]
    confirmed: str
    of_dtype: bool = False
    beyond_limit: bool = False
    correct: str = NEVER
    cause: str = ""

    def operator_is_correct(self, reference: float | None, limit: float | None) -> bool:
        """Whether IEEE 754 leaves the operator no other answer, so that its inputs are the cause.

        Args:
            reference: What float64 gives from the same inputs; None where that is not known.
            limit: The largest number of the dtype; None where that is not known.
        """
        if self.correct == BY_REFERENCE:
            return reference is not None and not is_in_range(reference, limit)
        return self.correct == BY_DEFINITION


TABLE = (
    Mechanism(
        "overflow",
        "overflow",
        "the result is beyond the dtype's largest number",
        (CODE,),
        "float64 arithmetic of the same inputs is finite, and the result or a partial result is beyond the dtype",
        of_dtype=True,
        beyond_limit=True,
        correct=BY_REFERENCE,
        cause="their result is too large for {dtype}",
    ),
    Mechanism(
        "divide_by_zero",
        "division by zero",
        "a division by zero, or the pole of a function",
        (CODE,),
        "float64 arithmetic of the same inputs is infinite",
        of_dtype=True,
        correct=BY_REFERENCE,
        cause="float64 arithmetic gives no finite number either",
    ),
    Mechanism(
        "invalid",
        "invalid operation (such as inf - inf, 0 * inf or 0/0)",
        "an invalid operation such as inf - inf, 0 * inf or 0 / 0",
        (CODE,),
        "float64 arithmetic of the same inputs is NaN",
        of_dtype=True,
        correct=BY_REFERENCE,
        cause="float64 arithmetic gives no number either",
    ),
    Mechanism(
        "masked_row",
        "softmax of a fully masked row",
        "the softmax of a row that is -inf throughout is 0 / 0",
        (CODE, PYTORCH),
        "every score of the row is -inf",
        correct=BY_DEFINITION,
        cause="a whole row is masked, and the softmax of a row that is -inf throughout is 0 / 0",
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
        correct=BY_DEFINITION,
        cause="it returns uninitialized memory, which is read before anything is written to it",
    ),
    Mechanism(
        "bad_input",
        "a NaN or Inf that came in from outside",
        "the value is there before the first operator runs",
        (CODE, CALLER),
        "the memory held the value before any operator that was watched wrote to it",
        correct=BY_DEFINITION,
        cause="the value was in its input before the first operator ran",
    ),
    Mechanism(
        "literal",
        "a NaN, an infinity or a number beyond the dtype, given as a plain number",
        "the number that the code gives is not one that the dtype holds",
        (CODE,),
        "the operator only writes the number that it is given",
        correct=BY_DEFINITION,
        cause="it writes the number that it is given",
    ),
    Mechanism(
        "written_outside",
        "memory written outside of PyTorch's sight",
        "code that is not an operator of PyTorch wrote the value",
        (),
        "the memory was handed out as unset, other fill values do not change what is there, and no operator wrote it",
    ),
    Mechanism(
        "compiler",
        "a fault of the compiled code alone",
        "the compiled code gives another result than the same code run eagerly",
        (PYTORCH,),
        "the same program is good with a backend that does not compile",
    ),
    Mechanism(
        "misaligned",
        "misaligned storage",
        "the storage is not aligned to its item size",
        (PYTORCH,),
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
        "swallowed_nan",
        "a NaN that the operator turned into a number",
        "an input is NaN, and the result is a number that does not follow from it",
        (PYTORCH,),
        "float64 arithmetic of the same inputs is NaN, and the result is a number",
    ),
    Mechanism(
        "ignored_argument",
        "an argument that is not taken into account",
        "the result is what the operator gives without one of its arguments",
        (PYTORCH,),
        "float64 arithmetic without that argument gives the same numbers",
    ),
    Mechanism(
        "wrong_constant",
        "another constant than was given",
        "all numbers differ by one factor or summand, or are those of another constant",
        (PYTORCH,),
        "float64 arithmetic with that constant gives the same numbers",
    ),
    Mechanism(
        "wrong_position",
        "the right numbers at other places",
        "the numbers are those that belong to other places",
        (PYTORCH,),
        "float64 arithmetic of the same inputs gives the same numbers at those places",
    ),
    Mechanism(
        "narrow_accumulation",
        "sums or inputs kept in a narrower dtype",
        "numbers are rounded to a narrower dtype on the way",
        (PYTORCH,),
        "inputs or sums rounded to that dtype give an error of the same size",
        of_dtype=True,
    ),
    Mechanism(
        "saturation",
        "numbers cut off at a limit",
        "numbers beyond a limit are cut off there",
        (PYTORCH,),
        "float64 arithmetic of the same inputs, cut off there, gives the same numbers",
        of_dtype=True,
    ),
    Mechanism(
        "cancellation",
        "cancellation",
        "numbers that are nearly equal are subtracted, and the digits that are left are rounding",
        (CODE,),
        "float64 of the same inputs gives another result, and hardly moves with these inputs",
        of_dtype=True,
        correct=BY_DEFINITION,
        cause="its result is what rounding leaves of numbers that are nearly equal",
    ),
    Mechanism(
        "differing_weight",
        "a weight or buffer that is another one in the other way",
        "a weight is not that of the other model",
        (CHECKPOINT, CALLER),
        "its bytes in the two models are not the same",
    ),
    Mechanism("unknown", "first bad value", "", (), "nothing else could be shown"),
)
BY_NAME = {row.name: row for row in TABLE}


def mechanism(name: str | None) -> Mechanism:
    """The row of this name; one of its own for a name that this version does not know."""
    return BY_NAME.get(name or "unknown") or Mechanism(str(name), str(name), "", (), "")


def is_in_range(value: float, limit: float | None) -> bool:
    """Whether a value is a finite number that a dtype with this largest number holds; without a limit, any is."""
    return math.isfinite(value) and (limit is None or abs(value) <= limit)
