"""Boxes distilled into a RetinaNet on the demo's shapes: alone, with CrossKD, and with BCKD.

The demo's teacher, and its student with a head as wide and deep as the teacher's, which CrossKD
needs; all rows train the same student, from the same weights and on the same images. Criteria have
their own defaults.

python benchmarks/det_boxes.py --seeds 0 1 2
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import kd_det  # noqa: F401  before Detectron2
import torch
import yaml
from detectron2.config import CfgNode
from kd_core.experiment.seeds import repeat, text
from kd_core.files.checkpoint import save_json
from kd_core.files.workdir import run_folder
from kd_det import demo
from kd_det.config import read_config

METHODS = Path(__file__).parents[1] / "configs/det/methods"
ROWS = {"student": "", "CrossKD": "crosskd.yaml", "BCKD": "bckd.yaml"}


def main() -> None:
    """Print the last scores of every row, mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--work-dir", help="a folder for the runs; repeated, it resumes them")
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs of all students, after --")
    args = parser.parse_args()
    demo.register_shapes()
    with run_folder(args.work_dir, ["det_boxes"], resume=bool(args.work_dir)) as folder:
        report = compare(args, folder)
        save_json(report, folder / "boxes.json")
    print(json.dumps(report, indent=2))


def compare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train teacher and students; return the scores of every row."""
    device = ["MODEL.DEVICE", "cuda" if torch.cuda.is_available() else "cpu"]
    teacher_cfg = read_config(demo.CONFIGS / "teacher.yaml", device)
    made = folder / "teacher"
    report: dict[str, Any] = {"teacher": demo.make_teacher(teacher_cfg, made)["last"]}
    for name in args.rows:
        cfg = student(name, folder, [*device, *args.opts], teacher_cfg)
        if cfg.KD.TERMS:
            cfg.KD.TEACHER.WEIGHTS = str(made / "model_final.pth")
        place, done = folder / name, partial(demo.finished, cfg)
        found = repeat(partial(demo.run, cfg, name), args.seeds, place, finished=done)
        report[name] = {metric: text(found["last"][metric]) for metric in demo.METRICS}
        report[name]["seconds"] = found["train_seconds"]
    return report


def student(name: str, folder: Path, options: list[str], teacher: CfgNode) -> CfgNode:
    """Return the config of a row."""
    bases = [
        str(demo.CONFIGS / "student.yaml"),
        *([str(METHODS / ROWS[name])] if ROWS[name] else []),
    ]
    written: dict[str, Any] = {"_BASE_": bases}
    if ROWS[name]:
        written["KD"] = {"TEACHER": {"CONFIG": str(demo.CONFIGS / "teacher.yaml")}}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(written), encoding="utf-8")
    width, depth = teacher.MODEL.FPN.OUT_CHANNELS, teacher.MODEL.RETINANET.NUM_CONVS
    head = ["MODEL.FPN.OUT_CHANNELS", width, "MODEL.RETINANET.NUM_CONVS", depth]
    return read_config(file, [*head, *options])


if __name__ == "__main__":
    main()
