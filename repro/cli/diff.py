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
  repro diff ./my-model --against ./merged           (another folder: a revision, a merged adapter, a quantised copy)
  repro diff ./my-model --against transformers-4.42.4        (a cell: other releases)
  repro diff ./my-model --against vllm.safetensors   (what another engine gave for the same tokens)

\b
WHAT is one of
  float64 float32 bfloat16 float16     another dtype
  eager sdpa                           another attention
  cache                                prefill and decoding, token by token
  batch batch:right                    all prompts in one batch, padded on the left or on the right
  training training:checkpointing      training mode without dropout, gradients too; with gradient checkpointing
  cpu cuda mps                         another device
  compile compile:BACKEND              torch.compile: eager, aot_eager, inductor in turn, or that one
  FOLDER or @REVISION                  another model of the same architecture
  PYTHON or CELL                       another interpreter, or a cell of `repro cells list`
  record:FOLDER held:FOLDER            a recording, made here or in another environment, and what is held against it
  FILE.safetensors                     another engine's logits: docs/diff.md has the format

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
    other = _interpreter(against) or against_from(against, request.case)
    request = dataclasses.replace(
        request, case=dataclasses.replace(request.case, against=other), extra=("--against", against)
    )
    with listener() as told:
        result = investigate(request, told)
    as_json = options["as_json"]
    show = functools.partial(summary, result, told.told, to_stderr=as_json)
    conclude(result.answer, show, as_json=as_json, folder=result.folder)


def _interpreter(text: str) -> str | None:
    """Another interpreter, as the kit reads it: by its path, or that of a cell, which is built first; None for what is
    neither.
    """
    import os
    from pathlib import Path

    from repro.environments import cells
    from repro.environments.store import Store

    path = Path(text).expanduser()
    if path.is_file() and os.access(path, os.X_OK) and "python" in path.name:
        return f"python:{cells.cell_from(str(path)).python}"
    store = Store()
    standing = store.python(text)
    if standing is not None:
        return f"python:{standing}"
    recipe = next((recipe for recipe in cells.recipes() if recipe.id == text), None)
    return None if recipe is None else f"python:{store.build(recipe).python}"
