"""The sentences that a verdict is given in. Numbers are rounded to six significant digits here, and nowhere before."""

import math
import os
import shlex
from collections.abc import Sequence

from repro.core.encoding import number
from repro.core.mechanisms import mechanism
from repro.core.payloads import Bisect, Forward, InputPlace, Origin
from repro.core.sweep_answers import ChatTemplate, Place, PromptAblation

OUTSIDE = -1
"""The call index of an operator that ran while no module did."""
OUTPUT = "output"
AXES: dict[str, dict[int, tuple[str, ...]]] = {
    "patch": {2: ("row", "column"), 3: ("frame", "row", "column")},
    "spectrogram patch": {2: ("band", "time")},
    "step": {2: ("series", "step")},
    "stretch": {2: ("series", "stretch")},
}
"""What the numbers of a place in an input are called, by its kind and how many there are."""
"""The layer of an example whose layers are all finite, and whose logits are not."""
BAD_LOGITS = "bad logits though every layer is finite"
EVERY = "every"
"""The kind of token where all of an example's tokens go bad at once."""


def origin_sentence(origin: Origin, bisect: Bisect | None) -> str:
    """One sentence that names the place: mechanism, module, operator, source line, element, reference, limit."""
    what = named_mechanism(origin, bisect)
    row = mechanism(origin.mechanism)
    if what == row.words or not row.of_dtype:  # no dtype's own spelling stands first
        what = what[:1].upper() + what[1:]
    where = f"{what} in {named_module(origin)}"
    if origin.tensor:
        where += f": {origin.tensor}" + (f" ({origin.stored_as} in the file)" if origin.stored_as else "")
        where += f" at {list(origin.tensor_index)}" if origin.tensor_index else ""
    operator = ", ".join(part for part in (origin.op, _source(origin)) if part)
    if operator:
        where += f" ({operator})"
    parts = (_phase(origin), element_words(origin), _held(origin), _came_in(origin), _against_reference(origin, bisect))
    details = [part for part in parts if part]
    if details:
        where += ("; " if origin.tensor else ": ") + "; ".join(details)
    return where + "."


def named_module(origin: Origin) -> str:
    """The module of an origin; one outside of all modules is the model's own, or that of what runs the model: of a
    script, whatever code its line belongs to.
    """
    if origin.module or origin.call_index != OUTSIDE:
        return origin.module or "the model itself"
    if origin.train_step is not None:
        return "the training itself"
    if origin.generate_step is not None:
        return "the generation itself"
    return "the script itself" if origin.code in (None, "torch", "__main__") else f"the code of {origin.code}"


def named_mechanism(origin: Origin, bisect: Bisect | None) -> str:
    """The mechanism in words, with the dtype where it is arithmetic."""
    row, dtype, value = mechanism(origin.mechanism), origin_dtype(origin, bisect), number(origin.value)
    if row.name == "unknown" and value is not None and math.isfinite(value):
        return "first difference"  # of two ways: neither value is bad
    return f"{dtype} {row.words}" if dtype is not None and row.of_dtype else row.words


def origin_dtype(origin: Origin, bisect: Bisect | None) -> str | None:
    """The dtype of the bad output: of the operator where it is known, else of the whole model."""
    for found in (origin.output and origin.output.dtype, bisect and bisect.dtype):
        if found:
            return found.removeprefix("torch.")
    return None


def _phase(origin: Origin) -> str:
    """What stands behind the operator: of a gradient, the forward operator and its line; of a generation, its step."""
    if origin.phase == "backward":
        behind = f"in the backward of {origin.forward_op} at {origin.forward_source}" if origin.forward_op else ""
        first = f"the first bad gradient is that of {origin.gradient}" if origin.gradient else ""
        part = "" if origin.micro_batch is None else f"in micro batch {origin.micro_batch}"
        return ", ".join(words for words in (behind or "in the backward pass", part, first) if words)
    if origin.phase == "generate" and origin.generate_step is not None:
        return f"in generate, behind {origin.generate_step} new tokens"
    step = "" if origin.train_step is None else f" of step {origin.train_step}"
    step += "" if origin.micro_batch is None else f", micro batch {origin.micro_batch}"
    return f"in the {origin.phase} phase{step}" if step or origin.phase not in (None, "forward") else ""


