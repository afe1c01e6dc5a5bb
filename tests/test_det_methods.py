"""Every detection method lowers its loss, and finds nothing to learn from itself."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from kd_core.errors import UserError

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage
from kd_det.config import read_config
from kd_det.distiller import build_distiller, sample_batch

CONFIGS = Path(__file__).parents[1] / "configs/det"
METHODS = sorted(CONFIGS.glob("methods/*.yaml"))
DISTILLED = sorted(path for path in CONFIGS.glob("*.yaml") if "KD:" in path.read_text())
OTHER_HEADS = {  # methods by the end of their name, and what they are for
    "mask": ("mask_rcnn", {"MASK_ON": True, "ROI_MASK_HEAD": {"NUM_CONV": 1, "CONV_DIM": 8}}),
    "rpn": ("faster_rcnn", {}),
    "cascade": (
        "cascade_rcnn",
        {
            "ROI_HEADS": {"NAME": "CascadeROIHeads"},
            "ROI_BOX_HEAD": {"CLS_AGNOSTIC_BBOX_REG": True},
        },
    ),
    "keypoints": (
        "keypoint_rcnn",
        {"KEYPOINT_ON": True, "ROI_KEYPOINT_HEAD": {"NUM_KEYPOINTS": 5, "CONV_DIMS": [8]}},
    ),
    "semantic": (
        "panoptic_fpn",
        {
            "META_ARCHITECTURE": "PanopticFPN",
            "MASK_ON": True,
            "ROI_MASK_HEAD": {"NUM_CONV": 1, "CONV_DIM": 8},
            "SEM_SEG_HEAD": {"CONVS_DIM": 8, "NORM": ""},
        },
    ),
}
REGIONS_ONLY = ("kd", "dkd", "reviewkd_dkd")  # no RetinaNet has regions
DENSE_ONLY = {"crosskd", "bckd", "ld"}  # no Faster R-CNN has a dense head
OWN_HEADS = {"ld"}  # for heads that predict distributions, which Detectron2 does not have

THIN = {"RES2_OUT_CHANNELS": 16, "STEM_OUT_CHANNELS": 8}
TINY = {
    "faster_rcnn": {
        "RPN": {"POST_NMS_TOPK_TRAIN": 20, "BATCH_SIZE_PER_IMAGE": 16},
        "ROI_HEADS": {"NUM_CLASSES": 3, "BATCH_SIZE_PER_IMAGE": 16},
        "ROI_BOX_HEAD": {"FC_DIM": 16},
        "ANCHOR_GENERATOR": {"SIZES": [[8], [16], [32], [64], [128]]},
    },
    "retinanet": {"RETINANET": {"NUM_CLASSES": 3, "NUM_CONVS": 2}},
}
for _kind, _changes in OTHER_HEADS.values():
    _nodes = copy.deepcopy(TINY["faster_rcnn"])
    for _key, _value in _changes.items():
        _nodes[_key] = {**_nodes.get(_key, {}), **_value} if isinstance(_value, dict) else _value
    TINY[_kind] = _nodes
ENDS = tuple(f"_{end}" for end in OTHER_HEADS)


def tiny(base, kind):
    """Return a config of a thin detector over the project's base config."""
    model = copy.deepcopy(TINY[kind]) | {"DEVICE": "cpu", "WEIGHTS": ""}
    model |= {"RESNETS": THIN | {"NORM": "BN"}, "FPN": {"OUT_CHANNELS": 16}}
    resnet10 = "build_retinanet_resnet10_fpn_backbone" if kind == "retinanet" else RESNET10
    model |= {"PIXEL_STD": [57.0, 57.0, 57.0], "BACKBONE": {"FREEZE_AT": 0, "NAME": resnet10}}
    return {"_BASE_": base, "MODEL": model}


RESNET10 = "build_resnet10_fpn_backbone"
BOTH = ("faster_rcnn", "retinanet")  # other heads: packages/kd-det/tests/test_heads.py


