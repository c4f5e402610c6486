"""The command ``schema``: what verdict.json holds, for programs that read it.

Nothing is imported here that ``--help`` does not need.
"""

import click

from repro.cli.options import DEBUG, SETTINGS

EXAMPLES = """
\b
Examples:
  repro schema > verdict.schema.json
  check-jsonschema --schemafile verdict.schema.json repro-runs/*/verdict.json
"""


@click.command(context_settings=SETTINGS, epilog=EXAMPLES, short_help="Print the JSON Schema of verdict.json.")
@DEBUG
def schema(debug: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of verdict.json: every key, what it holds, and what it means.

    Keys that it does not name may be there too: a later version may have written them.
    """
    from repro.core.answer import json_schema
    from repro.core.encoding import encode

    click.echo(encode(json_schema(), indent=1))
