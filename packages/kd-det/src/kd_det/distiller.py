"""Distiller of Detectron2 models, built from a Detectron2 config."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from kd_core import Distiller
from kd_core.distill.progress import note_schedules
from kd_core.distill.term import build_terms
from kd_core.distill.term_spec import TermSpec
from kd_core.errors import UserError, located
from kd_core.networks.probe import training_pass
from kd_core.networks.roles import tap_list
from kd_core.networks.task import Batch
from kd_core.runtime import distributed
from torch import nn

from kd_det.config import teacher_config
from kd_det.data.unlabelled import learns_without_labels
from kd_det.matching.categories import (
    align_categories,
    known_categories,
    require_same,
    require_same_channels,
)
from kd_det.matching.pairing import check_levels, pair_levels
from kd_det.matching.regions import Pairs, RegionTerm, check_anchors, paired, watched, with_labels
from kd_det.networks.detector import Detector, TeacherDetector, build_detector
from kd_det.networks.parts import module_path, parts_of
from kd_det.settings.idle_keys import note_size
from kd_det.teachers.building import map_teacher
from kd_det.teachers.detectron2 import teacher_detector
from kd_det.teachers.network import MapTeacher
from kd_det.teachers.nodes import check_teacher_node
from kd_det.teachers.taps import only_backbone
from kd_det.terms import parse_terms

PADDED = "backbone:in"  # the batch of images after the student's normalisation
ANCHORS = "anchor_generator"

Inputs = list[dict[str, Any]]


class DetectionDistiller(Distiller):
    """Distiller of detectors: trains on the task losses and on the teacher's maps and logits.

    It takes and returns the same as Detectron2's models, so their trainers can train it. Criteria
    find in the batch `image_sizes` (int64 [N, 2], height and width), `padded_size` (height and
    width of the padded batch) and, where images have objects, `boxes` (a tuple of [boxes, 4] in
    pixels of the resized images, one an image). For taps of regions there is `label` (their
    classes, background included), for taps in a dense head (RetinaNet, FCOS) `anchors` (a list of
    [R, 4], one a level) and `gt_labels` ([N, all R]: the class, the number of classes for
    background, -1 if ignored).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ours, self.regions = parts_of(self.network), dict[str, Pairs]()
        for name, teacher in self.teachers.items():
            terms = {key: self.terms[key] for key in self.terms if self.source(key) == name}
            self.regions[name] = paired(terms, ours, parts_of(teacher.network))
            check_anchors(terms, self.network, teacher.network)
        # A head runs on the student's regions, a foreign network on images padded as the student's.
        foreign = [one for one in self.teachers.values() if isinstance(one.model, MapTeacher)]
        self.student_first = any(self.regions.values()) or bool(foreign)
        self.terms = with_labels(self.terms, ours)
        taps = [tap for term in self.terms.values() for tap in term.student]
        if self.task_weight == 0 and only_backbone(self.network, taps):
            self.student.train_backbone_alone()  # type: ignore[operator]

    @property
    def network(self) -> nn.Module:
        """The student: a plain Detectron2 model."""
        student = self.student
        assert isinstance(student, Detector)
        return student.network

    def forward(self, batch: Inputs | Batch) -> Any:
        """Return named losses while training, the student's predictions otherwise."""
        batch = {"inputs": batch} if isinstance(batch, list) else batch
        if not self.training:
            return super().forward(batch)
        keys = {key for pairs in self.regions.values() for key in pairs.values()}
        keys |= {term.part for term in self.terms.values() if isinstance(term, RegionTerm)}
        with watched(self.network, keys) as regions:
            return super().forward({**batch, "regions": regions})

    def infer_shapes(self, sample: Batch) -> None:
        """Let teachers run what is tapped, then see `Distiller`."""
        for name, teacher in self.teachers.items():
            if isinstance(teacher.model, TeacherDetector | MapTeacher):
                teacher.model.run_for(self.teacher_paths(name))
        super().infer_shapes(sample)

    def accelerate_teachers(self) -> None:
        """Run faster copies of the teachers from now on; see `Teacher.accelerate`."""
        sample = sample_batch(self.network)
        for teacher in self.teachers.values():
            teacher.accelerate(sample)

    def own_taps(self) -> list[str]:
        """Return the taps that fill the batch."""
        wanted = [tap for term in self.terms.values() for tap in term.student]
        taps = [PADDED] if hasattr(self.network, "backbone") else []
        dense = any(module_path(tap).partition(".")[0] == "head" for tap in wanted)
        if dense and hasattr(self.network, ANCHORS):
            taps.append(ANCHORS)
        return taps

    def run_teacher(
        self, name: str, batch: Batch, student_features: dict[str, Any]
    ) -> dict[str, Any]:
        """Run the teacher on the student's images and regions."""
        found, pairs = batch["regions"], self.regions[name]
        if missing := set(pairs.values()) - found.keys():
            raise UserError(
                f"the student's {missing.pop()} was not called with its regions, on which the "
                "teacher should run; tap maps, such as @fpn, instead"
            )
        boxes = {theirs: found[ours].boxes for theirs, ours in pairs.items()}
        batch = {**batch, "regions": boxes}
        if PADDED in student_features:
            batch["padded_size"] = tuple(student_features[PADDED].shape[-2:])
        return self.teachers[name](batch)

    def complete(self, batch: Batch, student_features: dict[str, Any]) -> Batch:
        """Return the batch with the entries that the class describes."""
        device = self.steps.device
        inputs = batch["inputs"]
        sizes = [one["image"].shape[-2:] for one in inputs]
        batch = {**batch, "image_sizes": torch.tensor(sizes, device=device)}
        truth = [one["instances"].to(device) for one in inputs if "instances" in one]
        if len(truth) == len(inputs):
            batch["boxes"] = tuple(one.gt_boxes.tensor for one in truth)
        if PADDED in student_features:
            batch["padded_size"] = tuple(student_features[PADDED].shape[-2:])
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
    check_teacher_node(cfg)
    teacher_cfg = None if cfg.KD.TEACHER.NETWORK else teacher_config(cfg)
    student = Detector(build_detector(cfg))
    sample = sample_batch(student.network)
    teacher: MapTeacher | TeacherDetector
    if teacher_cfg is None:
        teacher, by_stride = map_teacher(cfg, student, specs, sample)
        difference = ""
    else:
        teacher = teacher_detector(cfg, teacher_cfg, sample)
        difference = align_categories(teacher.network, known_categories(cfg), teacher_cfg)
        by_stride = pair_levels(specs, student, teacher)
        _run_for_terms(teacher, student, by_stride)
    teachers = {"teacher": teacher}
    classes = _num_classes(cfg, student.network)
    terms = build_terms(by_stride, student, teachers, sample, where="KD.TERMS", num_classes=classes)
    require_same(terms, difference)
    distiller = DetectionDistiller(
        student,
        teachers,
        {f"loss_{name}": term for name, term in terms.items()},
        task_weight=cfg.KD.TASK_WEIGHT,
        sample=sample,
    )
    check_levels(specs, distiller)
    require_same_channels(distiller.terms, cfg, teacher_cfg)
    if learns_without_labels(cfg):
        training_pass(distiller, sample)  # refuses criteria that read boxes
    distiller.begin(steps_per_epoch=1)  # Detectron2 counts iterations, and so do warm-ups here
    if distributed.rank() == 0:
        note_size(cfg, teacher_cfg)
        note_schedules(terms, cfg.SOLVER.MAX_ITER, "iterations")
    return distiller.to(cfg.MODEL.DEVICE)


