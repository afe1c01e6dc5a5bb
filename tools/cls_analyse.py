"""Compare trained classifiers, in tables and pictures; see `--help`."""

import sys

from kd_cls.analyse import main

if __name__ == "__main__":
    sys.exit(main())
