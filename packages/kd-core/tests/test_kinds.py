"""What a node names is judged before it is called."""

import functools
import os
from dataclasses import dataclass

import pytest
import torch
from fvcore.common.param_scheduler import ConstantParamScheduler, ParamScheduler
from kd_core.config.build import build, build_network
from kd_core.config.kinds import MODULE, Kind, is_of_python, module_of, returned
from kd_core.config.node import parse_call
from kd_core.criteria.kd import KD
from kd_core.distill import term
from kd_core.errors import UserError
from kd_core.experiment import builder
from kd_core.training import optimizer, schedule, step
from kd_core.training.dot import DOTStep
from kd_core.training.mutual_step import AlternatingStep
from kd_core.training.step import TrainStep
from torch import Tensor, nn


@dataclass
class Splits:
    """Has what a data set has."""

    train: object

    num_classes = num_samples = 1
    labels = None

    def to(self, device: torch.device) -> None: ...


class MoreSplits(Splits):
    """Inherits it."""


def data() -> Splits: ...
def data_by_text() -> "MoreSplits": ...
def data_without_word(): ...
def other_data() -> Tensor: ...
def constant() -> ConstantParamScheduler: ...
def network() -> nn.Linear: ...
def network_without_word(): ...
def network_of_unknown_type() -> "NotImportedHere": ...  # noqa: F821
def text() -> str: ...
def run(command: str) -> nn.Module:
    raise AssertionError(command)


class Step:
    """Another training step."""

    def __init__(self, distiller: object, optimizer: object) -> None: ...

    def __call__(self, batches: object) -> object: ...


class Uncalled:
    """Has the arguments of a step, but is not called."""

    def __init__(self, distiller: object, optimizer: object) -> None: ...


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (term.CRITERION, [KD], [nn.MSELoss, text, run, KD(temperature=1.0)]),
        (
            optimizer.OPTIMIZER,
            [torch.optim.SGD],
            [nn.Linear, text, torch.optim.lr_scheduler.StepLR],
        ),
        (
            schedule.SCHEDULE,
            [schedule.cosine, constant, ConstantParamScheduler, functools.partial(constant)],
            [text, run, network_without_word, torch.optim.lr_scheduler.StepLR],
        ),
        (step.STEP, [TrainStep, DOTStep, AlternatingStep, Step], [text, Uncalled, KD, run]),
        (builder.DATA, [data, data_by_text, Splits], [data_without_word, other_data, nn.Linear]),
        (
            MODULE,
            [nn.Linear, network, network_without_word, network_of_unknown_type],
            [text, data, ParamScheduler, torch.optim.SGD],
        ),
    ],
    ids=lambda value: value.what if isinstance(value, Kind) else "",
)
def test_each_place_takes_its_own_kind_alone(kind, right, wrong):
    for found in right:
        kind.require(found, "here")
    for found in wrong:
        with pytest.raises(UserError, match=f"^here: .* is not {kind.what}, so it is not called"):
            kind.require(found, "here")


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "posix.system",
        "torch.os.system",
        "builtins.eval",
        "builtins.open",
        "io.open",
        "subprocess.run",
        "torch.hub.os.environ.get",
        "functools.partial",
        "operator.methodcaller",
        "builtins.str.join",
        "torch.nn.modules.module.functools.partial",
        "kd_core.config.locate.importlib.import_module",
    ],
)
def test_what_belongs_to_python_is_never_called_however_it_is_reached(path):
    with pytest.raises(UserError, match=r"a\.type: .* is Python's own"):
        build({"type": path, "x": 1}, "a")
    with pytest.raises(UserError, match=r"a\.b\.0\.type: .* is Python's own"):
        parse_call(dict, {"b": [{"type": path}]}, "a")
    with pytest.raises(UserError, match=r"is Python's own"):
        build({"type": nn.Identity, "x": {"type": path}}, "a")


def test_a_partial_and_a_function_in_c_are_of_their_own_module():
    assert is_of_python(functools.partial(os.system, "x"))
    assert module_of(functools.partial(network)) == __name__
    assert module_of(torch.zeros).startswith("torch")
    assert not is_of_python(torch.zeros)


def test_what_a_decorated_function_returns_is_known():
    @functools.wraps(constant)
    def decorated(**arguments):
        return constant(**arguments)

    assert returned(decorated) is ConstantParamScheduler


def test_nothing_is_called_before_it_is_judged():
    node = {"type": run, "command": "x"}
    for kind in (term.CRITERION, optimizer.OPTIMIZER, schedule.SCHEDULE, step.STEP, builder.DATA):
        with pytest.raises(UserError, match="so it is not called"):
            build(node, "a", kind=kind)
    with pytest.raises(UserError, match="so it is not called"):
        build_network({"type": text}, "a")
    with pytest.raises(UserError, match=r"a: .*run: x"):  # called, and what it raised
        build(node, "a")
