"""Check a data set in the COCO format before training on it; see `--help`."""

import sys

from kd_det.check import main

if __name__ == "__main__":
    sys.exit(main())
