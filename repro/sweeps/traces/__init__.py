"""What two versions do differently in the same pass: the traces of two processes compared; pure.

Rounding differs between releases, and so do the ways of writing the same computation. Neither is the change that is
looked for, so three things are told apart: operators that are new, gone or of another form; operators that are finite
in one trace and not in the other; and other digits of the same operator.
"""

from repro.sweeps.traces.comparison import compare

__all__ = ["compare"]
