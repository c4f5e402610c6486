"""Chat messages in an entry of a prompt file: lists of {role, content}, as data sets of conversations have them."""

from collections.abc import Mapping, Sequence
from typing import Any

from repro.core.errors import UsageError

Message = tuple[str, str]
"""Role and content."""
FIELDS = ("messages", "conversations", "conversation")
"""Where a conversation is looked for in an entry."""
NAMES = (("role", "content"), ("from", "value"))
"""Names of a message's two parts; the second pair is ShareGPT's."""
ROLES = {"human": "user", "gpt": "assistant"}
"""ShareGPT's names of roles, and what chat templates call them."""


def is_chat(value: object) -> bool:
    """Whether a value is a list of messages."""
    return isinstance(value, list) and bool(value) and all(_names(item) is not None for item in value)


def messages_in(value: Sequence[Any], place: str) -> tuple[Message, ...]:
    """The messages of a value that ``is_chat``.

    Raises:
        UsageError: a content is no text, such as a picture; names the place.
    """
    found = []
    for number, item in enumerate(value):
        names = _names(item)
        assert names is not None  # is_chat has seen to it
        role, content = item[names[0]], item[names[1]]
        text = _content(content)
        if not isinstance(role, str) or text is None:
            kind = type(role if not isinstance(role, str) else content).__name__
            raise UsageError(f"{place}, message {number}: expected a role and a content of text; found {kind}.")
        found.append((ROLES.get(role, role), text))
    return tuple(found)


def joined(messages: Sequence[Message]) -> str:
    """The contents without their roles, a line end between two."""
    return "\n".join(content for _, content in messages)


def _names(item: object) -> tuple[str, str] | None:
    if not isinstance(item, Mapping):
        return None
    return next((names for names in NAMES if all(name in item for name in names)), None)


def _content(content: object) -> str | None:
    """A text, or the texts of a list of parts; None where a part is something else. No content is an empty one."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    found = [text for text in texts if isinstance(text, str)]
    return "".join(found) if len(found) == len(texts) else None
