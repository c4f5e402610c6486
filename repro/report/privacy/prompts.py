"""A run's answer and evidence without the text of its prompts (``--private-prompts``).

Prompt and token texts stand in known keys, in the sentences made of these, and, by way of exceptions and warnings, in
the last words of a process. In the first two they are replaced where they stand, in the last word by word. The token
ids of the whole prompt go as well, because anybody with the tokenizer can read them; those of the reduced input stay.
"""

import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repro.core.answer import Answer, answer_from
from repro.core.encoding import replace, to_json
from repro.report.privacy.machine import WORDS

WITHHELD = "(withheld)"
"""The placeholder of a prompt."""
SHORTEST_WORD = 4
"""Shorter words reveal little and are in every message."""
SPECIAL = re.compile(
    r"</?(?:s|bos|eos|pad|unk|mask|cls|sep)>|\[(?:CLS|SEP|PAD|UNK|MASK)\]"
    r"|<\|(?:endoftext|startoftext|begin_of_text|end_of_text|im_start|im_end|bos|eos|pad)\|>"
)
"""Tokens that every prompt of a model has: they reveal nothing about this one."""
OUTSIDE = frozenset({"stderr_tail", "lines", "traceback", "message", "error", "output", "last_words"})
"""Keys of texts written by other programs, which may contain any part of a prompt."""
COMMANDS = frozenset({"command", "argv"})
IDS = frozenset({"input_ids", "decoder_input_ids"})
SECOND = frozenset({"second_prompt", "ablation:second_prompt"})
"""The ablation whose reason ends with the text of another prompt."""
ANOTHER = "another"
"""What the kit calls that other prompt, in place of its text."""
REMARK = re.compile(r""" \((?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\)$""")


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is withheld of one run, and what stands for it.

    Attributes:
        texts: Of the prompts, longest first.
        tokens: Text of each token, and what stands for it.
        words: Of the prompts, in lower case, for texts that other programs wrote.
        pairs: Of words that follow each other in a prompt, for a piece of it in a sentence.
        shown: Which of the case's prompts was reduced, from 0.
        ids: The reduced input, or None where there is none.
    """

    texts: tuple[str, ...]
    tokens: tuple[tuple[str, str], ...]
    words: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    shown: int
    ids: tuple[int, ...] | None

    def stand_in(self, number: int) -> str:
        """What stands for a prompt: of all but the reduced one, nothing is told."""
        if number != self.shown or self.ids is None:
            return WITHHELD
        return f"(token ids {', '.join(map(str, self.ids))})"


def without_prompts(answer: Answer) -> Answer:
    """The answer without the text of its prompts, and with ``private_prompts`` set."""
    return replace(answer_from(withhold(to_json(answer), prompts_of(answer))), private_prompts=True)


def prompts_of(answer: Answer) -> Prompts:
    """What must be withheld of a run."""
    texts: set[str] = set()
    tokens: dict[str, str] = {}
    for key, value in _everywhere(to_json(answer)):
        if key == "prompts" and isinstance(value, list | tuple):
            texts.update(item for item in value if isinstance(item, str))
        elif key == "prompt" and isinstance(value, str) and value != ANOTHER:
            texts.add(value)
        elif key == "tokens" and isinstance(value, list | tuple):
            tokens.update((item, "(token)") for item in value if isinstance(item, str))
        elif key == "token" and isinstance(value, str):
            tokens[value] = "(token)"
    reduced = answer.reduction.inputs if answer.reduction else None
    if reduced is not None:  # the ids of these tokens are given anyway
        tokens |= {token: f"id {number}" for number, token in zip(reduced.ids, reduced.tokens or (), strict=False)}
    in_order = [[word.lower() for word in re.findall(r"\w+", text)] for text in texts]
    pairs = {pair for words in in_order for pair in itertools.pairwise(words) if max(map(len, pair)) >= SHORTEST_WORD}
    pieces = [*texts, *(token.strip("\u2581\u0120 ") for token in tokens if not SPECIAL.fullmatch(token))]
    words = {word.lower() for text in pieces for word in re.findall(r"\w+", text) if len(word) >= SHORTEST_WORD}
    return Prompts(
        texts=tuple(sorted(filter(None, texts), key=len, reverse=True)),
        tokens=tuple((token, word) for token, word in tokens.items() if not SPECIAL.fullmatch(token)),
        words=frozenset(words),
        pairs=frozenset(pairs),
        shown=(answer.bisect and answer.bisect.prompt) or 0,
        ids=None if reduced is None else reduced.ids,
    )


def withhold(value: Any, prompts: Prompts) -> Any:
    """Any data of the run, such as a line of its evidence, without the text of the prompts."""
    return _walk(value, prompts, outside=False)


def withhold_text(text: str, prompts: Prompts) -> str:
    """A text that other programs wrote, such as the kit's log: without the prompts and without each of their words."""
    for prompt in prompts.texts:
        for form in _forms(prompt):
            text = text.replace(form, WITHHELD)
    return re.sub(r"\w+", lambda word: "(word)" if word[0].lower() in prompts.words else word[0], text)


