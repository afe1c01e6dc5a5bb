"""What all cells of `benchmarks/foundation.py` have in common, and the configs of its runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HELD_OUT = 0.02


@dataclass(frozen=True)
class Plan:
    """What all cells have in common, and what a results folder is for.

    Args:
        tiny: Drawn images and random teachers, to try the command.
        train: Training images of each class of CIFAR-10; a fiftieth is held out.
        test: Test images of each class.
        epochs: Passes over the training images, of every arm.
        size: Pixels of the student's images.
        teacher_size: Pixels of the teachers' images.
        batch: Images of a batch.
        elpv_epochs: Passes over ELPV, of every arm.
        elpv_size: Pixels of the student's images there.
        elpv_train: Training images of each class there; None takes all.
        elpv_test: Test images of each class there.
        shots: Labelled images of each class there; 0 stands for all.
        hidden: Width inside UNIC's heads.
    """

    tiny: bool = False
    train: int = 1024
    test: int = 500
    epochs: int = 3
    size: int = 32
    teacher_size: int = 96
    batch: int = 64
    elpv_epochs: int = 4
    elpv_size: int = 48
    elpv_train: int | None = None
    elpv_test: int = 200
    shots: tuple[int, ...] = (10, 50, 0)
    hidden: int = 64

    @property
    def student(self) -> str:
        """Return the student's name in the zoo."""
        return "resnet8" if self.tiny else "resnet20"

    def pixels(self, images: str) -> int:
        """Return the size of the student's images in a set."""
        return self.size if images == "cifar" else self.elpv_size


TINY = Plan(
    tiny=True,
    train=12,
    test=6,
    epochs=1,
    size=8,
    teacher_size=32,
    batch=8,
    elpv_epochs=1,
    elpv_size=8,
    elpv_train=12,
    elpv_test=6,
    shots=(2, 0),
    hidden=8,
)


def config_of(
    plan: Plan,
    images: str,
    root: Path,
    kind: str,
    teachers: Mapping[str, Any],
    few: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the config of a run; what is not in it is the product's default.

    Args:
        plan: See `Plan`.
        images: The set.
        root: Its folder.
        kind: `labels`, or the method.
        teachers: Nodes of the teachers by name.
        few: What the data say of few labels.
    """
    data: dict[str, Any] = {"type": "kd_cls.data.unlabelled", "root": str(root / "train")}
    data["held_out"] = HELD_OUT
    if kind == "labels":
        data = {"type": "kd_cls.data.image_folder", "root": str(root), "val_fraction": HELD_OUT}
    epochs = plan.epochs if images == "cifar" else plan.elpv_epochs
    config: dict[str, Any] = {
        "data_seed": 0,  # so that the targets of one seed are those of all
        "data": {**data, "image_size": plan.pixels(images), "batch_size": plan.batch, **few},
        "student": {"network": {"type": "kd_cls.models.build_model", "name": plan.student}},
        "optimizer": {"type": "torch.optim.AdamW", "lr": 2e-3, "weight_decay": 0.02},
        "schedule": {
            "type": "kd_core.training.schedule.cosine",
            "warmup_epochs": min(1, epochs - 1),
        },
        "trainer": {"epochs": epochs, "eval_every": epochs, "loggers": []},
    }
    if kind != "labels":
        config["teachers"] = dict(teachers)
        config["distiller"] = {"task_weight": 0.0, "terms": _terms(plan, kind, list(teachers))}
        config["trainer"]["teacher_cache"] = True
    return config


def _terms(plan: Plan, kind: str, names: list[str]) -> dict[str, Any]:
    if kind == "mse":
        criterion: dict[str, Any] = {"type": "kd_core.criteria.DenseMSE"}
        return {"mse": {"criterion": criterion, "student": "@map", "teacher": "@map"}}
    criterion = {"type": "kd_core.criteria.UNIC", "hidden": plan.hidden, "balance": "standardize"}
    taps = ["@pooled", "@map"]
    # One teacher alone is not a list: then a term has its own loss.
    several: dict[str, Any] = {"source": names, "drop": 0.5} if len(names) > 1 else {}
    return {"unic": {"criterion": criterion, "student": taps, "teacher": taps, **several}}
