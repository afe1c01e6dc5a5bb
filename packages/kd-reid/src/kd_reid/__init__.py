"""Distil person re-identification models of torchreid."""

import warnings

try:
    # Use `torchreid.models` and the like, never a path below: PyPI's torchreid and the official
    # one differ there.
    with warnings.catch_warnings():
        # A warning that its compiled ranking is missing; it is not used here.
        warnings.filterwarnings("ignore", message="Cython evaluation")
        import torchreid
except ImportError as error:
    raise ImportError(
        f"kd_reid needs torchreid ({error}): `pip install 'torchreid>=0.2.5' scipy gdown "
        "opencv-python-headless tensorboard six`, since it does not list what it needs itself",
        name="torchreid",
    ) from error

__all__ = ["torchreid"]
