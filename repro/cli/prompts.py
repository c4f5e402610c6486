"""The command ``prompts``: many prompts in batches, which of them fail, where, and why.

Nothing is imported here that ``--help`` does not need.
"""

from pathlib import Path
from typing import Any

import click

from repro.cli.options import (
    AS_JSON,
    BUNDLE,
    CASE,
    DEBUG,
    DEVICE,
    LIMITS,
    MODEL,
    PRIVATE,
    PYTHON,
    SETTINGS,
    conclude,
    out,
    refused,
    request_from,
    together,
)

EXAMPLES = """
\b
Examples:
  repro prompts ./my-model prompts.txt
  repro prompts ./my-model pairs.jsonl --pairs --dtype float16 --batch-size 16 --vectors vectors.safetensors
  repro prompts ./my-model data.csv --field question --layer 12 --layer -1 --max-length 384 --padding-side left

\b
Exit status: 0 every example is good, 1 at least one is bad, or the model's files are, 125 could not tell,
2 wrong usage, 130 Ctrl-C.
"""


@click.command(context_settings=SETTINGS, epilog=EXAMPLES, short_help="Which of many prompts fail, where, and why.")
@together(
    MODEL,
    click.argument("file", metavar="FILE", type=click.Path(path_type=Path, exists=True)),
    click.option(
        "--field",
        metavar="NAME",
        help="Where the prompt stands in an entry (a.b: inside of a). Default: messages, prompt, ...",
    ),
    click.option(
        "--pairs", is_flag=True, help="Each entry is a pair: positive and negative, or a question and two answers."
    ),
    click.option(
        "--no-chat-template",
        is_flag=True,
        help="Join the contents of chat messages. Default: the model's own chat template.",
    ),
    click.option(
        "--layer", "layers", type=int, multiple=True, help="Only this layer, from 0 (-1: the last). Default: all."
    ),
    click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Prompts in one pass."),
    click.option("--max-length", type=click.IntRange(min=1), metavar="TOKENS", help="Longer prompts are cut."),
    click.option("--padding-side", type=click.Choice(["left", "right"]), help="Default: the tokenizer's own."),
    click.option(
        "--ablations", is_flag=True, help="Run each ablation on the prompts that fail, and say what it saves."
    ),
    click.option(
        "--vectors",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="OUT.safetensors",
        help="With --pairs: write the mean difference of the sound pairs for each layer.",
    ),
    DEVICE,
    *CASE,
    *refused(
        factory="The prompts of FILE are texts, and a module of a factory comes without the tokenizer that reads them."
        " Save the model with its tokenizer (save_pretrained) and give that folder; or ask about one input:"
        " `repro --factory FILE.py:FUNCTION --inputs FILE`.",
        generate="The prompts of FILE are asked in batches, one forward pass for each: where a batch fails, a"
        " generation behind it has nothing to begin with. Ask about one: `repro MODEL --generate N --prompt TEXT`.",
        train_step="The prompts of FILE are asked in forward passes, and a training has one batch. Ask"
        " `repro MODEL --train-step --prompt TEXT --prompt TEXT`: the answer names the example.",
    ),
    PYTHON,
    out("repro-runs/MODEL-prompts-STAMP/"),
    AS_JSON,
    BUNDLE,
    PRIVATE,
    *LIMITS,
    DEBUG,
)
def prompts(file: Path, **options: Any) -> None:
    """Run the prompts of FILE in batches, as the pipeline that failed did, and say for each whether it is finite.

    FILE is .txt (a prompt a line), .jsonl, .json or .csv, or, with pyarrow, .parquet, .arrow or a folder that
    `datasets` has saved. The answers are written as they come; an interrupted run resumes with --out.
    """
    from repro.cli.screen.progress import listener
    from repro.cli.screen.summaries import prompts as show
    from repro.core.errors import UsageError
    from repro.sweeps.prompts.run import Asked, refuse_script
    from repro.sweeps.prompts.run import run as ask

    how = ("field", "pairs", "layers", "batch_size", "max_length", "padding_side", "ablations")
    named = {name: options.pop(name) for name in how}
    named["chat_template"] = not options.pop("no_chat_template")
    vectors = options.pop("vectors")
    if options["prompts"]:
        raise UsageError("--prompt gives one prompt to the other commands; here the prompts are those of FILE.")
    if vectors is not None and not named["pairs"]:
        raise UsageError("--vectors needs --pairs: a vector is the mean difference between the sides of pairs.")
    request = request_from("prompts", options)
    if request.case.is_script:
        refuse_script(request.model)
    with listener() as told:
        result = ask(Asked(request, file, vectors=vectors, **named), told)
    as_json = options["as_json"]
    conclude(result.answer, lambda: show(result, to_stderr=as_json), as_json=as_json, folder=result.folder)
