"""Every method takes a step on a GPU that is not there: no host read, nothing on the wrong device.

What such a test cannot see is in docs/speed.md.
"""

import inspect
import sys
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path

import kd_cls.data.augment
import kd_core.data.augment
import kd_core.data.mix
import kd_reid.data.augment
import numpy as np
import pytest
import torch
from kd_cls.adapter import ADAPTER as CLASSIFICATION
from kd_cls.stand_ins import SHAPES
from kd_core.data.augment import CropFlip, Flip
from kd_core.data.device_loader import DeviceLoader
from kd_core.experiment.cli import parse_options
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.run import build_trainer
from kd_core.experiment.runner import Runner
from kd_core.testing.fake_cuda import FakeCuda
from kd_core.training.balance import estimate_balance
from kd_core.training.hooks import Hook
from kd_core.training.memory_format import use_channels_last
from kd_core.training.shared_teacher import WithTeachers, shared_teachers
from kd_core.training.teacher_cache import CachedTeachers
from kd_reid.adapter import ADAPTER as REID

sys.path.insert(0, str(Path(__file__).parent))
from documented import QUICK, documented, make_small, smaller

ROOT = Path(__file__).parents[1]
ADAPTERS = {"cls": CLASSIFICATION, "reid": REID}
METHODS = [
    path
    for task in ADAPTERS
    for path in sorted(ROOT.glob(f"configs/{task}/methods/*.py"))
    if "_base_" not in path.read_text(encoding="utf-8")  # the same method at another rate
]
READS = {"kdsvd"}  # its solver reads its own error code back


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Work from the root of the project, with small networks and images."""
    make_small(monkeypatch)
    monkeypatch.setitem(SHAPES, "cifar100", (16, 100))
    monkeypatch.setattr("kd_core.training.trainer.not_finite", lambda module: ([], []))
    monkeypatch.chdir(ROOT)


def command_of(path):
    """Return the files and options of the first run that a config documents."""
    for tool, *words in documented(path):
        files = [word for word in words if word.endswith(".py")]
        if "train" in tool and str(path.relative_to(ROOT)) in files:
            return files, [word for word in words if "=" in word]
    raise AssertionError(f"{path} documents no run")


def phases_of(path, *options):
    """Return the phases of a method on its pair and random images, and their adapter."""
    task = path.parents[1].name
    adapter, (files, given) = ADAPTERS[task], command_of(path)
    if path.stem != "kd":  # OSNet has many small layers
        files = [file.replace("osnet_x1_0_osnet_x0_25", "resnet101_resnet50") for file in files]
    given = parse_options([*given, *QUICK[task], *smaller(files), *options])
    experiment = read_experiment(adapter, files, given, note=lambda *line, **row: None)
    for phase in experiment.without_products():
        yield (
            adapter,
            replace(
                phase,
                data=adapter.data_stand_in(phase.data),
                student=adapter.model_stand_in(phase.student),
                peers={name: adapter.model_stand_in(peer) for name, peer in phase.peers.items()},
            ),
        )


def built_on_host(adapter, phase):
    return Runner(adapter, torch.device("cpu"), Path()).build(phase, 0, untrained=True)


def accelerated(built):
    """Fold the teachers and hold their weights in bf16, on the host: there outputs are compared."""
    for teacher in built.distiller.teachers.values():
        assert teacher.accelerate(built.sample, torch.bfloat16) > 0
    use_channels_last(built.distiller, None, precision="bf16", sample=built.sample)
    return built


def move(built):
    built.distiller.to("cuda").train()
    built.distiller.begin(1, 240)
    built.parts.loader.to("cuda")


def trainer_of(built, phase, folder, **settings):
    """Return the trainer of what is on the GPU, with settings of `trainer` over the phase's."""
    built.parts.sample = None  # what it is for was done on the host
    own = {**phase.training(folder), "loggers": [], "teacher_cache": False, "capture": False}
    own |= {"channels_last": False, "accelerate_teachers": False, **settings}
    trainer = build_trainer(built.parts, folder, **own)
    trainer.hooks = [Hook()]
    return trainer


def losses_of(built, phase, batch, cuda, folder, *, whole):
    """Return the losses of a batch; where the step is a method's own, or all of it is wanted, of
    a step.
    """
    if whole or built.distiller.peers or phase.training().get("step"):
        with cuda.waiting():
            trainer = trainer_of(built, phase, folder, precision="bf16")
        return trainer.step([batch])
    with torch.autocast("cuda", torch.bfloat16):
        return built.distiller(batch)


