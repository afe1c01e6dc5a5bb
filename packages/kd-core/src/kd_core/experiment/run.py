"""One training run: from built parts to a folder of results."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.optim import Optimizer

from kd_core.config.build import build
from kd_core.distill.distiller import Distiller
from kd_core.distill.weighing import require_losses
from kd_core.experiment import report, results
from kd_core.experiment.parts import Parts
from kd_core.files import checkpoint
from kd_core.files.weights import load_weights
from kd_core.networks.activation_checkpointing import checkpoint_activations
from kd_core.networks.task import Task, network_of
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from kd_core.runtime.data_parallel import require_synced_batchnorm
from kd_core.training.balance import balance_hooks
from kd_core.training.cuda_graph import CapturedStep
from kd_core.training.early_stop import parse_early_stop
from kd_core.training.hooks import HOOK, CheckpointHook, EvaluateHook, Hook
from kd_core.training.loggers import (
    LOGGER,
    JsonLog,
    ProgressLog,
    StdoutLog,
    TensorBoardLog,
    is_installed,
)
from kd_core.training.loss_scale import require_scale
from kd_core.training.memory_format import use_channels_last
from kd_core.training.optimizer import build_optimizer, groups_text
from kd_core.training.peak_memory import PeakMemoryHook, peak_memory
from kd_core.training.schedule import SCHEDULE
from kd_core.training.settings import TrainerSettings, build_each, parse_trainer
from kd_core.training.step import PRECISIONS, STEP, TrainStep
from kd_core.training.targets.choice import with_cache
from kd_core.training.trainer import Trainer


def build_trainer(
    parts: Parts,
    work_dir: Path,
    *,
    optimizer: Mapping[str, Any],
    schedule: Mapping[str, Any],
    cache_folder: Path | None = None,
    same_data_seed: bool = True,
    **settings: Any,
) -> Trainer:
    """Build the trainer of a config's `trainer`, `optimizer` and `schedule` nodes.

    Args:
        parts: What is trained, on what.
        work_dir: Folder of the run.
        optimizer: Node; see `build_optimizer`.
        schedule: Node; `epochs` is filled in.
        cache_folder: Where teacher outputs are kept unless the settings name a folder; None takes
            one in `work_dir`.
        same_data_seed: Whether runs with other seeds have the same order and augmentation.
        settings: The keys of `trainer`; see `TrainerSettings`.

    Raises:
        UserError: If a key or a value is wrong.
    """
    given = parse_trainer(settings)
    require_losses(parts.distiller.task_weight, parts.distiller.terms)
    _prepare_networks(parts, given)
    built = build_optimizer(optimizer, parts.distiller)
    if text := groups_text(built, parts.distiller):
        distributed.print_note(text)
    step = _build_step(parts.distiller, built, given)
    _accelerate_teachers(parts, given)
    loader = with_cache(
        parts.loader,
        [parts.distiller],
        parts.distiller.teachers,
        given.teacher_cache,
        beside=cache_folder or work_dir / "teachers",
        precision=given.precision,
        epochs=given.epochs,
        same_data_seed=same_data_seed,
    )
    return Trainer(
        parts.distiller,
        loader,
        step,
        built,
        schedule=build(schedule, "schedule", kind=SCHEDULE, epochs=given.epochs),
        epochs=given.epochs,
        work_dir=work_dir,
        hooks=_build_hooks(parts, given),
        accumulate=given.accumulate,
        ema=given.ema,
        ema_warmup=given.ema_warmup,
        log_every=given.log_every,
    )


def _prepare_networks(parts: Parts, settings: TrainerSettings) -> None:
    """Bring the networks into the memory and the form in which they are trained."""
    distiller, precision = parts.distiller, settings.precision
    if note := report.precision_note(precision, distiller.steps.device):
        err.print(note)
    use_channels_last(distiller, settings.channels_last, precision=precision, sample=parts.sample)
    require_synced_batchnorm(settings.sync_batchnorm, distiller.steps.device)
    if settings.sync_batchnorm and distributed.is_distributed():
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(distiller)
    if settings.activation_checkpointing is not False:
        trained = [network_of(model) for model in (distiller.student, *distiller.peers.values())]
        checkpoint_activations(trained, settings.activation_checkpointing)


def _build_step(distiller: Distiller, optimizer: Optimizer, settings: TrainerSettings) -> Any:
    step = build(
        settings.step or {"type": TrainStep},
        where="trainer.step",
        kind=STEP,
        distiller=distiller,
        optimizer=optimizer,
        precision=settings.precision,
        clip_norm=settings.clip_norm,
        find_unused_parameters=settings.find_unused_parameters,
        compile=settings.compile,
    )
    require_scale(step, settings.precision)
    if settings.capture and distiller.steps.device.type == "cuda":
        return CapturedStep(step, distiller, optimizer)
    return step


def _accelerate_teachers(parts: Parts, settings: TrainerSettings) -> None:
    if parts.sample is not None and settings.accelerate_teachers:
        for teacher in parts.distiller.teachers.values():
            teacher.accelerate(parts.sample, PRECISIONS[settings.precision])


def _build_hooks(parts: Parts, settings: TrainerSettings) -> list[Hook]:
    """Build all hooks; loggers see what hooks add to a record, checkpoints what they remember."""
    prefix = "val_" if parts.val else ""
    trained = parts.distiller.train_student
    every = settings.eval_every if trained else settings.epochs  # what does not change: once
    evaluate = parts.val or parts.test
    hooks = balance_hooks(parts.distiller, parts.loader, settings.precision)
    hooks.append(PeakMemoryHook(parts.distiller.steps.device))
    hooks.append(EvaluateHook(evaluate, parts.metric, every=every, prefix=prefix))
    hooks += build_each(settings.hooks, "trainer.hooks", HOOK)
    if settings.early_stop is not None:  # after the evaluation, before what is written
        stop = parse_early_stop(settings.early_stop)
        hooks.append(
            stop.build(
                evaluate=evaluate, default=parts.metric, prefix=prefix, chosen_on=parts.chosen_on
            )
        )
    if distributed.rank() == 0:
        progress = ProgressLog(prefix + parts.metric, device=parts.distiller.steps.device)
        hooks += [JsonLog(), StdoutLog(), progress]
        if settings.loggers is not None:
            hooks += build_each(settings.loggers, "trainer.loggers", LOGGER)
        elif is_installed("tensorboard"):
            hooks.append(TensorBoardLog())
    hooks.append(
        CheckpointHook(
            epochs=settings.save_every,
            minutes=settings.save_minutes,
            keep_every=settings.keep_every,
        )
    )
    return hooks


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
        where = f"after {trainer.epoch} epochs and {trainer.step_in_epoch} steps"
        distributed.print_note(f"resumed {last} {where}")


def finish(trainer: Trainer, parts: Parts, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write what a trained run leaves in its folder, and return the result; see `run`."""
    result = {**facts, **_scores(trainer, parts), **peak_memory(trainer.hooks)}
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
        best = {**trainer.best, "chosen_on": parts.chosen_on}
    else:
        model = trainer.predictor()
        last = {"epoch": trainer.epoch, **parts.test(model)}
        network = network_of(model)
        final = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        load_weights(network, trainer.work_dir / "best.pth")
        best = {"epoch": best_epoch, **parts.test(model), "chosen_on": parts.chosen_on}
        network.load_state_dict(final)
    return {
        "metric": parts.metric,
        "last": last,
        "best": best,
        "epochs": trainer.epochs,  # that the config wants
        **({"stopped_in_epoch": trainer.epoch} if trainer.epoch < trainer.epochs else {}),
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
    for name, term in trainer.distiller.terms.items():
        if state := term.criterion.product():
            states[folder / "criteria" / f"{name}.pth"] = state
    for name, peer in trainer.distiller.peers.items():
        states[folder / "peers" / f"{name}.pth"] = network_of(peer).state_dict()
    for file, state in states.items():
        checkpoint.save(state, file)
    return [folder / "student.pth", folder / "student.safetensors", *states]
