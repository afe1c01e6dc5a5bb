"""Tiny detectors, a tiny data set in COCO's format, and a batch."""

import copy
import functools
import io
import json
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

# Detectron2 reads every config with it: a tenth of the time, and the same values, with libyaml.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

CLASSES = 3
MODELS = {
    "faster_rcnn": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "BACKBONE": {"NAME": "build_resnet10_fpn_backbone", "FREEZE_AT": 0},
        "RESNETS": {"OUT_FEATURES": ["res2", "res3", "res4", "res5"]},
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"]},
        "ANCHOR_GENERATOR": {"SIZES": [[8], [16], [32], [64], [128]]},
        "RPN": {
            "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
            "PRE_NMS_TOPK_TRAIN": 50,
            "POST_NMS_TOPK_TRAIN": 20,
            "PRE_NMS_TOPK_TEST": 50,
            "POST_NMS_TOPK_TEST": 20,
            "BATCH_SIZE_PER_IMAGE": 16,
        },
        "ROI_HEADS": {
            "NAME": "StandardROIHeads",
            "NUM_CLASSES": CLASSES,
            "BATCH_SIZE_PER_IMAGE": 8,
            "IN_FEATURES": ["p2", "p3", "p4", "p5"],
        },
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 1, "FC_DIM": 16},
    },
    "retinanet": {
        "META_ARCHITECTURE": "RetinaNet",
        "BACKBONE": {"NAME": "build_retinanet_resnet10_fpn_backbone", "FREEZE_AT": 0},
        "RESNETS": {"OUT_FEATURES": ["res3", "res4", "res5"]},
        "FPN": {"IN_FEATURES": ["res3", "res4", "res5"]},
        "ANCHOR_GENERATOR": {"SIZES": [[16], [32], [64], [128], [256]]},
        "RETINANET": {"NUM_CLASSES": CLASSES, "NUM_CONVS": 2},
    },
}
_MASK = {"MASK_ON": True, "ROI_MASK_HEAD": {"NUM_CONV": 1, "CONV_DIM": 8}}
_SEMANTIC = {"SEM_SEG_HEAD": {"NUM_CLASSES": 4, "CONVS_DIM": 8, "NORM": ""}}
_ONE_MAP = {"BACKBONE": {"NAME": "build_resnet_backbone", "FREEZE_AT": 0}}
VARIANTS = {  # of Faster R-CNN
    "mask_rcnn": _MASK,
    "keypoint_rcnn": {
        "KEYPOINT_ON": True,
        "ROI_HEADS": {"NUM_CLASSES": 1},
        "ROI_KEYPOINT_HEAD": {"NUM_KEYPOINTS": 5, "CONV_DIMS": [8]},
    },
    "cascade_rcnn": {
        **_MASK,
        "ROI_HEADS": {"NAME": "CascadeROIHeads"},
        "ROI_BOX_HEAD": {"CLS_AGNOSTIC_BBOX_REG": True},
    },
    "panoptic_fpn": {**_MASK, **_SEMANTIC, "META_ARCHITECTURE": "PanopticFPN"},
    "semantic_fpn": {**_SEMANTIC, "META_ARCHITECTURE": "SemanticSegmentor"},
    "rpn": {"META_ARCHITECTURE": "ProposalNetwork"},
    "fast_rcnn": {"PROPOSAL_GENERATOR": {"NAME": "PrecomputedProposals"}, "LOAD_PROPOSALS": True},
    "c4": {
        **_ONE_MAP,
        **_MASK,
        "RESNETS": {"OUT_FEATURES": ["res4"]},
        "ANCHOR_GENERATOR": {"SIZES": [[8, 16, 32]]},
        "RPN": {"IN_FEATURES": ["res4"]},
        "ROI_HEADS": {"NAME": "Res5ROIHeads", "IN_FEATURES": ["res4"]},
    },
    "dc5": {
        **_ONE_MAP,
        "RESNETS": {"OUT_FEATURES": ["res5"], "RES5_DILATION": 2},
        "ANCHOR_GENERATOR": {"SIZES": [[8, 16, 32]]},
        "RPN": {"IN_FEATURES": ["res5"]},
        "ROI_HEADS": {"IN_FEATURES": ["res5"]},
    },
}


