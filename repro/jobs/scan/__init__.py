"""``repro scan``: which result files hold a NaN or Inf, in which key, column or tensor, and where first.

``looking`` walks the paths. Texts are read here, each by the reader that its name stands for, into a
``findings.Tally``; ``tensor_files`` has the kit read the others. Files are untrusted: they are read in pieces, and no
pickle is executed.
"""
