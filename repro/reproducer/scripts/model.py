"""Scripts that run the whole model on the reduced input: its output is not finite, or its process dies."""

from typing import Any

from repro.core.answer import Answer
from repro.core.payloads import Further, Inputs, Pass
from repro.core.records import Ending, Outcome
from repro.core.sentences import listed
from repro.reproducer.code.tensors import literal
from repro.reproducer.frame import ending, model_name
from repro.reproducer.script import Script
from repro.reproducer.scripts.checkpoint import Checkpoint, folder_lines, loading, needs_checkpoint, reading_script
from repro.reproducer.words import found_in, generated

MADE_UP = 8
"""How many token ids (0, 1, 2 and so on) are made up where the step died before it said which it had."""


def model_script(answer: Answer, checkpoint: Checkpoint) -> Script | None:
    """The whole model on the reduced input; None where the run has no input that was bad."""
    inputs, further, forward = _inputs(answer), _further(answer), answer.forward
    if answer.case.factory is not None:
        return None  # somebody's own code gives model and inputs
    if not (inputs or further) or forward is None or forward.verdict is not Outcome.BAD:
        return None
    if not _can_be_written(further):
        return None
    how = loading(answer, checkpoint)
    device = answer.cell.device or "cpu"
    move = "" if device == "cpu" else f".to({literal(device)})"
    lines = ["import torch", f"from transformers import {how.class_name}", *folder_lines(checkpoint, check=True)]
    lines += ["torch.set_grad_enabled(False)", *how.lines(), *([f"model{move}"] if move else [])]
    lines += _input_lines(inputs, further, move)
    name = forward.output or "logits"
    output = "[0]" if name == "output" else f".{name}"
    is_narrow = answer.cell.dtype in ("float16", "bfloat16")
    wide, method = ("float32", "float") if is_narrow else ("float64", "double")
    # The method of the model's own class refuses what came from a .gguf file, though its weights are plain tensors.
    widen = f"torch.nn.Module.{method}(model)" if checkpoint.source == "gguf" else f"model.{method}()"
    code = [
        *lines,
        f"seen = model({_call_of(answer, inputs, further)}){output}",
        f"expected = {widen}({_call_of(answer, inputs, further, f'.{method}()')}){output}",
        "bad, wide_bad = (int((~values.isfinite()).sum()) for values in (seen, expected))",
        *ending(
            f"seen {{bad}} NaN or Inf in the {name} ({{seen.dtype}}), right is 0 ({wide} has {{wide_bad}})",
            "not bad",
            f"the {name} are not finite",
        ),
    ]
    about = [
        f"{answer.model.class_ or 'The model'} gives {name} that are not all finite for {_given(inputs, further)}.",
        found_in(answer), needs_checkpoint(checkpoint, how.trusts, hashes=False), generated(answer),
    ]  # fmt: skip
    does = "runs the whole model with its own weights"
    return reading_script(answer, checkpoint, "model", how.needs, about, code, does)


def crash_script(answer: Answer, checkpoint: Checkpoint) -> Script | None:
    """The call that killed the process, in a child process; None where no step of the case itself crashed."""
    crashed = (row for row in answer.steps if row.step in ("load", "forward") and row.ending is Ending.CRASHED)
    step = next(crashed, None)
    if step is None or step.signal is None or answer.case.factory is not None:
        return None
    how, signal = loading(answer, checkpoint), step.signal
    work = how.lines()
    if step.step == "forward":
        inputs, further = _inputs(answer), _further(answer)
        if not _can_be_written(further):
            return None
        if not (inputs or further):
            inputs = {"input_ids": list(range(MADE_UP))}
        work += _input_lines(inputs, further)
        work += [f"model({_call_of(answer, inputs, further)})"]
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


def _inputs(answer: Answer) -> dict[str, list[int]]:
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


def _further(answer: Answer) -> tuple[Further, ...]:
    """What was given beside the ids; nothing where these are withheld, for it does not show the fault by itself."""
    row = _asked(answer)
    if row is None or (row.input_source == "tokenizer" and not row.input_ids):
        return ()
    cut = {item.name: item for item in _reduced(answer).further}
    return tuple(cut.get(item.name, item) for item in row.further)


def _input_lines(inputs: dict[str, list[int]], further: tuple[Further, ...], move: str = "") -> list[str]:
    lines = [f"{name} = torch.tensor([{ids}]){move}" for name, ids in inputs.items()]
    return lines + [f"{item.name} = {_made(item)}{move}" for item in further]


def _made(item: Further) -> str:
    """The expression that makes the same tensor again."""
    seeded = f"generator=torch.Generator().manual_seed({item.seed})"
    if item.made == "normal":
        return f"torch.randn({item.shape}, {seeded}).to(torch.{item.dtype})"
    if item.made == "whole":
        return f"torch.randint(0, {max(item.below or 1, 1)}, {item.shape}, {seeded}).to(torch.{item.dtype})"
    if item.made == "ones":
        return f"torch.ones({item.shape}, dtype=torch.{item.dtype})"
    return f"torch.tensor({literal(_numbers(item.values))}, dtype=torch.{item.dtype}).reshape({item.shape})"


def _numbers(values: Any) -> Any:
    """Numbers that are not finite travel as words."""
    if isinstance(values, list | tuple):
        return [_numbers(value) for value in values]
    return float(values) if isinstance(values, str) else values


def _can_be_written(further: tuple[Further, ...]) -> bool:
    """Whether each input is drawn from a seed, or has so few values that they are in the record."""
    drawn = ("normal", "whole")
    return all(
        item.made == "ones" or (item.made in drawn and item.seed is not None) or item.values is not None
        for item in further
    )


def _given(inputs: dict[str, list[int]], further: tuple[Further, ...]) -> str:
    count = len(inputs.get("input_ids", ()))
    named = ["one token" if count == 1 else f"{count} tokens"] if count else []
    return listed([*named, *(f"seeded {item.name}" if item.seed is not None else item.name for item in further)])


def _call_of(answer: Answer, inputs: dict[str, list[int]], further: tuple[Further, ...], cast: str = "") -> str:
    """The arguments of the model's forward pass. A mask of ones is given where the run gave one.

    cast: the method that brings what is not an id to the model's dtype.
    """
    arguments = [f"{name}={name}" for name in inputs] + [
        f"{item.name}={item.name}{cast if 'float' in item.dtype else ''}" for item in further
    ]
    had_mask = _reduced(answer).attention_mask
    if (
        "input_ids" in inputs
        and "attention_mask" not in {item.name for item in further}
        and (had_mask or (had_mask is None and not answer.case.trust_remote_code))
    ):
        arguments.append("attention_mask=torch.ones_like(input_ids)")
    return ", ".join(arguments)
