"""Measure a network or saved features on any set, without training; see `--help`."""

import sys

from kd_reid.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
