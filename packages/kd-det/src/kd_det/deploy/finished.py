"""A finished detector: from the folder of its run, or from a config and weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from kd_core.errors import UserError, nearest
from kd_core.runtime.console import err
from torch import nn

from kd_det.config import read_config
from kd_det.deploy.categories import Categories, fitting, numbered, of_data, of_run
from kd_det.deploy.traceable import require_deployable
from kd_det.lazy.files import ARCHITECTURE, lazy_of
from kd_det.networks.detector import build_detector
from kd_det.resume.last_checkpoint import read_last
from kd_det.weights import SafeCheckpointer

CONFIG, WEIGHTS = "config.yaml", "model_final.pth"


class Finished(NamedTuple):
    """A trained detector, on the CPU and in evaluation mode.

    Attributes:
        network: The plain detector, without a teacher.
        cfg: Its config.
        categories: Of its classes; their numbers, if the names are not known.
        weights: The file that it was loaded from.
    """

    network: nn.Module
    cfg: CfgNode
    categories: Categories
    weights: Path


def load_finished(
    path: str | Path, weights: str | None = None, options: Sequence[str] = ()
) -> Finished:
    """Load a detector for the CPU.

    Args:
        path: Folder of a run, or a config.
        weights: By default the run's last ones, or those that the config names.
        options: KEY VALUE pairs that change the config.

    Raises:
        UserError: If there is no config or no weights, or one does not fit the other.
    """
    given = Path(path).expanduser()
    cfg = read_config(_config_of(given), options)
    if cfg.MODEL.META_ARCHITECTURE == ARCHITECTURE and lazy_of(cfg) is None:
        raise UserError(
            f"{path} is the run of a LazyConfig, which is not kept with it; name that file, and "
            f"--weights {given / WEIGHTS}"
        )
    cfg.MODEL.DEVICE = "cpu"
    file = Path(weights).expanduser() if weights else _weights_of(given, cfg, options)
    network = _built(cfg)
    count = require_deployable(network)
    SafeCheckpointer(network, whole=True).load(str(file))
    cfg.MODEL.WEIGHTS = str(file)
    found = of_run(given) if given.is_dir() else of_data(cfg) or of_run(Path(file).parent)
    found = fitting(found or of_data(cfg), count, str(path))
    if found is None:
        err.print(
            f"{path}: the names of its {count} classes are not known, so they are numbers; "
            "--register the data set that it was trained on"
        )
    return Finished(network.eval(), cfg, found or numbered(count), file)


def _config_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    if (path / CONFIG).is_file():
        return path / CONFIG
    runs = [str(found.parent) for found in path.glob(f"*/{CONFIG}")]
    hint = nearest("", runs) or "; a run of tools/det_train.py writes it at its start"
    raise UserError(f"{path} has no {CONFIG}{hint}")


def _weights_of(path: Path, cfg: CfgNode, options: Sequence[str]) -> Path:
    """Return the weights of a run or config, where none are given."""
    if path.is_dir() and "MODEL.WEIGHTS" not in options[::2]:
        if (path / WEIGHTS).is_file():
            return path / WEIGHTS
        if (path / "last_checkpoint").is_file():
            last = read_last(path)
            err.print(f"{path} is not finished; its last checkpoint is used: {last.name}")
            return last
        raise UserError(f"{path} has no {WEIGHTS}; name a finished run, or add --weights FILE")
    if not cfg.MODEL.WEIGHTS:
        raise UserError(f"{path} names no weights; add --weights FILE")
    return Path(cfg.MODEL.WEIGHTS) if "://" not in cfg.MODEL.WEIGHTS else cfg.MODEL.WEIGHTS


def _built(cfg: CfgNode) -> nn.Module:
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        known = [each for each, _ in META_ARCH_REGISTRY]
        raise UserError(
            f"MODEL.META_ARCHITECTURE: Detectron2 has no {name!r}{nearest(name, known)}"
        )
    return build_detector(cfg)
