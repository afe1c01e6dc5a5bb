"""Train the rows of a table over the same seeds and print it; see `--help`."""

import sys

from kd_reid.compare import main

if __name__ == "__main__":
    sys.exit(main())
