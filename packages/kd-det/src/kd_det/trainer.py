"""Detectron2's own trainer with a distiller in the place of the model."""

import inspect
import random
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm
from kd_core import Distiller, checkpoint
from kd_core.seed import mix, rng_state, seed_everything, set_rng_state
from torch import nn

from kd_det.compat import has_extension, restart_loader
from kd_det.data.reading import TellingMapper, watch_workers
from kd_det.distiller import DetectionDistiller, build_distiller, inherit
from kd_det.weights import SafeCheckpointer


class DistillationTrainer(DefaultTrainer):
    """Train what a config with a KD node describes; without terms, the plain detector.

    Checkpoints hold the student as `model`, under its plain names, and beside it the criteria, the
    optimizer, counters and random generators, so that training goes on exactly where it stopped.
    A subclass may override whatever one of `DefaultTrainer` may.
    """

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Return the distiller, or the plain detector."""
        return build_distiller(cfg) if cfg.KD.TERMS else super().build_model(cfg)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start: int = 0) -> Any:
        """Return Detectron2's loader, from a given iteration on.

        The order is a function of (SEED, iteration) where SEED is set and the sampler is the usual
        one; other samplers start anew.
        """
        if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
            return watch_workers(super().build_train_loader(cfg, TellingMapper(cfg, True)), cfg)
        keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
        files = cfg.DATASETS.PROPOSAL_FILES_TRAIN
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=keypoints if cfg.MODEL.KEYPOINT_ON else 0,
            proposal_files=files if cfg.MODEL.LOAD_PROPOSALS else None,
        )
        batch_size = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
        sampler = ResumableSampler(len(dataset), cfg.SEED, skip=start * batch_size)
        loader = build_detection_train_loader(
            cfg, TellingMapper(cfg, True), dataset=dataset, sampler=sampler
        )
        return watch_workers(loader, cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Return Detectron2's loader of a data set for evaluation."""
        loader = build_detection_test_loader(cfg, dataset_name, TellingMapper(cfg, False))
        return watch_workers(loader, cfg)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> COCOEvaluator:
        """Return the evaluator of COCO's metrics."""
        folder = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
        return COCOEvaluator(dataset_name, output_dir=str(folder), use_fast_impl=has_extension())

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> OrderedDict[str, Any]:
        """Evaluate the student; what evaluation draws at random leaves no trace in training."""
        random_state = RandomState()
        random_state.load_state_dict(random_state.state_dict())
        try:
            return super().test(cfg, student_of(model), evaluators)
        finally:
            random_state.restore()

    @classmethod
    def evaluate(cls, cfg: CfgNode, *, resume: bool = False) -> OrderedDict[str, Any]:
        """Evaluate the plain student with `MODEL.WEIGHTS`, or a run's last checkpoint."""
        model = DefaultTrainer.build_model(cfg)
        checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
        return cls.test(cfg, model)

    @property
    def distiller(self) -> nn.Module:
        """The distiller, or the plain detector where the config has no terms."""
        return without_ddp(self.model)

    def build_hooks(self) -> list[HookBase]:
        """Return Detectron2's hooks, with our checkpointer, and the one that counts steps."""
        distiller = self.distiller
        parts: dict[str, Any] = {"optimizer": self.optimizer, "random": RandomState()}
        if isinstance(distiller, DetectionDistiller):
            parts["distiller"] = DistillerState(distiller)
        if hasattr(self._trainer, "grad_scaler"):
            parts["grad_scaler"] = self._trainer.grad_scaler
        # Detectron2's own parts: iteration and schedule.
        parts |= self.checkpointer.checkpointables  # type: ignore[has-type]
        self.checkpointer = WholeCheckpointer(student_of(distiller), self.cfg.OUTPUT_DIR, **parts)
        hooks = super().build_hooks()
        return [CountSteps(distiller), *hooks] if isinstance(distiller, Distiller) else hooks

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint, with all that training depends on, or `MODEL.WEIGHTS`."""
        super().resume_or_load(resume)
        distiller = self.distiller
        if not self.start_iter:
            if isinstance(distiller, DetectionDistiller):
                teacher = distiller.teachers["teacher"].network
                inherit(distiller.network, teacher, self.cfg.KD.INHERIT)
            return
        if "start" in inspect.signature(self.build_train_loader).parameters:
            restart_loader(
                self._trainer, lambda: self.build_train_loader(self.cfg, start=self.start_iter)
            )
        # Last, since a new loader draws from the generators too.
        random_state = self.checkpointer.checkpointables["random"]
        if comm.get_rank() == 0:
            random_state.restore()
        else:
            seed_everything(mix(max(self.cfg.SEED, 0), comm.get_rank(), self.start_iter))


class ResumableSampler(TrainingSampler):
    """Detectron2's endless shuffle, without the samples that were used before."""

    def __init__(self, size: int, seed: int, *, skip: int) -> None:
        super().__init__(size, seed=seed if seed >= 0 else None)
        self.skip = skip

    def __iter__(self) -> Iterator[int]:
        return islice(super().__iter__(), self.skip, None)


class CountSteps(HookBase):
    """Counts optimizer steps, on which warm-ups depend."""

    def __init__(self, distiller: Distiller) -> None:
        self.distiller = distiller

    def after_step(self) -> None:
        """Count one."""
        self.distiller.advance()


class WholeCheckpointer(SafeCheckpointer):
    """Writes files that are whole or absent, and reads only plain data."""

    def save(self, name: str, **kwargs: Any) -> None:
        """Write everything to `<name>.pth`, and then its name to `last_checkpoint`."""
        if not self.save_dir or not self.save_to_disk:
            return
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        file = Path(self.save_dir) / f"{name}.pth"
        checkpoint.save({"model": self.model.state_dict(), **parts, **kwargs}, file)
        checkpoint.save_text(file.name, file.with_name("last_checkpoint"))


class DistillerState:
    """What a checkpoint keeps of a distiller beside the student: criteria and counter."""

    def __init__(self, distiller: DetectionDistiller) -> None:
        self.distiller = distiller

    def state_dict(self) -> dict[str, Any]:
        """Return criteria and counter."""
        return {"criteria": self.distiller.criteria.state_dict(), "steps": self.distiller.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them over."""
        self.distiller.criteria.load_state_dict(state["criteria"])
        self.distiller.steps.copy_(state["steps"])


class RandomState:
    """The generators that Detectron2 draws from: those of Python, NumPy and torch."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return their states in types that a safe reader takes."""
        _, keys, *rest = np.random.get_state()
        numpy = (torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest)
        return {"torch": rng_state(), "numpy": numpy, "python": random.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep them for `restore`, which has its moment."""
        self.loaded = state

    def restore(self) -> None:
        """Set the generators to what was loaded, if anything was."""
        if self.loaded:
            set_rng_state(self.loaded["torch"])
            keys, *rest = self.loaded["numpy"]
            np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
            random.setstate(self.loaded["python"])


def without_ddp(model: nn.Module) -> nn.Module:
    """Return the model inside DDP's wrapper."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def student_of(model: nn.Module) -> nn.Module:
    """Return the plain detector inside a distiller, if it is one."""
    model = without_ddp(model)
    return model.network if isinstance(model, DetectionDistiller) else model
