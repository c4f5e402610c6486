"""A run folder as one archive for an issue, with a hash for everything in it."""
