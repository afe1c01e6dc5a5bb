"""The cells of `benchmarks/foundation.py`: one student, or one network as it is, measured."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import foundation_data
import torch
from foundation_features import (
    PLAIN,
    features_of,
    kept_features,
    labelled,
    network_of,
    prediction_error,
    teacher_of,
)
from foundation_plan import HELD_OUT, Plan, config_of
from kd_cls.data import SplitLoader
from kd_cls.probes import Labelled, few_of_each_class, knn_accuracy, linear_accuracy
from kd_cls.student import load_student
from kd_cls.train import main as train
from kd_core.errors import RunError
from kd_core.files.checkpoint import load_json
from real_teachers import REAL, stand_in, teacher_node, weights_of
from torch import Tensor

Job = tuple[str, str]
"""A set of images, and an arm: `cifar`, `unic lite0`."""


class Cells:
    """Runs cells of a plan, in one folder that keeps all that they share.

    Args:
        plan: See `Plan`.
        folder: Of images, stored targets, runs and results.
        lightly: Folder where lightly-train is installed, or None.
    """

    def __init__(self, plan: Plan, folder: Path, lightly: str | None = None) -> None:
        self.plan, self.folder, self.lightly = plan, folder, lightly

    def jobs(self, *, once: bool = True) -> list[Job]:
        """Return all cells without their seeds; with `once`, also those that have none."""
        arms = ["unic both", "unic lite0", "unic lite2", "mse lite0", "labels"]
        arms += ["lightly lite0"] * (self.lightly is not None)
        few = [f"labels {shots}" for shots in self.plan.shots]
        teachers = list(REAL) if once else []
        return [
            *(("cifar", arm) for arm in [*arms, "untrained", *teachers]),
            *(("elpv", arm) for arm in ["unic lite0", *few, "untrained", *teachers[:1]]),
        ]

    def first(self) -> list[Job]:
        """Return the cells that store what the others replay, and so run before them."""
        return [("cifar", "unic both"), ("elpv", "unic lite0"), *(("cifar", n) for n in REAL)]

    def run(self, job: Job, seed: int) -> dict[str, Any]:
        """Measure one cell."""
        images, arm = job
        kind, _, of = arm.partition(" ")
        found: dict[str, Any] = {"images": images, "arm": arm, "seed": seed}
        run = self.folder / "runs" / f"{images}-{arm.replace(' ', '-')}-{seed}"
        if arm in REAL:
            return found | self._measure(images, self._teacher_features(images, arm), seed)
        speed: dict[str, float] = {}
        if kind == "lightly":
            model, speed = self._lightly(of, run, seed)
        elif kind == "untrained":
            torch.manual_seed(seed)
            model = network_of(self.plan.student)
        else:
            model, speed = self._train(images, kind, of, run, seed)
        parts, logits = zip(
            *(features_of(model, part) for part in self._parts(images)), strict=True
        )
        scores = self._measure(images, list(parts), seed)
        if kind == "labels":
            right = logits[1].argmax(1) == parts[1][1]
            scores["top1"] = _percent(right.float().mean())
        return found | speed | scores

    def data(self, images: str) -> Path:
        """Return the folder of a set of images, which is made at its first use."""
        folder, plan = self.folder / "images" / images, self.plan
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        if plan.tiny:
            made = {
                "cifar": (plan.train, plan.test, 3),
                "elpv": (plan.elpv_train, plan.elpv_test, 2),
            }
            foundation_data.drawn(folder, *made[images])  # type: ignore[arg-type]
        elif images == "cifar":
            foundation_data.cifar10(folder, plan.train, plan.test)
        else:
            foundation_data.elpv(folder, plan.elpv_train, plan.elpv_test)
        return folder

    def weights(self, name: str) -> str:
        """Return what a config says of a teacher's weights."""
        return stand_in(name, self.folder) if self.plan.tiny else weights_of(name)

    def _few(self, root: Path, shots: str, seed: int) -> dict[str, Any]:
        """Return what the data say of few labels, shown as often as all images would be."""
        if shots in ("", "0"):
            return {}
        folder = self.folder / "images" / f"{root.name}-{shots}-{seed}"
        if not folder.is_dir():
            foundation_data.few(root, folder, int(shots), seed)
        count = [sum(1 for _ in (path / "train").glob("*/*")) for path in (root, folder)]
        whole = count[0] * (1 - HELD_OUT)
        return {"root": str(folder), "val_fraction": 0.0, "copies": max(1, round(whole / count[1]))}

    def _train(
        self, images: str, kind: str, of: str, run: Path, seed: int
    ) -> tuple[Any, dict[str, float]]:
        """Train by the product's own tool; a run that was stopped resumes."""
        plan, root = self.plan, self.data(images)
        names = [] if kind == "labels" else list(REAL) if of == "both" else [of]
        teachers = {
            name: teacher_node(name, self.weights(name), plan.teacher_size) for name in names
        }
        few = self._few(root, of, seed) if kind == "labels" else {}
        config = config_of(plan, images, root, kind, teachers, few)
        run.parent.mkdir(parents=True, exist_ok=True)
        file = run.with_suffix(".py")
        file.write_text("".join(f"{key} = {value!r}\n" for key, value in config.items()))
        status = train([str(file), "--work-dir", str(run), "--seeds", str(seed), "--resume"])
        if status:
            raise RunError(f"{run.name}: the run ended with status {status}; see above")
        result = load_json(run / "result.json")
        kept = ("train_seconds", "images_per_second")
        return load_student(run), {key: result[key] for key in kept}

    def _lightly(self, name: str, run: Path, seed: int) -> tuple[Any, dict[str, float]]:
        """Train by lightly-train, in a process that finds it."""
        plan, product, result = self.plan, run.with_suffix(".safetensors"), run.with_suffix(".json")
        job = {
            "student": self.plan.student,
            "teacher": REAL[name].network,
            "weights": self.weights(name),
            "teacher_size": plan.teacher_size,
            "images": str(self.data("cifar") / "train"),
            "image_size": plan.size,
            "batch_size": plan.batch,
            "epochs": plan.epochs,
            "seed": seed,
            "out": str(run),
            "product": str(product),
            "result": str(result),
        }
        run.parent.mkdir(parents=True, exist_ok=True)
        (file := run.with_suffix(".job.json")).write_text(json.dumps(job), encoding="utf-8")
        paths = [os.environ.get("PYTHONPATH"), self.lightly]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        script = Path(__file__).with_name("foundation_lightly.py")
        done = subprocess.run(
            [sys.executable, str(script), str(file)], env=environment, check=False
        )
        if done.returncode:
            raise RunError(f"{run.name}: lightly-train ended with {done.returncode}; see above")
        seconds = json.loads(result.read_text(encoding="utf-8"))["seconds"]
        seen = plan.epochs * sum(1 for _ in (self.data("cifar") / "train").glob("*/*"))
        speed = {"train_seconds": seconds, "images_per_second": seen / seconds}
        return network_of(self.plan.student, product, **PLAIN), speed

    def _parts(self, images: str) -> tuple[SplitLoader, SplitLoader]:
        return labelled(self.data(images), self.plan.pixels(images))

    def _teacher_features(self, images: str, name: str) -> list[Labelled]:
        plan = self.plan
        file = self.folder / "features" / f"{images}-{name}.pth"
        make = partial(teacher_of, name, self.weights(name), plan.teacher_size)
        return kept_features(file, make, self._parts(images))

    def _measure(self, images: str, parts: list[Labelled], seed: int) -> dict[str, Any]:
        """Return probes of the features, and how well each teacher can be predicted from them."""
        train, test = parts
        found = {"knn": knn_accuracy(train, test), "linear": linear_accuracy(train, test)}
        for shots in filter(None, self.plan.shots if images == "elpv" else ()):
            few = few_of_each_class(train[1], shots, seed)
            found[f"linear_{shots}"] = linear_accuracy((train[0][few], train[1][few]), test)
        scores: dict[str, Any] = {name: _percent(value) for name, value in found.items()}
        if images == "cifar":
            for name in REAL:
                scores[name] = prediction_error(parts, self._teacher_features(images, name))
        return scores


def _percent(share: Tensor) -> float:
    return round(100 * share.item(), 2)
