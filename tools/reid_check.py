"""Check a re-identification data set before training on it; see `--help`."""

import sys

from kd_reid.check import main

if __name__ == "__main__":
    sys.exit(main())
