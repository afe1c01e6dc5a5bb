"""Several teachers in one loss: a term for each, joined image by image, and balanced."""

import json

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.balancers import PhiS
from kd_core.criteria.balancing import phi_s
from kd_core.criteria.kd import KD
from kd_core.criteria.unic import UNIC, UNICVectors, drop_teachers
from kd_core.distill.distiller import Distiller
from kd_core.distill.joint_terms import random_numbers
from kd_core.distill.progress import Position
from kd_core.distill.term import Term, build_terms, parse_term
from kd_core.errors import UserError
from kd_core.experiment.parts import Parts
from kd_core.experiment.run import build_trainer
from kd_core.networks.task import Task
from kd_core.testing import NoHostReads
from kd_core.training import balance
from kd_core.training.balance import estimate_balance
from kd_core.training.dot import DOTStep
from torch import nn


class Toy(Task):
    """Classifies images [N, 3, 8, 8]."""

    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits

    def run_for_taps(self, batch):
        return self.network(batch["image"])


def network(width, stride, classes, seed):
    torch.manual_seed(seed)
    convolution = nn.Conv2d(3, width, 3, padding=1, stride=stride)
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return Toy(nn.Sequential(convolution, nn.Tanh(), *pooled, nn.Linear(width, classes)))


def images(number, count=8):
    generator = torch.Generator().manual_seed(number)
    index = torch.arange(count) + count * number
    return {"image": torch.randn(count, 3, 8, 8, generator=generator), "index": index}


class Loader:
    """Four batches in every epoch, the same in each; they have no labels."""

    batch_size = 8

    def __len__(self):
        return 4

    def epoch(self, epoch, start=0):
        yield from map(images, range(start, 4))


BOTH = ["3", "1:nchw:tokens"]


def nodes(balance="standardize", source=("a", "b"), **more):
    criterion = {"type": "kd_core.criteria.unic.UNIC", "hidden": 8, "balance": balance}
    both = {"student": BOTH, "teacher": BOTH}
    return {"unic": {"criterion": criterion, "source": list(source), **both, **more}}


def make(terms=None, **options):
    student = network(6, 2, 3, 0)
    teachers = {"a": network(5, 1, 4, 1), "b": network(8, 4, 7, 2)}
    with torch.no_grad():
        teachers["b"].network[0].weight.mul_(8)
    torch.manual_seed(5)
    built = build_terms(nodes() if terms is None else terms, student, teachers, images(0))
    return Distiller(student, teachers, built, sample=images(0), **{"task_weight": 0, **options})


def trainer_of(folder, terms=None, **options):
    distiller = make(terms)
    parts = Parts(distiller, Loader(), lambda model: {"top1": 1.0}, "top1")
    return build_trainer(
        parts,
        folder,
        optimizer={"type": "torch.optim.Adam", "lr": 0.03},
        schedule={"type": "kd_core.training.schedule.constant"},
        **{"epochs": 6, "loggers": [], **options},
    )


def first_step(distiller, number=0):
    distiller.begin(4, 6)
    return distiller.train()(images(number))


def test_one_node_becomes_a_term_of_every_teacher_with_heads_of_its_width():
    distiller = make()
    widths = {n: [h[2].out_features for h in c.heads] for n, c in distiller.criteria.items()}
    assert widths == {"unic_a": [5, 5], "unic_b": [8, 8]}
    assert {n: (t.source, t.joint) for n, t in distiller.terms.items()} == {
        "unic_a": ("a", "unic"),
        "unic_b": ("b", "unic"),
    }


def test_the_loss_is_that_of_both_after_dropping_and_each_is_reported_before():
    distiller = make(nodes("none", drop=0.3))
    distiller.begin(4, 6)
    distiller.train()
    batch, (unic_a, unic_b) = images(0), distiller.criteria.values()
    losses = distiller(batch)
    with torch.no_grad(), distiller._tap as student:
        distiller.student.network(batch["image"])
    teachers = distiller.run_teachers(batch)
    each = [
        criterion.per_image([student[tap] for tap in BOTH], [seen[tap] for tap in BOTH], batch)
        for criterion, seen in zip((unic_a, unic_b), teachers.values(), strict=True)
    ]
    position = Position(distiller.steps, 4, 6, distiller._seed)
    numbers = random_numbers(torch.stack(each), batch, position)
    expected = drop_teachers(torch.stack(each), probability=0.3, draws=numbers)
    assert list(losses) == ["unic"]
    torch.testing.assert_close(losses["unic"], expected)
    found = {name: value.item() for name, value in distiller.reports.items()}
    means = {"unic_a": each[0].mean().item(), "unic_b": each[1].mean().item()}
    assert found == pytest.approx(means)
    assert not any(value.requires_grad for value in distiller.reports.values())


