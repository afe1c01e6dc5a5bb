"""Export a finished detector to TorchScript and to ONNX; see `--help`."""

import sys

from kd_det.export import main

if __name__ == "__main__":
    sys.exit(main())
