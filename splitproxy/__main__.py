"""`python -m splitproxy` is the `splitproxy` command."""

import sys

from splitproxy.cli import main

if __name__ == "__main__":
    sys.exit(main())