@pytest.mark.parametrize("path", METHODS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_method_has_its_losses_on_a_gpu(path, tmp_path, pytestconfig):
    """With --slow it takes whole steps; without, derivatives are those of the contract's test."""
    for adapter, phase in phases_of(path):
        built = built_on_host(adapter, phase)
        estimate_balance(built.distiller, built.parts.loader, precision="fp32", images=2)
        with FakeCuda() as cuda:
            with cuda.waiting():
                move(built)
                batch = next(built.parts.loader.epoch(0))
            whole = pytestconfig.getoption("--slow")
            with cuda.waiting() if path.stem in READS else nullcontext():
                losses = losses_of(built, phase, batch, cuda, tmp_path, whole=whole)
        assert losses
        assert {loss.device.type for loss in losses.values()} == {"cuda"}


DKD = ROOT / "configs/cls/methods/dkd.py"


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # in a copy
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_trainer_takes_whole_steps_with_all_that_is_around_them(precision, tmp_path):
    ((adapter, phase),) = phases_of(DKD)
    built = accelerated(built_on_host(adapter, phase)) if precision == "bf16" else None
    built = built or built_on_host(adapter, phase)
    more = {"precision": precision, "ema": 0.9, "clip_norm": 1.0, "accumulate": 2}
    with FakeCuda() as cuda:
        with cuda.waiting():
            move(built)
            trainer = trainer_of(built, phase, tmp_path, **more)
            batches = list(islice(trainer.loader.epoch(0), 2))
        trainer.loader = Given(batches)
        next(trainer.steps())
    state = trainer.optimizer.state_dict()["state"]
    assert {s["momentum_buffer"].device.type for s in state.values()} == {"cuda"}
    assert trainer.meter.names == ["ce", "dkd"]


class Given:
    """A loader of batches that are there."""

    def __init__(self, batches):
        self.batches, self.batch_size = batches, 2

    def __len__(self):
        return len(self.batches)

    def epoch(self, epoch, start=0):
        yield from self.batches[start:]


def test_cached_targets_are_copied_without_waiting_and_no_teacher_runs(tmp_path):
    ((adapter, phase),) = phases_of(DKD)
    built = built_on_host(adapter, phase)
    teachers = built.distiller.teachers
    with FakeCuda() as cuda:
        with cuda.waiting():
            move(built)
            loader = CachedTeachers(built.parts.loader, teachers, tmp_path, precision="bf16")
            batch = next(loader.epoch(0))
            (tables,) = loader._tables.values()
            rows = np.ones(2, dtype=np.int64)
            tables.show(rows, batch)  # compares a few, once
        shown = tables.show(rows, batch)
        teachers["teacher"].model = teachers["teacher"]._runs = None
        with torch.autocast("cuda", torch.bfloat16):
            losses = built.distiller(batch)
    assert {value.device.type for value in (*shown.values(), *losses.values())} == {"cuda"}


def test_students_that_share_a_teacher_have_its_features_on_the_gpu():
    ((adapter, phase),) = phases_of(DKD)
    built = built_on_host(adapter, phase)
    loader = built.parts.loader
    with FakeCuda() as cuda:
        with cuda.waiting():
            move(built)
            teachers = shared_teachers([built.distiller], loader.sample(2), "bf16")
            batch = next(WithTeachers(loader, teachers, precision="bf16").epoch(0))
        with torch.autocast("cuda", torch.bfloat16):
            built.distiller(batch)
    assert batch["teacher_features"]["teacher"]["output"].device.type == "cuda"


ON_THE_HOST = {"PerImage", "StrongCopies"}
"""Augmentations whose images or places are computed by the host, which waits for that."""
ARGUMENTS = {"Rotate": (15,), "Resize": (8,), "Views": ([[Flip()], [CropFlip()]],)}


MODULES = (kd_core.data.augment, kd_core.data.mix, kd_cls.data.augment, kd_reid.data.augment)


def augmentations():
    """Return all classes that can be called with a batch and its random numbers, by name."""
    found = {}
    for module in MODULES:
        for name, cls in inspect.getmembers(module, inspect.isclass):
            call = next(
                (vars(one)["__call__"] for one in cls.__mro__ if "__call__" in vars(one)), None
            )
            takes = inspect.signature(call).parameters if inspect.isfunction(call) else ()
            if "sampling" in takes and not inspect.isabstract(cls):
                found[name] = cls
    return found


@pytest.mark.parametrize("name", sorted(augmentations().keys() - ON_THE_HOST))
def test_images_are_augmented_on_the_gpu(name):
    augment = augmentations()[name](*ARGUMENTS.get(name, ()))
    images = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)
    loader = DeviceLoader(images, torch.arange(10), batch_size=4, augment=[augment], shuffle=True)
    with FakeCuda() as cuda:
        with cuda.waiting():
            loader.to("cuda")
            next(loader.epoch(0))  # tables are copied once
        batch = next(loader.epoch(1))
    tensors = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    assert {value.device.type for value in tensors.values()} == {"cuda"}


def test_augmentations_are_found():
    assert {"CropFlip", "Rotate", "Mixup", "RICAP", "RandomErasing"} <= augmentations().keys()
