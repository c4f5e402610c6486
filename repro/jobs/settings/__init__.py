"""``repro config-diff``: what jobs set differently, and which file wins where several are laid over each other.

``reading`` turns a YAML, JSON or TOML file into a tree that keeps types and lines; ``layers`` lays the files of a job
over each other; ``comparing`` walks the trees of all jobs side by side; ``matters`` says which keys can make a NaN.
"""
