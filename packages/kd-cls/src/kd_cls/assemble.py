"""From a config to the parts of a classification run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from kd_core import distributed
from kd_core.build import build
from kd_core.config import merge
from kd_core.distiller import Distiller
from kd_core.mutual import MutualDistiller
from kd_core.run import Parts
from kd_core.seed import mix, seed_everything
from kd_core.task import Batch
from kd_core.term import build_terms

from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits
from kd_cls.evaluation import evaluator
from kd_cls.networks import build_classifier, check_logits

Config = Mapping[str, Any]


@dataclass
class Assembly:
    """Everything that a config describes, built and on its device."""

    data: DataSplits
    distiller: Distiller
    parts: Parts
    sample: Batch

    @property
    def teachers(self) -> dict[str, Any]:
        """The teachers' models by name."""
        return {name: teacher.model for name, teacher in self.distiller.teachers.items()}


def assemble(
    config: Config,
    seed: int,
    device: torch.device,
    data: DataSplits,
    teachers: Mapping[str, Classifier],
) -> Assembly:
    """Build student and terms, on the device.

    Args:
        config: A checked config.
        seed: Of initialisation and dropout.
        device: Where everything runs.
        data: From `build_data`.
        teachers: The teachers by name.
    """
    seed_everything(seed)  # right before the student: all methods start from the same weights
    student = build_classifier(data, "student", **config["student"]).to(device)
    for teacher in teachers.values():
        teacher.to(device)
    sample = sample_batch(data)
    check_logits(student, sample, data, "student")
    if "peers" in config:
        distiller: Distiller = build_mutual(config, data, student, sample)
    else:
        distiller = build_distiller(data, student, teachers, sample, **config.get("distiller", {}))
    distiller.to(device)
    seed_everything(mix(seed, 1 + distributed.rank()))  # dropout, whatever was built before
    rank, world = distributed.rank(), distributed.world_size()
    parts = Parts(
        distiller=distiller,
        loader=data.train.shard(rank, world),
        test=evaluator(data.test.shard(rank, world)),
        val=evaluator(data.val.shard(rank, world)) if data.val else None,
        metric="top1",
        metadata=metadata(distiller.deploy_node(config["student"]["network"]), data, student),
    )
    return Assembly(data, distiller, parts, sample)


def build_distiller(
    data: DataSplits,
    student: Classifier,
    teachers: Mapping[str, Classifier],
    sample: Batch,
    /,
    *,
    terms: Mapping[str, Any] | None = None,
    task_weight: float | Mapping[str, float] = 1.0,
    train_student: bool = True,
) -> Distiller:
    """Build the distiller of a config's node: see `Distiller` for its keys."""
    built = build_terms(
        terms or {},
        student,
        teachers,
        sample,
        num_classes=data.num_classes,
        num_samples=data.num_samples,
        labels=data.labels,
    )
    return Distiller(
        student,
        teachers,
        built,
        task_weight=task_weight,
        train_student=train_student,
        sample=sample,
    )


def build_mutual(
    config: Config, data: DataSplits, student: Classifier, sample: Batch
) -> MutualDistiller:
    """Build the student's peers, each a student's node with overrides, and what they all learn."""
    peers = {}
    for name, node in config["peers"].items():
        where = f"peers.{name}"
        peers[name] = build_classifier(data, where, **merge(config["student"], node))
        peers[name].to(sample["image"].device)
        check_logits(peers[name], sample, data, where)
    return MutualDistiller(student, peers, sample=sample, **config.get("distiller", {}))


def build_data(config: Config, seed: int, device: torch.device) -> DataSplits:
    """Build the data, with loaders that give batches on the device; its seed defaults to `seed`."""
    data: DataSplits = build(config["data"], "data", data_seed=config.get("data_seed", seed))
    for loader in (data.train, data.test, *([data.val] if data.val else [])):
        loader.to(device)
    return data


def sample_batch(data: DataSplits) -> Batch:
    """Return two training images as a batch."""
    pairs = data.train.shard(0, 1)  # a copy, so that its worker processes do not outlive it
    pairs.batch_size = 2
    return next(pairs.epoch(0))


def metadata(network: Config, data: DataSplits, student: Classifier) -> dict[str, str]:
    """Return what a user of the exported weights must know, each value as JSON."""
    facts = {
        "network": network,
        "classes": data.classes,
        "mean": student.mean.flatten().tolist(),
        "std": student.std.flatten().tolist(),
        "image_size": student.size or data.image_size,
    }
    return {name: json.dumps(value) for name, value in facts.items()}
