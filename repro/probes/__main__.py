"""``python -m repro.probes``: the same entry as ``python probes.pyz``."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
