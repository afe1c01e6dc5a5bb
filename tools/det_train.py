"""Train or distil a detector; see `--help`. Without --config-file the demo runs."""

import sys

from kd_det.train import main

if __name__ == "__main__":
    sys.exit(main())