def _merged(base, changes):
    """Return nodes of a config with changes, one level deep."""
    nodes = {k: {**base.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}
    return {**base, **nodes}


MODELS |= {kind: _merged(MODELS["faster_rcnn"], changes) for kind, changes in VARIANTS.items()}


def detector(kind, width=16, name="shapes_tiny_train"):
    """Return a config, as YAML would give it, of a detector that takes milliseconds."""
    model = copy.deepcopy(MODELS[kind])
    model |= {"DEVICE": "cpu", "WEIGHTS": "", "PIXEL_STD": [57.0, 57.0, 57.0]}
    thin = {"DEPTH": 50, "RES2_OUT_CHANNELS": 16, "WIDTH_PER_GROUP": 4, "STEM_OUT_CHANNELS": 8}
    model["RESNETS"] |= {**thin, "NORM": "BN"}
    model["FPN"] |= {"OUT_CHANNELS": width}
    size = {"MIN_SIZE_TRAIN": [64], "MAX_SIZE_TRAIN": 96, "MIN_SIZE_TEST": 64, "MAX_SIZE_TEST": 96}
    solver = {"IMS_PER_BATCH": 2, "BASE_LR": 0.005, "MAX_ITER": 4, "WARMUP_ITERS": 2, "STEPS": [3]}
    solver["CLIP_GRADIENTS"] = {"ENABLED": True, "CLIP_TYPE": "norm"}
    return {
        "VERSION": 2,
        "SEED": 3,
        "MODEL": model,
        "INPUT": size,
        "SOLVER": solver,
        "DATALOADER": {"NUM_WORKERS": 0, "ASPECT_RATIO_GROUPING": False},
        "DATASETS": {"TRAIN": [name], "TEST": [name]},
        "TEST": {"DETECTIONS_PER_IMAGE": 10},  # an untrained detector finds as many as it may
    }


@pytest.fixture
def full_samples():
    """Let shapes be inferred on images of 128 pixels, for tests in which all strides matter."""


@pytest.fixture(autouse=True)
def shapes_are_seen_on_small_images(request, monkeypatch):
    """Infer shapes on images of half the height and width, which suffices for tiny detectors."""
    if "detectron2" in sys.modules and "full_samples" not in request.fixturenames:
        import kd_det.running.listing  # noqa: F401  it lists taps on whole images
        from kd_det import distiller

        small = functools.partial(distiller.sample_batch, size=64)
        monkeypatch.setattr(distiller, "sample_batch", small)


@pytest.fixture(autouse=True)
def curves_are_not_drawn(request, monkeypatch):
    """Draw no curves at the end of a run, but for tests that ask for `drawn_curves`."""
    runs_end = sys.modules.get("kd_det.running.metrics_file")
    if runs_end and "drawn_curves" not in request.fixturenames:
        monkeypatch.setattr(runs_end, "draw", lambda folder, scores, length: None)


@pytest.fixture
def drawn_curves():
    """Let runs draw their curves, as they do for users."""


def as_yaml(config):
    """Return the text of a config as `yaml.safe_dump` gives it, sooner where libyaml is there."""
    return yaml.dump(config, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))


@pytest.fixture
def models():
    """Return the nodes MODEL of all kinds of detectors."""
    return MODELS


@pytest.fixture
def write(tmp_path):
    """Write a config with a KD node and its teacher; return the path."""

    return functools.partial(write_config, tmp_path)


