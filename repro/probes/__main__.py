"""``python -m repro.probes``: the same entry as ``python probes.pyz``."""

import os
import sys

if __name__ == "__main__":
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]  # `python -m` looks there first, and it may be a model's folder
    from .main import main

    sys.exit(main(sys.argv[1:]))
