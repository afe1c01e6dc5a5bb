"""One training run: from built parts to a folder of results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from kd_core.config.build import build
from kd_core.config.values import NonNegative, Positive, PositiveInt, Share, checked
from kd_core.data.loader import Loader
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError
from kd_core.experiment import report, results
from kd_core.files import checkpoint
from kd_core.files.weights import load_weights
from kd_core.networks.task import Batch, Task, network_of
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from kd_core.training.cuda_graph import CapturedStep
from kd_core.training.hooks import CheckpointHook, Evaluate, EvaluateHook, Hook
from kd_core.training.loggers import JsonLog, ProgressLog, TensorBoardLog, WandbLog
from kd_core.training.memory_format import use_channels_last
from kd_core.training.optimizer import build_optimizer
from kd_core.training.schedule import SCHEDULE
from kd_core.training.step import PRECISIONS, STEP, TrainStep
from kd_core.training.teacher_cache import CachedTeachers
from kd_core.training.trainer import Trainer


@dataclass
class Parts:
    """What a task package builds from a config, and a run needs.

    Args:
        distiller: The student with its teachers, on its device.
        loader: Training batches.
        test: Evaluation on the test set.
        val: Evaluation on a held-out part of the training set, or None.
        metric: Name of the metric that defines the best epoch; larger is better.
        metadata: What a user of the exported weights must know, as text.
        sample: A small training batch, to try things on.
    """

    distiller: Distiller
    loader: Loader
    test: Evaluate
    metric: str
    val: Evaluate | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    sample: Batch | None = None


@checked
def build_trainer(
    parts: Parts,
    work_dir: Path,
    *,
    optimizer: Mapping[str, Any],
    schedule: Mapping[str, Any],
    epochs: PositiveInt,
    precision: Literal["fp32", "bf16"] = "fp32",
    channels_last: bool | None = None,
    accumulate: PositiveInt = 1,
    clip_norm: Positive | None = None,
    step: Mapping[str, Any] | None = None,
    ema: Share | None = None,
    ema_warmup: bool = False,
    sync_batchnorm: bool = False,
    find_unused_parameters: bool = False,
    accelerate_teachers: bool = True,
    teacher_cache: bool | str = False,
    capture: bool = True,
    compile: bool = False,
    eval_every: PositiveInt = 1,
    save_every: PositiveInt = 1,
    save_minutes: NonNegative = 10.0,
    keep_every: PositiveInt | None = None,
    log_every: PositiveInt = 50,
    tensorboard: bool = True,
    wandb: Mapping[str, Any] | None = None,
) -> Trainer:
    """Build the trainer of a config's `trainer`, `optimizer` and `schedule` nodes.

    Args:
        parts: What is trained, on what.
        work_dir: Folder of the run.
        optimizer: Node; the parameters are filled in.
        schedule: Node; `epochs` is filled in.
        epochs: Passes over the training set.
        precision: "fp32", or "bf16" autocast.
        channels_last: Keep networks and images in NHWC memory; None does so where it was found to
            be faster, on CPUs and with bf16, and networks can; see `use_channels_last`.
        accumulate: Batches an optimizer step.
        clip_norm: Largest norm of the whole gradient.
        step: Node of another training step, such as `kd_core.training.dot.DOTStep`; distiller,
            optimizer, precision, clip_norm and find_unused_parameters are filled in.
        ema: Decay of the student's moving average, which is then evaluated and exported.
        ema_warmup: Let the average forget faster at first; see `ModelAverage`.
        sync_batchnorm: Compute BN statistics over all processes.
        find_unused_parameters: For networks with parts that some batches do not use, under DDP.
        accelerate_teachers: Let teachers run a copy that gives the same in less time; see
            `Teacher.accelerate`.
        teacher_cache: Keep what teachers show for every run of them, see `CachedTeachers`: in this
            folder, or where the tool keeps teachers.
        capture: Record the step as a CUDA graph, where it can be; see `CapturedStep`.
        compile: Hand the losses to `torch.compile`, which takes minutes at first.
        eval_every: Epochs between evaluations; a student that is not trained has one, at the end.
        save_every: Epochs between checkpoints.
        save_minutes: Minutes between checkpoints.
        keep_every: Epochs between checkpoints that are kept.
        log_every: Steps between looks at the device.
        tensorboard: Write TensorBoard files.
        wandb: Arguments of `wandb.init`; None leaves it alone.
    """
    if compile and step is not None:
        raise UserError("trainer.compile is for the plain step; leave it or trainer.step out")
    distiller = parts.distiller
    if precision == "bf16" and report.has_bf16(distiller.steps.device) is False:
        err.print("this device has no bf16 arithmetic: precision=bf16 may take longer than fp32")
    use_channels_last(distiller, channels_last, precision=precision, sample=parts.sample)
    if sync_batchnorm and distributed.is_distributed():
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(distiller)
    built = build_optimizer(optimizer, distiller.parameters())
    take_step = build(
        step or {"type": TrainStep},
        where="trainer.step",
        kind=STEP,
        distiller=distiller,
        optimizer=built,
        precision=precision,
        clip_norm=clip_norm,
        find_unused_parameters=find_unused_parameters,
        compile=compile,
    )
    if capture and distiller.steps.device.type == "cuda":
        take_step = CapturedStep(take_step, distiller, built)
    if parts.sample is not None and accelerate_teachers:
        for teacher in distiller.teachers.values():
            teacher.accelerate(parts.sample, PRECISIONS[precision])
    loader = parts.loader
    if teacher_cache:
        folder = work_dir / "teachers" if teacher_cache is True else Path(teacher_cache)
        loader = CachedTeachers(loader, distiller.teachers, folder, precision=precision)
        if distributed.rank() == 0:
            err.print(loader.describe(epochs))
    prefix = "val_" if parts.val else ""
    every = eval_every if distiller.train_student else epochs  # what does not change: once
    hooks: list[Hook] = [
        EvaluateHook(parts.val or parts.test, parts.metric, every=every, prefix=prefix)
    ]
    if distributed.rank() == 0:
        hooks += [JsonLog(), ProgressLog(prefix + parts.metric)]
        hooks += [TensorBoardLog()] if tensorboard else []
        hooks += [WandbLog(**wandb)] if wandb is not None else []
    hooks.append(CheckpointHook(epochs=save_every, minutes=save_minutes, keep_every=keep_every))
    return Trainer(
        distiller,
        loader,
        take_step,
        built,
        schedule=build(schedule, "schedule", kind=SCHEDULE, epochs=epochs),
        epochs=epochs,
        work_dir=work_dir,
        hooks=hooks,
        accumulate=accumulate,
        ema=ema,
        ema_warmup=ema_warmup,
        log_every=log_every,
    )


def run(trainer: Trainer, parts: Parts, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Train, then write `student.pth`, `student.safetensors` and `result.json`; return the result.

    Args:
        trainer: From `build_trainer`; `resume_training` lets it continue.
        parts: The same parts.
        facts: What else the result should say: seeds, the teacher's accuracy.
    """
    trainer.train()
    return finish(trainer, parts, facts)


