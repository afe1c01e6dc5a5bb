"""Convert torchvision's ImageNet weights to a backbone of Detectron2; see `--help`."""

import sys

from kd_det.convert import main

if __name__ == "__main__":
    sys.exit(main())
