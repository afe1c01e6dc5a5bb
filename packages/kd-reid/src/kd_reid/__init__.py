"""Distil person re-identification models of torchreid. So far: finding torchreid."""

try:
    # Never a path below these: PyPI's torchreid and the official one have them in other places.
    from torchreid import data, engine, losses, metrics, models, optim, utils
except ImportError as error:
    raise ImportError(
        f"kd_reid needs torchreid ({error}): `pip install 'torchreid>=0.2.5' scipy gdown "
        "opencv-python-headless tensorboard six`, since it does not list what it needs itself",
        name="torchreid",
    ) from error

__all__ = ["data", "engine", "losses", "metrics", "models", "optim", "utils"]
