"""Trains the student of a LazyConfig: its optimizer, schedule, batches and evaluation."""

import copy
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.engine import HookBase, hooks
from detectron2.evaluation import COCOEvaluator
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.registry import locate
from kd_core.errors import UserError
from kd_core.runtime.failures import first_line
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_det.data.evaluation import numbered_from_one
from kd_det.data.loader import Mapper, build_train_loader, drawn_from
from kd_det.data.reading import FileNamingMapper, watch_workers
from kd_det.distiller import DetectionDistiller
from kd_det.lazy.files import LazyFile, lazy_of
from kd_det.release.preparation import has_extension
from kd_det.trainer import DistillationTrainer, student_of

_OF_NAMES = ("lr_factor_func", "overrides")  # settings by names of the student's parameters
_DDP = ("broadcast_buffers", "find_unused_parameters", "fp16_compression")


class LazyTrainer(DistillationTrainer):
    """Trains what a LazyConfig describes, through the same distiller and as exactly resumed.

    Of the file it takes `optimizer`, `lr_multiplier`, `dataloader` and `train`.
    """

    reads_lazy_configs = True

    def __init__(self, cfg: CfgNode) -> None:
        lazy = _lazy(cfg)
        wrong = next((key for key in _DDP if lazy.get(f"train.ddp.{key}")), None)
        if wrong and comm.get_world_size() > 1:
            raise UserError(f"{lazy.path}: train.ddp.{wrong} is not supported; set it to False")
        super().__init__(cfg)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Return the file's optimizer: settings by name see the student's own names."""
        lazy = _lazy(cfg)
        node = lazy.copy().optimizer
        if "params" not in node:
            raise UserError(f"{lazy.path}: optimizer has no `params` that takes a model")
        groups = _groups(lazy, node.params, student_of(model))
        if isinstance(model, DetectionDistiller) and list(model.criteria.parameters()):
            for key in _OF_NAMES:
                node.params.pop(key, None)
            groups += _groups(lazy, node.params, model.criteria)
        target = node._target_
        make = locate(target) if isinstance(target, str) else target
        arguments = {k: _plain(node[k]) for k in node if k not in ("_target_", "params")}
        try:
            optimizer: torch.optim.Optimizer = make(params=groups, **arguments)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{lazy.path}: optimizer: {type(error).__name__}: {first_line(error)}"
            ) from error
        return optimizer

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """Return the file's schedule."""
        lazy = _lazy(cfg)
        multiplier = lazy.build(lazy.node.lr_multiplier, "lr_multiplier")
        return LRMultiplier(optimizer, multiplier=multiplier, max_iter=cfg.SOLVER.MAX_ITER)

    @classmethod
    def build_train_mapper(cls, cfg: CfgNode) -> Mapper:
        """Return the file's mapper."""
        lazy = _lazy(cfg)
        mapper: Mapper = lazy.build(_naming_files(lazy.copy().dataloader.train).mapper, "mapper")
        return mapper

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start: int = 0) -> Any:
        """Return batches of the file's data that are a function of (SEED, iteration)."""
        lazy = _lazy(cfg)
        node = lazy.node.dataloader.train
        with drawn_from(cfg.SEED):  # samplers draw their seed
            dataset = lazy.build(node.dataset, "dataloader.train.dataset")
            sampler = lazy.build(node.get("sampler"), "dataloader.train.sampler")
        mapper = cls.build_train_mapper(cfg)
        given = {"seed": cfg.SEED, "start": start, "dataset": dataset, "sampler": sampler}
        return watch_workers(build_train_loader(cfg, mapper, **given), cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Return the file's data for evaluation."""
        lazy = _lazy(cfg)
        node = lazy.copy().dataloader
        _naming_files(node.test)
        return watch_workers(lazy.build(node.test, "dataloader.test"), cfg)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Return the file's evaluator."""
        lazy = _lazy(cfg)
        node = lazy.copy().dataloader.evaluator
        if node._target_ is COCOEvaluator:
            folder = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
            node.setdefault("output_dir", str(folder))
            node.setdefault("use_fast_impl", has_extension())
        return numbered_from_one(lazy.build(node, "dataloader.evaluator"))

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> OrderedDict[str, Any]:
        """Evaluate the student, if the file has data and an evaluator for that."""
        if evaluators is None and _lazy(cfg).get("dataloader.evaluator") is None:
            return OrderedDict()
        return super().test(cfg, model, evaluators)

    def build_hooks(self) -> list[HookBase]:
        """Return Detectron2's hooks and ours, with the file's periods."""
        made, lazy = super().build_hooks(), _lazy(self.cfg)
        for hook in made:
            if isinstance(hook, hooks.PeriodicCheckpointer):
                hook.max_to_keep = lazy.get("train.checkpointer.max_to_keep")
            if isinstance(hook, hooks.PeriodicWriter):
                period = lazy.get("train.log_period", hook._period)
                hook._period = math.gcd(period, self.cfg.TEST.EVAL_PERIOD)
        return made


def trainer_of(cfg: CfgNode) -> type[DistillationTrainer]:
    """Return the trainer of a config."""
    return DistillationTrainer if lazy_of(cfg) is None else LazyTrainer


def _lazy(cfg: CfgNode) -> LazyFile:
    lazy = lazy_of(cfg)
    if lazy is None:
        raise UserError("this trainer takes the config of a .py LazyConfig; see read_config")
    return lazy


def _groups(lazy: LazyFile, params: DictConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Return the groups of a model's parameters."""
    node = copy.copy(params)
    node.model = model
    return [dict(group) for group in lazy.build(node, "optimizer.params")]


def _naming_files(loader: DictConfig) -> DictConfig:
    """Return a loader whose mapper, if it is Detectron2's, names the files that it cannot read."""
    if loader.mapper._target_ is DatasetMapper:
        loader.mapper._target_ = FileNamingMapper
    return loader


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