def test_terms_of_one_teacher_count_as_their_mean():
    vectors = {"type": "kd_core.criteria.unic.UNICVectors", "hidden": 8}
    tokens = {"type": "kd_core.criteria.unic.UNICTokens", "hidden": 8}
    of_a = {"source": "a", "joint": "all", "drop": 0.0}
    terms = {
        "vectors": {"criterion": vectors, "student": "3", "teacher": "3", **of_a},
        "tokens": {"criterion": tokens, "student": BOTH[1], "teacher": BOTH[1], **of_a},
    }
    distiller = make(terms)
    losses = first_step(distiller)
    assert list(losses) == ["all"]
    mean = sum(distiller.reports.values()) / 2
    torch.testing.assert_close(losses["all"].detach(), mean)


def test_of_one_teacher_nothing_is_dropped():
    distiller = make(nodes("none", source=["b"], drop=1.0))
    losses = first_step(distiller)
    torch.testing.assert_close(losses["unic"].detach(), distiller.reports["unic_b"])


def test_weight_and_warmup_are_of_the_joint_loss_and_not_of_the_reports():
    plain, half = make(nodes("none")), make(nodes("none", weight=2.0, warmup_epochs=4))
    losses = first_step(plain)["unic"], first_step(half)["unic"]
    torch.testing.assert_close(losses[0] / 2, losses[1])
    torch.testing.assert_close(plain.reports, half.reports)


def numbers(seed=3, step=0, batch=None, rows=2):
    batch = images(0, 4000) if batch is None else batch
    position = Position(torch.tensor(step), 4, 6, seed)
    return random_numbers(torch.zeros(rows, len(batch["image"])), batch, position)


def test_random_numbers_are_a_function_of_seed_step_teacher_and_image():
    first = numbers()
    assert torch.equal(first, numbers())
    turned = {name: value.flip(0) for name, value in images(0, 4000).items()}
    assert torch.equal(first.flip(1), numbers(batch=turned))
    for other in (numbers(seed=4), numbers(step=1), numbers(batch=images(1, 4000))):
        assert abs(torch.corrcoef(torch.stack([first[0], other[0]]))[0, 1]) < 0.06
        assert abs(torch.corrcoef(torch.stack([first[1], other[1]]))[0, 1]) < 0.06
    assert abs(torch.corrcoef(first)[0, 1]) < 0.06
    assert first.min() >= 0
    assert first.max() < 1
    assert (first < 0.5).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_images_without_an_index_or_in_several_views_have_numbers_too():
    batch = images(0)
    del batch["index"]
    without = numbers(batch=batch)
    assert not torch.equal(without, numbers(batch=batch, step=1))
    views = {"image": torch.zeros(16, 3, 8, 8), "index": torch.arange(8)}
    assert numbers(batch=views).shape == (2, 16)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"source": []},
            r"^distiller.terms.unic.source: wanted the name of each teacher once; got",
        ),
        ({"source": ["a", "a"]}, r"unic.source: .*'a' is repeated"),
        ({"source": ["a", 2]}, r"unic.source: .*got \['a', 2\]"),
        ({"source": ["a", "c"]}, r"unic_c: there is no teacher 'c'"),
        ({"source": ["a", "b.c"]}, r"unic.source: .*teacher 'b.c', .*no dots; rename the teacher"),
        ({"weights": "x.pth"}, r"unic.weights: each of a, b has a criterion.*joint='unic'"),
        ({"drop": 1.5}, r"unic.drop: wanted .*at most 1"),
        ({"joint": ""}, r"joint is ''; give the loss a name"),
        ({"source": "a", "drop": 0.5}, r"drop=0.5 leaves out one of several teachers"),
    ],
)
def test_what_does_not_fit_a_node_is_refused_with_its_place(changed, message):
    with pytest.raises(UserError, match=message):
        make({"unic": {**nodes()["unic"], **changed}})


def test_a_name_that_a_teacher_s_term_gets_is_refused_for_another():
    other = {"criterion": {"type": KD}, "source": "a"}
    with pytest.raises(UserError, match=r"terms.unic: another term is named 'unic_a'; rename it"):
        make({"unic_a": other, **nodes()})