def _source(origin: Origin) -> str | None:
    """The source line; of a notebook's cell with its text, since there is no file to look it up in."""
    shown = origin.excerpt
    if origin.source is None or not origin.source.startswith("In [") or shown is None or shown.source != origin.source:
        return origin.source
    place = int(origin.source.rpartition(":")[2]) - shown.first
    text = shown.lines[place].strip() if 0 <= place < len(shown.lines) else ""
    return f"{origin.source}: {text}" if text else origin.source


def _held(origin: Origin) -> str:
    """The number of the model that decides."""
    held, value = origin.held, None if origin.held is None else number(origin.held.value)
    return "" if held is None or value is None else f"{held.tensor} holds {plain(value)} at {list(held.index)}"


def element_words(origin: Origin) -> str:
    """``token 3 'a', head 2, channel 8``: as far as it is known."""
    parts = []
    place = origin.place
    if place is not None and not place.kind.endswith("token"):
        parts.append(place_words(place))
    elif origin.token_index is not None:
        parts.append(f"token {origin.token_index}" + ("" if origin.token is None else f" {origin.token!r}"))
    if origin.head_index is not None:
        parts.append(f"head {origin.head_index}")
    if origin.channel_index is not None:
        parts.append(f"channel {origin.channel_index}")
    return ", ".join(parts)


def place_words(place: InputPlace) -> str:
    """``patch (row 3, column 1)``, ``frame 12``; counted from 0."""
    if place.kind == "special":
        return f"token {place.index[0]} beside the patches"
    if len(place.index) == 1:
        return f"{place.kind} {place.index[0]}"
    named = AXES.get(place.kind, AXES["patch"]).get(len(place.index), ("place",) * len(place.index))
    said = ", ".join(f"{name} {at}" for name, at in zip(named, place.index, strict=True))
    return f"{'place' if place.kind == 'map' else place.kind} ({said})"


def noun_of_places(forward: Forward | None) -> str:
    """What stands side by side in a layer's output: tokens, or places of an input that is no text."""
    asked = () if forward is None else forward.prompts
    return "place" if asked and all(item.further and not item.input_ids for item in asked) else "token"


def _came_in(origin: Origin) -> str:
    """How much of what came in is bad."""
    found = origin.came_in
    if found is None or not found.total:
        return ""
    said = f"{found.bad:,} of {many(found.total, 'value')} of this {found.kind} are NaN or Inf"
    return f"{said}; {origin.note}" if origin.mechanism == "unknown" and origin.note else said


def _departed(origin: Origin, reference: str) -> str:
    """A finite number against float64's."""
    ratio, value = number(origin.ratio), number(origin.value)
    said = (
        f"it gives {origin.value if value is None else plain(value)}, and float64 of the same inputs gives {reference}"
    )
    far = "" if ratio is None or not math.isfinite(ratio) else f", {plain(ratio, 3)} times what rounding allows"
    return said + far + (f"; {origin.note}" if origin.note and far else "")


def _against_reference(origin: Origin, bisect: Bisect | None) -> str:
    """What other arithmetic has there; the limit only where it is what was passed."""
    value = number(origin.reference_value)
    dtype = origin.reference and origin.reference.dtype
    if origin.ratio is not None:
        return _departed(origin, plain(value) if value is not None else "another number")
    parts = []
    if value is not None:
        parts.append(f"{(dtype or 'the reference').removeprefix('torch.')} has {plain(value)} there")
    limit = number(origin.limit)
    if limit is None and bisect is not None:
        limit = number(bisect.limit)
    if limit is not None and mechanism(origin.mechanism).beyond_limit:
        parts.append(f"the limit is {plain(limit)}")
    note = f"; {origin.note}" if origin.confirmed_by == "widened" and origin.note else ""
    return ", ".join(parts) + note


DIGITS = 6
OF_FLOAT32 = 8
"""Significant digits that tell 1 from the next float32 on either side."""


