"""Detectron2's reading of images, with errors that name the file, and watched workers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError
from kd_core.data.workers import Watched
from kd_core.errors import UserError
from kd_core.runtime.failures import explain, first_line

from kd_det.data.image_rules import is_url, require_readable, size_text


class FileNamingMapper(DatasetMapper):
    """Detectron2's mapper with errors of one line that names the file."""

    def __call__(self, dataset_dict: dict[str, Any]) -> Any:
        """Return the sample of an entry of a data set.

        Raises:
            UserError: If its image cannot be read, would be misread, or does not fit its
                annotations.
        """
        file = str(dataset_dict.get("file_name", "an image without file_name"))
        if "file_name" in dataset_dict:
            require_readable(file)  # Detectron2 would wait at a FIFO forever
        try:
            return super().__call__(dataset_dict)
        except MemoryError:
            raise
        except Exception as error:
            raise UserError(f"{file}: {_what(file, dataset_dict, error)}") from error


def _what(file: str, entry: dict[str, Any], error: Exception) -> str:
    explained = explain(error)
    what = str(explained) if explained else f"{type(error).__name__}: {first_line(error)}"
    if isinstance(error, SizeMismatchError) and not is_url(file):
        what = size_text(file, entry)
    return f"cannot be read, or differs from its annotation ({what}); repair it, or drop its entry"


@contextmanager
def reading_sets(names: Sequence[str]) -> Iterator[None]:
    """Turn Detectron2's assertions about the records of data sets into errors of one line."""
    try:
        yield
    except UserError:
        raise
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        what = first_line(error) or "an assertion of Detectron2"
        raise UserError(
            f"{', '.join(names)}: Detectron2 cannot read such data ({type(error).__name__}: "
            f"{what}); repair its records"
        ) from error


def watch_workers(loader: Any, cfg: CfgNode) -> Watched:
    """Return a loader whose workers may take `KD.WORKER_TIMEOUT` seconds for a batch."""
    return Watched(loader, cfg.KD.WORKER_TIMEOUT, "KD.WORKER_TIMEOUT")
