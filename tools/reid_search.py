"""Find the pictures of a gallery that look like others; see `--help`."""

import sys

from kd_reid.search import main

if __name__ == "__main__":
    sys.exit(main())
