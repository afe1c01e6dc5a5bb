"""Train or distil an image classifier; see `--help`. Without CONFIG the demo runs."""

import sys

from kd_cls.train import main

if __name__ == "__main__":
    sys.exit(main())
