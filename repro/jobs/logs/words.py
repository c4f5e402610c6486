"""Numbers of things in words."""


def many(count: int, noun: str) -> str:
    """``1 line``, ``1,200 lines``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
