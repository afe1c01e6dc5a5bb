"""Detectron2's trainer with a distiller in place of the model."""

import inspect
import warnings
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from kd_core.errors import UserError
from kd_core.networks.activation_checkpointing import checkpoint_activations
from kd_core.runtime import json_lines
from torch import nn

from kd_det.data.evaluation import numbered_from_one
from kd_det.data.evaluators import evaluator_of
from kd_det.data.loader import Mapper, build_train_loader
from kd_det.data.proposals import read_proposals_safely
from kd_det.data.reading import FileNamingMapper, reading_sets, watch_workers
from kd_det.data.unlabelled import learns_without_labels
from kd_det.distiller import DetectionDistiller, build_distiller, inherit
from kd_det.lazy.files import lazy_of
from kd_det.networks.detector import building
from kd_det.release.compat import as_written, restart_loader
from kd_det.resume import identity
from kd_det.resume.checkpointer import WholeCheckpointer
from kd_det.resume.hooks import add_ours, forget_metrics
from kd_det.resume.state import DistillerState, ModelState, RunSeed, with_options
from kd_det.running.augmented import check_augmentation, evaluate_augmented, with_last_evaluation
from kd_det.running.clipping import clipping, clips
from kd_det.running.divergence import divergence_explained
from kd_det.running.machine import check_precision
from kd_det.running.metrics_file import StdoutWriter
from kd_det.settings.idle_keys import check_keys
from kd_det.settings.plain_config import write_plain
from kd_det.weights import SafeCheckpointer

read_proposals_safely()


