"""A script as a tree, and a tree as text."""
