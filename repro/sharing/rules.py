"""A script held against the rules of the project that it goes to. Nothing is run: its text is read, and its record."""

import ast
import math
import re
import sys
from collections.abc import Iterator

from repro.core.answer import Answer, ScriptRecord
from repro.core.encoding import number
from repro.core.mechanisms import LIMITS
from repro.core.sentences import listed, many, plain
from repro.reproducer.script import code_lines
from repro.sharing.forms.forms import Form, Rules
from repro.sharing.problem import Problem

NARROWEST_FIRST = {**LIMITS, "float64": sys.float_info.max}
"""The largest number of each dtype that a script may name."""
NEAR = 16.0
"""A value within this factor of float16's largest number is near it: the square root of its range is 256, and sums of a
few such values do not leave it. Of a wider dtype, a value whose square it does not hold is no ordinary one."""
LINK = re.compile(r"https?://\S*(?:huggingface\.co|hf\.co)/\S+|\S+\.(?:zip|pt|pth|pkl|safetensors|onnx|bin)\b")
"""What PyTorch's triage takes out of a body: models of the Hub, and files to download."""


def of_script(form: Form, record: ScriptRecord, text: str) -> Iterator[Problem]:
    """What of a script the project rejects.

    Args:
        form: The project's, with its rules.
        record: Of the script.
        text: Its content.
    """
    rules = form.rules
    if rules is None:
        return
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        yield Problem("refused", "script", f"{record.path} cannot be read as Python ({error})", "Make the run again.")
        return
    if rules.own and form.package not in record.needs:
        found = f"{record.path} does not import {form.package}, so it shows nothing of that package"
        yield Problem("refused", "script", found, "Show it with the package, or report it to whose fault it is.")
    for found, to_do in (*_size(rules, record, text), *_imports(rules, tree), *_content(rules, tree, text)):
        yield Problem("refused", "script", f"{record.path} {found} ({form.repository}, {rules.date})", to_do)


def of_result(form: Form, record: ScriptRecord, answer: Answer) -> Iterator[Problem]:
    """A result that is right near the largest number of its dtype, or beyond it, where the project takes none: the
    script's inputs need not show it.
    """
    program = answer.reduction.program if answer.reduction else None
    origin = answer.origin
    if form.rules is None or not form.rules.normal_range:
        return
    if program is not None and program.expected is not None and record.level.startswith("operator"):
        value, limit = number(program.expected.value), number(program.limit)
    else:
        value, limit = (number(origin.reference_value), number(origin.limit)) if origin else (None, None)
    if value is None or limit is None or not abs(value) * NEAR > limit:
        return
    near = "near" if abs(value) <= limit else "beyond"
    found = (
        f"the right result of {record.path}, {plain(value)}, is {near} the largest number of its dtype, {plain(limit)}"
    )
    to_do = "Find inputs with an ordinary result that show it, or say why this one is ordinary."
    yield Problem("refused", "script", f"{found} ({form.repository}, {form.rules.date})", to_do)


def of_body(form: Form, path: str, body: str) -> Iterator[Problem]:
    """Links and names of files that the project takes out of a body."""
    rules = form.rules
    if rules is None or rules.links:
        return
    named = sorted({match[0] for line in _outside_scripts(body) for match in LINK.finditer(line)})
    if named:
        found = f"it names what {form.repository} takes out of a body: {listed(named[:3])}"
        yield Problem("refused", path, found, "Take it out: the script in the body is all that is read.")


def _outside_scripts(body: str) -> list[str]:
    """The lines that are not inside of a block of code."""
    inside, lines = False, []
    for line in body.split("\n"):
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            lines.append(line)
    return lines


def _size(rules: Rules, record: ScriptRecord, text: str) -> Iterator[tuple[str, str]]:
    # What is counted there is what is read there: not the imports, and not the comment and docstring above them.
    lines = sum(not re.match(r"(import|from) ", line) for line in code_lines(text))
    if rules.lines is not None and lines > rules.lines:
        yield f"has {many(lines, 'line')} besides its imports, and {rules.lines} are read", "Shorten it by hand."
    if rules.seconds is not None and record.seconds is not None and record.seconds > rules.seconds:
        took = f"took {record.seconds:.0f} s, and a trial there has {rules.seconds:.0f} s"
        yield took, "Make its tensors smaller."


def _imports(rules: Rules, tree: ast.AST) -> Iterator[tuple[str, str]]:
    named = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    others = sorted(named - set(sys.stdlib_module_names))
    if rules.packages is not None and (more := [name for name in others if name not in rules.packages]):
        allowed = listed(list(rules.packages))
        yield f"imports {listed(more)}, and only {allowed} is installed there", f"Find one with {allowed} alone."
    if rules.imports is not None and rules.imports not in named:
        to_do = f"Show it with a class of {rules.imports}, or report it to whose fault it is."
        yield f"does not import {rules.imports}, so it shows nothing of that project's", to_do


def _content(rules: Rules, tree: ast.AST, text: str) -> Iterator[tuple[str, str]]:
    if rules.assertion and not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        yield "has no assertion that fails while the fault is there", "End it with one."
    words = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)}
    words |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    words |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    avoided = [word for word in rules.avoids if word in words]
    if avoided:
        yield f"uses {listed(avoided)}, at which the triage there stops", "Write its values in another way."
    if rules.normal_range and (extreme := _extreme(tree, text)):
        to_do = "Show the chain of ordinary operators that makes it so large, or say why the value is ordinary."
        yield f"has {listed(extreme[:3])}, near the limits of {_dtype(text)} or not finite", to_do


def _extreme(tree: ast.AST, text: str) -> list[str]:
    """Numbers near the limits of the script's narrowest dtype, NaN, and +Inf; -inf is how a mask is written."""
    dtype = _dtype(text)
    limit = NARROWEST_FIRST[dtype] / NEAR if dtype == "float16" else math.sqrt(NARROWEST_FIRST[dtype])
    found = [
        plain(abs(float(node.value)))
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and not isinstance(node.value, bool)
        and (not math.isfinite(node.value) or abs(node.value) >= limit)
    ]
    words = [
        str(node.args[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "float"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and str(node.args[0].value).lower().lstrip("+") in ("nan", "inf", "infinity")
    ]
    return [*dict.fromkeys([*words, *found])]


def _dtype(text: str) -> str:
    """The narrowest dtype that the script names."""
    return next((name for name in NARROWEST_FIRST if f"torch.{name}" in text or f".{name}(" in text), "float32")
