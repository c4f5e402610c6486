"""The smallest case that shows the same fault."""
