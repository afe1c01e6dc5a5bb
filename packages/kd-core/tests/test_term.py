"""Terms: built from config nodes without a shape written in them, and fed by taps."""

import pytest
import torch
from kd_core.criteria.criterion import Criterion
from kd_core.criteria.fitnet import FitNet
from kd_core.criteria.kd import KD
from kd_core.distill.term import Term, build_terms
from kd_core.errors import UserError
from kd_core.files.checkpoint import save
from kd_core.networks.task import Task
from torch import nn


class Logits(Task):
    """A task that always predicts."""

    def forward(self, batch):
        return self.network(batch["image"])


class Recorder(Criterion):
    """A criterion that shows what it was given."""

    def __init__(self, *, num_classes, num_samples=0, factor=1.0):
        super().__init__()
        self.num_classes, self.num_samples, self.factor = num_classes, num_samples, factor

    def forward(self, student, teacher, batch):
        self.given = student, teacher, batch
        return self.factor * torch.ones(())


class OfMaps(Recorder):
    takes = "maps"


class OfLogits(Recorder):
    takes = "logits"


def net(channels, classes=5):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(channels * 36, classes),
    )


def batch():
    return {"image": torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))}


def built(nodes, teachers=None, **provided):
    teachers = {"teacher": Logits(net(7))} if teachers is None else teachers
    return build_terms(nodes, Logits(net(4)), teachers, batch(), **provided)


FITNET = {
    "criterion": {"type": "kd_core.criteria.fitnet.FitNet"},
    "student": ["0", "1"],
    "teacher": ("0", "1"),
}
KD_NODE = {"criterion": {"type": KD}}


def test_a_criterion_of_maps_gets_tuples_and_others_get_tensors():
    seen, shown, batch = {"a": 1, "b": 2}, {"x": 3, "y": 4}, {"label": 5}
    maps, logits = OfMaps(num_classes=2), OfLogits(num_classes=2)
    assert Term(maps, ["b", "a"], ("x", "y")).loss(seen, shown, batch) == 1
    assert maps.given == ((2, 1), (3, 4), batch)
    Term(maps, "a", "x").loss(seen, shown, batch)
    assert maps.given == ((1,), (3,), batch)
    Term(logits, "a", "x").loss(seen, shown, batch)
    assert logits.given == (1, 3, batch)


def test_the_loss_of_a_term_has_no_weight_in_it():
    term = Term(OfLogits(num_classes=2, factor=3.0), "a", "a", weight=100.0)
    assert term.loss({"a": 1}, {"a": 1}, {}) == 3


class OfALaterStage(OfLogits):
    trained_before = ("head", "scale")


def test_a_criterion_of_a_later_stage_needs_the_weights_of_the_one_before():
    node = {"criterion": {"type": OfALaterStage, "num_classes": 5}}
    wanted = r"terms.own: OfALaterStage needs .* its head, scale, which would stay random; set wei"
    with pytest.raises(UserError, match=wanted):
        built({"own": node})
    built({"own": {**node, "weights": None}})  # of a phase that a dry run leaves out


def test_a_negative_warmup_is_refused():
    with pytest.raises(UserError, match="warmup_epochs: wanted a number of at least 0, got -1"):
        Term(KD(), warmup_epochs=-1)


def test_a_warmup_by_anything_else_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"warmup_by: .*got 'epochs'; did you mean 'epoch'"):
        Term(KD(), warmup_by="epochs")


def test_what_is_no_criterion_is_refused():
    with pytest.raises(UserError, match="criterion is a MSELoss; a term needs a Criterion"):
        Term(nn.MSELoss())


def test_a_criterion_whose_constructor_forgot_its_parent_s_is_refused():
    class Forgot(KD):
        def __init__(self) -> None:
            pass

    with pytest.raises(UserError, match=r"Forgot .*super\(\)\.__init__\(\)"):
        Term(Forgot())


def test_shapes_are_filled_in_from_the_taps_of_one_sample():
    fitnet = built({"hint": FITNET})["hint"].criterion
    assert isinstance(fitnet, FitNet)
    convolutions = [regressor[0] for regressor in fitnet.regressors]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(4, 7), (4, 7)]


