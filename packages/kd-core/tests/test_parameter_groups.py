"""Parameter groups: rules by name, layer-wise decay, frozen parameters; numbers by hand."""

import inspect

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.fitnet import FitNet
from kd_core.criteria.vkd import orthogonal_projector
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.experiment.parts import Parts
from kd_core.experiment.run import build_trainer
from kd_core.networks.parameters import blocks_of, names_of
from kd_core.networks.task import Task
from kd_core.training.optimizer import build_optimizer, groups_text, parse_optimizer
from kd_core.training.training_state import collect
from torch import nn
from torch.nn.utils.parametrizations import orthogonal

SGD = "torch.optim.SGD"
NEEDS_CLOSURE = {"LBFGS"}
NO_DENSE_GRADIENTS = {"SparseAdam"}
ONLY_MATRICES = {"Muon"}
OPTIMIZERS = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
)


class Toy(Task):
    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


class Loader:
    """Two batches an epoch."""

    batch_size = 4

    def __len__(self):
        return 2

    def epoch(self, epoch, start=0):
        for number in range(start, 2):
            generator = torch.Generator().manual_seed(100 * epoch + number)
            image = torch.randn(4, 3, 4, 4, generator=generator)
            yield {"image": image, "label": torch.arange(4) % 3}


def block(width):
    return nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))


