"""Versions, processor, settings; and the process put back as it was."""
