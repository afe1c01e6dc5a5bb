"""Distil person re-identification models of torchreid.

`from kd_reid import torchreid` gives torchreid, wherever it comes from. Its parts are reached as
`torchreid.models`, never by a path below: different releases have them in other places.
"""

import warnings
from typing import TYPE_CHECKING, Any

from kd_core.errors import missing_attribute

if TYPE_CHECKING:
    import torchreid

__all__ = ["torchreid"]

TITLE = "Train or distil a person re-identification network"
"""What its tools do, for their help."""


def __getattr__(name: str) -> Any:
    if name != "torchreid":
        raise missing_attribute(__name__, name, __all__)
    try:
        with warnings.catch_warnings():
            # That its compiled ranking is missing: it is not used here.
            warnings.filterwarnings("ignore", message="Cython evaluation")
            import torchreid
    except ImportError as error:
        raise ImportError(
            f"kd_reid needs torchreid ({error}): `pip install 'torchreid>=0.2.5' scipy gdown "
            "opencv-python-headless tensorboard six`, since it does not list what it needs itself",
            name="torchreid",
        ) from error
    globals()[name] = torchreid  # next time Python finds it without this function
    return torchreid


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
