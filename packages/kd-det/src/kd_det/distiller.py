"""Distiller of Detectron2 models, built from a Detectron2 config."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from kd_core import Distiller
from kd_core.distill.progress import tell_of_schedules
from kd_core.distill.term import build_terms
from kd_core.distill.term_spec import TermSpec
from kd_core.errors import UserError, located
from kd_core.networks.probe import calibrate_batchnorm
from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from torch import nn

import kd_det.networks.backbones  # noqa: F401  registers MobileNetV2 with Detectron2
from kd_det.config import teacher_config
from kd_det.data.loader import drawn_from
from kd_det.networks.detector import Detector, TeacherDetector, build_detector
from kd_det.roles import ROI_LOGITS
from kd_det.terms import parse_terms
from kd_det.weights import load_teacher

PADDED = "backbone:in"  # the batch of images after the student's normalisation
REGIONS = "roi_heads[0]"  # the regions of the student's box head in training
ANCHORS = "anchor_generator"

Inputs = list[dict[str, Any]]


class DetectionDistiller(Distiller):
    """Distiller of detectors: trains on the task losses and on the teacher's maps and logits.

    It takes and returns the same as Detectron2's models, so their trainers can train it. Criteria
    find in the batch `boxes` (a tuple of [boxes, 4] in pixels of the resized images, one
    an image), `image_sizes` (int64 [N, 2], height and width), `padded_size` (height and width of
    the padded batch), for logits of regions `label` (their classes, background included), and for
    RetinaNet's towers `anchors` (a list of [R, 4], one a level) and `gt_labels` ([N, all R]: the
    class, the number of classes for background, -1 if ignored).
    """

    student_first = True  # a teacher's head runs on the student's regions

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, teacher in self.teachers.items():
            if isinstance(teacher.model, TeacherDetector):
                teacher.model.run_for(self.teacher_paths(name))

    @property
    def network(self) -> nn.Module:
        """The student: a plain Detectron2 model."""
        student = self.student
        assert isinstance(student, Detector)
        return student.network

    def forward(self, batch: Inputs | Batch) -> Any:
        """Return named losses while training, the student's predictions otherwise."""
        return super().forward({"inputs": batch} if isinstance(batch, list) else batch)

    def own_taps(self) -> list[str]:
        """Return the taps that fill the batch."""
        wanted = [tap for term in self.terms.values() for tap in term.student]
        taps = [PADDED] if hasattr(self.network, "backbone") else []
        if ROI_LOGITS in wanted:
            taps.append(REGIONS)
        if any(tap.startswith("head.") for tap in wanted) and hasattr(self.network, ANCHORS):
            taps.append(ANCHORS)
        return taps

    def run_teacher(
        self, name: str, batch: Batch, student_features: dict[str, Any]
    ) -> dict[str, Any]:
        """Run the teacher on the student's images and regions."""
        if REGIONS in student_features:
            batch = {**batch, "proposals": student_features[REGIONS]}
        return self.teachers[name](batch)

    def complete(self, batch: Batch, student_features: dict[str, Any]) -> Batch:
        """Return the batch with the entries that the class describes."""
        device = self.steps.device
        truth = [one["instances"].to(device) for one in batch["inputs"]]
        sizes = [one["image"].shape[-2:] for one in batch["inputs"]]
        batch = {
            **batch,
            "boxes": tuple(one.gt_boxes.tensor for one in truth),
            "image_sizes": torch.tensor(sizes, device=device),
        }
        if PADDED in student_features:
            batch["padded_size"] = tuple(student_features[PADDED].shape[-2:])
        if REGIONS in student_features:
            batch["label"] = torch.cat(
                [regions.gt_classes for regions in student_features[REGIONS]]
            )
        if ANCHORS in student_features:
            student: Any = self.network
            labels, _ = student.label_anchors(student_features[ANCHORS], truth)
            batch["anchors"] = [boxes.tensor for boxes in student_features[ANCHORS]]
            batch["gt_labels"] = torch.stack(labels)
        return batch


