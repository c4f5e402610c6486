"""Scripts that run the whole model on the reduced input: its output is not finite, or its process dies."""

import dataclasses

from repro.core.answer import Answer
from repro.core.payloads import Further, Inputs, Pass
from repro.core.records import Ending, Outcome
from repro.reproducer.code.tensors import literal
from repro.reproducer.frame import ending, model_name
from repro.reproducer.script import Script
from repro.reproducer.scripts.checkpoint import (
    Checkpoint,
    Loading,
    folder_lines,
    loading,
    needs_checkpoint,
    reading_script,
)
from repro.reproducer.scripts.given import arguments, can_be_written, count_words, input_lines, taken
from repro.reproducer.scripts.right import Right, judged, right_of
from repro.reproducer.words import found_in, generated

MADE_UP = 8
"""How many token ids (0, 1, 2 and so on) are made up where the step died before it said which it had."""


def model_script(answer: Answer, checkpoint: Checkpoint) -> Script | None:
    """The whole model on the reduced input; None where the run has no input that was bad."""
    inputs, further, forward = inputs_of(answer), further_of(answer), answer.forward
    if answer.is_made:
        return None  # somebody's own code gives model and inputs, or another package
    if not (inputs or further) or forward is None or forward.verdict is not Outcome.BAD:
        return None
    if not can_be_written(further):
        return None
    how = loading(answer, checkpoint)
    device = answer.cell.device or "cpu"
    move = "" if device == "cpu" else f".to({literal(device)})"
    lines = ["import torch", f"from transformers import {how.class_name}"]
    lines += [] if how.published else folder_lines(checkpoint, check=True)
    lines += ["torch.set_grad_enabled(False)", *how.lines(by_id=True), *([f"model{move}"] if move else [])]
    lines += input_lines(inputs, further, move)
    name = forward.output or "logits"
    output = taken(name)
    right = right_of(answer, answer.cell.dtype, answer.load.attn if answer.load else None)
    code = [
        *lines,
        f"seen = model({call_of(answer, inputs, further)}){output}",
        *_right(right, how, checkpoint, call_of(answer, inputs, further, ".to(model.dtype)"), move, output),
        *judged(name, right),
    ]
    said = f"{answer.model.class_ or 'The model'} gives {name} that are not all finite for"
    about = [
        f"{said} {count_words(inputs, further)}.", right.words, found_in(answer),
        needs_checkpoint(checkpoint, how.trusts, hashes=False), generated(answer),
    ]  # fmt: skip
    does = "runs the whole model with its own weights"
    return reading_script(answer, checkpoint, "model", how.needs, about, code, does)


def _right(right: Right, how: Loading, checkpoint: Checkpoint, call: str, move: str, output: str) -> list[str]:
    """The same input with the setting that is right: in a wider dtype on the very numbers that were loaded."""
    if right.varies is None:
        return []
    if right.varies == "attn":
        loading = [f"attn_implementation={literal(right.value)}"]
        arguments = tuple(item for item in how.arguments if not item.startswith("attn_implementation"))
        again = dataclasses.replace(how, arguments=arguments).lines(more=loading, by_id=True)
    else:
        # The method of the model's own class refuses what came from a .gguf file, though its weights are plain tensors.
        own = checkpoint.source != "gguf"
        again = [f"model.to(torch.{right.value})" if own else f"torch.nn.Module.to(model, torch.{right.value})"]
    return [*again, *([f"model{move}"] if move and right.varies == "attn" else []), f"right = model({call}){output}"]


def crash_script(answer: Answer, checkpoint: Checkpoint) -> Script | None:
    """The call that killed the process, in a child process; None where no step of the case itself crashed."""
    crashed = (row for row in answer.steps if row.step in ("load", "forward") and row.ending is Ending.CRASHED)
    step = next(crashed, None)
    if step is None or step.signal is None or answer.is_made:
        return None
    how, signal = loading(answer, checkpoint), step.signal
    work = how.lines()
    if step.step == "forward":
        inputs, further = inputs_of(answer), further_of(answer)
        if not can_be_written(further):
            return None
        if not (inputs or further):
            inputs = {"input_ids": list(range(MADE_UP))}
        work += input_lines(inputs, further)
        work += [f"model({call_of(answer, inputs, further)})"]
    code = [
        "import os", "import signal", "import torch", f"from transformers import {how.class_name}",
        *folder_lines(checkpoint, check=True),
        "child = os.fork()",
        "if child == 0:",
        *(f"    {line}" for line in work),
        "    os._exit(0)",
        "status = os.waitpid(child, 0)[1]",
        "seen = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)",
        f"if seen not in (0, {literal(signal)}):",
        '    raise RuntimeError(f"the child ended with {seen}, which says nothing about this fault")',
        *ending("seen {seen}, right is exit status 0", "seen == 0", "{seen} killed the process"),
    ]  # fmt: skip
    doing = "from_pretrained" if step.step == "load" else "a forward pass"
    about = [
        f"{signal} kills the process in {doing} of {answer.model.class_ or model_name(answer)}.",
        needs_checkpoint(checkpoint, how.trusts, hashes=False), generated(answer),
    ]  # fmt: skip
    does = "makes the call that kills the process"
    return reading_script(answer, checkpoint, "crash", how.needs, about, code, does)


def _reduced(answer: Answer) -> Inputs:
    found = None if answer.reduction is None else answer.reduction.inputs
    return found or Inputs()


def _asked(answer: Answer) -> Pass | None:
    """The prompt with the fault."""
    prompts = () if answer.forward is None else answer.forward.prompts
    return next((item for item in prompts if item.verdict is Outcome.BAD), prompts[0] if prompts else None)


def inputs_of(answer: Answer) -> dict[str, list[int]]:
    """The token ids by argument: of the reduced input where there is one, else of the prompt with the fault."""
    row, reduced = _asked(answer), _reduced(answer)
    if reduced.ids:
        ids, decoder = reduced.ids, reduced.decoder_ids
    elif row is not None:
        ids, decoder = row.input_ids, row.decoder_input_ids
    else:
        return {}
    given = {"input_ids": ids, "decoder_input_ids": decoder}
    return {name: list(values) for name, values in given.items() if values}


def further_of(answer: Answer) -> tuple[Further, ...]:
    """What was given beside the ids; nothing where these are withheld, for it does not show the fault by itself."""
    row = _asked(answer)
    if row is None or (row.input_source == "tokenizer" and not row.input_ids):
        return ()
    cut = {item.name: item for item in _reduced(answer).further}
    return tuple(cut.get(item.name, item) for item in row.further)


def call_of(answer: Answer, inputs: dict[str, list[int]], further: tuple[Further, ...], cast: str = "") -> str:
    """The arguments of the model's forward pass. A mask of ones is given where the run gave one."""
    had_mask = _reduced(answer).attention_mask
    return arguments(inputs, further, bool(had_mask or (had_mask is None and not answer.case.trust_remote_code)), cast)
