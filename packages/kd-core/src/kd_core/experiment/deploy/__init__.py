"""Finished networks as files of other runtimes: ONNX, and PyTorch's own archive."""
