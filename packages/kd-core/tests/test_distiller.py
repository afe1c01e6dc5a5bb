"""Distiller: `losses = model(batch)` for a student, its frozen teachers and their terms."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from kd_core.criteria.criterion import Borrowed, Criterion
from kd_core.criteria.fitnet import FitNet
from kd_core.criteria.kd import KD
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.task import Task, network_of
from kd_core.testing import NoHostReads
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Classify(Task):
    """Two losses in training, logits in evaluation."""

    def forward(self, batch):
        logits = self.network(batch["image"])
        if not self.training:
            return logits
        return {"ce": F.cross_entropy(logits, batch["label"]), "norm": logits.pow(2).mean()}


class Own(nn.Module):
    """A model that obeys the contract without being a `Task`."""

    def __init__(self):
        super().__init__()
        self.body = net(4)

    def forward(self, batch):
        logits = self.body(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


class Gap(Criterion):
    """Mean squared difference; remembers the networks that it was bound to."""

    takes = "logits"

    def __init__(self):
        super().__init__()
        self.bound = []

    def bind(self, student, teacher, taps):
        self.bound.append((student, teacher, taps))

    def forward(self, student, teacher, batch):
        return (student - teacher.detach()).pow(2).mean()


class Wrapped(Gap):
    """Evaluates and exports the student with one more layer, as SimKD does."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(5, 3)

    def deploy(self, student):
        return nn.Sequential(student, nn.Dropout(0.5), self.extra)

    def deploy_node(self, node):
        return {"type": "torch.nn.Sequential", "args": [node]}


def net(channels, classes=5, dropout=0.0):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout, inplace=True),
        nn.Linear(channels, classes),
    )


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(8, 3, 6, 6, generator=generator)
    return {"image": image, "label": torch.arange(8) % 5}


def make(terms=None, *, teachers=None, **options):
    torch.manual_seed(0)
    student, teacher = Classify(net(4)), Classify(net(6))
    terms = {"kd": Term(KD())} if terms is None else terms
    return Distiller(student, teachers or teacher, terms, **{"sample": batch(), **options})


def fitnet():
    torch.manual_seed(0)
    return Term(FitNet(((4, 6, 6),), ((6, 6, 6),)), student="1", teacher="1")


def train(distiller, steps=3):
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        sum(distiller(batch(step)).values()).backward()
        optimizer.step()
        distiller.advance()


def values(losses):
    return {name: loss.item() for name, loss in losses.items()}


def exact(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.fixture
def one_process():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


# The contract


def test_in_training_it_gives_the_student_s_losses_and_one_for_each_term():
    distiller = make({"kd": Term(KD(), weight=0.5), "hint": fitnet()})
    student, teacher = distiller.student.network, distiller.teachers["teacher"].network
    losses = distiller.train()(batch())
    assert list(losses) == ["ce", "norm", "kd", "hint"]
    logits, target = student(batch()["image"]), teacher(batch()["image"])
    torch.testing.assert_close(losses["ce"], F.cross_entropy(logits, batch()["label"]))
    torch.testing.assert_close(losses["kd"], 0.5 * KD()(logits, target, {}))
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in distiller.parameters())