def term(**options):
    criterion = UNICVectors(((6,),), ((5,),), hidden=4)
    return Term(criterion, "3", "3", **{"source": "a", "joint": "j", **options})


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"kd": Term(KD(), source="a", joint="j")}, "term 'kd': KD has one loss for a batch"),
        ({"a": term(), "j": term()}, "term 'a': joint is 'j', the name of a term"),
        ({"a": term(), "b": term(weight=2.0)}, "term 'b': weight is 2.0, but 1.0 in term 'a'"),
        ({"a": term(drop=0.1), "b": term()}, "term 'b': drop is None, but 0.1 in term 'a'"),
    ],
)
def test_terms_that_cannot_be_joined_are_refused_before_training(terms, message):
    teachers = {"a": network(5, 1, 4, 1), "b": network(8, 4, 7, 2)}
    with pytest.raises(UserError, match=message):
        Distiller(network(6, 2, 3, 0), teachers, terms)


def test_a_joint_loss_with_the_name_of_the_task_s_is_refused():
    terms = {"ce": nodes("none")["unic"]}
    distiller = make(terms, task_weight=1.0)
    with pytest.raises(UserError, match="term 'ce' has the name of a loss of the student"):
        distiller.train()({**images(0), "label": torch.arange(8) % 3})


def test_a_node_says_again_what_was_written():
    written = nodes(drop=0.25)["unic"]
    assert parse_term(written, "x").plain() == written


def test_features_of_teachers_in_the_batch_take_the_place_of_their_passes():
    distiller = make(nodes("none"))
    online = first_step(distiller)["unic"]
    features = distiller.run_teachers(images(0))
    for teacher in distiller.teachers.values():
        teacher.model.network[0].weight.data.fill_(torch.nan)
    losses = distiller({**images(0), "teacher_features": features})
    torch.testing.assert_close(losses["unic"], online)


@pytest.mark.parametrize("balance", ["none", "standardize", "phi_s"])
def test_a_step_reads_nothing_back(balance):
    distiller = make(nodes(balance))
    estimate_balance(distiller, Loader())
    distiller.begin(4, 6)
    distiller.train()
    batch = images(0)
    with NoHostReads():
        distiller(batch)["unic"].backward()


def test_standardisation_asks_for_the_length_of_the_run():
    distiller = make()
    distiller.begin(4)
    with pytest.raises(UserError, match=r"begin\(steps_per_epoch, epochs\)"):
        distiller.train()(images(0))


def test_statistics_follow_half_a_cosine_over_all_steps_and_stop_in_evaluation():
    distiller = make()
    first_step(distiller)
    criterion = distiller.criteria["unic_b"]
    vectors = distiller.run_teachers(images(0))["b"]["3"]
    torch.testing.assert_close(criterion.balancers[0].mean, vectors.mean(0))  # momentum 1
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    for _ in range(23):
        distiller.advance()
    distiller(images(1))
    share = 0.001
    other = distiller.run_teachers(images(1))["b"]["3"].mean(0)
    moved = (1 - share) * before["balancers.0.mean"] + share * other
    torch.testing.assert_close(criterion.balancers[0].mean, moved)
    distiller.eval()
    kept = criterion.balancers[0].mean.clone()
    pairs = criterion.compared(*sides())
    assert [list(t.shape) for _, t in pairs] == [[8, 8], [8, 4, 8]]
    criterion(*sides(), {})
    assert torch.equal(criterion.balancers[0].mean, kept)


def sides():
    return [torch.rand(8, 6), torch.rand(8, 16, 6)], [torch.rand(8, 8), torch.rand(8, 4, 8)]


def test_what_is_compared_is_what_the_loss_compares():
    distiller = make(nodes("phi_s"))
    estimate_balance(distiller, Loader())
    criterion, (student, teacher) = distiller.criteria["unic_b"], sides()
    pairs = criterion.compared(student, teacher)
    for (_, found), features, balancer in zip(pairs, teacher, criterion.balancers, strict=True):
        torch.testing.assert_close(found, (features - balancer.mean) @ balancer.matrix.T)
    again = UNIC(((6,), (16, 6)), ((8,), (4, 8)), hidden=8)
    again.heads = criterion.heads
    targets = [target for _, target in pairs]
    torch.testing.assert_close(again(student, targets, {}), criterion(student, teacher, {}))


def test_phi_s_of_all_batches_is_that_of_all_features_at_once():
    distiller = make(nodes("phi_s"))
    estimate_balance(distiller, Loader())
    for name in ("a", "b"):
        seen = [distiller.run_teachers(images(number))[name] for number in range(4)]
        for tap, balancer in zip(BOTH, distiller.criteria[f"unic_{name}"].balancers, strict=True):
            rows = torch.cat([values[tap].flatten(0, -2) for values in seen])
            mean, matrix = phi_s(rows)
            torch.testing.assert_close(balancer.mean, mean.float())
            torch.testing.assert_close(balancer.matrix, matrix.float(), rtol=1e-3, atol=1e-3)
            if name == "b":  # whose 8 channels have a Hadamard matrix
                variances = balancer.balanced(rows).var(0)
                torch.testing.assert_close(variances, torch.ones(8), rtol=1e-3, atol=0)


