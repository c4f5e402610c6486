"""The command ``compare``: sibling models in one table, from which size on they fail, and what they do differently.

Nothing is imported here that ``--help`` does not need.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
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
    PHASES,
    PRIVATE,
    PYTHON,
    SETTINGS,
    Model,
    conclude,
    factory,
    out,
    request_from,
    together,
)

EXAMPLES = """
\b
Examples:
  repro compare gpt2 gpt2-medium gpt2-large gpt2-xl
  repro compare ./gemma-4b ./gemma-12b ./gemma-27b --dtype float16 --prompts pairs.jsonl --pairs
  repro compare gemma-3-270m gemma-3-1b --weights random:0      (the configurations; no download)
  repro compare --factory nets.py:small --factory nets.py:large --train-step 2
  repro compare epoch-1.safetensors epoch-2.safetensors --factory nets.py:small

\b
Exit status: 0 every model that answered is good, 1 at least one is bad, 125 none answered, 2 wrong usage, 130 Ctrl-C.
"""
OF_PROMPTS = ("field", "pairs", "batch_size", "max_length", "padding_side")


@click.command(
    context_settings=SETTINGS, epilog=EXAMPLES, short_help="Sibling models in one table: which of them fail."
)
@together(
    click.argument("models", metavar="MODEL MODEL...", type=Model(), nargs=-1),
    factory(" Repeatable: each one is then a model of the comparison.", multiple=True),
    click.option(
        "--prompts",
        "file",
        metavar="FILE",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Ask each model the prompts of FILE, as `repro prompts` does. Default: one prompt.",
    ),
    click.option("--field", metavar="NAME", help="Where the prompt stands in each entry of FILE."),
    click.option("--pairs", is_flag=True, help="Each entry of FILE is a pair."),
    click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Prompts in one pass."),
    click.option("--max-length", type=click.IntRange(min=1), metavar="TOKENS", help="Truncate longer prompts of FILE."),
    click.option("--padding-side", type=click.Choice(["left", "right"]), help="Default: the tokenizer's own."),
    click.option(
        "--measure/--no-measure",
        default=True,
        help="Run a bad model once more in a wider dtype, to measure how large its values would be.",
    ),
    DEVICE,
    *CASE,
    *GIVEN,
    *PHASES,
    PYTHON,
    out("repro-runs/MODEL-compare-STAMP/"),
    AS_JSON,
    BUNDLE,
    PRIVATE,
    *LIMITS,
    DEBUG,
)
def compare(
    models: tuple[str, ...], factories: tuple[str, ...], file: Path | None, measure: bool, **options: Any
) -> None:
    """Ask each MODEL the same, one after the other, and put what they answer beside what they are.

    Each model's own run is in a folder of its own below --out; an interrupted comparison resumes there. A threshold
    in size is stated only as far as it was tested, and only where the verdicts follow the size.
    """
    from repro.cli.screen.progress import Announcer
    from repro.cli.screen.summaries import comparison
    from repro.core.errors import UsageError
    from repro.sweeps.models.run import Comparing
    from repro.sweeps.models.run import run as ask
    from repro.sweeps.prompts.run import Asked

    named = {name: options.pop(name) for name in OF_PROMPTS}
    if file is not None and options["prompts"]:
        raise UsageError("--prompt gives one prompt and --prompts a file of them. Give one of the two.")
    if file is None and (named["field"] or named["pairs"] or named["max_length"] or named["padding_side"]):
        raise UsageError("--field, --pairs, --max-length and --padding-side say how the FILE of --prompts is read.")
    if file is not None:
        _refuse_beside_prompts(factories, options)
    if models and len(factories) > 1:
        raise UsageError("each MODEL is weights for one module. Give one --factory with them, or no MODEL.")
    # Each model's own run is shortened to what a comparison reads: no search for a smaller case.
    base = {**options, "reduce": False}
    shared = factories[0] if factories else None
    siblings = [(model, shared) for model in models] or [("", name) for name in factories]
    command = "bisect" if file is None else "prompts"
    requests = [request_from(command, {**base, "model": model, "factory": name}) for model, name in siblings]
    if file is not None:
        requests = [dataclasses.replace(one, extra=Asked(one, file, **named).argv()) for one in requests]
    comparing = Comparing(tuple(requests), many=file is not None, measure=measure, out=options["out"])
    result = ask(comparing, Announcer())
    as_json = options["as_json"]
    conclude(result.answer, lambda: comparison(result, to_stderr=as_json), as_json=as_json, folder=result.folder)


def _refuse_beside_prompts(factories: tuple[str, ...], options: Mapping[str, Any]) -> None:
    """A file of prompts is asked of models with a tokenizer, one forward pass for each."""
    from repro.core.errors import UsageError

    given = {"--factory": factories or None, "--generate": options["generate"], "--train-step": options["train_step"]}
    given |= {f"--{name}": options[name] for name in ("image", "audio", "inputs")}
    beside = next((option for option, value in given.items() if value is not None), None)
    if beside is not None:
        raise UsageError(
            f"the FILE of --prompts is read by each model's tokenizer and asked in forward passes, so {beside} would"
            " not be used. Give one of the two."
        )