class Net(nn.Module):
    """A stem, three blocks in two stages, a norm and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.stages = nn.ModuleList([nn.Sequential(block(4), nn.ReLU()), block(4)])
        self.blocks = nn.ModuleList([block(4)])
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(64, 3)

    def forward(self, x):
        x = self.stem(x)
        for part in (*self.stages, *self.blocks):
            x = part(x)
        return self.fc(self.norm(x).flatten(1))


def distiller(seed=0):
    torch.manual_seed(seed)
    hint = FitNet(student_shapes=((4, 4, 4),), teacher_shapes=((4, 4, 4),))
    terms = {"hint": Term(hint, student=["stem"], teacher=["stem"])}
    student = Toy(Net())
    torch.manual_seed(9)
    return Distiller(student, Toy(Net()), terms)


def rates(model, optimizer):
    """Return each parameter's rate and decay by the name that users know."""
    names = names_of(model)
    return {
        names[parameter][0]: (round(float(group["lr"]), 6), group.get("weight_decay"))
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def pair(**values):
    """Two parameters, w and b, as a module."""
    module = nn.Module()
    for name, value in values.items():
        setattr(module, name, nn.Parameter(torch.tensor(value)))
    return module


def test_names_are_those_of_the_exported_files():
    names = [name for each in names_of(distiller()).values() for name in each]
    assert {"student.stem.weight", "student.fc.bias"} <= set(names)
    assert any(name.startswith("criteria.hint.") for name in names)
    assert not any("network" in name for name in names)


def test_one_step_of_each_group_is_that_of_its_own_numbers():
    model = pair(w=[1.0, 2.0], v=[3.0], b=[4.0])
    rules = [
        {"names": "v", "lr_factor": 0.5, "weight_decay": 0.2},
        {"names": ["b"], "lr": 0.3, "weight_decay": 0.0},
    ]
    node = {"type": SGD, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "groups": rules}
    optimizer = build_optimizer(node, model)
    for step in range(2):
        (model.w.sum() + 2 * model.v.sum() + 3 * model.b.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 0:
            expected = [1 - 0.1 * (1 + 0.01 * 1), 2 - 0.1 * (1 + 0.01 * 2)]
            torch.testing.assert_close(model.w.data, torch.tensor(expected))
            torch.testing.assert_close(model.v.data, torch.tensor([3 - 0.05 * (2 + 0.2 * 3)]))
            torch.testing.assert_close(model.b.data, torch.tensor([4 - 0.3 * 3]))
    first = 2 + 0.2 * 3.0
    second = 0.9 * first + (2 + 0.2 * (3 - 0.05 * first))
    torch.testing.assert_close(model.v.data, torch.tensor([3 - 0.05 * first - 0.05 * second]))


def test_a_later_rule_wins_setting_by_setting():
    model = pair(a=[1.0], b=[1.0], c=[1.0])
    rules = [
        {"names": "*", "lr_factor": 0.1, "weight_decay": 0.5},
        {"names": "b", "lr": 3.0},
        {"names": "a", "lr_factor": 0.5},
        {"names": "[bc]", "frozen": True},
        {"names": "b", "frozen": False},
    ]
    optimizer = build_optimizer({"type": SGD, "lr": 1.0, "groups": rules}, model)
    assert rates(model, optimizer) == {"a": (0.5, 0.5), "b": (3.0, 0.5)}
    assert not model.c.requires_grad


def test_what_is_frozen_does_not_move_and_has_no_state_and_its_statistics_follow(tmp_path):
    rules = [{"names": "student.stages.*", "frozen": True}]
    trainer = train(tmp_path, groups=rules)
    net = trainer.distiller.student.network
    torch.manual_seed(0)
    before = distiller().student.network.state_dict()
    moved = [
        name for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    ]
    weights = {name for name, _ in net.named_parameters()}
    assert not [name for name in moved if name in weights and name.startswith("stages")]
    assert {"stages.1.1.running_mean", "stem.weight", "blocks.0.0.weight"} <= set(moved)
    frozen = [p for name, p in net.named_parameters() if name.startswith("stages")]
    assert not any(p.requires_grad or p in trainer.optimizer.state for p in frozen)


def test_a_task_cannot_unfreeze_what_the_config_froze(tmp_path):
    made = make(tmp_path, groups=[{"names": "student.stem.*", "frozen": True}], clip_norm=1.0)
    student = made.distiller.student
    object.__setattr__(student, "begin_epoch", lambda epoch: student.requires_grad_(True))
    made.train()
    assert student.network.stem.weight.grad is None
    assert student.network.fc.weight.requires_grad


def test_layers_have_falling_rates_towards_the_input():
    model = distiller()
    assert blocks_of(model.student.network) == ["stages.0", "stages.1", "blocks.0"]
    optimizer = build_optimizer({"type": SGD, "lr": 0.8, "layer_decay": 0.5}, model)
    found = {name: rate for name, (rate, _) in rates(model, optimizer).items()}
    wanted = {
        "student.stem.weight": 0.05,
        "student.stages.0.0.0.weight": 0.1,
        "student.stages.0.0.1.bias": 0.1,
        "student.stages.1.0.weight": 0.2,
        "student.blocks.0.1.weight": 0.4,
        "student.norm.weight": 0.8,
        "student.fc.bias": 0.8,
    }
    assert {name: found[name] for name in wanted} == wanted
    assert {rate for name, rate in found.items() if name.startswith("criteria")} == {0.8}
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.8)  # the one that is logged


def test_a_factor_multiplies_the_layer_s_rate_and_a_rate_replaces_it():
    rules = [
        {"names": "student.stem.*", "lr_factor": 10.0},
        {"names": "student.stages.0.*", "lr": 0.7},
    ]
    model = distiller()
    node = {"type": SGD, "lr": 0.8, "layer_decay": 0.5, "groups": rules}
    found = rates(model, build_optimizer(node, model))
    assert found["student.stem.weight"][0] == 0.5
    assert found["student.stages.0.0.0.weight"][0] == 0.7


def test_norms_and_biases_are_not_decayed_unless_a_rule_says_so():
    model = distiller()
    node = {
        "type": "torch.optim.AdamW",
        "weight_decay": 0.05,
        "decay_norms_and_biases": False,
        "groups": [{"names": "student.fc.bias", "weight_decay": 0.3}],
    }
    found = {name: decay for name, (_, decay) in rates(model, build_optimizer(node, model)).items()}
    assert found["student.fc.weight"] == found["student.stem.weight"] == 0.05
    assert found["student.stem.bias"] == found["student.norm.weight"] == 0.0
    assert found["student.stages.1.1.weight"] == found["student.stages.1.1.bias"] == 0.0
    assert found["student.fc.bias"] == 0.3


@pytest.mark.parametrize("node", [{"momentum": 0.9}, {"momentum": 0.9, "groups": []}])
def test_what_is_behind_an_orthogonal_weight_is_never_decayed(node):
    """torch's own becomes 0 by one step of decay."""
    model = nn.ModuleDict(
        {"torch": orthogonal(nn.Linear(3, 5)), "ours": orthogonal_projector(5, 3)}
    )
    node = {"type": SGD, "lr": 0.1, "weight_decay": 5e-4, **node}
    optimizer = build_optimizer(node, model)
    weights = [model[name].weight.detach().clone() for name in model]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = model["torch"].bias.detach().clone()
    optimizer.step()
    for name, weight in zip(model, weights, strict=True):
        assert torch.equal(model[name].weight, weight)
    assert not torch.equal(model["torch"].bias, before)


def test_an_optimizer_without_decay_has_one_group_for_orthogonal_weights_too():
    model = nn.Sequential(orthogonal_projector(5, 3), nn.Linear(3, 2))
    for node in ({"type": SGD, "lr": 0.1}, {"type": "torch.optim.Rprop"}):
        assert len(build_optimizer(node, model).param_groups) == 1


def test_a_layer_norm_of_two_dimensions_is_a_norm():
    model = nn.Sequential(nn.LayerNorm([2, 3]), nn.Linear(3, 2))
    node = {"type": SGD, "lr": 0.1, "weight_decay": 0.1, "decay_norms_and_biases": False}
    found = rates(model, build_optimizer(node, model))
    assert [found[name][1] for name in ("0.weight", "0.bias", "1.weight", "1.bias")] == [
        0,
        0,
        0.1,
        0,
    ]


def test_a_shared_parameter_is_found_by_each_of_its_names_and_moved_once():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    rules = [{"names": "1.weight", "lr_factor": 2.0}]
    optimizer = build_optimizer({"type": SGD, "lr": 0.1, "groups": rules}, model)
    counts = [len(group["params"]) for group in optimizer.param_groups]
    assert counts == [2, 1]
    assert optimizer.param_groups[1]["params"][0] is model[0].weight


def test_every_group_s_rate_lies_in_memory_of_its_own():
    optimizer = build_optimizer({"type": SGD, "lr": 0.8, "layer_decay": 0.5}, distiller())
    memory = {group["lr"].data_ptr() for group in optimizer.param_groups}
    assert len(memory) == len(optimizer.param_groups) == 5


def test_without_rules_there_is_one_group_and_nothing_is_said():
    model = distiller()
    optimizer = build_optimizer({"type": SGD, "lr": 0.1}, model)
    (group,) = optimizer.param_groups
    assert group["params"] == list(model.parameters())
    assert groups_text(optimizer, model) == ""


def make(folder, *, seed=0, groups=(), optimizer=None, **options):
    model = distiller(seed)
    parts = Parts(model, Loader(), lambda model: {"top1": 1.0}, "top1")
    node = {"type": SGD, "lr": 0.1, "momentum": 0.9, "groups": groups, **(optimizer or {})}
    return build_trainer(
        parts,
        folder,
        optimizer={name: value for name, value in node.items() if value is not None},
        schedule={"type": "kd_core.training.schedule.cosine"},
        **{"epochs": 2, "loggers": [], **options},
    )


def train(folder, **options):
    trainer = make(folder, **options)
    trainer.train()
    return trainer


RULES = [
    {"names": "criteria.*", "lr_factor": 2.0},
    {"names": "student.stem.*", "frozen": True},
    {"names": "*.bias", "weight_decay": 0.0},
]


def test_the_schedule_scales_every_group(tmp_path, capsys):
    trainer = make(tmp_path, groups=RULES, optimizer={"weight_decay": 0.1, "layer_decay": 0.5})
    initial = trainer._rates.initial
    assert f"{len(initial)} parameter groups, rates from 0.0125 to 0.2; 2 of" in (
        capsys.readouterr().err.replace("\n", " ")
    )
    for _, _ in zip(range(3), trainer.steps(), strict=False):
        pass
    factor = trainer.schedule((2 + 0.5) / 4)
    for group, rate in zip(trainer.optimizer.param_groups, initial, strict=True):
        assert float(group["lr"]) == pytest.approx(rate * factor)
    assert trainer.learning_rate == pytest.approx(0.1 * factor)


def closed(name):
    if name in NEEDS_CLOSURE | NO_DENSE_GRADIENTS:
        with pytest.raises(UserError, match=rf"^optimizer\.type: .*{name}") as error:
            parse_optimizer({"type": f"torch.optim.{name}"})
        assert "\n" not in str(error.value)
        return False
    return name not in ONLY_MATRICES


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_closed_optimizer_of_torch_trains_groups_and_resumes_exactly(tmp_path, name):
    if not closed(name):
        return
    rule = {"names": "*.bias", "weight_decay": 0.0}
    has_decay = "weight_decay" in inspect.signature(getattr(torch.optim, name)).parameters
    optimizer = {"type": f"torch.optim.{name}", "lr": 0.01, "momentum": None}
    options = {"optimizer": optimizer, "groups": RULES[:2] + [rule] * has_decay}
    whole = train(tmp_path / "whole", **options)
    cut = make(tmp_path / "cut", save_minutes=0, **options)
    for _, _ in zip(range(3), cut.steps(), strict=False):
        pass
    resumed = make(tmp_path / "cut", seed=5, **options)
    resumed.resume(tmp_path / "cut/last.pth")
    resumed.train()
    ours, theirs = collect(whole), collect(resumed)
    for key, value in ours["distiller"].items():
        assert torch.equal(value, theirs["distiller"][key]), key
    assert repr(ours["optimizer"]["state"]) == repr(theirs["optimizer"]["state"])


def test_a_checkpoint_of_other_groups_is_refused(tmp_path):
    train(tmp_path, groups=RULES[:2], epochs=1)
    with pytest.raises(UserError, match="is of another optimizer"):
        make(tmp_path, groups=RULES[:1]).resume(tmp_path / "last.pth")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"groups": {"names": "a"}}, r"^optimizer\.groups: wanted a list"),
        ({"groups": [5]}, r"^optimizer\.groups\.0: wanted a dict"),
        ({"groups": [{}]}, r"^optimizer\.groups\.0: .*needs 'names'"),
        ({"groups": [{"names": "a"}]}, r"^optimizer\.groups\.0: wanted `names` and one of lr"),
        ({"groups": [{"names": [], "lr": 1.0}]}, r"groups\.0: wanted `names` and one of"),
        ({"groups": [{"lr": 1.0}]}, r"groups\.0.*needs 'names'"),
        ({"groups": [{"names": "a", "rate": 1.0}]}, r"groups\.0: .*no parameter 'rate'"),
        (
            {"groups": [{"names": "a", "lr": -1.0}]},
            r"^optimizer\.groups\.0\.lr: wanted a number of at least 0",
        ),
        ({"groups": [{"names": "a", "lr": "0.1"}]}, r"^optimizer\.groups\.0\.lr: wanted a number"),
        ({"groups": [{"names": 5, "lr": 0.1}]}, r"groups\.0.*names: wanted"),
        ({"groups": [{"names": "a", "frozen": 1}]}, r"groups\.0.*frozen: wanted true or false"),
        ({"groups": [{"names": "a", "weight_decay": float("nan")}]}, r"weight_decay: wanted"),
        ({"groups": [{"names": "a", "lr": 1, "lr_factor": 1}]}, r"give lr or lr_factor, not both"),
        ({"layer_decay": 0}, r"^optimizer\.layer_decay: wanted a number greater than 0"),
        ({"layer_decay": 1.5}, r"^optimizer\.layer_decay: wanted a number of at most 1"),
        ({"layer_decay": True}, r"^optimizer\.layer_decay: wanted a number"),
        ({"decay_norms_and_biases": "no"}, r"decay_norms_and_biases: wanted true or false"),
        ({"layer_deacy": 0.5}, r"no parameter 'layer_deacy'; did you mean 'layer_decay'"),
        ({"momentun": 0.5}, r"did you mean 'momentum'"),
        ({"type": "torch.optim.LBFGS"}, r"^optimizer\.type: .*LBFGS evaluates the loss again"),
        ({"type": nn.Linear}, r"^optimizer\.type: .*is not an optimizer"),
        (
            {"type": "torch.optim.Rprop", "groups": [{"names": "a", "weight_decay": 0.1}]},
            r"^optimizer: .*Rprop has no 'weight_decay', so it cannot differ",
        ),
        (
            {"type": "torch.optim.Rprop", "decay_norms_and_biases": False},
            r"^optimizer: .*Rprop has no 'weight_decay'",
        ),
    ],
)
def test_a_wrong_node_is_refused_before_anything_is_built(node, message):
    with pytest.raises(UserError, match=message) as error:
        parse_optimizer({"type": SGD, "lr": 0.1, **node})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"groups": [{"names": "student.stm.weight", "frozen": True}]},
            r"^optimizer\.groups\.0: names 'student\.stm\.weight' match no parameter; did you mean "
            r"'student\.stem\.weight'",
        ),
        (
            {"groups": [{"names": ["*", "network.*"], "frozen": False}]},
            r"groups\.0: names 'network\.\*' match no parameter",
        ),
        ({"groups": [{"names": "*", "frozen": True}]}, r"^optimizer: nothing to train"),
    ],
)
def test_a_rule_that_fits_nothing_is_refused_with_the_nearest_name(node, message):
    with pytest.raises(UserError, match=message) as error:
        build_optimizer({"type": SGD, "lr": 0.1, **node}, distiller())
    assert "\n" not in str(error.value)


def test_a_rate_for_what_is_not_trained_is_refused():
    model = Distiller(Toy(Net()), {}, {}, train_student=False)
    model.criteria["x"] = nn.Linear(1, 1)
    rules = [{"names": "student.*", "lr": 0.1}]
    with pytest.raises(UserError, match=r"groups\.0: .*only parameters that are not trained"):
        build_optimizer({"type": SGD, "lr": 0.1, "groups": rules}, model)


def test_layer_decay_of_a_network_without_blocks_is_refused():
    model = Distiller(Toy(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten())), {}, {})
    with pytest.raises(UserError, match=r"^optimizer\.layer_decay: Sequential has no blocks in a"):
        build_optimizer({"type": SGD, "lr": 0.1, "layer_decay": 0.5}, model)