def write_config(folder, kind, terms=None, *, width=16, teacher=None, **nodes):
    """Write a config with a KD node and its teacher into a folder; return the path."""
    config = detector(kind, width) | nodes
    if terms is not None:
        file = folder / "teacher.yaml"
        file.write_text(as_yaml(detector(teacher or kind)))
        named = {"CONFIG": file.name, "WEIGHTS": "random"}
        config["KD"] = {"TEACHER": named, "TERMS": terms} | nodes.get("KD", {})
    path = folder / f"{kind}.yaml"
    path.write_text(as_yaml(config))
    return path


@pytest.fixture
def build(write):
    """Build the distiller of such a config, in training mode."""
    pytest.importorskip("detectron2")
    from kd_det.config import read_config
    from kd_det.distiller import build_distiller

    def build(kind, terms, options=(), **arguments):
        torch.manual_seed(0)
        return build_distiller(read_config(write(kind, terms, **arguments), options)).train()

    return build


@pytest.fixture
def inputs():
    """Return a batch of two images of different sizes, with three boxes and with one."""
    pytest.importorskip("detectron2")
    from detectron2.structures import Boxes, Instances

    generator = torch.Generator().manual_seed(0)
    corners = [[[8, 8, 40, 40], [20, 4, 60, 30], [2, 30, 30, 60]], [[10, 10, 50, 44]]]
    batch = []
    for (height, width), boxes in zip([(64, 64), (48, 80)], corners, strict=True):
        truth = Instances((height, width))
        truth.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
        truth.gt_classes = torch.arange(len(boxes))
        image = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator)
        batch.append({"image": image, "instances": truth, "height": height, "width": width})
    return batch


@pytest.fixture
def storage():
    """Give Detectron2's models the storage that they write to in training."""
    pytest.importorskip("detectron2")
    from detectron2.utils.events import EventStorage

    with EventStorage() as storage:
        yield storage


@pytest.fixture
def coco(tmp_path):
    """Write eight images with a coloured rectangle each; return the JSON and the folder."""
    return write_coco(tmp_path)


def write_coco(folder):
    """Write the images and the JSON into a folder; return the JSON and the folder of images."""
    files, text = coloured_rectangles()
    images, file = folder / "images", folder / "boxes.json"
    images.mkdir()
    for name, contents in files.items():
        (images / name).write_bytes(contents)
    file.write_text(text)
    return file, images


@functools.cache
def coloured_rectangles():
    """Return what the images' files hold, by their names, and the JSON."""
    rng = np.random.default_rng(0)
    files, images, annotations = {}, [], []
    for number in range(1, 9):
        pixels = rng.integers(0, 100, (64, 80, 3), dtype=np.uint8)
        x, y, w, h = (int(v) for v in rng.integers([2, 2, 20, 20], [40, 30, 36, 32]))
        category = number % CLASSES + 1
        pixels[y : y + h, x : x + w, category - 1] = 250
        contents = io.BytesIO()
        Image.fromarray(pixels).save(contents, "png")
        files[f"{number}.png"] = contents.getvalue()
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 80})
        box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": category, **box})
    categories = [{"id": i, "name": name} for i, name in enumerate(("red", "green", "blue"), 1)]
    parts = {"images": images, "annotations": annotations, "categories": categories}
    return files, json.dumps(parts)


MASK_HEAD = {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 1, "CONV_DIM": 8}
DEPLOYED = {
    "retinanet": ("retinanet", {}),
    "faster_rcnn": ("faster_rcnn", {}),
    "mask_rcnn": ("faster_rcnn", {"MASK_ON": True, "ROI_MASK_HEAD": MASK_HEAD}),
    "cascade_rcnn": (
        "faster_rcnn",
        {"ROI_HEADS": {"NAME": "CascadeROIHeads"}, "ROI_BOX_HEAD": {"CLS_AGNOSTIC_BBOX_REG": True}},
    ),
}


