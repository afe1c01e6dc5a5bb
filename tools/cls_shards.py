"""Make WebDataset shards of a folder of images; see `--help`."""

import sys

from kd_cls.shards import main

if __name__ == "__main__":
    sys.exit(main())
