"""What the options of an analysis may be; nothing here imports torch."""

from typing import Literal, get_args

LAYERS = ("@stages", "@pooled")
"""Whose features CKA compares, by default."""

Matrix = Literal["correlation", "means"]
MATRICES = get_args(Matrix)

Method = Literal["auto", "cam", "gradcam"]
METHODS = get_args(Method)

Pool = Literal["mean", "none"]
POOLS = get_args(Pool)

Target = Literal["predicted", "true"]
TARGETS = get_args(Target)
