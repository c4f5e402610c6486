"""The same question in many cells."""