FEW_LEVELS = {  # tracing, and what reads the trace, take their time by the level too
    "RetinaNet": {
        "FPN": {"IN_FEATURES": ["res4", "res5"]},
        "RETINANET": {"IN_FEATURES": ["p4", "p5", "p6"]},
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128]]},
    },
    "GeneralizedRCNN": {
        "FPN": {"IN_FEATURES": ["res4", "res5"]},
        "RPN": {"IN_FEATURES": ["p4", "p5", "p6"]},
        "ROI_HEADS": {"IN_FEATURES": ["p4", "p5"]},
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128]]},
    },
}


def merged(node, more):
    """Return a node with another merged over it."""
    if not isinstance(more, dict):
        return more
    return node | {key: merged(node.get(key, {}), value) for key, value in more.items()}


@pytest.fixture(scope="session")
def writers():
    """Return what writes a config, and what writes the images, into any folder."""
    return write_config, write_coco


@pytest.fixture(scope="session")
def tiny_backbone():
    """Register a backbone of a few layers, since tracing takes its time by the layer."""
    pytest.importorskip("detectron2")
    import kd_det  # noqa: F401
    from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7

    class Tiny(Backbone):
        __module__ = "tiny"  # TorchScript keeps it, and takes no `kd-det` in it

        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 3, 4, 1)
            self.later = torch.nn.ModuleList(torch.nn.Conv2d(8, 8, 3, 2, 1) for _ in range(3))
            self._out_features = ["res2", "res3", "res4", "res5"]
            self._out_feature_strides = dict(zip(self._out_features, (4, 8, 16, 32), strict=True))
            self._out_feature_channels = dict.fromkeys(self._out_features, 8)

        def forward(self, image):
            found = [self.stem(image)]
            for layer in self.later:
                found.append(layer(found[-1].relu()))
            return dict(zip(self._out_features, found, strict=True))

    def build_tiny_fpn(cfg, input_shape):
        retina = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
        top = LastLevelP6P7(8, cfg.MODEL.FPN.OUT_CHANNELS) if retina else LastLevelMaxPool()
        return FPN(Tiny(), cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS, top_block=top)

    BACKBONE_REGISTRY.register(build_tiny_fpn)
    return "build_tiny_fpn"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, tiny_backbone):
    """Make the folder of a finished run that finds objects in anything, by the detector's kind.

    Each is made once. Its categories, `red`, `[b]green[/b]` and `blue`, have the ids 1, 2 and 7.
    """
    from kd_det.config import read_config
    from kd_det.deploy.categories import Categories, save
    from kd_det.networks.detector import build_detector

    def make(kind):
        folder = tmp_path_factory.getbasetemp() / f"finished_{kind}"
        if folder.exists():
            return folder
        folder.mkdir()
        kind, more = DEPLOYED[kind]
        config = merged(detector(kind, name="nowhere"), {"MODEL": more})
        config["MODEL"]["BACKBONE"] = {"NAME": tiny_backbone}
        config["MODEL"] = merged(config["MODEL"], FEW_LEVELS[config["MODEL"]["META_ARCHITECTURE"]])
        config["TEST"] = {"DETECTIONS_PER_IMAGE": 12}
        named = {"CONFIG": "teacher.yaml", "WEIGHTS": "gone.pth"}  # neither is there any more
        terms = {"fitnet": {"CRITERION": "kd_core.criteria.fitnet.FitNet"}}
        config["KD"] = {"TEACHER": named, "TERMS": terms}
        (folder / "config.yaml").write_text(as_yaml(config))
        torch.manual_seed(0)
        network = build_detector(read_config(folder / "config.yaml"))
        for name, parameter in network.named_parameters():
            if "cls_score" in name:  # as if it were sure
                torch.nn.init.normal_(parameter, std=1.0)
        torch.save({"model": network.state_dict()}, folder / "model_final.pth")
        save(Categories(["red", "[b]green[/b]", "blue"], [1, 2, 7]), folder)
        return folder

    return make