class Calls(nn.Module):
    """A layer that runs for both halves of an image, as a head does on several levels."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, image):
        return sum(self.layer(half).mean((2, 3)) for half in image.float().chunk(2, 2))


@pytest.mark.parametrize(("tap", "told"), [("layer[*]", "several tensors"), ("layer[*][1]", "")])
def test_several_tensors_of_a_tap_are_refused_by_a_criterion_made_from_shapes(tap, told):
    node = {"criterion": FITNET["criterion"], "student": [tap], "teacher": [tap]}
    networks = [Logits(Calls()) for _ in range(2)]
    if not told:
        build_terms({"hint": node}, networks[0], {"teacher": networks[1].eval()}, batch())
        return
    with pytest.raises(UserError, match=r"FitNet takes one .* several tensors; .*PATH\[\*\]\[0\]"):
        build_terms({"hint": node}, networks[0], {"teacher": networks[1].eval()}, batch())


def test_provided_arguments_reach_only_criteria_that_ask_for_them():
    nodes = {"kd": KD_NODE, "own": {"criterion": {"type": OfLogits, "factor": 2.0}}}
    own = built(nodes, num_classes=5, num_samples=60)["own"].criterion
    assert (own.num_classes, own.num_samples, own.factor) == (5, 60, 2.0)


def test_every_other_key_of_a_node_is_an_argument_of_the_term():
    node = {**KD_NODE, "student": "3", "weight": 0.9, "warmup_epochs": 20, "source": "teacher"}
    term = built({"kd": node})["kd"]
    assert (term.student, term.teacher, term.weight) == ("3", "@logits", 0.9)
    assert (term.warmup_epochs, term.source) == (20, "teacher")


def test_building_leaves_the_networks_in_their_modes():
    student, teacher = Logits(net(4)).train(), Logits(net(7)).eval()
    build_terms({"hint": FITNET}, student, {"teacher": teacher}, batch())
    assert student.network.training
    assert not teacher.network.training


def test_each_term_is_measured_on_its_own_teacher():
    teachers = {"small": Logits(net(5)), "large": Logits(net(9))}
    nodes = {name: {**FITNET, "source": name} for name in ("large", "small")}
    terms = built(nodes, teachers)
    outputs = {name: term.criterion.regressors[0][0].out_channels for name, term in terms.items()}
    assert outputs == {"large": 9, "small": 5}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({}, "needs 'criterion'; set distiller.terms.kd.criterion"),
        ({"criterion": {"temperature": 2.0}}, "^distiller.terms.kd.criterion: no `type`"),
        ({"criterion": "kd_core.criteria.kd.KD"}, "^distiller.terms.kd.criterion: no `type`"),
        ({**KD_NODE, "wieght": 2}, "^distiller.terms.kd: .*'wieght'; did you mean 'weight'"),
        ({**KD_NODE, "source": "teachr"}, "no teacher 'teachr'; did you mean 'teacher'"),
        ({**KD_NODE, "student": "9"}, r"^distiller.terms.kd.student: tap '9': Sequential has no"),
        ({**KD_NODE, "teacher": "9"}, r"^distiller.terms.kd.teacher: tap '9': Sequential has no"),
        ({**KD_NODE, "warmup_epochs": -2}, "^distiller.terms.kd.warmup_epochs: wanted a number"),
        ({**KD_NODE, "warmup_by": "steps"}, "^distiller.terms.kd.warmup_by: .*did you mean 'step'"),
        ({"criterion": {"type": nn.MSELoss}}, r"kd.criterion.type: .*MSELoss is not a criterion"),
        (
            {"criterion": {"type": KD, "temprature": 2.0}},
            "^distiller.terms.kd.criterion: .*'temprature'; did you mean 'temperature'",
        ),
        (
            {"criterion": {"type": "kd_core.criteria.kd.DK"}},
            "^distiller.terms.kd.criterion.type: .*has no 'DK'",
        ),
        ({**KD_NODE, "weights": "nowhere.pth"}, "^distiller.terms.kd: no weights file"),
    ],
)
def test_a_mistake_in_a_node_is_refused_with_its_place_in_the_config(node, message):
    with pytest.raises(UserError, match=message):
        built({"kd": node})


def test_a_term_without_any_teacher_is_refused():
    with pytest.raises(UserError, match=r"distiller\.terms\.kd: there is no teacher"):
        built({"kd": KD_NODE}, teachers={})


def test_weights_of_an_earlier_stage_are_loaded_into_the_criterion(tmp_path):
    earlier = built({"hint": FITNET})["hint"].criterion
    save(earlier.state_dict(), tmp_path / "hint.pth")
    later = built({"hint": {**FITNET, "weights": str(tmp_path / "hint.pth")}})["hint"].criterion
    torch.testing.assert_close(later.state_dict(), earlier.state_dict(), rtol=0, atol=0)


def test_weights_that_do_not_fit_the_criterion_are_refused(tmp_path):
    other = FitNet(((4, 6, 6),), ((7, 6, 6),))
    save(other.state_dict(), tmp_path / "hint.pth")
    with pytest.raises(UserError, match=r"distiller.terms.hint: .*does not fit FitNet"):
        built({"hint": {**FITNET, "weights": str(tmp_path / "hint.pth")}})