class Gives(Gap):
    """Returns what a criterion must not."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, student, teacher, batch):
        return self.made((student - teacher.detach()).square())


@pytest.mark.parametrize(
    ("made", "came"),
    [
        (lambda gaps: gaps.sum(1), r"a loss of shape \[8\]"),
        (lambda gaps: gaps.mean().reshape(1), r"a loss of shape \[1\]"),
        (lambda gaps: {"gap": gaps.mean()}, "a dict"),
        (lambda gaps: 1.0, "a float"),
        (lambda gaps: None, "None"),
    ],
)
def test_a_criterion_that_returns_no_scalar_is_named_with_its_term(made, came):
    distiller = make({"smooth": Term(Gives(made))}).train()
    wanted = f"^term 'smooth': {__name__}.Gives returned {came}; wanted a scalar, .*batch_mean$"
    with pytest.raises(UserError, match=wanted):
        distiller(batch())


def test_a_criterion_beside_others_in_a_joint_loss_returns_one_loss_for_every_image():
    class OfImages(Gives):
        per_image = Gives.forward

    term = Term(OfImages(torch.mean), joint="all")
    with pytest.raises(UserError, match=r"returned a loss of shape \[\]; wanted one .*, \[N\]"):
        make({"smooth": term}).train()(batch())


def test_in_evaluation_it_predicts_as_the_student_does():
    distiller = make().eval()
    exact(distiller(batch()), distiller.student.network(batch()["image"]))


def test_a_loop_of_the_user_s_own_needs_nothing_else():
    torch.manual_seed(0)
    student, teacher = net(4), net(6)

    class Tiny(Task):
        def forward(self, batch):
            logits = self.network(batch["image"])
            return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits

    model = Distiller(Tiny(student), Tiny(teacher), {"kd": Term(KD(), weight=0.9)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    history = []
    for _ in range(30):
        loss = sum(model(batch()).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())

    assert history[-1] < 0.8 * history[0]
    assert model.eval()(batch()).shape == (8, 5)


def test_a_student_that_is_its_own_task_is_tapped_by_its_own_names():
    distiller = Distiller(Own(), Own(), {"kd": Term(KD(), student="body", teacher="body.6")})
    assert list(distiller(batch())) == ["ce", "kd"]
    assert distiller.eval()(batch()).shape == (8, 5)
    assert distiller.predictor() is distiller.student


def test_a_plain_network_as_student_is_refused_with_what_to_do():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 5)

        def forward(self, batch):
            return self.fc(batch["image"].mean((2, 3)))

    with pytest.raises(UserError, match=r"Tensor in training.*wrap the network in a Task"):
        Distiller(Bare(), Bare(), {"kd": Term(KD())})(batch())


def test_the_first_step_under_autocast_trains_every_parameter():
    distiller = make({"kd": Term(KD()), "hint": fitnet()}, sample=None).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = sum(distiller(batch()).values())
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in distiller.student.parameters())


# The teacher


def test_the_teacher_is_out_of_sight_of_the_module():
    distiller = make({"kd": Term(KD()), "hint": fitnet()})
    teacher = distiller.teachers["teacher"].model
    hidden = {id(parameter) for parameter in teacher.parameters()}
    assert hidden.isdisjoint(id(parameter) for parameter in distiller.parameters())
    assert not {id(m) for m in teacher.modules()} & {id(m) for m in distiller.modules()}
    owners = {name.partition(".")[0] for name in distiller.state_dict()}
    assert owners == {"student", "criteria", "steps"}


def test_train_leaves_the_teacher_in_eval_mode_and_frozen():
    distiller = make().train()
    distiller.requires_grad_(True)
    teacher = distiller.teachers["teacher"].model
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_teacher_follows_to_another_dtype():
    distiller = make({"kd": Term(KD()), "hint": fitnet()}).to(torch.float64)
    assert {p.dtype for p in distiller.teachers["teacher"].model.parameters()} == {torch.float64}
    double = {**batch(), "image": batch()["image"].double()}
    assert {loss.dtype for loss in distiller(double).values()} == {torch.float64}


def test_the_teacher_s_state_is_the_same_after_training():
    distiller = make({"kd": Term(KD()), "hint": fitnet()})
    state = copy.deepcopy(distiller.teachers["teacher"].model.state_dict())
    student = copy.deepcopy(distiller.student.state_dict())
    train(distiller)
    exact(distiller.teachers["teacher"].model.state_dict(), state)
    assert not torch.equal(
        distiller.student.state_dict()["network.0.weight"], student["network.0.weight"]
    )


def test_a_deepcopy_copies_the_student_and_shares_the_teacher():
    distiller = make({"kd": Term(KD(), warmup_epochs=1), "hint": fitnet()})
    distiller.begin(steps_per_epoch=4)
    twin = copy.deepcopy(distiller)
    assert twin.teachers["teacher"] is distiller.teachers["teacher"]
    assert twin.terms["hint"].criterion is twin.criteria["hint"]
    before = copy.deepcopy(distiller.state_dict())
    train(twin)
    exact(distiller.state_dict(), before)
    train(distiller)
    assert list(twin(batch())) == list(distiller(batch()))


def test_a_teacher_sharing_parameters_with_the_student_is_refused():
    network = net(4)
    with pytest.raises(UserError, match="teacher 'teacher' shares parameters with the student"):
        Distiller(Classify(network), Classify(network), {"kd": Term(KD())})
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_each_term_learns_from_the_teacher_that_it_names():
    teachers = {"a": Classify(net(6)), "b": Classify(nn.Sequential(net(7))), "idle": Own()}
    terms = {"b": Term(Gap(), teacher="0.6", source="b"), "a": Term(Gap(), source="a")}
    distiller = make(terms, teachers=teachers)
    distiller.teachers["idle"].model.forward = None  # is not run, as nobody learns from it
    losses = distiller(batch())
    logits = distiller.student.network(batch()["image"])
    for name in ("a", "b"):
        target = teachers[name].network(batch()["image"])
        torch.testing.assert_close(losses[name], (logits - target).pow(2).mean())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "^term 'kd' names no teacher .*valid names: large, small"),
        ("larg", "^term 'kd' wants 'larg'; did you mean 'large'"),
    ],
)
def test_a_missing_or_unknown_source_is_refused(source, message):
    teachers = {"small": Classify(net(6)), "large": Classify(net(7))}
    with pytest.raises(UserError, match=message):
        make({"kd": Term(KD(), source=source)}, teachers=teachers)


def test_the_only_teacher_must_still_be_named_rightly():
    with pytest.raises(UserError, match="term 'kd' wants 'large'"):
        make({"kd": Term(KD(), source="large")})


def test_a_student_may_train_without_teachers_and_terms():
    distiller = Distiller(Classify(net(4)), {}, {}, sample=batch())
    assert list(distiller(batch())) == ["ce", "norm"]


# A student that is not trained


def test_a_frozen_student_gives_no_loss_and_stays_as_it_is():
    distiller = make({"hint": fitnet()}, train_student=False)
    before = copy.deepcopy(distiller.student.state_dict())
    regressor = copy.deepcopy(distiller.criteria.state_dict())
    assert list(distiller.train()(batch())) == ["hint"]
    train(distiller)
    assert not distiller.student.training
    after = distiller.student.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    trained = distiller.criteria.state_dict()
    assert not all(torch.equal(regressor[name], trained[name]) for name in regressor)


def test_a_frozen_student_without_taps_does_not_run():
    class OfTheTeacher(Gap):
        def forward(self, student, teacher, batch):
            assert student == ()
            return teacher.square().mean()

        def check_shapes(self, student, teacher):
            assert (student, teacher) == ((), ((5,),))

    distiller = make({"own": Term(OfTheTeacher(), student=[])}, train_student=False)
    distiller.student.network.forward = None
    assert list(distiller.train()(batch())) == ["own"]


# What criteria are told


def test_criteria_are_told_the_epoch_once_a_loop_has_begun():
    class Told(Gap):
        def forward(self, student, teacher, batch):
            self.epoch = batch.get("epoch")
            return super().forward(student, teacher, batch)

    told = Told()
    distiller, given = make({"told": Term(told)}), batch()
    distiller(given)
    assert told.epoch is None
    distiller.begin(steps_per_epoch=4)
    for _ in range(5):
        distiller(given)
        distiller.advance()
    assert told.epoch == 1.0
    assert "epoch" not in given


def test_roles_stand_for_the_paths_of_each_network():
    torch.manual_seed(0)
    student, teacher = Classify(net(4), roles={"map": ["2"]}), Classify(net(6), roles={"map": "1"})
    term = Term(FitNet(((4, 6, 6),), ((6, 6, 6),)), student="@map", teacher=["@map[0]"])
    distiller = Distiller(student, teacher, {"hint": term}, sample=batch())
    assert (distiller.terms["hint"].student, distiller.terms["hint"].teacher) == (["2"], ["1"])
    with pytest.raises(UserError, match=r"^term 'hint': teacher: tap '@maps'.*'map'"):
        Distiller(student, teacher, {"hint": Term(term.criterion, "@map", "@maps")})


def test_a_borrowed_module_is_neither_owned_nor_left_behind_by_a_copy():
    class Borrows(Gap):
        def bind(self, student, teacher, taps):
            self.head = Borrowed(student[-1])

    distiller = make({"kd": Term(Borrows())})
    assert not list(distiller.criteria.parameters())
    twin = copy.deepcopy(distiller)
    assert twin.criteria["kd"].head.module is twin.student.network[-1]
    assert distiller.criteria["kd"].head.module is distiller.student.network[-1]


# Weights and warm-up


def test_task_weight_scales_all_losses_of_the_student_and_no_term():
    whole, tenth = (values(make(task_weight=w)(batch())) for w in (1.0, 0.1))
    for name in ("ce", "norm"):
        assert tenth[name] == pytest.approx(0.1 * whole[name])
    assert whole["kd"] == tenth["kd"]


@pytest.mark.parametrize(("weight", "left"), [(0, ["kd"]), ({"ce": 0.0}, ["norm", "kd"])])
def test_a_task_loss_of_weight_zero_is_left_out(weight, left):
    assert list(make(task_weight=weight)(batch())) == left


def test_task_weight_by_name_leaves_the_others_alone():
    whole, named = (values(make(task_weight=w)(batch())) for w in (1.0, {"norm": 3.0}))
    assert named == {**whole, "norm": pytest.approx(3 * whole["norm"])}


def test_an_unknown_name_in_task_weight_is_refused():
    with pytest.raises(UserError, match="task_weight: no loss 'nrom'; did you mean 'norm'"):
        make(task_weight={"nrom": 3.0})(batch())


def test_a_term_whose_name_no_module_can_have_is_refused():
    with pytest.raises(UserError, match=r"terms: 'a\.b' cannot be a name"):
        make({"a.b": Term(KD())})


def test_a_term_named_like_a_loss_of_the_student_is_refused():
    with pytest.raises(UserError, match="term 'ce' has the name of a loss of the student"):
        make({"ce": Term(KD())})(batch())


def test_the_weight_of_a_term_multiplies_it():
    one, nine = (values(make({"kd": Term(KD(), weight=w)})(batch())) for w in (1.0, 9.0))
    assert nine["kd"] == pytest.approx(9 * one["kd"])


@pytest.mark.parametrize(
    ("by", "epochs", "shares"),
    [
        ("step", 1.5, [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("step", 3, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]),
        ("epoch", 3, [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1]),  # epoch / 3, epochs counted from 1
        ("epoch", 2.5, [0.4, 0.4, 0.8, 0.8, 1, 1]),
        ("epoch", 1, [1] * 6),  # what the references call a warm-up of one epoch is none
    ],
)
def test_warmup_grows_by_epoch_or_by_step_and_restarts(by, epochs, shares):
    distiller = make({"gap": Term(Gap(), weight=2.0, warmup_epochs=epochs, warmup_by=by)})
    whole = values(make({"gap": Term(Gap(), weight=2.0)})(batch()))["gap"]
    for _ in range(2):
        distiller.begin(steps_per_epoch=2)
        factors = []
        for _ in shares:
            factors.append(values(distiller(batch()))["gap"])
            distiller.advance()
        assert factors == pytest.approx([share * whole for share in shares])


@pytest.mark.parametrize("by", ["epoch", "step"])
def test_a_warmup_reads_nothing_back(by):
    distiller = make({"gap": Term(Gap(), warmup_epochs=3, warmup_by=by)})
    distiller.begin(steps_per_epoch=2)
    with NoHostReads():
        distiller(batch())
        distiller.advance()


class OneByOne(Classify):
    """Runs its network on one half of the images after the other."""

    def passes(self, batch):
        return 2 if self.training else 1

    def forward(self, batch):
        logits = torch.cat([self.network(x) for x in batch["image"].chunk(self.passes(batch))])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


def test_taps_join_what_the_passes_of_a_task_give_in_the_order_of_the_batch():
    student, seen = OneByOne(net(4)), []
    terms = {"gap": Term(Gap()), "hint": fitnet()}
    distiller = Distiller(student, Classify(net(6)), terms, sample=batch()).train()
    for term in terms.values():
        term.criterion.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    alone = copy.deepcopy(student.network).train()
    distiller(batch())
    halves = [alone[:2](x) for x in batch()["image"].chunk(2)]
    logits, (maps,) = seen
    assert torch.equal(maps, torch.cat(halves))
    assert torch.equal(logits, torch.cat([alone[2:](half) for half in halves]))
    for name, value in alone.state_dict().items():
        assert torch.equal(student.network.state_dict()[name], value), name


def test_an_iteration_of_detection_is_an_epoch_of_one_step():
    of = {by: Term(Gap(), warmup_epochs=4, warmup_by=by) for by in ("epoch", "step")}
    for done in range(6):
        steps = torch.tensor(done)
        assert of["epoch"].factor(steps, 1) == of["step"].factor(steps, 1) == min(done + 1, 4) / 4


def test_the_position_in_the_warmup_is_saved():
    distiller, resumed = (make({"kd": Term(KD(), warmup_epochs=3)}) for _ in range(2))
    distiller.begin(steps_per_epoch=2)
    distiller.advance()
    resumed.begin(steps_per_epoch=2)
    resumed.load_state_dict(distiller.state_dict())
    assert resumed.steps == 1


def test_a_warmup_without_begin_is_refused_with_what_to_call():
    distiller = make({"kd": Term(KD(), warmup_epochs=2)})
    with pytest.raises(UserError, match=r"term 'kd'.* warms up over 2.*call distiller.begin"):
        distiller(batch())
    distiller.begin(steps_per_epoch=3)
    distiller(batch())


@pytest.mark.parametrize(
    ("after", "shares"),
    [
        (0, [0.75, 0.75, 0.25, 0.25, 0, 0]),  # half a cosine of epoch / 3, epochs from 1
        (1, [1, 1, 0.5, 0.5, 0, 0]),
        (3, [1] * 6),  # the run is not longer
        (30, [1] * 6),
    ],
)
def test_a_weight_falls_to_nothing_in_the_last_epoch(after, shares):
    distiller = make({"gap": Term(Gap(), weight=2.0, decay_after=after)})
    whole = values(make({"gap": Term(Gap(), weight=2.0)})(batch()))["gap"]
    distiller.begin(steps_per_epoch=2, epochs=3)
    factors = []
    with NoHostReads():
        for _ in shares:
            factors.append(distiller(batch())["gap"].detach())
            distiller.advance()
    assert torch.stack(factors).tolist() == pytest.approx([s * whole for s in shares], abs=1e-6)


def test_a_weight_may_grow_first_and_fall_later():
    term = Term(Gap(), warmup_epochs=2, decay_after=2)
    factors = [float(term.factor(torch.tensor(done), 1, 6)) for done in range(6)]
    fall = [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)]
    assert factors == pytest.approx([0.5, *fall], abs=1e-6)


def test_a_weight_that_falls_without_an_end_is_refused_with_what_to_call():
    distiller = make({"kd": Term(KD(), decay_after=2)})
    for begin in (lambda: None, lambda: distiller.begin(steps_per_epoch=3)):
        begin()
        with pytest.raises(UserError, match=r"term 'kd'.* falls after 2 .*call distiller.begin"):
            distiller(batch())
    distiller.begin(3, epochs=4)
    distiller(batch())


# Checks at construction


def test_logit_terms_refuse_different_numbers_of_classes():
    message = "term 'kd': KD: student has 5 classes, teacher 100"
    with pytest.raises(UserError, match=message):
        make(teachers=Classify(net(6, classes=100)))
    unchecked = make(teachers=Classify(net(6, classes=100)), sample=None)
    with pytest.raises(UserError, match=message):
        unchecked(batch())


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term(KD(), student="outptu"), "^student: tap 'outptu': .*did you mean 'output'"),
        (Term(KD(), teacher="outptu"), "^teacher 'teacher': tap 'outptu'"),
        (
            Term(KD(), student="0"),
            r"^term 'kd': KD takes logits \[N, C\], but a tap of the student",
        ),
        (Term(KD(), teacher=["6", "output"]), "^term 'kd': KD takes one tensor"),
        (Term(KD(), student="output[a]"), "^student: tap 'output.a.': a Tensor has no entries"),
    ],
)
def test_unknown_taps_and_unfit_shapes_are_refused_with_the_side_that_is_wrong(term, message):
    with pytest.raises(UserError, match=message):
        make({"kd": term})


def test_bind_is_called_once_for_each_term_with_the_plain_networks():
    gap = Gap()
    distiller = make({"gap": Term(gap)})
    train(distiller)
    ((student, teacher, taps),) = gap.bound
    assert student is distiller.student.network
    assert teacher is distiller.teachers["teacher"].network
    assert taps == (["output"], ["output"])


def test_listening_leaves_no_trace_in_a_student_that_trains():
    distiller = make({"kd": Term(KD()), "hint": fitnet()}).train()
    distiller.student.network[1].eval()  # a frozen BatchNorm

    def trace():
        modes = [module.training for module in distiller.modules()]
        return modes, copy.deepcopy(distiller.state_dict()), torch.get_rng_state()

    before = trace()
    distiller.infer_shapes(batch())
    exact(trace(), before)
    assert distiller.tap_shapes["student"] == {"output": (5,), "1": (4, 6, 6)}
    assert distiller.tap_shapes["teacher"] == {"output": (5,), "1": (6, 6, 6)}


def test_the_first_step_is_the_same_with_and_without_a_sample_before():
    assert values(make()(batch())) == values(make(sample=None)(batch()))


def test_taps_before_in_place_layers_are_copied_in_training_too():
    class Signed(Gap):
        takes = "maps"

        def forward(self, student, teacher, batch):
            self.least = [side[0].min().item() for side in (student, teacher)]
            return (student[1].mean() - teacher[1].mean()).abs()

    signed = Signed()
    term = Term(signed, student=["1", "3"], teacher=["1", "3"])  # before ReLU, before dropout
    student, teacher = Classify(net(4, dropout=0.5)), Classify(net(6))
    sum(Distiller(student, teacher, {"signed": term})(batch()).values()).backward()
    assert max(signed.least) < 0


# What happens between steps


def test_evaluation_batches_do_not_change_the_training_step_that_follows():
    distiller = make()
    for seed in (1, 2):
        distiller.eval()(batch(seed))
    assert values(distiller.train()(batch())) == values(make()(batch()))


@pytest.mark.parametrize("culprit", ["student", "teacher", "criterion"])
def test_a_failed_step_does_not_poison_the_next(culprit, monkeypatch):
    distiller = make()
    parts = {
        "student": distiller.student.network[6],
        "teacher": distiller.teachers["teacher"].network[6],
        "criterion": distiller.criteria["kd"],
    }

    def fail(*args):
        raise ZeroDivisionError

    state = copy.deepcopy(distiller.state_dict())
    with monkeypatch.context() as patch:
        patch.setattr(parts[culprit], "forward", fail)
        with pytest.raises(ZeroDivisionError):
            distiller(batch())
    distiller.load_state_dict(state)  # BatchNorm had seen the batch already
    assert values(distiller(batch())) == values(make()(batch()))


@pytest.mark.usefixtures("one_process")
def test_it_trains_inside_ddp_as_alone():
    alone, inside = make({"hint": fitnet()}), make({"hint": fitnet()})
    wrapped = DistributedDataParallel(inside)
    for step, model in ((1, alone), (1, wrapped), (2, alone), (2, wrapped)):
        model.zero_grad()
        sum(model(batch(step)).values()).backward()
    for own, other in zip(alone.parameters(), inside.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


# Deployment


def test_the_student_itself_is_deployed_and_predicts():
    distiller = make()
    assert distiller.deploy() is distiller.student.network
    assert distiller.predictor() is distiller.student


def test_a_criterion_may_deploy_more_than_the_student():
    distiller = make({"wrapped": Term(Wrapped())})
    student = distiller.student
    modules = dict(student.named_modules())
    network = distiller.deploy()
    predictor = distiller.predictor()
    assert network[0] is student.network
    assert distiller.deploy_node({"type": "net"})["args"] == [{"type": "net"}]
    assert isinstance(predictor, Classify)
    assert dict(student.named_modules()) == modules
    assert distiller.student is student
    expected = network.eval()(batch()["image"])
    exact(predictor.eval()(batch()), expected)
    exact(distiller.eval()(batch()), expected)


def test_another_copy_of_the_network_can_be_deployed():
    distiller, average = make().eval(), net(4).eval()
    predictor = distiller.predictor(average)
    assert network_of(predictor) is average
    exact(predictor(batch()), average(batch()["image"]))
    assert distiller.student.network is not average
    assert make({"wrapped": Term(Wrapped())}).deploy(average)[0] is average


def test_a_student_that_is_its_own_task_is_replaced_as_a_whole():
    distiller, average = Distiller(Own(), Own(), {}), Own()
    assert distiller.predictor(average) is average


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_forward_and_backward_are_captured_as_a_cuda_graph_and_replayed():
    distiller = make({"kd": Term(KD(), warmup_epochs=1), "hint": fitnet()}).cuda()
    distiller.begin(steps_per_epoch=10)
    images = {name: value.cuda() for name, value in batch().items()}

    def step():
        distiller.zero_grad(set_to_none=True)
        losses = distiller(images)
        sum(losses.values()).backward()
        return losses

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = step()
    distiller.advance()
    images["image"].copy_(batch(1)["image"])
    graph.replay()
    torch.testing.assert_close(losses, distiller(images))


def test_a_student_sharded_by_fsdp_is_refused():
    class FSDPLinear(nn.Linear):  # fully_shard() renames classes like this
        pass

    student = Classify(nn.Sequential(FSDPLinear(4, 3)))
    with pytest.raises(UserError, match="sharded by FSDP"):
        Distiller(student, {}, {})
