"""A teacher whose blocks are spread over two processes teaches what the whole one teaches."""

import json
import os

import pytest
import torch
from kd_cls import adapter, train  # noqa: F401  what it imports late
from kd_cls.models import resnet8
from kd_core.criteria.catkd import CATKD
from kd_core.criteria.fitnet import FitNet
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.experiment import builder, report
from kd_core.networks.parameters import blocks_of
from kd_core.networks.probe import first_pass
from kd_core.networks.sharding import chosen, shard
from kd_core.networks.task import Task
from kd_core.training.memory_format import use_channels_last
from kd_core.training.settings import parse_trainer
from torch import nn

CONFIG = """
data = dict(type="kd_cls.data.synthetic", num_train=18, num_test=5, num_classes=3, batch_size=8)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
teacher = dict(network=dict(type="kd_cls.models.build_model", name="resnet14"), weights="random")
distiller = dict(terms=dict(
    kd=dict(criterion=dict(type="kd_core.criteria.kd.KD")),
    # Reads BatchNorms inside of blocks.
    ofd=dict(
        criterion=dict(type="kd_core.criteria.ofd.OFD"), student="@preact", teacher="@preact",
        weight=1e-9,
    ),
    # Borrows the classifier, which is outside.
    catkd=dict(criterion=dict(type="kd_core.criteria.catkd.CATKD"), student="@map", teacher="@map"),
))
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=2, loggers=[], channels_last=False)
"""
OPTIONS = ("trainer.shard_teachers=True", "trainer.activation_checkpointing=True")