def test_phi_s_of_features_far_from_zero_loses_no_digits():
    rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).double()
    balancer = PhiS(4)
    for part in (1e8 + rows).split(16):
        balancer.add(part)
    assert balancer.finish() == 64
    expected = phi_s(1e8 + rows)
    torch.testing.assert_close(balancer.matrix, expected[1].float(), rtol=1e-4, atol=1e-4)


def test_an_estimate_takes_so_many_images_and_no_more(monkeypatch, capsys):
    read = []

    class Counting(Loader):
        def epoch(self, epoch, start=0):
            for batch in super().epoch(epoch, start):
                read.append(len(batch["image"]))
                yield batch

    estimate_balance(make(nodes("phi_s")), Counting(), images=9)
    assert read == [8, 8]
    text = " ".join(capsys.readouterr().err.split())
    assert "term 'unic_b': PHI-S estimated from 16 and 64 features of the teacher" in text
    read.clear()
    estimate_balance(make(), Counting())
    assert read == []


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.0, "the same for all images"), (torch.nan, "are not finite")],
)
def test_a_teacher_whose_features_cannot_be_balanced_is_named(value, message):
    distiller = make(nodes("phi_s"))
    distiller.teachers["b"].model.network[0].weight.data.fill_(value)
    with pytest.raises(UserError, match=f"term 'unic_b': PHI-S: .*{message}"):
        estimate_balance(distiller, Loader())


def test_a_training_that_did_not_estimate_has_no_finite_loss():
    assert first_step(make(nodes("phi_s")))["unic"].isnan()


def log(folder):
    clock = ("seconds", "images_per_second")
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def state(trainer):
    return trainer.distiller.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module", params=["standardize", "phi_s"])
def runs(request, tmp_path_factory):
    """Train once through, and once with a break inside the third epoch."""
    folder = tmp_path_factory.mktemp(request.param)
    whole = trainer_of(folder / "whole", nodes(request.param))
    before = {name: v.clone() for name, v in state(whole).items()}
    whole.train()
    torch.manual_seed(77)
    cut = trainer_of(folder / "cut", nodes(request.param))
    for _, _ in zip(range(11), cut.steps(), strict=False):
        estimated = {n: v.clone() for n, v in state(cut).items() if "balancers" in n}
    cut.save(folder / "cut.pth")
    torch.manual_seed(78)
    resumed = trainer_of(folder / "resumed", nodes(request.param))
    resumed.resume(folder / "cut.pth")
    assert resumed.steps_done == 11
    resumed.train()
    return {"whole": whole, "resumed": resumed, "before": before, "estimated": estimated}


def test_both_errors_fall_without_labels(runs):
    history = log(runs["whole"].work_dir)
    assert all("loss_unic" in record for record in history)
    for name in ("loss_unic_a", "loss_unic_b"):  # the first batch is not standardised
        assert history[-1][name] < 0.97 * history[1][name], name


def test_a_resumed_run_ends_like_the_whole_one_to_the_last_bit(runs):
    assert same(state(runs["whole"]), state(runs["resumed"]))
    assert log(runs["whole"].work_dir)[2:] == log(runs["resumed"].work_dir)[2:]


def test_an_estimate_is_not_changed_by_training(runs):
    end = {n: v for n, v in state(runs["whole"]).items() if "balancers" in n}
    frozen = any("matrix" in name for name in end)
    assert same(end, runs["estimated"]) == frozen
    assert len(end) == 8
    assert all(value.isfinite().all() for value in end.values())


def test_the_classifier_of_the_student_gets_no_gradient_and_stays(runs):
    name = "student.network.4.weight"
    assert torch.equal(state(runs["whole"])[name], runs["before"][name])


def test_a_resumed_run_does_not_estimate_again(tmp_path, monkeypatch):
    first = trainer_of(tmp_path, nodes("phi_s"))
    for _ in zip(range(2), first.steps(), strict=False):
        pass
    first.save(tmp_path / "cut.pth")
    again = trainer_of(tmp_path, nodes("phi_s"))
    again.resume(tmp_path / "cut.pth")
    monkeypatch.setattr(balance, "estimate_balance", lambda *a, **k: pytest.fail("again"))
    next(again.steps())


def test_another_step_reports_each_teacher_too():
    distiller = make(nodes("none"))
    distiller.begin(4, 6)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01, momentum=0.9)
    losses = DOTStep(distiller, optimizer, delta=0.05)([images(0), images(1)])
    assert losses.keys() == {"unic", "unic_a", "unic_b"}
