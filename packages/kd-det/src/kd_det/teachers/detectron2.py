"""A teacher that is a detector of Detectron2, from its own config."""

from contextlib import nullcontext

from detectron2.config import CfgNode
from kd_core.errors import located
from kd_core.networks.probe import calibrate_batchnorm
from kd_core.networks.task import Batch

from kd_det.data.loader import drawn_from
from kd_det.networks.detector import TeacherDetector, build_detector
from kd_det.weights import load_teacher


def teacher_detector(cfg: CfgNode, teacher_cfg: CfgNode, sample: Batch) -> TeacherDetector:
    """Return the teacher with its weights.

    Args:
        cfg: The student's config.
        teacher_cfg: The teacher's; see `kd_det.config.teacher_config`.
        sample: Statistics of an untrained teacher are those of this batch.

    Raises:
        UserError: If it cannot be built, or its weights do not fit.
    """
    random = cfg.KD.TEACHER.WEIGHTS == "random"
    with drawn_from(0) if random else nullcontext():  # the same when a run is resumed
        network = build_detector(teacher_cfg, "KD.TEACHER.CONFIG: ")
    teacher = TeacherDetector(
        network,
        input_format=teacher_cfg.INPUT.FORMAT,
        given_format=cfg.INPUT.FORMAT,
    )
    if random:
        with located("KD.TEACHER.CONFIG"):
            calibrate_batchnorm(teacher, sample)
    else:
        with located("KD.TEACHER.WEIGHTS"):
            load_teacher(teacher.network, cfg.KD.TEACHER.WEIGHTS)
    return teacher
