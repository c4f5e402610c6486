"""``repro config-diff``: which settings of jobs differ, and which file wins where one overrides another.

``reading`` turns a YAML, JSON or TOML file into a tree that keeps types and lines; ``layers`` merges the files of a
job; ``comparing`` walks the trees of all jobs side by side; ``matters`` says which keys can cause NaN.
"""
