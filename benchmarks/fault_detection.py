"""The detectors that the campaign disturbs: configs of the project, made thin, on drawn shapes."""

from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs/det"
ITERATIONS = 8
THIN: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.PIXEL_STD": [57.0, 57.0, 57.0],
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.RETINANET.NUM_CLASSES": 6,
    "MODEL.RETINANET.NUM_CONVS": 2,
    "MODEL.ROI_HEADS.NUM_CLASSES": 6,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
}
TINY: dict[str, Any] = {
    **THIN,
    "SEED": 3,
    "INPUT.MIN_SIZE_TRAIN": (64, 96),
    "INPUT.MAX_SIZE_TRAIN": 96,
    "INPUT.MIN_SIZE_TEST": 64,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.BASE_LR": 0.005,
    "SOLVER.MAX_ITER": ITERATIONS,
    "SOLVER.STEPS": (6,),
    "SOLVER.WARMUP_ITERS": 3,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "TEST.EVAL_PERIOD": 4,
    "TEST.PRECISE_BN.NUM_ITER": 2,
    "DATASETS.TRAIN": ("tiny_train",),
    "DATASETS.TEST": ("tiny_val",),
    "DATALOADER.NUM_WORKERS": 0,
}
_OF_TEACHER = [(key, THIN[key]) for key in THIN if key not in ("MODEL.DEVICE", "MODEL.WEIGHTS")]
TEACHER = {"KD.TEACHER.WEIGHTS": "random", "KD.TEACHER.OPTS": [x for p in _OF_TEACHER for x in p]}
WORKERS = {**TEACHER, "DATALOADER.NUM_WORKERS": 2}
PROPOSALS = {
    "MODEL.LOAD_PROPOSALS": True,
    "MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals",
}
DETECTORS: dict[str, tuple[str, dict[str, Any]]] = {
    "RetinaNet": ("retinanet_R_50_FPN", {}),
    "RetinaNet, FGD, workers": ("retinanet_R_50_FPN_fgd", WORKERS),
    "RetinaNet, CrossKD": ("retinanet_R_50_FPN_crosskd", TEACHER),
    "Faster R-CNN, ReviewKD and DKD, workers": ("faster_rcnn_R_50_FPN_reviewkd_dkd", WORKERS),
    "Faster R-CNN, CWD, vertical flip": (
        "faster_rcnn_R_50_FPN_cwd",
        {**TEACHER, "INPUT.RANDOM_FLIP": "vertical"},
    ),
    "Mask R-CNN, ReviewKD, precise BN": (
        "mask_rcnn_R_50_FPN_reviewkd",
        {**TEACHER, "TEST.PRECISE_BN.ENABLED": True},
    ),
}
"""Configs, and how they differ from `TINY`."""


def arguments(config: str, **options: Any) -> tuple[str, ...]:
    """Return the arguments of `tools/det_train.py` for a config of configs/det."""
    sets = [
        f"tiny_{part}=configs/shapes/{part}.json:configs/shapes/{part}" for part in ("train", "val")
    ]
    pairs = {**TINY, **options, "OUTPUT_DIR": "run"}
    given = [str(part) for pair in pairs.items() for part in pair]
    return ("--register", *sets, "--config-file", str(CONFIGS / f"{config}.yaml"), *given)
