"""``python -m matinfo``: the command line."""

import sys

from matinfo.cli import main

if __name__ == "__main__":
    sys.exit(main())
