"""Detectron2's reading of images, with errors that name the file, and watched workers."""

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.utils.file_io import PathManager
from kd_core.data.image_files import require_image
from kd_core.data.workers import Watched
from kd_core.errors import UserError
from kd_core.runtime.failures import explain, first_line
from kd_core.runtime.paths import nearest_path


class TellingMapper(DatasetMapper):
    """Detectron2's mapper with errors of one line that names the file."""

    def __call__(self, dataset_dict: dict[str, Any]) -> Any:
        """Return the sample of an entry of a data set.

        Raises:
            UserError: If its image cannot be read, or does not fit its annotations.
        """
        file = str(dataset_dict.get("file_name", "an image without file_name"))
        if "://" not in file and "file_name" in dataset_dict:
            require_image(file)  # Detectron2 would wait at a FIFO forever
        try:
            return super().__call__(dataset_dict)
        except MemoryError:
            raise
        except Exception as error:
            told = explain(error)
            what = str(told) if told else f"{type(error).__name__}: {first_line(error)}"
            raise UserError(
                f"{file}: cannot be read, or differs from its annotation ({what}); "
                "repair or remove it"
            ) from error


def require_folders(cfg: CfgNode) -> None:
    """Reject data sets whose folder of images does not exist.

    Raises:
        UserError: Names the set, and the nearest folder.
    """
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        folder = MetadataCatalog.get(name).get("image_root")
        if folder and not PathManager.isdir(folder):
            raise UserError(
                f"data set {name!r}: no folder of images {folder}"
                f"{nearest_path(Path(folder).absolute())}"
            )


def watch_workers(loader: Any, cfg: CfgNode) -> Watched:
    """Return a loader whose workers may take `KD.WORKER_TIMEOUT` seconds for a batch."""
    return Watched(loader, cfg.KD.WORKER_TIMEOUT, "KD.WORKER_TIMEOUT")
