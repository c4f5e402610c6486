"""One file for each kind of script, named for what it shows the fault with. ``checkpoint`` is what those that read the
model's files share.
"""
