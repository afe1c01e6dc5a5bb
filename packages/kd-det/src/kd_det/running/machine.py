"""What a config asks of the machine: a device, its precision, and processes that share a batch."""

from argparse import Namespace

import torch
from detectron2.config import CfgNode
from kd_core.errors import UserError


def check_machine(cfg: CfgNode, args: Namespace) -> None:
    """Reject what this machine, or Detectron2 on it, cannot do; before any process is started.

    Raises:
        UserError: Names the key or option, and a value that would do.
    """
    check_device(cfg)
    _check_processes(cfg, args)
    if not args.eval_only:
        check_precision(cfg)
        check_batch(cfg, args.num_gpus * args.num_machines)


def check_device(cfg: CfgNode) -> None:
    """Reject a device that does not exist here."""
    try:
        kind = torch.device(cfg.MODEL.DEVICE).type
    except RuntimeError as error:
        raise UserError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r:.40}, which is not a device; wanted cpu or cuda"
        ) from error
    if kind != "cpu" and not torch.cuda.is_available():
        raise UserError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but there is no CUDA device here; "
            "add MODEL.DEVICE cpu"
        )


def on_cpu(cfg: CfgNode) -> bool:
    """Return whether a config is run on a CPU, also if it says `cpu:0`."""
    return torch.device(cfg.MODEL.DEVICE).type == "cpu"


def check_precision(cfg: CfgNode) -> None:
    """Reject mixed precision where Detectron2 does not have it."""
    if cfg.SOLVER.AMP.ENABLED and on_cpu(cfg):
        raise UserError(
            "SOLVER.AMP.ENABLED is True, but Detectron2 has mixed precision on CUDA devices alone "
            "(MODEL.DEVICE is cpu); set SOLVER.AMP.ENABLED False"
        )


def check_batch(cfg: CfgNode, processes: int) -> None:
    """Reject a batch that processes cannot share equally."""
    images, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE
    scaled = reference > 0 and reference != processes  # Detectron2 then scales the batch itself
    parts = reference if scaled else processes
    if images >= parts and images % parts == 0:
        return
    what = f"SOLVER.REFERENCE_WORLD_SIZE {parts}" if scaled else f"the {parts} processes"
    fits = max(parts, images - images % parts)
    raise UserError(
        f"SOLVER.IMS_PER_BATCH is {images}, the images of all processes; wanted a multiple of "
        f"{what}, such as {fits}"
    )


def _check_processes(cfg: CfgNode, args: Namespace) -> None:
    for name in ("num_gpus", "num_machines"):
        if getattr(args, name) < 1:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} is {getattr(args, name)}; wanted at least 1")
    if not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            f"--machine-rank is {args.machine_rank}; wanted 0 to {args.num_machines - 1}, the "
            "number of this machine among --num-machines"
        )
    if on_cpu(cfg) and args.num_machines > 1:
        raise UserError(
            f"--num-machines is {args.num_machines}, but on a CPU all processes are of one "
            "machine; leave it out, and give their number as --num-gpus"
        )
    if not on_cpu(cfg) and args.num_gpus > torch.cuda.device_count():
        raise UserError(
            f"--num-gpus is {args.num_gpus}, but there are {torch.cuda.device_count()} here"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError("--dist-url is auto; several machines need one address, tcp://HOST:PORT")