def cases():
    for method in METHODS:
        name, _, suffix = method.stem.rpartition("_")
        kinds = {"rcnn": ["faster_rcnn"], "retinanet": ["retinanet"]}
        kinds |= {end: [kind] for end, (kind, _) in OTHER_HEADS.items()}
        for kind in kinds.get(suffix if name else "", ["faster_rcnn", "retinanet"]):
            yield pytest.param(method, kind, id=f"{method.stem}-{kind}")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build a tiny detector that learns by a method from another of its kind."""
    folder = tmp_path_factory.mktemp("configs")

    def build(method, kind):
        torch.manual_seed(0)
        base = "Base-RetinaNet.yaml" if kind == "retinanet" else "Base-RCNN-FPN.yaml"
        teacher = tiny(str(CONFIGS / base), kind)
        (folder / "teacher.yaml").write_text(yaml.safe_dump(teacher))
        student = tiny([str(CONFIGS / base), str(method)], kind)
        student["KD"] = {"TEACHER": {"CONFIG": "teacher.yaml", "WEIGHTS": "random"}}
        (folder / "student.yaml").write_text(yaml.safe_dump(student))
        with pytest.MonkeyPatch.context() as patch:  # shapes are seen on small images
            patch.setattr("kd_det.distiller.sample_batch", partial(sample_batch, size=64))
            return build_distiller(read_config(folder / "student.yaml")).train()

    return build


@pytest.fixture(scope="module")
def made(build):
    """Return the distiller of a method, always as it was built; None if it is refused as it should.

    Each is built once.
    """
    known = {}

    def made(method, kind):
        if (method, kind) not in known:
            distiller = unless_refused(build, method, kind)
            known[method, kind] = distiller, distiller and copy.deepcopy(distiller.state_dict())
        distiller, state = known[method, kind]
        if distiller:
            torch.manual_seed(0)
            distiller.load_state_dict(state)
            if hasattr(distiller.network, "loss_normalizer"):
                distiller.network.loss_normalizer = 100  # where Detectron2 begins
            distiller.train()
        return distiller

    return made


def image(boxes, seed=0, size=64):
    truth = Instances((size, size))
    truth.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    truth.gt_classes = torch.arange(len(boxes)) % 3
    left, top, right, bottom = truth.gt_boxes.tensor.numpy().T
    polygons = np.stack([left, top, right, top, right, bottom], 1)
    truth.gt_masks = PolygonMasks([[polygon] for polygon in polygons])
    centres = truth.gt_boxes.get_centers()[:, None].expand(-1, 5, -1)
    truth.gt_keypoints = Keypoints(torch.cat([centres, torch.full_like(centres[..., :1], 2)], 2))
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (3, size, size), dtype=torch.uint8, generator=generator)
    semantic = torch.zeros(size, size, dtype=torch.int64)
    one = {"image": pixels, "instances": truth, "sem_seg": semantic}
    return {**one, "height": size, "width": size}


def losses_of(distiller, inputs, steps):
    """Train on one batch; return the sum of the losses of every step."""
    optimizer = torch.optim.Adam(distiller.parameters(), lr=0.001)
    totals = []
    with EventStorage() as storage:
        if hasattr(distiller.network, "anchor_generator"):
            # A RetinaNet divides by a moving average of the positives, which begins at 100: while
            # it falls, the loss rises.
            distiller(inputs)
            positives = storage.latest()["num_pos_anchors"][0] * len(inputs)
            distiller.network.loss_normalizer = max(positives, 1)
        for _ in range(steps):
            torch.manual_seed(0)  # regions and masks are drawn, which would change the loss
            losses = distiller(inputs)
            total = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            # A cascade that learns has more foreground, so that its losses of boxes rise.
            refined = sum(loss for name, loss in losses.items() if "box_reg_stage" in name)
            totals.append((total - refined).item())
    return totals


def unless_refused(build, method, kind):
    """Build, or check that what has no regions is told so."""
    if kind == "retinanet" and method.stem in REGIONS_ONLY:
        with pytest.raises(UserError, match=r"'@roi_logits': the network has no such role"):
            build(method, kind)
        return None
    if kind == "faster_rcnn" and method.stem in DENSE_ONLY:
        with pytest.raises(UserError, match=r"no such role.* dense detectors .* have it"):
            build(method, kind)
        return None
    if method.stem in OWN_HEADS:
        with pytest.raises(UserError, match="68 values a box do not fit heads"):
            build(method, kind)
        return None
    return build(method, kind)


@pytest.mark.parametrize(("method", "kind"), list(cases()))
def test_loss_falls_on_a_fixed_batch(method, kind, made):
    distiller = made(method, kind)
    if distiller is None:
        return
    boxes = [[8, 8, 40, 40], [20, 4, 60, 30]], [[10, 10, 50, 44]]
    steps = 20 if method.stem in REGIONS_ONLY else 10  # at first, regions with objects get more
    totals = losses_of(distiller, [image(b, seed) for seed, b in enumerate(boxes)], steps)
    assert sum(totals[-3:]) < sum(totals[:3]), totals


@pytest.mark.parametrize(("method", "kind"), [case for case in cases() if case.values[1] in BOTH])
def test_images_without_boxes_are_fine(method, kind, made):
    distiller = made(method, kind)
    if distiller is None:
        return
    some, none = image([[8, 8, 40, 40]]), image([], 1)
    for inputs in ([some, none], [none, none]):
        assert torch.tensor(losses_of(distiller, inputs, 2)).isfinite().all()


BETWEEN = {"loss_reviewkd": "fusion blocks", "loss_mgd": "a generator"}
"""Losses that are not 0 between equal networks, by what is between the maps."""


@pytest.mark.parametrize(("method", "kind"), list(cases()))
def test_own_weights_as_teacher_give_no_loss(method, kind, made):
    distiller = made(method, kind)
    if distiller is None:
        return
    distiller.network.load_state_dict(distiller.teachers["teacher"].network.state_dict())
    for module in distiller.modules():  # the teacher's statistics are running ones
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    with EventStorage():
        losses = distiller([image([[8, 8, 40, 40]]), image([], 1)])
    for name, criterion in distiller.criteria.items():
        between = BETWEEN.get(name)
        if between:  # the contract of criteria says so too
            assert between in criterion.exempt["zero_at_identity"]
        else:
            assert losses[name].abs() < 1e-5, name


def test_every_pair_has_every_method():
    rcnn = {m.stem.removesuffix("_rcnn") for m in METHODS} - DENSE_ONLY
    rcnn = {name for name in rcnn if not name.endswith(("_retinanet", *ENDS))}
    for network in ("R_18", "R_50", "MNV2"):
        prefix = f"faster_rcnn_{network}_FPN_"
        names = {p.stem.removeprefix(prefix) for p in DISTILLED if p.stem.startswith(prefix)}
        assert names - {"kd_rpn"} == rcnn


def test_no_foreground_among_the_proposals(build):
    distiller = build(CONFIGS / "methods/reviewkd_dkd.yaml", "faster_rcnn")
    network = distiller.network
    network.roi_heads.proposal_append_gt = False
    sample = network.roi_heads._sample_proposals

    def background_only(indices, labels, classes):
        return sample(indices, torch.zeros_like(labels), classes)

    network.roi_heads._sample_proposals = background_only
    seen = []
    distiller.criteria["loss_dkd"].register_forward_pre_hook(
        lambda _, args: seen.append(args[2]["label"])
    )
    totals = losses_of(distiller, [image([[8, 8, 40, 40]], seed) for seed in range(2)], 2)
    assert torch.tensor(totals).isfinite().all()
    assert seen[0].eq(3).all()
