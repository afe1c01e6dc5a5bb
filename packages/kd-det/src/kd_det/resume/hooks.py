"""Hooks of Detectron2's trainer, so that a resumed run equals an uninterrupted one."""

import math
import os
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from kd_core import Distiller
from kd_core.runtime.seed import mix, seed_everything

from kd_det.resume.state import ModelState, with_options
from kd_det.running.metrics_file import FILE as METRICS
from kd_det.running.metrics_file import record_of
from kd_det.running.result import PeakMemoryHook

FINAL = "model_final"
EVALUATED = "evaluated"  # key in the lines of iterations whose evaluation is complete


class CountSteps(HookBase):
    """Counts optimizer steps, for warm-ups."""

    def __init__(self, distiller: Distiller) -> None:
        self.distiller = distiller

    def after_step(self) -> None:
        """Count one step."""
        self.distiller.advance()


class SeedSteps(HookBase):
    """Makes random numbers of a step (regions, dropout) a function of SEED, iteration, process."""

    def before_step(self) -> None:
        """Seed all generators, so that draws of evaluation or logging have no effect."""
        trainer: Any = self.trainer
        seed_everything(mix(trainer.cfg.SEED, trainer.iter, comm.get_rank()))


class GatherState(HookBase):
    """Gathers every process's part of the model's state before a checkpoint is written.

    Checkpoints at other iterations have only the part of the first process.
    """

    def __init__(self, state: ModelState, period: int) -> None:
        self.state = state
        self.period = period

    def after_step(self) -> None:
        """Gather, at the iterations of Detectron2's `PeriodicCheckpointer`."""
        done = self.trainer.iter + 1
        self.state.others = []
        if done % self.period == 0 or done >= self.trainer.max_iter:
            self.state.others = comm.gather(self.state.own())[1:]


class WriteMissedFinal(HookBase):
    """Writes the `model_final.pth` that a kill prevented, after the last iteration's checkpoint.

    Detectron2 writes both after the last step; a resumed run has no step left.
    """

    def __init__(self, state: ModelState) -> None:
        self.state = state

    def before_train(self) -> None:
        """Write it, if all iterations are done and there is none."""
        trainer = self.trainer
        if trainer.start_iter != trainer.max_iter:
            return
        self.state.others = comm.gather(self.state.own())[1:]
        if not Path(trainer.cfg.OUTPUT_DIR, f"{FINAL}.pth").exists():
            trainer.iter -= 1  # the file holds it too
            trainer.checkpointer.save(FINAL, iteration=trainer.iter)
            trainer.iter += 1


class FreshPreciseBN(HookBase):
    """Lets every round of PreciseBN start with the same batches; placed before it."""

    def __init__(self, precise_bn: Any) -> None:
        self.precise_bn = precise_bn

    def before_train(self) -> None:
        """Set batches of the run's seed, which a checkpoint may have changed."""
        trainer: Any = self.trainer
        if trainer.start_iter:
            cfg = with_options(trainer.cfg, "DATALOADER.NUM_WORKERS", 0)
            self.precise_bn._data_loader = trainer.build_train_loader(cfg)

    def after_step(self) -> None:
        """Reset the position in the last round, which is not in checkpoints."""
        self.precise_bn._data_iter = None


class MissedEvaluation(HookBase):
    """Repeats an evaluation that was killed after its checkpoint was written.

    Placed after the hook that evaluates; marks in `metrics.json` that it has finished.

    Args:
        evaluation: That hook.
        period: Iterations between evaluations, 0 for never.
        folder: Folder of the run.
    """

    def __init__(self, evaluation: Any, period: int, folder: str) -> None:
        self.evaluation = evaluation
        self.period = period
        self.file = Path(folder, METRICS)

    def before_train(self) -> None:
        """Evaluate if that was due at the last iteration and is not marked as finished."""
        trainer = self.trainer
        if not self._due(trainer.start_iter):
            return
        if not comm.all_gather(_evaluated(self.file, trainer.start_iter - 1))[0]:
            trainer.storage.iter = trainer.start_iter - 1
            self.evaluation._do_eval()
            self._note()

    def after_step(self) -> None:
        """Mark an evaluation as finished."""
        if self._due(self.trainer.iter + 1):
            self._note()

    def _due(self, done: int) -> bool:
        return 0 < done < self.trainer.max_iter and self.period > 0 and done % self.period == 0

    def _note(self) -> None:
        self.trainer.storage.put_scalar(EVALUATED, 1, smoothing_hint=False)


def add_ours(made: list[HookBase], trainer: Any, state: ModelState) -> list[HookBase]:
    """Return Detectron2's hooks with ours inserted."""
    cfg = trainer.cfg
    found: list[HookBase] = []
    for hook in made:
        if isinstance(hook, hooks.PeriodicWriter):  # evaluations are written soon
            hook._period = math.gcd(hook._period, cfg.TEST.EVAL_PERIOD)
        if isinstance(hook, hooks.PreciseBN):
            found.append(FreshPreciseBN(hook))
        found.append(hook)
        if isinstance(hook, hooks.EvalHook):
            found.append(MissedEvaluation(hook, cfg.TEST.EVAL_PERIOD, cfg.OUTPUT_DIR))
    first: list[HookBase] = [WriteMissedFinal(state), SeedSteps(), PeakMemoryHook()]
    if isinstance(trainer.distiller, Distiller):
        first.append(CountSteps(trainer.distiller))
    readers = hooks.PeriodicCheckpointer, hooks.EvalHook  # only the first process has this hook
    place = next(number for number, hook in enumerate(found) if isinstance(hook, readers))
    found.insert(place, GatherState(state, cfg.SOLVER.CHECKPOINT_PERIOD))
    return [*first, *found]


def forget_metrics(folder: str, start: int) -> None:
    """Cut off the lines of `metrics.json` for iterations that will run again.

    The file is cut in place, because the writer has it open.
    """
    file = Path(folder, METRICS)
    if not file.is_file():
        return
    kept = 0
    for line in file.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or record_of(line).get("iteration", start) >= start:
            break
        kept += len(line)
    os.truncate(file, kept)


def _evaluated(file: Path, iteration: int) -> bool:
    """Return whether the evaluation of an iteration has finished."""
    records = [record_of(line) for line in file.read_bytes().splitlines()] if file.is_file() else []
    return any(one.get("iteration") == iteration and EVALUATED in one for one in records)