def _everywhere(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, however deep."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key), item
            yield from _everywhere(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _everywhere(item)


def _walk(value: Any, prompts: Prompts, *, outside: bool) -> Any:
    if isinstance(value, str):
        if value in WORDS:
            return value
        return withhold_text(value, prompts) if outside else _sentence(value, prompts)
    if isinstance(value, Mapping):
        if value.get("name") in SECOND or value.get("step") in SECOND:
            value = _without_remark(value)
        return {key: _entry(str(key), item, prompts, outside=outside) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(item, prompts, outside=outside) for item in value]
    return value


def _entry(key: str, value: Any, prompts: Prompts, *, outside: bool) -> Any:
    if value == ANOTHER:
        return value
    if isinstance(value, str) and key in ("prompt", "token"):
        return WITHHELD if key == "prompt" else _token(value, prompts)
    if isinstance(value, list | tuple) and key in ("prompts", "tokens"):
        if key == "tokens":
            return [_token(item, prompts) if isinstance(item, str) else item for item in value]
        return [_prompt(item, number, prompts) for number, item in enumerate(value)]
    if key in COMMANDS and value:
        return _command(value, prompts)
    return _walk(value, prompts, outside=outside or key in OUTSIDE)


def _token(text: str, prompts: Prompts) -> str:
    return text if SPECIAL.fullmatch(text) else dict(prompts.tokens).get(text, "(token)")


def _prompt(item: Any, number: int, prompts: Prompts) -> Any:
    """One of the prompts: its text, or what was seen with it."""
    if isinstance(item, str):
        return prompts.stand_in(number)
    if not isinstance(item, Mapping) or item.get("prompt") is None:  # ids from a seed are nobody's text
        return _walk(item, prompts, outside=False)
    known = list(prompts.ids or ()) if number == prompts.shown else []
    told = {key: known if key == "input_ids" else None for key in IDS if item.get(key) is not None}
    rest = {key: value for key, value in item.items() if key not in ("prompt", "tokens", *told)}
    return {"prompt": prompts.stand_in(number), "tokens": None, **told, **_walk(rest, prompts, outside=False)}


def _without_remark(ablation: Mapping[str, Any]) -> dict[str, Any]:
    """The ablation of another prompt without its text. The reason stands in the ablation itself or in its verdict."""
    found = dict(ablation)
    if isinstance(found.get("reason"), str):
        found["reason"] = REMARK.sub(" (another prompt)", found["reason"])
    if isinstance(found.get("verdict"), Mapping):
        found["verdict"] = _without_remark(found["verdict"])
    return found


def _command(value: Any, prompts: Prompts) -> Any:
    """A command, as words or as one line, with the stand-in behind every ``--prompt``."""
    if isinstance(value, str):
        try:
            return shlex.join(_words(shlex.split(value), prompts))
        except ValueError:  # no shell would take it either
            return withhold_text(value, prompts)
    return _words([str(word) for word in value], prompts)


def _words(words: Sequence[str], prompts: Prompts) -> list[str]:
    number = 0
    found: list[str] = []
    for word, previous in zip(words, ["", *words], strict=False):
        if previous == "--prompt" or word.startswith("--prompt="):
            given = "" if previous == "--prompt" else "--prompt="
            found.append(given + prompts.stand_in(number))
            number += 1
        else:
            found.append(_sentence(word, prompts))
    return found


def _sentence(text: str, prompts: Prompts) -> str:
    """A sentence of the toolkit, in which prompts stand whole or cut off, and tokens between quotes or brackets."""
    for prompt in prompts.texts:
        for form in _forms(prompt):
            if form in text:
                text = text.replace(form, WITHHELD)
    for token, word in prompts.tokens:
        for form in {repr(token), json.dumps(token), f"`{token}`"}:
            text = text.replace(form, word if word.startswith("(") else f"({word})")
        text = text.replace(f"without {token})", f"without {word})")
    words = list(re.finditer(r"\w+", text))
    both = [pair for pair in itertools.pairwise(words) if (pair[0][0].lower(), pair[1][0].lower()) in prompts.pairs]
    for found in sorted({word.span() for pair in both for word in pair}, reverse=True):
        text = f"{text[: found[0]]}(word){text[found[1] :]}"
    return text


def _forms(prompt: str) -> list[str]:
    """A prompt as it stands, in a repr, in JSON and in one line, longest first; a short one between quotes only."""
    forms = {prompt, repr(prompt)[1:-1], json.dumps(prompt)[1:-1], " ".join(prompt.split())}
    if len(prompt) < SHORTEST_WORD:  # "a" is in every sentence, and no prompt there
        forms = {repr(prompt), json.dumps(prompt)}
    return sorted(filter(None, forms), key=len, reverse=True)