class DistillationTrainer(DefaultTrainer):
    """Trains the distiller of a config with a KD node; without terms, the plain detector.

    A run that is killed at any moment and resumed ends with the same weights, bit for bit, as
    without the kill. Checkpoints hold the student as `model`, under its plain names, and beside it
    the criteria, the optimizer, counters and the seed. Random numbers of a step are a function of
    (SEED, iteration), so no generator's state is kept, and the number of data workers has no
    effect. If SEED is not set, one is drawn and kept in the checkpoints.

    Resuming is not exact where two runs of one command differ: on a GPU, whose kernels add in any
    order (`torch.use_deterministic_algorithms(True)` fixes the order for most); with another number
    of processes, threads or another build of PyTorch; and where a subclass has its own data loader
    without `start`, or a criterion or network with state other than parameters, buffers and
    numbers. In `metrics.json`, times differ, and Detectron2's medians of 20 iterations restart at
    the checkpoint.

    A subclass may override everything that a subclass of `DefaultTrainer` may.
    """

    reads_lazy_configs = False

    def __init__(self, cfg: CfgNode) -> None:
        self._require_own(cfg)
        check_precision(cfg)
        check_augmentation(cfg)
        self.asked = cfg
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        with warnings.catch_warnings():
            # Detectron2 says so to DDP by a name that torch 2.13 replaced.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            super().__init__(with_options(cfg, "SEED", int(seed)))

    @classmethod
    def _require_own(cls, cfg: CfgNode) -> None:
        if lazy_of(cfg) is not None and not cls.reads_lazy_configs:
            raise UserError("kd_det.lazy.trainer.LazyTrainer trains the student of a LazyConfig")

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Return the distiller, or the plain detector."""
        check_keys(cfg)
        with nullcontext() if cfg.KD.TERMS else building():
            model = build_distiller(cfg) if cfg.KD.TERMS else super().build_model(cfg)
        if cfg.KD.ACTIVATION_CHECKPOINTING:
            checkpoint_activations([student_of(model)], True, "KD.ACTIVATION_CHECKPOINTING")
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Return Detectron2's optimizer, whose gradients are clipped as `clipping` says."""
        with building(node="SOLVER"):
            if not clips(cfg.SOLVER.CLIP_GRADIENTS):
                return super().build_optimizer(cfg, model)
            plain = with_options(cfg, "SOLVER.CLIP_GRADIENTS.ENABLED", False)
            optimizer: torch.optim.Optimizer = super().build_optimizer(plain, model)
        optimizer.register_step_pre_hook(clipping(cfg.SOLVER.CLIP_GRADIENTS, optimizer))
        return optimizer

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """Return Detectron2's schedule."""
        with building(node="SOLVER"):
            return super().build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_mapper(cls, cfg: CfgNode) -> Mapper:
        """Return the mapper, which reads and augments an image; override it with your own."""
        if learns_without_labels(cfg):
            cfg = with_options(cfg, "MODEL.KEYPOINT_ON", False)  # names of keypoints are not known
        with building(node="INPUT"):
            return FileNamingMapper(cfg, True)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start: int = 0) -> Any:
        """Return batches that are a function of (SEED, iteration), from a given iteration on."""
        mapper = cls.build_train_mapper(cfg)
        return watch_workers(build_train_loader(cfg, mapper, seed=cfg.SEED, start=start), cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Return Detectron2's loader of a data set for evaluation."""
        with reading_sets([dataset_name]):
            loader = build_detection_test_loader(cfg, dataset_name, FileNamingMapper(cfg, False))
        return watch_workers(loader, cfg)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Return the evaluator of a data set: COCO's metrics, or those of its kind."""
        folder = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
        return numbered_from_one(evaluator_of(cfg, dataset_name, folder))

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> OrderedDict[str, Any]:
        """Evaluate the student."""
        return super().test(cfg, student_of(model), evaluators)

    @classmethod
    def evaluate(cls, cfg: CfgNode, *, resume: bool = False) -> OrderedDict[str, Any]:
        """Evaluate the plain student with `MODEL.WEIGHTS`, or a run's last checkpoint."""
        cls._require_own(cfg)
        with building():
            model = DefaultTrainer.build_model(cfg)
        checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, whole=True)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
        found = cls.test(cfg, model)
        found.update(evaluate_augmented(cls, cfg, model))
        if comm.is_main_process():
            verify_results(cfg, found)  # TEST.EXPECTED_RESULTS
        return found

    @property
    def distiller(self) -> nn.Module:
        """The distiller, or the plain detector where the config has no terms."""
        return without_ddp(self.model)

    def build_hooks(self) -> list[HookBase]:
        """Return Detectron2's hooks, with our checkpointer, and ours."""
        distiller = self.distiller
        self.model_state = ModelState(distiller)
        parts: dict[str, Any] = {"optimizer": self.optimizer, "seed": RunSeed(self)}
        if isinstance(distiller, DetectionDistiller):
            parts["distiller"] = DistillerState(distiller)
        parts["state"] = self.model_state  # after weights and criteria, whose buffers it corrects
        if hasattr(self._trainer, "grad_scaler"):
            parts["grad_scaler"] = self._trainer.grad_scaler
        # Detectron2's own parts: iteration and schedule.
        parts |= self.checkpointer.checkpointables  # type: ignore[has-type]
        self.checkpointer = WholeCheckpointer(student_of(distiller), self.cfg.OUTPUT_DIR, **parts)
        made = add_ours(super().build_hooks(), self, self.model_state)
        if not self.cfg.TEST.AUG.ENABLED:
            return made
        return with_last_evaluation(
            made, lambda: evaluate_augmented(type(self), self.cfg, student_of(distiller))
        )

    def build_writers(self) -> list[EventWriter]:
        """Return Detectron2's writers, and one for programs."""
        writers: list[EventWriter] = super().build_writers()
        return [*writers, StdoutWriter(self.cfg.OUTPUT_DIR)] if json_lines.is_wanted() else writers

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint with the whole training state, or `MODEL.WEIGHTS`.

        Raises:
            UserError: If the checkpoint is of another config, or does not fit.
        """
        if resume and self.checkpointer.has_checkpoint():
            identity.check(self.asked)
        super().resume_or_load(resume)
        identity.keep(self.asked)
        if comm.is_main_process():
            write_plain(self.cfg)
        if resume and comm.is_main_process():
            forget_metrics(self.cfg.OUTPUT_DIR, self.start_iter)
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

    def train(self) -> Any:
        """Train to `SOLVER.MAX_ITER`; return and verify the results of evaluation."""
        if isinstance(self.distiller, DetectionDistiller):
            self.distiller.accelerate_teachers()
        with as_written(), divergence_explained(self):
            return super().train()

    def after_train(self) -> None:
        """Keep the iteration count of a finished run that is resumed; it only evaluates."""
        self.iter: int = min(self.iter, self.max_iter)
        super().after_train()


def without_ddp(model: nn.Module) -> nn.Module:
    """Return the model inside DDP's wrapper."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def student_of(model: nn.Module) -> nn.Module:
    """Return the plain detector inside a distiller, if it is one."""
    model = without_ddp(model)
    return model.network if isinstance(model, DetectionDistiller) else model
