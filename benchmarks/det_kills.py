"""Kill detection runs at random moments, resume them, and compare them with uninterrupted runs.

    uv run benchmarks/det_kills.py --tries 20

Tiny detectors (the project's own configs, made thin) learn on drawn shapes. Every run is a process
of its own, forked from one that has imported Detectron2, so that a run takes seconds. Compared bit
for bit is all that the last checkpoint holds, and every evaluation in metrics.json.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import kd_det  # noqa: F401  before Detectron2
import torch
from kd_det.data.shapes import shapes
from kd_det.train import main

CONFIGS = Path(__file__).parents[1] / "configs/det"
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
RUN: dict[str, Any] = {
    **THIN,
    "SEED": 3,
    "INPUT.MIN_SIZE_TRAIN": (64, 96),
    "INPUT.MAX_SIZE_TRAIN": 96,
    "INPUT.MIN_SIZE_TEST": 64,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.BASE_LR": 0.005,
    "SOLVER.MAX_ITER": 8,
    "SOLVER.STEPS": (6,),
    "SOLVER.WARMUP_ITERS": 3,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "TEST.EVAL_PERIOD": 4,
    "DATASETS.TRAIN": ("tiny_train",),
    "DATASETS.TEST": ("tiny_val",),
    "DATALOADER.NUM_WORKERS": 0,
}
TEACHER = {"KD.TEACHER.WEIGHTS": "random", "KD.TEACHER.OPTS": [x for p in THIN.items() for x in p]}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("retinanet_R_50_FPN", {}),
    ("retinanet_R_50_FPN_fgd", {**TEACHER, "DATALOADER.NUM_WORKERS": 2}),
    ("retinanet_R_50_FPN_crosskd", TEACHER),
    ("faster_rcnn_R_50_FPN_reviewkd_dkd", {**TEACHER, "DATALOADER.NUM_WORKERS": 2}),
    ("faster_rcnn_R_50_FPN_cwd", {**TEACHER, "INPUT.RANDOM_FLIP": "vertical"}),
    ("mask_rcnn_R_50_FPN_reviewkd", {**TEACHER, "TEST.PRECISE_BN.ENABLED": True}),
]
"""Configs of configs/det, and what differs from RUN."""


def arguments(case: int, data: Path, folder: Path) -> list[str]:
    """Return the arguments of `tools/det_train.py` for one of the cases."""
    name, options = CASES[case]
    sets = [f"tiny_{part}={data / part}.json:{data / part}" for part in ("train", "val")]
    pairs = {**RUN, **options, "TEST.PRECISE_BN.NUM_ITER": 2, "OUTPUT_DIR": str(folder)}
    given = [str(part) for pair in pairs.items() for part in pair]
    return ["--register", *sets, "--config-file", str(CONFIGS / f"{name}.yaml"), *given]


def start(argv: list[str], log: Path) -> int:
    """Run the tool in a forked process, which leads a group of its own; return its number."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    status = 70
    try:
        status = main(argv)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def finish(argv: list[str], log: Path) -> None:
    """Run the tool to its end."""
    status = os.waitstatus_to_exitcode(os.waitpid(start(argv, log), 0)[1])
    if status:
        raise SystemExit(f"{' '.join(argv)}\n{log.read_text()[-2000:]}\nended with {status}")


def kill(argv: list[str], log: Path, seconds: float) -> bool:
    """Kill the tool and its data workers after some time; return whether it was still at work."""
    process = start(argv, log)
    time.sleep(seconds)
    ended, _ = os.waitpid(process, os.WNOHANG)
    if ended:
        return False
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def difference(first: Any, second: Any, place: str = "") -> str:
    """Return where two checkpoints differ in a bit, or nothing."""
    if isinstance(first, torch.Tensor):
        same = isinstance(second, torch.Tensor) and first.dtype == second.dtype
        return "" if same and torch.equal(first, second) else place
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        pairs = [(key, value, second[key]) for key, value in first.items()]
    elif isinstance(first, list | tuple) and len(first) == len(second):
        pairs = [(key, *pair) for key, pair in enumerate(zip(first, second, strict=True))]
    else:
        return "" if first == second else place or "all"
    found = (difference(one, other, f"{place}/{key}") for key, one, other in pairs)
    return next(filter(None, found), "")


def result(folder: Path) -> dict[str, Any]:
    """Return all that must be equal: the last checkpoint, and the evaluations by iteration."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    evaluations = {
        line["iteration"]: {
            name: str(line[name]) for name in line if name.startswith(("bbox/", "segm/"))
        }
        for line in lines
    }
    iterations = [line["iteration"] for line in lines]
    return {
        "checkpoint": torch.load(folder / "model_final.pth", weights_only=True),
        "evaluations": {key: value for key, value in evaluations.items() if value},
        "no iteration twice": len(iterations) == len(set(iterations)),
    }


def killed_runs(folder: Path, tries: int, seed: int = 0) -> list[str]:
    """Kill as many runs, some of them twice; return what was found of each, "" where equal."""
    torch.set_num_threads(1)
    data = shapes(folder / "data", num_train=12, num_few=2, num_val=4, image_size=64)
    rng, whole, found = random.Random(seed), {}, []
    for number in range(tries):
        case = number % len(CASES)
        if case not in whole:
            reference = folder / f"whole{case}"
            began = time.perf_counter()
            finish(arguments(case, data, reference), folder / "log.txt")
            whole[case] = result(reference), time.perf_counter() - began
        wanted, seconds = whole[case]
        run = folder / f"killed{number}"
        argv = arguments(case, data, run)
        moments = [rng.uniform(0, seconds) for _ in range(rng.choice([1, 2]))]
        for again, moment in enumerate(moments):
            kill([*(["--resume"] if again else []), *argv], folder / "log.txt", moment)
        finish(["--resume", *argv], folder / "log.txt")
        found.append(difference(wanted, result(run)))
        shown = " and ".join(f"{moment:.1f}" for moment in moments)
        print(f"{CASES[case][0]}: killed after {shown} of {seconds:.1f} s:", found[-1] or "equal")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = killed_runs(Path(place), options.tries, options.seed)
    held = found.count("")
    print(f"{len(found)} tried, {held} held")
    sys.exit(held != len(found))
