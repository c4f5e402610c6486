"""The command ``diff``: the model against another way of running it, and the first place where the two part.

Nothing is imported here that ``--help`` does not need.
"""

import dataclasses
import functools
from typing import Any

import click

from repro.cli.options import (
    AS_JSON,
    BUNDLE,
    CASE,
    DEBUG,
    DEVICE,
    GIVEN,
    LIMITS,
    MODEL_OR_FACTORY,
    PRIVATE,
    PYTHON,
    SETTINGS,
    conclude,
    out,
    request_from,
    together,
)

EXAMPLES = """
\b
Examples:
  repro diff gpt2-medium --against eager             (attention: sdpa, as the model is loaded, against eager)
  repro diff ./my-model --dtype bfloat16 --against float64
  repro diff ./my-model --against cache              (a prefill against decoding token by token)
  repro diff ./my-model --against batch --prompt "Once" --prompt "The capital of France is"

\b
WHAT is one of
  float64 float32 bfloat16 float16     another dtype
  eager sdpa                           another attention
  cache                                prefill and decoding, token by token
  batch batch:right                    all prompts in one batch, padded on the left or on the right
  training training:checkpointing      training mode without dropout; with gradient checkpointing
  cpu cuda mps                         another device

\b
Exit status: 0 the two agree within rounding, 1 they part, or the model's files are bad, 125 could not tell,
2 wrong usage, 130 Ctrl-C.
"""


@click.command(
    context_settings=SETTINGS, epilog=EXAMPLES, short_help="Two ways of running MODEL, and where they part first."
)
@together(
    *MODEL_OR_FACTORY,
    click.option("--against", metavar="WHAT", required=True, help="The other way of running it; see below."),
    DEVICE,
    *CASE,
    *GIVEN,
    PYTHON,
    out("repro-runs/MODEL-STAMP/"),
    AS_JSON,
    BUNDLE,
    PRIVATE,
    *LIMITS,
    DEBUG,
)
def diff(against: str, **options: Any) -> None:
    """Run MODEL as it is and in another way, on the same inputs, and find the first module and operator that is given
    the same in both and gives something else.

    What rounding may do is measured, not chosen: both ways are also run with every result rounded at random.
    """
    from repro.cli.screen.progress import listener
    from repro.cli.screen.summaries import summary
    from repro.core.finite.against import against_from
    from repro.run.run import run as investigate

    request = request_from("diff", options)
    request = dataclasses.replace(
        request,
        case=dataclasses.replace(request.case, against=against_from(against)),
        extra=("--against", against),
    )
    with listener() as told:
        result = investigate(request, told)
    as_json = options["as_json"]
    show = functools.partial(summary, result, told.told, to_stderr=as_json)
    conclude(result.answer, show, as_json=as_json, folder=result.folder)