def _run_for_terms(
    teacher: TeacherDetector, student: Detector, specs: Mapping[str, TermSpec]
) -> None:
    """Let the teacher run what terms tap, before the passes that show the shapes."""
    paths = []
    for name, spec in specs.items():
        for side, model in (("student", student), ("teacher", teacher)):
            with located(f"KD.TERMS.{name}.{side}"):
                found = tap_list(spec.call[side], model)
        paths += found
    teacher.run_for(paths)


def inherit(student: nn.Module, teacher: nn.Module, prefixes: Sequence[str]) -> None:
    """Copy the teacher's weights with one of these name prefixes into the student.

    Raises:
        UserError: If no name has the prefix, or the student has no such tensor of this shape.
    """
    own = student.state_dict()
    for prefix in prefixes:
        if not isinstance(prefix, str):
            raise UserError(f"KD.INHERIT: {prefix!r}: wanted a prefix of weights, as a text")
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
    corners, inputs = torch.tensor([[0.0, 0.0, size, size]], device=device), []
    for _ in range(2):
        image = torch.randint(256, (3, size, size), dtype=torch.uint8, generator=generator)
        # For a teacher's heads, and for detectors without an RPN, with files of proposals.
        region = Instances((size, size), proposal_boxes=Boxes(corners))
        region.objectness_logits = torch.zeros(1, device=device)
        inputs.append({"image": image, "height": size, "width": size, "proposals": region})
    return {"inputs": inputs}


def _num_classes(cfg: CfgNode, network: Any) -> int:
    if hasattr(network, "num_classes"):
        return int(network.num_classes)  # of a dense head
    heads = getattr(network, "roi_heads", None)
    # Background is a class of a box head.
    return int(getattr(heads, "num_classes", cfg.MODEL.ROI_HEADS.NUM_CLASSES)) + 1
