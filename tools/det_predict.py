"""Show the objects in pictures, by a finished or an exported detector; see `--help`."""

import sys

from kd_det.predict import main

if __name__ == "__main__":
    sys.exit(main())
