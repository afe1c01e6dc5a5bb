"""Predict the classes of image files with a finished student; see `--help`."""

import sys

from kd_cls.predict import main

if __name__ == "__main__":
    sys.exit(main())
