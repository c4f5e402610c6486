"""``repro scan``: which result files hold a NaN or Inf, in which key, column or tensor, and where first.

``looking`` walks the paths and asks the reader that a file's name stands for; every reader fills a ``findings.Tally``.
Files are read as untrusted: in pieces, so that memory does not grow with them, and no pickle is ever executed.
"""
