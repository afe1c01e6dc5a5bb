"""What the training tool of detection does, once its arguments are read."""

from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup, launch
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from kd_core.config.trusted import trust
from kd_core.errors import UserError
from kd_core.experiment import report
from kd_core.files.claim import claimed
from kd_core.files.workdir import named_folder
from kd_core.runtime.console import out
from kd_core.runtime.failures import during_run, memory_told

from kd_det import demo
from kd_det.config import read_config
from kd_det.data.register import check_data, parse_set, register_coco
from kd_det.deploy import categories
from kd_det.distiller import DetectionDistiller, Inputs
from kd_det.logs import without_tracebacks
from kd_det.proposals import check_files
from kd_det.release.compat import launch_on_cpu
from kd_det.resume import identity
from kd_det.terms import parse_terms
from kd_det.trainer import DistillationTrainer


def run(args: Namespace) -> None:
    """Do what the arguments say; see `kd_det.train.argument_parser`."""
    trust(*args.opts)  # an import path among them is named by the command line
    if not args.config_file:
        demo.main(args)
        return
    register(args)
    cfg = read_config(args.config_file, args.opts)
    if args.dry_run:
        dry_run(cfg)
        return
    check(cfg, args)
    # With several machines, the first owns the folder. An evaluation writes there too.
    with claimed(Path(cfg.OUTPUT_DIR)) if args.machine_rank == 0 else nullcontext():
        check_folder(cfg, args)
        if cfg.MODEL.DEVICE == "cpu":
            launch_on_cpu(work, args.num_gpus, (cfg, args))
        else:
            machines = args.num_machines, args.machine_rank, args.dist_url
            launch(work, args.num_gpus, *machines, args=(cfg, args))


def register(args: Namespace) -> None:
    """Register the data sets that the arguments name."""
    for text in args.register:
        register_coco(*parse_set(text))


def check(cfg: CfgNode, args: Namespace) -> None:
    """Reject terms, data, a device or weights that do not fit, before any work."""
    named_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR")
    parse_terms(cfg)
    check_data(cfg)
    check_files(cfg, training=not args.eval_only)
    if cfg.MODEL.DEVICE != "cpu" and not torch.cuda.is_available():
        raise UserError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but there is no CUDA device here; "
            "add MODEL.DEVICE cpu"
        )
    _check_weights(cfg, args)


def check_folder(cfg: CfgNode, args: Namespace) -> None:
    """Reject a folder with another run, and write this run's identity to it."""
    if args.eval_only:
        return
    if Path(cfg.OUTPUT_DIR, "last_checkpoint").exists() and not args.resume:
        raise UserError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} has a run; add --resume to continue it, or name "
            "another folder"
        )
    if args.resume:
        identity.check(cfg)
    identity.keep(cfg)
    categories.keep(cfg)


def _check_weights(cfg: CfgNode, args: Namespace) -> None:
    """Reject missing weights of the student, before the data set is read."""
    weights = cfg.MODEL.WEIGHTS
    if args.eval_only and not (weights or args.resume):
        raise UserError("--eval-only needs MODEL.WEIGHTS, or --resume for a run's last checkpoint")
    if weights and "://" not in weights and not Path(weights).is_file():
        raise UserError(
            f"MODEL.WEIGHTS: no file {weights!r}; tools/det_convert.py makes it from torchvision's "
            "ImageNet weights, and MODEL.WEIGHTS '' starts from random ones"
        )


def work(cfg: CfgNode, args: Namespace) -> Any:
    """Train or evaluate in one process; return the results of evaluation."""
    register(args)  # this may be another process
    trust(*args.trust, *args.opts)
    with nullcontext() if args.debug else without_tracebacks():
        return _train_or_evaluate(cfg, args)


def _train_or_evaluate(cfg: CfgNode, args: Namespace) -> Any:
    default_setup(cfg, args)
    memory = memory_remedy(cfg)
    with memory_told(memory):
        if args.eval_only:
            return DistillationTrainer.evaluate(cfg, resume=args.resume)
        trainer = DistillationTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
    if isinstance(trainer.distiller, DetectionDistiller):
        out.print(report.terms_table(trainer.distiller))
    with during_run(Path(cfg.OUTPUT_DIR), cfg.SEED, memory):
        return trainer.train()


def memory_remedy(cfg: CfgNode) -> str:
    """Return which options lower the memory, with their present values."""
    return (
        f"lower SOLVER.IMS_PER_BATCH (now {cfg.SOLVER.IMS_PER_BATCH}) or INPUT.MIN_SIZE_TRAIN (now "
        f"{tuple(cfg.INPUT.MIN_SIZE_TRAIN)}), or set SOLVER.AMP.ENABLED True (now "
        f"{cfg.SOLVER.AMP.ENABLED}) on a GPU"
    )


def dry_run(cfg: CfgNode) -> None:
    """Build everything with random weights, print the terms and take one step; no data is read."""
    if cfg.KD.TERMS:
        cfg.KD.TEACHER.WEIGHTS = "random"
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    model = DistillationTrainer.build_model(cfg).train()
    optimizer = DistillationTrainer.build_optimizer(cfg, model)
    with EventStorage():
        losses = model(synthetic_inputs(masks=cfg.MODEL.MASK_ON))
    torch.stack(list(losses.values())).sum().backward()
    if bad := [name for name, loss in losses.items() if not loss.isfinite()]:
        raise UserError(f"{bad[0]} is not finite in the first step; look at its term and weight")
    optimizer.step()
    if isinstance(model, DetectionDistiller):
        out.print(report.terms_table(model))
    shown = "  ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())
    out.print(f"dry run: one training step done: {shown}")


def synthetic_inputs(size: int = 128, *, masks: bool = False) -> Inputs:
    """Return two images of noise with one object of the first category each."""
    generator = torch.Generator().manual_seed(0)
    low, high = size // 4, 3 * size // 4
    inputs = []
    for _ in range(2):
        truth = Instances((size, size))
        truth.gt_boxes = Boxes(torch.tensor([[low, low, high, high]], dtype=torch.float32))
        truth.gt_classes = torch.zeros(1, dtype=torch.int64)
        if masks:
            truth.gt_masks = PolygonMasks([[np.array([low, low, high, low, high, high])]])
        regions = Instances((size, size), proposal_boxes=truth.gt_boxes.clone())
        regions.objectness_logits = torch.zeros(1)  # for detectors on files of proposals
        image = torch.randint(256, (3, size, size), dtype=torch.uint8, generator=generator)
        sizes = {"height": size, "width": size}
        inputs.append({"image": image, "instances": truth, "proposals": regions, **sizes})
    return inputs
