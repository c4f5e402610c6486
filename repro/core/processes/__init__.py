"""Processes that belong to another one, and end with it."""
