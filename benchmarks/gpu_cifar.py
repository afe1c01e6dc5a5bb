"""MDistiller's thirteen methods on CIFAR-10 as JPEG files, three seeds, on one shared teacher.

The recipe is that of CIFAR-100, resnet32x4 → resnet8x4, with fewer epochs: the rate falls at the
same shares of them. `KD_DATA` names a folder with `cifar10_jpeg`. A call that is ended is continued
by the next one with the same folder.

KD_DATA=FOLDER python benchmarks/gpu_cifar.py --folder runs/cifar10 --out cifar10.json
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import torch
from foundation_data import cifar10, drawn
from kd_cls.compare import main as compare
from kd_core.experiment.report import environment

CONFIGS = Path(__file__).parents[1] / "configs/cls"
STUDENT, TEACHER = "resnet8x4", "resnet32x4"
MILESTONES = (150 / 240, 180 / 240, 210 / 240)
CONFIG = """\
data = dict(type="kd_cls.data.image_folder", root={root!r}, image_size=32, batch_size=64,
    mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones={milestones})
trainer = dict(epochs={epochs}, eval_every={epochs})
"""
PAIR = """\
pair = "{teacher}_{student}"
student = dict(network=dict(type="kd_cls.models.build_model", name={student!r}))
teacher = dict(config=[{data!r}, {network!r}])
"""


def main() -> None:
    """Train what is missing; write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="of images and runs")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--teacher-epochs", type=int, default=12)
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--only", nargs="+", help="rows of configs/cls/tables/mdistiller.py")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--tiny", action="store_true", help="a few drawn images, one epoch")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.tiny:
        args.epochs = args.teacher_epochs = 1
        args.seeds, args.only, args.precision = ["0"], ["KD"], "fp32"
    files = written(args, images(args.folder.absolute(), tiny=args.tiny))
    runs = args.folder / "runs"
    options = ["data_seed=0", "trainer.allow_weak_teacher=True"]
    options.append(f"trainer.precision={args.precision}")
    words = [*files, "--rows", str(CONFIGS / "tables/mdistiller.py"), "--seeds", *args.seeds]
    words += ["--only", *args.only] if args.only else []
    words += ["--share-teacher", "--work-dir", str(runs), "--cfg-options", *options]
    if status := compare(words):
        raise SystemExit(status)
    with (runs / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: dict[str, Any] = {"rows": rows, "epochs": args.epochs}
    result |= {"teacher_epochs": args.teacher_epochs, "seeds": args.seeds}
    result["environment"] = environment(device)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def images(folder: Path, *, tiny: bool) -> Path:
    """Return a folder of class folders, made unless it is there."""
    made = folder / ("drawn" if tiny else "images")
    if not made.is_dir():
        drawn(made, 2, 2, 2) if tiny else cifar10(made, 5000, 1000)
    return made


def written(args: argparse.Namespace, root: Path) -> list[str]:
    """Write the configs of data, teacher and pair; return those that a run names."""
    found = {}
    for name, epochs in (("students", args.epochs), ("teacher", args.teacher_epochs)):
        falls = sorted({max(1, round(share * epochs)) for share in MILESTONES})
        text = CONFIG.format(root=str(root), milestones=falls, epochs=epochs)
        found[name] = args.folder.absolute() / f"{name}.py"
        found[name].write_text(text, encoding="utf-8")
    network = str(CONFIGS / f"networks/{TEACHER}.py")
    data = str(found["teacher"])
    text = PAIR.format(teacher=TEACHER, student=STUDENT, data=data, network=network)
    pair = args.folder.absolute() / "pair.py"
    pair.write_text(text, encoding="utf-8")
    return [str(found["students"]), str(pair)]


if __name__ == "__main__":
    main()
