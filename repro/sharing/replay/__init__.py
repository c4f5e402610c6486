"""A bundle run again elsewhere."""
