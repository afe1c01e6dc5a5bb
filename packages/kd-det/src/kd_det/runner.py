"""What the training tool of detection does, once its arguments are read."""

import time
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import default_setup, launch
from kd_core.config.trusted import trust
from kd_core.errors import UserError
from kd_core.experiment import report
from kd_core.files.claim import claimed
from kd_core.files.weight_files import split_choice
from kd_core.files.workdir import named_folder
from kd_core.runtime import distributed, json_lines
from kd_core.runtime.console import out
from kd_core.runtime.failures import during_run, memory_explained

from kd_det import demo
from kd_det.config import check_teacher, read_config
from kd_det.data.proposals import check_files, require_files
from kd_det.data.register import check_data, parse_set, register_coco
from kd_det.data.semantics import check_semantics
from kd_det.data.unlabelled import parse_folder, register_images
from kd_det.deploy import categories
from kd_det.distiller import DetectionDistiller
from kd_det.lazy.files import lazy_of
from kd_det.lazy.reading import in_own_names, require_student
from kd_det.lazy.trainer import trainer_of
from kd_det.release.compat import keys_read_directly, launch_on_cpu
from kd_det.resume import identity
from kd_det.running.augmented import check_augmentation
from kd_det.running.dry_run import dry_run
from kd_det.running.listing import list_taps
from kd_det.running.logs import without_tracebacks
from kd_det.running.machine import check_machine, on_cpu
from kd_det.running.result import forget_result, keep_result, print_scores
from kd_det.settings.choices import check_choices
from kd_det.settings.idle_keys import check_keys
from kd_det.settings.imports import importing
from kd_det.settings.zoo import find_config
from kd_det.teachers.building import check_network
from kd_det.terms import parse_terms
from kd_det.trainer import student_of


def run(args: Namespace) -> None:
    """Do what the arguments say; see `kd_det.train.argument_parser`."""
    trust(*args.opts)  # an import path among them is named by the command line
    with importing(args.imports):
        _run(args)


def _run(args: Namespace) -> None:
    if not args.config_file:
        demo.main(args)
        return
    register(args)
    args.config_file = str(find_config(args.config_file))  # Detectron2 shows its contents
    cfg = read_config(args.config_file, args.opts)
    if args.dry_run or args.list_taps:
        dry_run(cfg) if args.dry_run else list_taps(cfg)
        return
    check(cfg, args)
    # With several machines, the first owns the folder. An evaluation writes there too.
    owned = claimed(Path(cfg.OUTPUT_DIR), patient=args.auto_resume)
    with owned if args.machine_rank == 0 else nullcontext():
        with in_own_names(cfg):
            check_folder(cfg, args)
        if on_cpu(cfg):
            launch_on_cpu(work, args.num_gpus, (cfg, args))
        else:
            machines = args.num_machines, args.machine_rank, args.dist_url
            launch(work, args.num_gpus, *machines, args=(cfg, args))


def register(args: Namespace) -> None:
    """Register the data sets that the arguments name."""
    for text in args.register:
        register_coco(*parse_set(text))
    for text in args.register_images:
        register_images(*parse_folder(text))


def check(cfg: CfgNode, args: Namespace) -> None:
    """Reject terms, data, a device or weights that do not fit, before any work."""
    named_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR")
    parse_terms(cfg)
    check_keys(cfg)
    check_choices(cfg)
    if lazy := lazy_of(cfg):
        require_student(lazy, training=not args.eval_only)
    check_augmentation(cfg)
    check_network(cfg)
    with in_own_names(cfg):
        check_data(cfg, training=not args.eval_only)
        check_semantics(cfg, training=not args.eval_only)
        require_files(cfg, training=not args.eval_only)
        check_files(cfg, training=not args.eval_only)
        check_machine(cfg, args)
        _check_weights(cfg, args)
    if cfg.KD.TERMS and not args.eval_only:
        check_teacher(cfg)


def check_folder(cfg: CfgNode, args: Namespace) -> None:
    """Reject a folder with another run or with nothing to evaluate; write the run's identity."""
    has_run = Path(cfg.OUTPUT_DIR, "last_checkpoint").exists()
    if args.eval_only:
        if args.resume and has_run:
            identity.check_model(cfg)
        elif not cfg.MODEL.WEIGHTS:
            raise UserError(
                f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} has no checkpoint to evaluate; name the folder of "
                "a run, or a file as MODEL.WEIGHTS"
            )
        return
    if has_run and not args.resume:
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
    if weights and "://" not in weights and not split_choice(weights)[0].is_file():
        raise UserError(
            f"MODEL.WEIGHTS: no file {weights!r}; tools/det_convert.py makes it from torchvision's "
            "ImageNet weights, and MODEL.WEIGHTS '' starts from random ones"
        )


def work(cfg: CfgNode, args: Namespace) -> Any:
    """Train or evaluate in one process; return the results of evaluation."""
    # This may be another process.
    trust(*args.trust, *args.opts)
    quiet = nullcontext() if args.debug else without_tracebacks()
    with importing(args.imports), quiet, json_lines.on_stdout(args.json):
        register(args)
        return _train_or_evaluate(cfg, args)


def _train_or_evaluate(cfg: CfgNode, args: Namespace) -> Any:
    with keys_read_directly():
        default_setup(cfg, args)
    memory = memory_remedy(cfg)
    with memory_explained(memory):
        if args.eval_only:
            found = trainer_of(cfg).evaluate(cfg, resume=args.resume)
            print_scores(found, cfg.OUTPUT_DIR if args.resume else cfg.MODEL.WEIGHTS)
            return found
        trainer = trainer_of(cfg)(cfg)
        trainer.resume_or_load(resume=args.resume)
    if isinstance(trainer.distiller, DetectionDistiller) and distributed.rank() == 0:
        out.print(report.terms_table(trainer.distiller))
    with during_run(Path(cfg.OUTPUT_DIR), cfg.SEED, memory):
        forget_result(cfg.OUTPUT_DIR)
        began = time.monotonic()
        found = trainer.train()
        keep_result(trainer, student_of(trainer.model), time.monotonic() - began)
        return found


def memory_remedy(cfg: CfgNode) -> str:
    """Return which options lower the memory, with their present values."""
    return (
        f"lower SOLVER.IMS_PER_BATCH (now {cfg.SOLVER.IMS_PER_BATCH}) or INPUT.MIN_SIZE_TRAIN (now "
        f"{tuple(cfg.INPUT.MIN_SIZE_TRAIN)}), or set SOLVER.AMP.ENABLED True (now "
        f"{cfg.SOLVER.AMP.ENABLED}) on a GPU"
    )
