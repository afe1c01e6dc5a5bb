"""Train a re-identification network, alone or with teachers; see `--help`."""

import sys

from kd_reid.train import main

if __name__ == "__main__":
    sys.exit(main())
