"""The caller's script: the line that loads the model as it is and as it should be, and what each gives."""

import dataclasses

from repro.core.answer import Answer
from repro.core.payloads import ScriptChange
from repro.core.records import Outcome
from repro.reproducer.code.tensors import literal
from repro.reproducer.frame import before as is_before
from repro.reproducer.frame import ending
from repro.reproducer.script import Script
from repro.reproducer.scripts.checkpoint import Checkpoint, folder_lines, loading, needs_checkpoint, reading_script
from repro.reproducer.scripts.given import can_be_written, count_words, input_lines, taken
from repro.reproducer.scripts.model import call_of, further_of, inputs_of
from repro.reproducer.words import found_in, generated

CHANGES = ("dtype=bfloat16", "dtype=float32", "dtype=float64", "attn=sdpa", "attn=eager")
"""Ablations that are an argument of from_pretrained. bfloat16 takes no more memory than what was asked for."""


def change_script(answer: Answer, checkpoint: Checkpoint) -> Script | None:
    """Both lines, run; None where no argument of from_pretrained was seen to make the output finite."""
    inputs, further, forward = inputs_of(answer), further_of(answer), answer.forward
    if answer.is_made or forward is None or forward.verdict is not Outcome.BAD:
        return None
    if not (inputs or further) or not can_be_written(further):
        return None
    verdicts = {row.name: row.verdict for row in answer.ablations}
    change = next((name for name in CHANGES if verdicts.get(name) is Outcome.GOOD), None)
    if change is None:
        return None
    how = loading(answer, checkpoint)
    varies, _, value = change.partition("=")
    if varies == "dtype":
        name = "torch_dtype" if is_before(answer, "transformers", (4, 56)) else "dtype"
        argument = f"{name}=torch.{value}"
    else:
        name, argument = "attn_implementation", f"attn_implementation={literal(value)}"
    kept = tuple(item for item in how.arguments if not item.startswith(f"{name}="))
    changed = dataclasses.replace(how, arguments=(*kept, argument))
    device = answer.cell.device or "cpu"
    move = "" if device == "cpu" else f".to({literal(device)})"
    moved = [f"model{move}"] if move else []
    output = forward.output or "logits"
    before, after = how.lines(by_id=True), changed.lines(by_id=True)
    code = [
        "import torch", f"from transformers import {how.class_name}",
        *([] if how.published else folder_lines(checkpoint, check=False)),
        "torch.set_grad_enabled(False)",
        *input_lines(inputs, further, move),
        "",
        "def bad(model):",
        f"    output = model({call_of(answer, inputs, further, '.to(model.dtype)')}){taken(output)}",
        "    return int((~output.isfinite()).sum())",
        "",
        "# before",
        *before, *moved, "seen = bad(model)", "del model",
        "# after",
        *after, *moved, "changed = bad(model)",
        "if changed:",
        f'    raise RuntimeError("the {output} are not finite with the changed line either")',
        *ending(
            f"seen {{seen}} NaN or Inf in the {output} before and {{changed}} after the change, right is 0",
            "not seen", f"the {output} are not finite before the change",
        ),
    ]  # fmt: skip
    said = f"{answer.model.class_ or 'The model'} gives {output} that are not all finite for"
    about = [
        f"{said} {count_words(inputs, further)}. With {argument} they are finite.", found_in(answer),
        needs_checkpoint(checkpoint, how.trusts), generated(answer),
    ]  # fmt: skip
    does = "loads the model by the line as it is and by the changed one"
    script = reading_script(answer, checkpoint, "change", how.needs, about, code, does)
    return dataclasses.replace(script, change=ScriptChange(before=tuple(before), after=tuple(after)))
