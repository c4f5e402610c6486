"""Scripts that run the whole model on the reduced input: what it gives is not finite, or its process dies."""

from collections.abc import Mapping
from typing import Any

from repro.reproducer.checkpoint import Checkpoint, folder_lines, loading, needs_checkpoint, reading_script
from repro.reproducer.frame import STATUSES, Document, model_name
from repro.reproducer.script import Script
from repro.reproducer.values import literal
from repro.reproducer.words import found_in, generated

MADE_UP = 8
"""How many token ids are made up where the step died before it said which it had: 0, 1, 2 and so on."""


def model_script(document: Document, checkpoint: Checkpoint) -> Script | None:
    """The whole model on the reduced input; None where the run has no input that was bad."""
    inputs = _inputs(document)
    if inputs is None or (document.get("forward") or {}).get("verdict") != "bad":
        return None
    how = loading(document, checkpoint)
    device = str(document["cell"].get("device") or "cpu")
    move = "" if device == "cpu" else f".to({literal(device)})"
    lines = ["import torch", f"from transformers import {how.class_name}", *folder_lines(checkpoint, check=True)]
    lines += ["torch.set_grad_enabled(False)", *how.lines(), *([f"model{move}"] if move else [])]
    lines += [f"{name} = torch.tensor([{ids}]){move}" for name, ids in inputs.items()]
    name = str(document["forward"].get("output") or "logits")
    output = "[0]" if name == "output" else f".{name}"
    call = _call_of(document, inputs)
    is_narrow = str(document["cell"].get("dtype")) in ("float16", "bfloat16")
    wide, method = ("float32", "float") if is_narrow else ("float64", "double")
    # The method of the model's own class refuses what came from a .gguf file, though its weights are plain tensors.
    widen = f"torch.nn.Module.{method}(model)" if checkpoint.source == "gguf" else f"model.{method}()"
    code = [
        *lines,
        f"seen = model({call}){output}",
        f"expected = {widen}({call}){output}",
        "bad, wide_bad = (int((~values.isfinite()).sum()) for values in (seen, expected))",
        f'print(f"expected finite values ({wide} gives {{wide_bad}} others), seen {{bad}} others ({{seen.dtype}})")',
        f"sys.exit(1 if bad else 0)  {STATUSES}",
    ]
    count = len(inputs["input_ids"])
    tokens = "one token" if count == 1 else f"{count} tokens"
    about = [
        f"{document['model'].get('class') or 'The model'} gives {name} that are not all finite, for {tokens}.",
        found_in(document), needs_checkpoint(checkpoint, how.trusts, hashes=False), generated(document),
    ]  # fmt: skip
    return reading_script(document, checkpoint, "model", how.needs, about, code, "the whole model with its own weights")


def crash_script(document: Document, checkpoint: Checkpoint) -> Script | None:
    """What the process died of, in a child process; None where no step of the case itself crashed."""
    step = next(
        (row for row in document["steps"] if row["step"] in ("load", "forward") and row["ending"] == "crashed"), None
    )
    if step is None or not step.get("signal"):
        return None
    how = loading(document, checkpoint)
    signal = str(step["signal"])
    inputs = _inputs(document) or {}
    work = how.lines()
    if step["step"] == "forward":
        inputs = inputs or {"input_ids": list(range(MADE_UP))}
        work += [f"{name} = torch.tensor([{ids}])" for name, ids in inputs.items()]
        work += [f"model({_call_of(document, inputs)})"]
    code = [
        "import os", "import signal", "import torch", f"from transformers import {how.class_name}",
        *folder_lines(checkpoint, check=True),
        "child = os.fork()",
        "if child == 0:",
        *(f"    {line}" for line in work),
        "    os._exit(0)",
        "status = os.waitpid(child, 0)[1]",
        "seen = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)",
        'print(f"expected exit status 0, seen {seen}")',
        f"sys.exit({{{literal(signal)}: 1, 0: 0}}.get(seen, 125))  {STATUSES}",
    ]  # fmt: skip
    doing = "from_pretrained" if step["step"] == "load" else "a forward pass"
    about = [
        f"The process dies of {signal} in {doing} of {document['model'].get('class') or model_name(document)}.",
        needs_checkpoint(checkpoint, how.trusts, hashes=False), generated(document),
    ]  # fmt: skip
    return reading_script(document, checkpoint, "crash", how.needs, about, code, "the call that kills the process")


def _inputs(document: Document) -> dict[str, list[int]] | None:
    """The token ids by argument: of the reduced input where there is one, else of the prompt with the fault."""
    prompts = (document.get("forward") or {}).get("prompts") or []
    row = next((item for item in prompts if item.get("verdict") == "bad"), prompts[0] if prompts else None)
    reduced = (document.get("reduction") or {}).get("inputs") or {}
    ids = reduced.get("ids") or (row or {}).get("input_ids")
    if not ids:
        return None
    found = {"input_ids": [int(token) for token in ids]}
    decoder = reduced.get("decoder_ids") if reduced.get("ids") else (row or {}).get("decoder_input_ids")
    if decoder:
        found["decoder_input_ids"] = [int(token) for token in decoder]
    return found


def _call_of(document: Document, inputs: Mapping[str, Any]) -> str:
    """The arguments of the model's forward pass. A mask of ones is given where the run gave one."""
    arguments = [f"{name}={name}" for name in inputs]
    reduced = (document.get("reduction") or {}).get("inputs") or {}
    if reduced.get("attention_mask", not document["case"].get("trust_remote_code")):
        arguments.append("attention_mask=torch.ones_like(input_ids)")
    return ", ".join(arguments)
