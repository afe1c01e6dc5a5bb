"""What a finished run leaves beside Detectron2's files: `result.json`, and its curves."""

import math
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from kd_core.experiment import report
from kd_core.experiment.results import FILE
from kd_core.files import checkpoint
from kd_core.runtime import json_lines
from kd_core.training.peak_memory import PeakMemory
from torch import nn

from kd_det.resume import identity
from kd_det.running import metrics_file


class PeakMemoryHook(HookBase):
    """Measures the memory of steps; placed before hooks that evaluate after a step."""

    def before_train(self) -> None:
        """Begin to count steps."""
        trainer: Any = self.trainer
        device = torch.device(trainer.cfg.MODEL.DEVICE)
        self.memory = PeakMemory(device, trainer.max_iter - trainer.start_iter)
        self.memory.forget_others()

    def after_step(self) -> None:
        """Count the step."""
        self.memory.step()
        self.memory.note()

    def before_step(self) -> None:
        """Forget what was done since the last step, such as an evaluation."""
        self.memory.forget_others()


def forget_result(folder: str) -> None:
    """Remove the result of a run that is continued."""
    if comm.is_main_process():
        Path(folder, FILE).unlink(missing_ok=True)


def peak_memory(trainer: Any) -> dict[str, Any]:
    """Return what a trainer with our hooks took at most; all processes must ask."""
    memory = next(hook.memory for hook in trainer._hooks if isinstance(hook, PeakMemoryHook))
    return memory.result()


def keep_result(trainer: Any, student: nn.Module, seconds: float) -> None:
    """Write the result of a run that has ended; all processes must call it.

    Args:
        trainer: Of Detectron2, with our hooks.
        student: What it has trained.
        seconds: How long it trained here, evaluation included.
    """
    peak = peak_memory(trainer)
    if not comm.is_main_process():
        return
    cfg = trainer.cfg
    result = {
        "iterations": trainer.max_iter,
        "last": _flat(getattr(trainer, "_last_eval_results", None) or {}),
        "student_parameters": report.parameter_count(student),
        "train_seconds": round(seconds, 2),
        "peak_memory": peak,
        "environment": report.environment(torch.device(cfg.MODEL.DEVICE)),
        "made_by": identity.digest_of(trainer.asked),
    }
    checkpoint.save_json(result, Path(cfg.OUTPUT_DIR, FILE))
    metrics_file.draw(Path(cfg.OUTPUT_DIR), result["last"], trainer.max_iter)
    json_lines.say("result", work_dir=cfg.OUTPUT_DIR, **result)


def print_scores(scores: Any, checkpoint_file: str) -> None:
    """Write the line of an evaluation that a program asked for; all processes may call it."""
    if comm.is_main_process():
        json_lines.say("result", checkpoint=checkpoint_file, scores=_flat(scores))


def _flat(scores: Any, prefix: str = "") -> dict[str, float | None]:
    """Return metrics by names such as "bbox/AP"; None for one that is not finite."""
    found: dict[str, float | None] = {}
    for name, value in scores.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = float(value) if math.isfinite(value) else None
    return found
