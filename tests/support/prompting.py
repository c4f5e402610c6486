"""The prompts step, asked in this process, and what it said."""

import json

from support.handmade import emitter
from support.prompt_models import write_lines

from repro.probes.prompts.run import run


class Asked:
    """What one process of the kit said."""

    def __init__(self, outcome, stream):
        self.verdict, self.reason, self.payload = outcome
        self.events = [json.loads(line) for line in stream.getvalue().splitlines()]
        self.records = [event["record"] for event in self.events if event["event"] == "example"]
        trials = [(event["trial"], event["holds"]) for event in self.events if event["event"] == "trial"]
        self.trials = [trial for trial in trials if trial[0].startswith("batch ")]
        self.searches = [trial for trial in trials if trial[0].startswith("search ")]

    def of(self, *names):
        return [tuple(record[name] for name in names) for record in self.records]


def ask(loaded, path, prompts, known=None, answers=(), **options):
    """Run the step; a prompt is a text, ids, or (index, side, text). answers: records of earlier processes."""
    lines = []
    for number, prompt in enumerate(prompts):
        index, side, text = prompt if isinstance(prompt, tuple) else (number, None, prompt)
        given = {"text": text} if isinstance(text, str) else {"text": None, "ids": text}
        lines.append(json.dumps({"index": index, "side": side, **given}))
    write_lines(path / "examples.jsonl", *lines)
    said, stream = emitter()
    write_lines(path / "prompts.jsonl", '{"record": "header"}', *map(json.dumps, answers))
    given = {"file": str(path / "examples.jsonl"), "total": len(lines), "batch_size": 8, **options}
    given["answers"] = str(path / "prompts.jsonl")
    return Asked(run(loaded, given, said, known or {}, False), stream)