def build_distiller(cfg: CfgNode) -> DetectionDistiller:
    """Build student, teacher and terms of a config, on `MODEL.DEVICE`.

    The student's weights are not loaded; Detectron2's checkpointer does that.

    Raises:
        UserError: If the KD node does not fit the two detectors.
    """
    specs = parse_terms(cfg)
    teacher_cfg = teacher_config(cfg)
    student = Detector(build_detector(cfg))
    _check_regions(cfg, specs)
    random = cfg.KD.TEACHER.WEIGHTS == "random"
    with drawn_from(0) if random else nullcontext():  # the same when a run is resumed
        network = build_detector(teacher_cfg, "KD.TEACHER.CONFIG: ")
    teacher = TeacherDetector(
        network,
        input_format=teacher_cfg.INPUT.FORMAT,
        given_format=cfg.INPUT.FORMAT,
    )
    teachers, sample = {"teacher": teacher}, sample_batch(student.network)
    if random:
        calibrate_batchnorm(teacher, sample)
    else:
        with located("KD.TEACHER.WEIGHTS"):
            load_teacher(teacher.network, cfg.KD.TEACHER.WEIGHTS)
    classes = _num_classes(cfg, student.network)
    terms = build_terms(specs, student, teachers, sample, where="KD.TERMS", num_classes=classes)
    distiller = DetectionDistiller(
        student,
        teachers,
        {f"loss_{name}": term for name, term in terms.items()},
        task_weight=cfg.KD.TASK_WEIGHT,
        sample=sample,
    )
    distiller.begin(steps_per_epoch=1)  # Detectron2 counts iterations, and so do warm-ups here
    if distributed.rank() == 0:
        tell_of_schedules(terms, cfg.SOLVER.MAX_ITER, "iterations")
    return distiller.to(cfg.MODEL.DEVICE)


def inherit(student: nn.Module, teacher: nn.Module, prefixes: Sequence[str]) -> None:
    """Copy the teacher's weights with one of these name prefixes into the student.

    Raises:
        UserError: If no name has the prefix, or the student has no such tensor of this shape.
    """
    own = student.state_dict()
    for prefix in prefixes:
        state = {k: value for k, value in teacher.state_dict().items() if k.startswith(prefix)}
        unfit = [k for k, value in state.items() if k not in own or own[k].shape != value.shape]
        if unfit or not state:
            problem = f"{unfit[0]!r} has no counterpart of its shape" if unfit else "nothing has it"
            raise UserError(
                f"KD.INHERIT: {prefix!r}: {problem} in the student; name a prefix of weights "
                "that both detectors have, such as roi_heads. or backbone.fpn_output"
            )
        student.load_state_dict(state, strict=False)


def sample_batch(network: nn.Module, size: int = 128) -> Batch:
    """Return two images of noise with one region each, to infer shapes."""
    generator, device = torch.Generator().manual_seed(0), next(network.parameters()).device
    inputs, regions = [], []
    for _ in range(2):
        image = torch.randint(256, (3, size, size), dtype=torch.uint8, generator=generator)
        corners = torch.tensor([[0.0, 0.0, size, size]], device=device)
        logits = torch.zeros(1, device=device)
        region = Instances((size, size), proposal_boxes=Boxes(corners), objectness_logits=logits)
        regions.append(region)
        # Detectors without an RPN, with files of proposals, need them here.
        inputs.append({"image": image, "height": size, "width": size, "proposals": region})
    return {"inputs": inputs, "proposals": regions}


def _check_regions(cfg: CfgNode, specs: Mapping[str, TermSpec]) -> None:
    """Reject a config that replaces regions after the student's logits are computed."""
    calls = [spec.call for spec in specs.values()]
    taps = {tap for call in calls for side in ("student", "teacher") for tap in call[side]}
    if cfg.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES and "@roi_logits" in taps:
        raise UserError(
            "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES replaces the regions of the student's logits, "
            "so the teacher cannot run on the same ones; set it to False"
        )


def _num_classes(cfg: CfgNode, network: Any) -> int:
    if hasattr(network, "num_classes"):
        return int(network.num_classes)  # of a dense head
    heads = getattr(network, "roi_heads", None)
    # Background is a class of a box head.
    return int(getattr(heads, "num_classes", cfg.MODEL.ROI_HEADS.NUM_CLASSES)) + 1
