"""Embed the pictures of a folder with any network; see `--help`."""

import sys

from kd_reid.embed import main

if __name__ == "__main__":
    sys.exit(main())