def train_one(name, *options):
    """Train in a folder of this name; note what this process holds of a sharded teacher."""
    shard = builder.shard

    def noted(model, where, device):
        told = shard(model, where, device)
        held = sum(p.to_local().numel() for p in model.parameters() if hasattr(p, "to_local"))
        blocks = [model.network.get_submodule(name) for name in blocks_of(model.network)]
        whole = sum(p.numel() for block in blocks for p in block.parameters())
        with open(f"held-{os.environ['RANK']}.json", "w") as file:
            json.dump([held, whole], file)
        return told

    builder.shard = noted
    return train.main(["config.py", "--work-dir", name, *options])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, forks):
    """Return a folder with a run of the whole teacher, one of a sharded one, and what they said."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "config.py").write_text(CONFIG)
    plain = ("trainer.accelerate_teachers=False",)  # a sharded one is not, whatever is asked
    for name, options in (("whole", plain), ("sharded", OPTIONS)):
        run = (name, "--cfg-options", *options)
        ended = [rank.end() for rank in forks.start_ranks(train_one, *run, folder=folder)]
        assert [status for status, _ in ended] == [0, 0], ended
    (folder / "said").write_text("".join(said for _, said in ended))
    return folder


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k.startswith(("loss", "top1"))} for line in lines]


def test_losses_and_weights_are_those_of_the_whole_teacher_bit_for_bit(folder):
    assert len(losses(folder / "whole")[0]) >= 4
    assert losses(folder / "sharded") == losses(folder / "whole")
    whole, sharded = (
        torch.load(folder / name / "last.pth", weights_only=True)["distiller"]
        for name in ("whole", "sharded")
    )
    assert all(torch.equal(sharded[name], value) for name, value in whole.items())
    results = [json.loads((folder / n / "result.json").read_text()) for n in ("whole", "sharded")]
    assert results[0]["teachers"] == results[1]["teachers"]


def test_each_process_holds_half_of_the_blocks_and_says_so_once(folder):
    for rank in (0, 1):
        held, whole = json.loads((folder / f"held-{rank}.json").read_text())
        assert held == pytest.approx(whole / 2, rel=0.02)
    assert (folder / "said").read_text().count("are spread over 2 processes") == 1


def test_one_process_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "config.py").write_text(CONFIG)
    options = ("--work-dir", str(tmp_path / "run"), "--cfg-options", OPTIONS[0])
    assert train.main([str(tmp_path / "config.py"), *options]) == 2
    assert "spreads teachers over processes, and there is one; start" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_cache": True}, "trainer.teacher_cache names its files by whole weights"),
        ({"compile": True}, "trainer.shard_teachers and trainer.compile=True do not go together"),
        ({"shard_teachers": []}, "trainer.shard_teachers is .*; wanted True, False or names"),
        ({"shard_teachers": "teacher"}, "trainer.shard_teachers: wanted true or false or a list"),
        (
            {"shard_teachers": False, "activation_checkpointing": True, "compile": True},
            "trainer.activation_checkpointing and trainer.compile=True do not go together",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        parse_trainer({"epochs": 1, "shard_teachers": True, **settings})


@pytest.mark.parametrize(
    ("wanted", "teachers", "message"),
    [
        (["techer"], {"teacher": nn.Linear(1, 1)}, "'techer' is not there; did you mean 'teacher'"),
        (["teacher"], {"teacher": nn.Identity()}, "teacher 'teacher' has no parameters"),
        (True, {}, "there is no teacher with parameters"),
        (True, {"teacher": nn.Linear(1, 1)}, "and there is one; start several"),
    ],
)
def test_a_teacher_that_is_not_there_is_refused(wanted, teachers, message):
    with pytest.raises(UserError, match=message):
        chosen(wanted, teachers)


def test_a_teacher_without_blocks_is_not_sharded():
    with pytest.raises(
        UserError, match=r"teacher 't': trainer\.shard_teachers shards .* Linear has"
    ):
        shard(Toy(nn.Linear(1, 1)), "teacher 't'", torch.device("cpu"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("a parameter\nis shared"), "^teacher 't': ResNet cannot be sharded: a par"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory"),
    ],
)
def test_what_torch_refuses_to_shard_is_one_line(error, message, monkeypatch):
    def refuses(*given, **options):
        raise error

    monkeypatch.setattr("torch.distributed.device_mesh.init_device_mesh", lambda *_: None)
    monkeypatch.setattr("torch.distributed.fsdp.fully_shard", refuses)
    with pytest.raises(UserError, match=message) as raised:
        shard(Toy(resnet8(3)), "teacher 't'", torch.device("cpu"))
    assert "\n" not in str(raised.value)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


class Toy(Task):
    def forward(self, batch):
        return self.network(batch["image"])


def test_a_sharded_teacher_runs_to_the_end_as_it_is_and_is_not_traced(monkeypatch):
    teacher = Toy(network())
    teacher.network[0].weight.full_tensor = None  # as a part of a tensor has it
    hint = FitNet(((4, 4, 4),), ((4, 4, 4),))
    ran = []
    teacher.network[3].register_forward_hook(lambda *_: ran.append(1))
    sample = {"image": torch.randn(2, 3, 4, 4)}
    term = Term(hint, student=["0"], teacher=["0"])
    distiller = Distiller(Toy(network()), teacher, {"hint": term}, sample=sample)
    use_channels_last(distiller, True)
    assert (distiller.student.channels_last, teacher.channels_last) == (True, False)
    assert distiller.teachers["teacher"].accelerate(sample) == 0
    ran.clear()
    distiller.teachers["teacher"](sample)
    assert ran  # a pass that ended at the tap would leave the blocks after it whole
    monkeypatch.setattr(report, "flops", lambda *_: pytest.fail("one process alone ran it"))
    table = report.models_table({"teacher": (teacher.network, sample["image"])})
    assert list(table.columns[3].cells) == ["not traceable"]


def test_a_sharded_teacher_that_fails_names_the_key():
    teacher = Toy(nn.Sequential(nn.Linear(3, 2)))
    teacher.network[0].weight.full_tensor = None
    with pytest.raises(UserError, match=r"failed in a first pass.*trainer\.shard_teachers"):
        first_pass(teacher, {"image": torch.randn(2, 3, 4, 4)})


def test_a_criterion_that_uses_a_sharded_part_of_the_teacher_itself_is_refused():
    teacher = network()
    teacher[3].weight.full_tensor = None
    term = Term(CATKD(((4, 2, 2),), ((4, 2, 2),), 2), student=["0"], teacher=["0"])
    with pytest.raises(UserError, match="term 'catkd': the criterion uses the teacher's Linear"):
        Distiller(network(), teacher, {"catkd": term})
