"""An exception of the model's, the script's or a library's code in words."""

import contextlib
from collections.abc import Iterator

# A kernel that this device or build lacks says so in one of these ways; that is "could not tell", in plain words.
LACKING = ("not implemented for", "does not support", "doesn't support", "not supported")


class Panicked(RuntimeError):
    """A library that is written in Rust met what its authors held to be impossible."""


@contextlib.contextmanager
def panics_raised() -> Iterator[None]:
    """Within it, a panic is an exception like any other: its own class is one that ``except Exception`` does not see.

    Raises:
        Panicked: with what the library says.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the class is made anew in each library, and cannot be imported
            raise
        raise Panicked(str(error)) from None


def one_line(message: str, most: int = 300) -> str:
    """The beginning of a message in one line that can be read, without the C++ frames that PyTorch appends."""
    return " ".join(message.partition("Exception raised from ")[0].split())[:most]


def in_words(raised: BaseException) -> str:
    """One line: what was raised, and whether it only says that a kernel is missing."""
    return words_of(type(raised).__name__, str(raised))


def words_of(name: str, message: str) -> str:
    """The same for an exception of which only its class's name and its message are here."""
    text = one_line(message, 500)
    if any(words in text for words in LACKING):
        return f"this PyTorch has no kernel for it here: {text}"
    return f"{name}: {text}"