def resume_training(trainer: Trainer) -> None:
    """Continue from the checkpoint in the trainer's folder, if there is one."""
    last = trainer.work_dir / "last.pth"
    if last.is_file():
        trainer.resume(last)
        if distributed.rank() == 0:
            where = f"after {trainer.epoch} epochs and {trainer.step_in_epoch} steps"
            err.print(f"resumed {last} {where}")


def finish(trainer: Trainer, parts: Parts, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write what a trained run leaves in its folder, and return the result; see `run`."""
    result = {**facts, **_scores(trainer, parts)}
    peers = trainer.distiller.peers.items()
    result |= {"peers": {name: parts.test(peer.eval()) for name, peer in peers}} if peers else {}
    if distributed.rank() == 0:
        result["products"] = results.hashes_of(_export(trainer, parts), trainer.work_dir)
        checkpoint.save_json(result, trainer.work_dir / results.FILE)
    distributed.wait_for_all()
    return result


def _scores(trainer: Trainer, parts: Parts) -> dict[str, Any]:
    """Return the metrics of the last and the best epoch, and how the best was chosen."""
    best_epoch = trainer.best["epoch"]
    if parts.val is None:
        last = {k: v for k, v in trainer.history[-1].items() if k in trainer.best}
        best = {**trainer.best, "chosen_on": "test data"}
    else:
        model = trainer.predictor()
        last = {"epoch": trainer.epoch, **parts.test(model)}
        network = network_of(model)
        final = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        load_weights(network, trainer.work_dir / "best.pth")
        best = {"epoch": best_epoch, **parts.test(model), "chosen_on": "validation split"}
        network.load_state_dict(final)
    return {
        "metric": parts.metric,
        "last": last,
        "best": best,
        "epochs": trainer.epochs,
        "student_parameters": report.parameter_count(network_of(trainer.distiller.student)),
        "train_seconds": round(trainer.seconds, 2),
        "images_per_second": median(record["images_per_second"] for record in trainer.history),
    }


def _export(trainer: Trainer, parts: Parts) -> list[Path]:
    """Write all weights that a run leaves; return the files."""
    model, folder = trainer.predictor(), trainer.work_dir
    products = model.products() if isinstance(model, Task) else {"student": model.state_dict()}
    checkpoint.export(products.pop("student"), folder / "student", parts.metadata)
    states = {folder / f"{name}.pth": product for name, product in products.items()}
    for name, criterion in trainer.distiller.criteria.items():
        if state := criterion.state_dict():
            states[folder / "criteria" / f"{name}.pth"] = state
    for name, peer in trainer.distiller.peers.items():
        states[folder / "peers" / f"{name}.pth"] = network_of(peer).state_dict()
    for file, state in states.items():
        checkpoint.save(state, file)
    return [folder / "student.pth", folder / "student.safetensors", *states]
