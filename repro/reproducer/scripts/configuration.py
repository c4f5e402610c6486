"""A script of the model's class with a small configuration and seeded weights: what the makers of the class read first.

Nothing in it was captured from the run.
"""

from repro.core.answer import Answer
from repro.core.payloads import Configuration
from repro.reproducer.code.names import CPU
from repro.reproducer.code.tensors import call_lines, literal
from repro.reproducer.frame import frame
from repro.reproducer.script import Script
from repro.reproducer.scripts.given import arguments, can_be_written, count_words, input_lines, taken
from repro.reproducer.scripts.listing import distribution
from repro.reproducer.scripts.right import Right, judged, right_of
from repro.reproducer.words import found_in, generated

NEEDS = ("torch", "transformers")


def configuration_script(answer: Answer, found: Configuration) -> Script | None:
    """The class, run with the setting of the case and with one that is right; None for inputs that no text can hold."""
    if not can_be_written(found.further):
        return None
    inputs = {"input_ids": list(found.ids)}
    if found.decoder_ids:
        inputs["decoder_input_ids"] = list(found.decoder_ids)
    device = answer.cell.device or "cpu"
    name = (answer.forward.output if answer.forward else None) or "logits"
    right = right_of(answer, found.dtype, found.attn)
    narrow = [f"torch.{found.dtype}"] + ([literal(found.attn)] if right.varies == "attn" else [])
    attn = "attn" if right.varies == "attn" else literal(found.attn) if found.attn else None
    settings = [f"{key}={literal(value)}" for key, value in found.config.items()]
    settings += [f"attn_implementation={attn}"] if attn else []
    move = "" if device in CPU else f"{literal(device)}, "
    given = arguments(inputs, found.further, found.attention_mask, cast=".to(dtype)")
    code = [
        "import torch",
        *_imports(found),
        *input_lines(inputs, found.further, "" if device in CPU else f".to({literal(device)})"),
        "",
        f"def run(dtype{', attn' if right.varies == 'attn' else ''}):",
        f"    torch.manual_seed({found.seed})",
        *(f"    {line}" for line in call_lines(f"config = {found.config_class}(", settings)),
        f"    model = {found.model_class}(config).to({move}dtype).eval()",
        "    with torch.no_grad():",
        f"        return model({given}){taken(name)}",
        "",
        f"seen = run({', '.join(narrow)})",
        *_right_lines(right, found),
        *judged(name, right),
    ]
    said = f"{found.model_class} gives {name} that are not all finite for {count_words(inputs, found.further)}"
    about = [f"{said}, with the random weights of a small configuration.", right.words, found_in(answer)]
    own = {distribution(module.split(".")[0], answer.environment) for module in (found.model_from, found.config_from)}
    needs = (*NEEDS, *sorted(own - set(NEEDS)))
    return Script(
        level="configuration",
        text=frame(answer, needs, [*about, generated(answer)], code),
        needs=needs,
        does=f"builds {found.model_class} from a small configuration and runs it",
    )


def _imports(found: Configuration) -> list[str]:
    """One line for each module that the two classes come from."""
    classes: dict[str, set[str]] = {}
    for module, name in ((found.config_from, found.config_class), (found.model_from, found.model_class)):
        classes.setdefault(module, set()).add(name)
    return [f"from {module} import {', '.join(sorted(names))}" for module, names in classes.items()]


def _right_lines(right: Right, found: Configuration) -> list[str]:
    """The run that is right, where there is one."""
    if right.varies is None:
        return []
    given = f"torch.{right.value}" if right.varies == "dtype" else f"torch.{found.dtype}, {literal(right.value)}"
    return [f"right = run({given})"]
