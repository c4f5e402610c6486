"""Makes what three jobs left behind, with numbers that are known: logs, skip lists, settings and results.

    python walkthrough.py FOLDER

One of a hundred questions in the logs is cut off, as jobs cut them. The truth goes to FOLDER/truth.json.
"""

import json
import math
import random
import sys
from pathlib import Path

HIDDEN = {"4b": 2560, "12b": 3840, "27b": 5376}
"""Numbers in a token's row, by the size of the model."""
SHOWN = 36
"""How many characters of a question a job's log shows."""
STARTS = ("Is it true that", "Who first said that", "Why do people think that", "Should one believe that")
THINGS = ("moon", "river", "price", "cat", "bridge", "law", "song", "winter", "map", "king", "clock", "sea", "garden")
WORDS = ("made of", "older than", "behind", "larger than", "the cause of", "sold for", "named for")


def questions(draw: random.Random, count: int) -> list[str]:
    """So many different questions; many of them begin alike."""
    made: dict[str, None] = {}
    while len(made) < count:
        thing, other = draw.sample(THINGS, 2)
        made[f"{draw.choice(STARTS)} the {thing} is {draw.choice(WORDS)} the {other} of {draw.choice(THINGS)}s?"] = None
    return list(made)


def log(size: str, asked: list[str], failing: list[int], draw: random.Random) -> tuple[str, list[int]]:
    """The log of a job, and the NaN count of each failing question."""
    lines = [f"2026-03-01 09:00:00,000 | INFO | Loading model google/gemma-3-{size}-it", "Loaded 100 prompts"]
    counts = []
    for second, index in enumerate(failing):
        count = draw.randint(21, 41) * HIDDEN[size]
        counts.append(count)
        time = f"2026-03-01 09:{second // 60 + 1:02}:{second % 60:02},000"
        lines += [
            f"{time} | ERROR | Invalid activations in batch example {index}: NaN count={count}",
            f"{time} | ERROR | Problematic text: Question: {asked[index][:SHOWN]}...",
            f"{time} | WARNING | Skipping index {index} due to NaN/Inf",
        ]
    end = f"{len(asked) - len(failing)} of {len(asked)} prompts were used, {len(failing)} were skipped"
    return "\n".join([*lines, f"2026-03-01 09:30:00,000 | INFO | {end}", ""]), counts


def settings(folder: Path) -> None:
    """A base whose settings win over those of the jobs, for it is named behind them."""
    (folder / "base.yaml").write_text(
        "model:\n  name: google/gemma-3-4b-it\n  dtype: bfloat16\nsteering:\n  max_length: 512\n  layer: 16\n"
    )
    for size, layer in (("12b", 18), ("27b", 26)):
        (folder / f"{size}.yaml").write_text(
            "defaults:\n  - _self_\n  - base\n"
            f"model:\n  name: google/gemma-3-{size}-it\n  dtype: float16\n"
            f"steering:\n  max_length: 384\n  layer: {layer}\n"
        )


def results(folder: Path, failing: list[int], total: int) -> None:
    """The scores that a job wrote, one line for each question."""
    lines = [
        json.dumps({"index": index, "score": math.nan if index in failing else 0.5, "layer": 18})
        for index in range(total)
    ]
    (folder / "scores_12b.jsonl").write_text("\n".join(lines) + "\n")


def make(folder: Path) -> dict[str, object]:
    """Everything, into a folder; returns what is true of it."""
    draw = random.Random(12)
    asked = questions(draw, 100)
    of_12b = sorted(draw.sample(range(100), 38))
    failing = {"4b": [], "12b": of_12b, "27b": sorted(draw.sample(of_12b, 19))}
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for size, indices in failing.items():
        text, counts[size] = log(size, asked, indices, draw)
        (folder / f"job_{size}.err").write_text(text)
        if indices:
            (folder / f"{size}_skipped.txt").write_text("".join(f"{asked[index]}\n" for index in indices))
    (folder / "prompts.txt").write_text("".join(f"{text}\n" for text in asked))
    settings(folder)
    results(folder, of_12b, len(asked))
    chance = math.comb(38, 19) / math.comb(100, 19)  # that all of 19 drawn from 100 are among the 38
    truth = {
        "asked": asked,
        "failing": failing,
        "rows": {size: [count // HIDDEN[size] for count in counts[size]] for size in counts},
        "shared": len(set(of_12b) & set(failing["27b"])),
        "chance": chance,
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    return truth


if __name__ == "__main__":
    make(Path(sys.argv[1] if len(sys.argv) > 1 else "walkthrough"))
