"""The same KD step as a bare loop, kd_core, torchdistill and timm write it; see peers.py."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kd_cls.classifier import Classifier
from kd_core import Distiller, Hook, Term, Trainer
from kd_core.criteria.kd import KD
from kd_core.data.loader import Loader
from kd_core.training.memory_format import use_channels_last
from kd_core.training.optimizer import build_optimizer
from kd_core.training.schedule import multi_step
from kd_core.training.step import TrainStep
from torch import nn

CLASSES = 100
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
OPTIMIZER = {"type": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
TEMPERATURE = 4.0
SGD: dict[str, Any] = {key: value for key, value in OPTIMIZER.items() if key != "type"}


class Problem:
    """What all loops get: copies of the same networks, and the same batch.

    Args:
        student: From images [N, 3, 32, 32] to logits [N, 100].
        teacher: The same; its BatchNorm normalises by running statistics everywhere.
        batch_size: Images a step.
        steps: Steps that a loop may be asked for.
        device: Where networks and batch are.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        batch_size: int,
        steps: int,
        device: torch.device,
    ) -> None:
        self.student, self.teacher = student.to(device).train(), teacher.to(device).eval()
        self.batch_size, self.steps, self.device = batch_size, steps, device
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(256, (batch_size, 3, 32, 32), dtype=torch.uint8, generator=generator)
        self.image = image.to(device)
        self.label = torch.randint(CLASSES, (batch_size,), generator=generator).to(device)
        mean, std = (torch.tensor(value, device=device).view(3, 1, 1) for value in (MEAN, STD))
        self.normalised = (self.image.float() / 255 - mean) / std

    def copies(self) -> tuple[nn.Module, nn.Module]:
        """Return a student and a teacher of its own."""
        return copy.deepcopy(self.student), copy.deepcopy(self.teacher)


@dataclass
class Loop:
    """A student, and an iterator that takes one step whenever it is asked for its next item."""

    student: nn.Module
    steps: Iterator[None]


def bare(problem: Problem) -> Loop:
    """Write the step by hand, on a normalised batch; nothing is logged or checked."""
    student, teacher = problem.copies()
    optimizer = torch.optim.SGD(student.parameters(), **SGD)
    functional = nn.functional

    def steps() -> Iterator[None]:
        for _ in range(problem.steps):
            with torch.no_grad():
                shown = teacher(problem.normalised)
            logits = student(problem.normalised)
            soft = functional.kl_div(
                functional.log_softmax(logits / TEMPERATURE, dim=1),
                functional.softmax(shown / TEMPERATURE, dim=1),
                reduction="batchmean",
            )
            loss = functional.cross_entropy(logits, problem.label) + TEMPERATURE**2 * soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield

    return Loop(student, steps())


def torchdistill(problem: Problem) -> Loop:
    """Drive a DistillationBox as examples/torchvision/image_classification.py does."""
    from torchdistill.core.distillation import DistillationBox
    from torchdistill.misc.log import MetricLogger, SmoothedValue

    student, teacher = problem.copies()
    box = DistillationBox(
        teacher, student, {}, _torchdistill_config(), problem.device, None, False, 1
    )
    meters = MetricLogger(delimiter="  ")
    meters.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
    batches: list[Any] = [(problem.normalised, problem.label, {})] * problem.steps

    def steps() -> Iterator[None]:
        box.pre_epoch_process(epoch=0)
        for image, label, extra in meters.log_every(batches, 100, "Epoch: [0]"):
            image, label = image.to(problem.device), label.to(problem.device)
            loss = box.forward_process(image, label, extra)
            box.post_forward_process(loss=loss)
            meters.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
            if torch.isnan(loss) or torch.isinf(loss):
                raise ValueError(f"loss is {loss}")
            yield

    return Loop(student, steps())


def timm(problem: Problem) -> Loop:
    """Drive a LogitDistillationTask as timm's train.py does, from its prefetching loader on."""
    from timm.data.loader import PrefetchLoader
    from timm.optim import create_optimizer_v2
    from timm.task import LogitDistillationTask
    from timm.task.distillation import DistillationTeacher
    from timm.utils import AverageMeter

    student, teacher = problem.copies()
    for network in student, teacher:  # equal statistics: the teacher's images are not changed
        network.pretrained_cfg = {"mean": MEAN, "std": STD}  # type: ignore[assignment]
    task = LogitDistillationTask(
        student,
        DistillationTeacher(teacher, device=problem.device),
        criterion=nn.CrossEntropyLoss(),
        distill_loss_weight=1.0,
        task_loss_weight=1.0,
        temperature=TEMPERATURE,
        device=problem.device,
        verbose=False,
    ).train()
    optimizer = create_optimizer_v2(student, "momentum", filter_bias_and_bn=False, **SGD)
    batches: Any = [(problem.image, problem.label)] * problem.steps  # no workers
    loader = PrefetchLoader(batches, MEAN, STD, device=problem.device)
    losses = AverageMeter()

    def steps() -> Iterator[None]:
        for image, label in loader:
            loss = task(image, label)["loss"]
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(image))
            optimizer.zero_grad()
            task.update_ema()
            yield

    return Loop(student, steps())


PEERS: dict[str, Callable[[Problem], Loop]] = {"torchdistill": torchdistill, "timm": timm}


def ours(problem: Problem, loader: Loader, folder: Path, *, plain: bool) -> Trainer:
    """Return our trainer, its teacher and layout as in a run of the tools unless `plain`."""
    student, teacher = (
        Classifier(network, mean=MEAN, std=STD).to(problem.device) for network in problem.copies()
    )
    distiller = Distiller(student, teacher, {"kd": Term(KD(temperature=TEMPERATURE))})
    distiller.to(problem.device)
    if not plain:
        use_channels_last(distiller, None)
        distiller.teachers["teacher"].accelerate({"image": problem.image, "label": problem.label})
    optimizer = build_optimizer(OPTIMIZER, distiller)
    return Trainer(
        distiller,
        loader,
        TrainStep(distiller, optimizer),
        optimizer,
        schedule=multi_step(epochs=1, milestones=[]),
        epochs=1,
        work_dir=folder,
        hooks=[Hook()],
    )


def _torchdistill_config() -> dict[str, Any]:
    """Return the node `train` of torchdistill's sample of KD on CIFAR-100, with this recipe."""
    logits = {
        f"{model}_module_{key}": value
        for model in ("student", "teacher")
        for key, value in (("path", "."), ("io", "output"))
    }
    weights = {"temperature": TEMPERATURE, "alpha": 1.0, "beta": 1.0}
    term = {"criterion": {"key": "KDLoss", "kwargs": logits | weights}, "weight": 1.0}
    return {
        "num_epochs": 1,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": dict(SGD)},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": term}}},
    }
