"""``python -m repro``: the same as the command ``repro``."""

import sys

from repro.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
