"""A reduced case as Python text: its tensors, its operator calls, and the names that these have."""