def plain(value: float, digits: int = DIGITS) -> str:
    """A number with so many significant digits, without an exponent where that stays short: 68394.9, 3.4e+38, nan.

    What is next to 1 is not written as 1: a cosine of 1.0000001 is outside of the domain of acos. So a number that six
    digits would show as a whole one, and is none, gets as many as a float32 has.
    """
    text = f"{value:.{digits}g}"
    if "e+" in text and abs(value) < 1e9:
        return f"{value:.0f}"
    if digits == DIGITS and text.lstrip("-").isdigit() and float(text) != value:
        return f"{value:.{OF_FLOAT32}g}"
    return text


def many(count: int, noun: str, plural: str | None = None) -> str:
    """``1 line``, ``1,200 lines``."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def unused_prompt(prompts: Sequence[str], forward: Forward | None) -> str | None:
    """A sentence where a prompt was given and the model was not asked it, for want of a tokenizer or of ids."""
    asked = () if forward is None else forward.prompts
    if not prompts or not asked or any(item.input_source != "seeded" for item in asked):
        return None
    if all(item.further and not item.input_ids for item in asked):
        return "the prompt was not used: the model takes no token ids, and its inputs were drawn from a seed."
    return "the prompt was not used: there is no tokenizer, so the token ids were drawn from a seed."


def sentence(reason: str) -> str:
    """A reason with a capital at its start, unless it starts with a path or a name that has its own spelling."""
    first = reason.split(" ", 1)[0]
    return reason[:1].upper() + reason[1:] if first.isalpha() else reason


def visible(value: str) -> str:
    """``value`` with everything that does not print (control characters, lone surrogates, bidi marks) as escapes:
    nothing in it can move a terminal's cursor, hide text, or look like other text.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in value)


def pasteable(command: str, encoding: str = "utf-8") -> str:
    """A command as a shell takes it from a terminal of this encoding: words that cannot be shown are written as bytes.

    ``$'...'`` is what bash, zsh, ksh and POSIX 2024 read so.
    """
    if _shows(command, encoding):
        return command
    return " ".join(shlex.quote(word) if _shows(word, encoding) else _as_bytes(word) for word in shlex.split(command))


def _shows(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # also for a name that is no text, whose bytes Python holds as lone surrogates
        return False
    return text.isprintable()


def _as_bytes(word: str) -> str:
    shown = (f"\\x{byte:02x}" if not 32 <= byte < 127 else f"\\{chr(byte)}" if byte in b"\\'" else chr(byte)
             for byte in os.fsencode(word))  # fmt: skip
    return f"$'{''.join(shown)}'"


def visible_lines(value: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(map(visible, value.split("\n")))


def shortened(value: str, most: int) -> str:
    """A text of at most about ``most`` characters, with its beginning and its end, and how much is left out."""
    if len(value) <= most:
        return value
    half = most // 2
    return f"{value[:half]} ... ({len(value) - 2 * half:,} characters) ... {value[-half:]}"


# --- many prompts ----------------------------------------------------------------------------------------------------


def first_bad_in(place: Place) -> str:
    """The layer; of bad logits, that they are, and which module gives them."""
    if place.layer != OUTPUT:
        return place.layer
    return BAD_LOGITS if place.module is None else f"{BAD_LOGITS}: {place.module} gives them"


def template_used(template: ChatTemplate) -> str:
    """Which chat template was used."""
    where = f"{template.file}, " if template.file else ""
    return f"the model's own ({where}SHA-256 {template.sha256[:12]}), for {many(template.examples, 'example')}"


def tried_on(rows: Sequence[PromptAblation]) -> str | None:
    """On how many failing examples the ablations were run, where it was not all of them."""
    ran = [row for row in rows if row.asked is not None and row.failing is not None and row.seconds]
    few = [row for row in ran if row.asked is not None and row.failing is not None and row.asked < row.failing]
    if not few:
        return None
    failing = many(few[0].failing or 0, "failing example")
    said = f"Tried on {few[0].asked:,} of the {failing}, a few of those that fail alike"
    whole = [row.name for row in ran if row.asked == row.failing]
    return f"{said}; {' and '.join(whole)} on all of them." if whole else f"{said}."
