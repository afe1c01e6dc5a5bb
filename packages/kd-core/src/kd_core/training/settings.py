"""The keys of a config's `trainer`, with their ranges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from kd_core.config.build import build
from kd_core.config.kinds import Kind
from kd_core.config.node import parse_call
from kd_core.config.values import Decay, NonNegative, Positive, PositiveInt
from kd_core.errors import UserError, located
from kd_core.training.early_stop import parse_early_stop
from kd_core.training.hooks import HOOK
from kd_core.training.loggers import LOGGER, require_installed
from kd_core.training.step import STEP, Precision
from kd_core.training.targets.choice import parse_cache

StepNode = Annotated[Mapping[str, Any], STEP]
HookNode = Annotated[Mapping[str, Any], HOOK]
LoggerNode = Annotated[Mapping[str, Any], LOGGER]
_FOR_STEP = ("distiller", "optimizer")


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How a run trains, evaluates and writes; every key of a config's `trainer`.

    Args:
        epochs: Passes over the training set.
        precision: "fp32", or "bf16" or "fp16" autocast; fp16 is for GPUs without bf16.
        channels_last: Keep networks and images in NHWC memory; None does so where it was found to
            be faster, on CPUs and with bf16 or fp16, and networks can; see `use_channels_last`.
        activation_checkpointing: Let blocks of student and peers run again in the backward pass
            rather than keep their activations: True for the blocks that `optimizer.layer_decay`
            counts, or patterns of module names; see `checkpoint_activations`.
        shard_teachers: Spread the blocks of teachers over all processes: True for all teachers, or
            their names; see `kd_core.networks.sharding`. Not with `teacher_cache` or `compile`.
        accumulate: Batches an optimizer step.
        clip_norm: Largest norm of the whole gradient.
        step: Node of another training step, such as `kd_core.training.dot.DOTStep`; distiller,
            optimizer, precision, clip_norm and find_unused_parameters are filled in.
        ema: Decay of the student's moving average, which is then evaluated and exported.
        ema_warmup: Let the average forget faster at first; see `ModelAverage`.
        sync_batchnorm: Compute BN statistics over all processes.
        early_stop: End the training once a metric does not improve: `dict(patience=10)`, and
            see `EarlyStop`.
        find_unused_parameters: For networks with parts that some batches do not use, under DDP.
        accelerate_teachers: Let teachers run a faster copy with the same outputs; see
            `Teacher.accelerate`.
        teacher_cache: Keep teacher outputs on disk for all runs, see `CachedTeachers` and
            `StoredTargets`: True where the tool keeps teachers, or in a folder, or as
            `CacheOptions` says.
        allow_weak_teacher: Train with a teacher that is at or below chance on the test set too;
            one with `weights="random"` is always allowed.
        capture: Record the step as a CUDA graph, where it can be; see `CapturedStep`.
        compile: Compile the losses with `torch.compile`, which takes minutes at first.
        eval_every: Epochs between evaluations; a student that is not trained has one, at the end.
        save_every: Epochs between checkpoints.
        save_minutes: Minutes between checkpoints.
        keep_every: Epochs between checkpoints that are kept.
        log_every: Steps between NaN checks and synchronisation of ranks.
        hooks: Nodes of your own hooks, subclasses of `kd_core.Hook`; see docs/own_hook.md. They
            run after the evaluation and before loggers and checkpoints, in every process.
        loggers: Nodes of loggers beside `log.jsonl` and the console, subclasses of
            `kd_core.training.loggers.Logger`. None takes TensorBoard where it is installed.
    """

    epochs: PositiveInt
    precision: Precision = "fp32"
    channels_last: bool | None = None
    activation_checkpointing: bool | Sequence[str] = False
    shard_teachers: bool | Sequence[str] = False
    accumulate: PositiveInt = 1
    clip_norm: Positive | None = None
    step: StepNode | None = None
    ema: Decay | None = None
    ema_warmup: bool = False
    early_stop: Mapping[str, Any] | None = None
    sync_batchnorm: bool = False
    find_unused_parameters: bool = False
    accelerate_teachers: bool = True
    teacher_cache: bool | str | Mapping[str, Any] = False
    allow_weak_teacher: bool = False
    capture: bool = True
    compile: bool = False
    eval_every: PositiveInt = 1
    save_every: PositiveInt = 1
    save_minutes: NonNegative = 10.0
    keep_every: PositiveInt | None = None
    log_every: PositiveInt = 50
    hooks: Sequence[HookNode] = ()
    loggers: Sequence[LoggerNode] | None = None

    def __post_init__(self) -> None:
        """Check every value, and what every node names; nothing is built.

        Raises:
            UserError: Of the first key that is wrong.
        """
        parse_call(type(self), vars(self), "trainer", provided=_FOR_STEP)
        if self.compile and self.step is not None:
            raise UserError("trainer.compile is for the plain step; leave it or trainer.step out")
        parse_cache(self.teacher_cache)
        self._check_memory()
        if self.early_stop is not None:
            parse_early_stop(self.early_stop)
        for number, node in enumerate(self.loggers or ()):
            with located(f"trainer.loggers.{number}"):
                require_installed(node["type"])

    def _check_memory(self) -> None:
        """Reject what saves memory where it cannot."""
        for name in ("activation_checkpointing", "shard_teachers"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not value:
                raise UserError(f"trainer.{name} is {value!r}; wanted True, False or names")
            if value and self.compile:
                raise UserError(
                    f"trainer.{name} and trainer.compile=True do not go together; set one"
                )
        if self.shard_teachers and self.teacher_cache:
            raise UserError(
                "trainer.teacher_cache names its files by whole weights, and with "
                "trainer.shard_teachers no process has them; set one of the two"
            )


def parse_trainer(node: Mapping[str, Any]) -> TrainerSettings:
    """Return the settings of a config's `trainer`.

    Raises:
        UserError: If a key is unknown or missing, or a value is wrong.
    """
    call = parse_call(TrainerSettings, node, "trainer", provided=_FOR_STEP)
    return TrainerSettings(**call.arguments)


def build_each(nodes: Sequence[Mapping[str, Any]], where: str, kind: Kind) -> list[Any]:
    """Build all nodes of a list in a config."""
    return [build(node, f"{where}.{n}", kind=kind) for n, node in enumerate(nodes)]
