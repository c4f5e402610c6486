"""Files that somebody else wrote: whether they are files at all, and their bytes."""

from repro.core.foreign.opening import NotAFile, check_is_file, dead_link, open_foreign, open_text, read_foreign

__all__ = ["NotAFile", "check_is_file", "dead_link", "open_foreign", "open_text", "read_foreign"]
