"""Export a re-identification network to ONNX and to PyTorch's own archive; see `--help`."""

import sys

from kd_reid.export import main

if __name__ == "__main__":
    sys.exit(main())
