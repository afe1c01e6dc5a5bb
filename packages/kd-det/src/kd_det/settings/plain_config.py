"""The config of a run's student for plain Detectron2, beside its checkpoints."""

from pathlib import Path

from detectron2.config import CfgNode
from kd_core.files.checkpoint import save_text

from kd_det.lazy.files import lazy_of
from kd_det.settings.imports import shared_defaults
from kd_det.settings.keys import own_keys

FILE = "student.yaml"
WEIGHTS = "model_final.pth"


def write_plain(cfg: CfgNode) -> None:
    """Write `student.yaml` into OUTPUT_DIR: the config without KD, and the student's weights.

    `get_cfg().merge_from_file` reads it, which rejects the `config.yaml` of Detectron2's set-up.
    A LazyConfig is plain Detectron2 already: nothing is written for it.
    """
    if lazy_of(cfg) is not None:
        return
    folder = Path(cfg.OUTPUT_DIR).absolute()
    plain = cfg.clone()
    plain.defrost()
    plain.pop("KD", None)
    plain.MODEL.WEIGHTS = str(folder / WEIGHTS)
    own = sorted({".".join(path) for path in own_keys(plain, shared_defaults())})
    needed = f"# Before it is read, these keys must be added: {', '.join(own)}.\n" if own else ""
    head = "# Of plain Detectron2: get_cfg(), then merge_from_file(...).\n"
    save_text(head + needed + plain.dump(), folder / FILE)
