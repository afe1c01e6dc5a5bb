"""Teachers whose weights are computed run as they are; students that cannot be trained are told."""

import copy

import pytest
import torch
from kd_core.criteria.kd import KD
from kd_core.distill.distiller import Distiller
from kd_core.distill.teacher import Teacher
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.copying import copied
from kd_core.networks.probe import materialise
from kd_core.training.ema import ModelAverage
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune


class Doubled(nn.Module):
    """A parametrization with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * self.mix(weight.transpose(0, -1)).transpose(0, -1)


def old(name):
    return lambda layer: getattr(nn.utils, name)(layer)


def hooked(layer):
    layer.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return layer


COMPUTED = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "structure pruned": lambda layer: prune.ln_structured(layer, "weight", 0.5, n=2, dim=0),
    "bias pruned": lambda layer: prune.random_unstructured(layer, "bias", 0.5),
    "weight_norm": parametrizations.weight_norm,
    "old weight_norm": old("weight_norm"),
    "spectral_norm": parametrizations.spectral_norm,
    "old spectral_norm": old("spectral_norm"),
    "orthogonal": parametrizations.orthogonal,
    "parametrized": lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()),
    "hooked": hooked,
}


class Model(nn.Module):
    """Convolutions with BatchNorm, the first of which computes its weight, and a classifier."""

    def __init__(self, change=lambda layer: layer) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            change(nn.Conv2d(3, 4, 3)),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            change(nn.Linear(64, 4)),
        )

    def forward(self, batch):
        return {"ce": self.layers(batch["image"]).mean()} if self.training else self.output(batch)

    def output(self, batch):
        return self.layers(batch["image"])


BATCH = {"image": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("change", COMPUTED.values(), ids=COMPUTED)
class TestComputedWeights:
    def test_a_teacher_keeps_its_outputs_and_folds_the_rest(self, change):
        teacher = Teacher(Model(change))
        teacher.infer_shapes(["output"], BATCH)
        before = teacher(BATCH)["output"]
        assert teacher.accelerate(BATCH) == 1
        torch.testing.assert_close(teacher(BATCH)["output"], before, rtol=1e-4, atol=1e-5)

    def test_a_teacher_runs_under_autocast(self, change):
        teacher = Teacher(Model(change))
        teacher.infer_shapes(["output"], BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            before = teacher(BATCH)["output"].float()
            teacher.accelerate(BATCH, torch.bfloat16)
            after = teacher(BATCH)["output"].float()
        assert (after - before).abs().max() <= 0.05 * before.abs().max()

    def test_a_student_is_averaged_and_copied(self, change):
        student = Model(change)
        average = ModelAverage(student, 0.9)
        average.update(student)
        torch.testing.assert_close(average.network.output(BATCH), student.eval().output(BATCH))
        assert copied(student).output(BATCH).shape == (2, 4)


def distilled(student, teacher):
    term = Term(KD(), student="layers", teacher="layers")
    return Distiller(student, teacher, {"kd": term}, sample=BATCH)


def share_batchnorm(student, teacher):
    teacher.layers[1] = student.layers[1]


def share_buffer(student, teacher):
    teacher.layers[1].running_mean = student.layers[1].running_mean


def share_memory(student, teacher):
    teacher.layers[3].weight = nn.Parameter(student.layers[3].weight.data)


def share_dropout(student, teacher):
    student.layers[5] = teacher.layers[5] = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (share_batchnorm, r"parameters with the student \(layers\.1\.weight\)"),
        (share_buffer, r"buffers with the student \(layers\.1\.running_mean\)"),
        (share_memory, r"parameters with the student \(layers\.3\.weight\)"),
        (share_dropout, r"dropout with the student \(layers\.5\.1\)"),
    ],
)
def test_what_training_would_change_in_a_frozen_teacher_may_not_be_shared(share, told):
    student, teacher = Model(), Model()
    share(student, teacher)
    with pytest.raises(UserError, match=rf"'teacher' shares {told}, so"):
        distilled(student, teacher)
    assert all(parameter.requires_grad for parameter in student.parameters())
    distilled(student, copy.deepcopy(teacher))


def test_a_shared_layer_without_state_is_taken():
    student, teacher = Model(), Model()
    teacher.layers[2] = student.layers[2]
    distilled(student, teacher)


class Lazy(nn.Module):
    """Learns its shapes from the first pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(4)
        )

    def forward(self, images):
        return self.layers(images)


def test_lazy_layers_get_their_shapes_by_a_pass_that_changes_nothing_else():
    network = Lazy()
    materialise(network, torch.ones(2, 3, 8, 8))
    assert network.layers[3].weight.shape == (4, 144)
    assert network.training
    assert network.layers[1].num_batches_tracked == 0


def test_a_pass_that_fails_is_told_with_its_size():
    with pytest.raises(UserError, match=r"Lazy has lazy layers.* failed on \[2, 3, 1, 1\].*`size`"):
        materialise(Lazy(), torch.ones(2, 3, 1, 1))


def lazy(student):
    student.layers[6] = nn.LazyLinear(4)
    return student


class Compiled(nn.Module):
    """Has what a module of `torch.compile` has; the real one takes seconds to import."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module


def compiled_part(student):
    student.layers[3] = Compiled(student.layers[3])
    return student


def compiled_inside(student):
    student.layers[3]._compiled_call_impl = object()  # as module.compile() does
    return student


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lazy, r"student module 'layers\.6' is lazy"),
        (compiled_part, r"student module 'layers\.3' is compiled already"),
        (compiled_inside, r"student module 'layers\.3' is compiled already"),
        (Compiled, "is compiled already"),
        (lambda m: torch.jit.trace(m.eval().layers, BATCH["image"]), "is scripted"),
        (lambda m: torch.jit.script(m.layers), "is scripted"),
    ],
)
def test_a_student_that_cannot_be_trained_is_refused_before_work(change, told):
    with pytest.raises(UserError, match=told) as refused:
        Distiller(change(Model()), Model(), {"kd": Term(KD())})
    assert "\n" not in str(refused.value)
