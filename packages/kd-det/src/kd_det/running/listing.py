"""What can be tapped in the student and the teacher of a config: `--list-taps`."""

from detectron2.config import CfgNode
from kd_core.experiment import report
from kd_core.networks.probe import explained, shapes, tap_values
from kd_core.networks.roles import tap_list
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch
from kd_core.runtime.console import out
from rich.table import Column, Table

from kd_det.config import teacher_config
from kd_det.distiller import sample_batch
from kd_det.networks.detector import Detector, build_detector
from kd_det.roles import ROLES
from kd_det.running.dry_run import without_weights
from kd_det.teachers.building import map_strides


def list_taps(cfg: CfgNode) -> None:
    """Print roles and modules with their shapes, of models with random weights; no data is read."""
    without_weights(cfg)
    models = {"student": cfg}
    if cfg.KD.TERMS and not cfg.KD.TEACHER.NETWORK:
        models["teacher"] = teacher_config(cfg)
    for side, own in models.items():
        detector = Detector(build_detector(own, "KD.TEACHER.CONFIG: " * (side == "teacher")))
        sample = sample_batch(detector.network)
        out.print(f"{side}, of 128 x 128 pixels; N is the number of images, or of regions:")
        out.print(_roles_table(detector, sample))
        with explained(detector, sample):
            out.print(report.taps_listing(detector, sample))
    if cfg.KD.TERMS and cfg.KD.TEACHER.NETWORK:
        out.print(_maps_table(cfg))


def _maps_table(cfg: CfgNode) -> Table:
    """Return the maps of a teacher that is not of Detectron2, which `@fpn` stands for."""
    table = Table("stride", Column("tap", no_wrap=True), title="teacher: maps (KD.TEACHER.MAPS)")
    for tap, stride in map_strides(cfg).items():
        table.add_row(f"{float(stride):g}", tap)
    return table


def _roles_table(detector: Detector, sample: Batch) -> Table:
    """Return every role of a detector, its taps and their shapes."""
    table = Table("role", "what it is", Column("taps", no_wrap=True), title="roles")
    paths = [path for role in detector.roles for path in tap_list(f"@{role}", detector)]
    _, values = tap_values(detector, FeatureTap(detector.network, paths), sample)
    found = shapes(values)
    for role in detector.roles:
        taps = report.taps_text(found, tap_list(f"@{role}", detector))
        table.add_row(f"@{role}", ROLES[role].what, taps)
    return table
