"""What each plot shows. ``chart`` holds the pieces that all share and draws them, ``layers`` how layers are named and
thinned; ``magnitude``, ``spread`` and ``verdicts`` make the plots that sections name.
"""
