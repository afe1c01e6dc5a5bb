"""Two processes train as one."""

import json
import os
import signal
import threading

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.balancers import PhiS
from kd_core.criteria.balancing import RunningStandardizer
from kd_core.criteria.crd import CRD
from kd_core.criteria.fitnet import FitNet
from kd_core.criteria.kd import KD
from kd_core.criteria.rkd import RKD
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.experiment import identity
from kd_core.experiment.parts import Parts
from kd_core.experiment.run import build_trainer, run
from kd_core.files import checkpoint, claim
from kd_core.files.claim import claimed, claimed_unless_made
from kd_core.files.workdir import run_folder
from kd_core.networks.task import Task
from kd_core.runtime import distributed
from kd_core.runtime.signals import Interrupted
from kd_core.training.hooks import Hook
from kd_core.training.meter import NonFiniteLossError
from torch import nn

WORLD = 2


class Toy(Task):
    """Classifies images [N, 3, 4, 4]."""

    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


class Loader:
    """Four global batches of 8 in every epoch; a rank gets its half of each."""

    batch_size = 8

    def __init__(self, bad=None):
        self.part = slice(0, 8)
        self.bad = bad
        if distributed.is_distributed():
            self.part = slice(4 * distributed.rank(), 4 * distributed.rank() + 4)

    def __len__(self):
        return 4

    def epoch(self, epoch, start=0):
        for number in range(start, 4):
            generator = torch.Generator().manual_seed(10 * epoch + number)
            batch = {
                "image": torch.randn(8, 3, 4, 4, generator=generator),
                "label": torch.arange(8) % 3,
                "index": torch.arange(8),
            }
            if number == self.bad:
                batch["image"][-1] = float("nan")  # in the part of the last rank
            yield {key: value[self.part] for key, value in batch.items()}


def network(width, seed, middle):
    torch.manual_seed(seed)
    convolution, head = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width * 16, 3)
    return nn.Sequential(convolution, middle, nn.Flatten(), head)


def make(folder, *, middle=None, bad=None, **options):
    """Build a trainer without dropout and BatchNorm, so that one process can do the same."""
    # The students begin apart: DDP must make them equal. DDP does not see teachers.
    student = network(4, distributed.rank(), middle or nn.ReLU())
    teacher = network(6, 9, nn.ReLU())
    hint = FitNet(student_shapes=((4, 4, 4),), teacher_shapes=((6, 4, 4),))
    hint.regressors[0] = nn.Conv2d(4, 6, 1)  # its own has a BatchNorm
    terms = {"kd": Term(KD()), "hint": Term(hint, student=["0"], teacher=["0"])}
    distiller = Distiller(Toy(student), Toy(teacher), terms)
    parts = Parts(distiller, Loader(bad), lambda model: {"top1": 1.0}, "top1")
    settings = {"epochs": 2, "accumulate": 2, "clip_norm": 1.0, "ema": 0.9, "loggers": []}
    trainer = build_trainer(
        parts,
        folder,
        optimizer={"type": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9},
        schedule={"type": "kd_core.training.schedule.constant"},
        **{**settings, **options},
    )
    return trainer, parts


# What each of the two processes does; every function returns what the tests look at.


def train(folder):
    trainer, parts = make(folder / "train")
    torch.manual_seed(100 + distributed.rank())  # as the tools do
    result = run(trainer, parts, {})
    exported = (folder / "train" / "student.pth").is_file()  # also when another rank wrote it
    return {
        "weights": trainer.distiller.state_dict(),
        "history": [{k: v for k, v in r.items() if k.startswith("loss")} for r in trainer.history],
        "exported": exported,
        "best": result["best"]["epoch"],
        "draw": torch.rand(3),
    }


def train_batchnorm(folder):
    trainer, _ = make(folder / "bn", middle=nn.BatchNorm2d(4))
    trainer.train()
    return {
        "student": trainer.distiller.student.network[1].state_dict(),
        "average": trainer.average.network[1].state_dict(),
    }


def stop_one(folder):
    """Signal one process in the third step of eight; both look every second step."""

    class Signal(Hook):
        def before_step(self, trainer):
            if distributed.rank() == 1 and trainer.steps_done == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer, _ = make(folder / "stop", accumulate=1, log_every=2)
    trainer.hooks.append(Signal())
    try:
        trainer.train()
    except Interrupted as exit_:
        return {"steps": trainer.steps_done, "status": exit_.code}
    return {"steps": trainer.steps_done, "status": 0}


def save_by_clocks_that_differ(folder):
    """Rank 0 alone thinks that it is time, in the third step; both must save after the fourth."""
    trainer, _ = make(folder / "clock", accumulate=1, log_every=4, epochs=1)
    saved = []
    save = trainer.save
    trainer.save = lambda path: (saved.append(trainer.steps_done), save(path))
    hook = trainer.hooks[-1]

    class Late(Hook):
        def after_step(self, trainer):
            late = distributed.rank() == 0 and trainer.steps_done == 3
            hook._saved_at = float("-inf") if late else hook._saved_at

    trainer.hooks.append(Late())
    trainer.train()
    return {"saved": saved}


def meet_nan(folder):
    trainer, _ = make(folder / "nan", accumulate=1, bad=1)
    try:
        trainer.train()
    except NonFiniteLossError as error:
        return {"message": str(error)}
    return {"message": "none"}


def resume(folder):
    """Resume from rank 0's file; each rank must drop the units that it would have dropped."""
    trainer, _ = make(folder / "train")
    trainer.resume(folder / "train" / "last.pth")
    return {"weights": trainer.distiller.state_dict(), "draw": torch.rand(3)}


def collectives(folder):
    rank, cpu = distributed.rank(), torch.device("cpu")
    rows = torch.full((2 - rank, 3), float(rank))
    own = torch.full((2 - rank,), float(rank), requires_grad=True)
    gathered = distributed.gather_with_gradient(own)
    ((rank + 1) * gathered * torch.arange(1.0, 4.0)).sum().backward()
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(rank)
    norm.num_batches_tracked.fill_(5)
    distributed.average_buffers(norm)
    identity.check_data_of_all("the same")
    with pytest.raises(UserError) as data:
        identity.check_data_of_all(f"that of {rank}")
    config = {"data": {"root": str(rank)}, "trainer": {"epochs": 2}}
    identity.check_config_of_all(config)  # data may be elsewhere
    with pytest.raises(UserError) as other:
        identity.check_config_of_all({**config, "trainer": {"epochs": 2 + rank}})
    return {
        "apart": [str(data.value), str(other.value)],
        "statistics": norm.state_dict(),
        "world": distributed.world_size(),
        "sum": distributed.reduce_sum(torch.tensor([1.0, rank])),
        "min": distributed.reduce_min(torch.tensor([1.0, -rank])),
        "any": [distributed.any_process(flag, cpu) for flag in (False, rank == 1, True)],
        "gathered": gathered.detach(),
        "asked": own.grad,
        "rows": distributed.gather_rows(rows),
        "one_empty": distributed.gather_rows(rows[: 1 - rank]),
        "labels": distributed.gather_rows(torch.arange(2 - rank)),
    }


def joint_batch():
    """A linear student, five images and what a teacher makes of them, and their batch."""
    torch.manual_seed(3)
    student = nn.Linear(4, 6)
    contrast = torch.randint(12, (5, 4))
    batch = {"index": torch.tensor([0, 5, 7, 11, 5]), "contrast": contrast}
    return student, torch.randn(5, 4), torch.randn(5, 8), batch


def own_part():
    """Return where this process's samples are: rank 1 has the last two of five."""
    if not distributed.is_distributed():
        return slice(None)
    return (slice(0, 3), slice(3, 5))[distributed.rank()]


def relate(folder=None):
    """Take the gradient of the relations in the joint batch, averaged as DDP averages it."""
    student, image, teacher, batch = joint_batch()
    model, part = student, own_part()
    if distributed.is_distributed():
        model = nn.parallel.DistributedDataParallel(student)
    loss = RKD(gather=True)(model(image[part]), teacher[part], batch)
    loss.backward()
    return {"loss": loss.detach(), "gradient": student.weight.grad}


def remember(folder=None):
    """Fill the memories of CRD in two steps."""
    _, student, teacher, batch = joint_batch()
    torch.manual_seed(4)  # DDP would make the embeddings equal
    criterion = CRD(((4,),), ((8,),), torch.arange(12) % 3, dim=4)
    before = criterion.memories.clone()
    part = own_part()
    batch = {name: value[part] for name, value in batch.items()}
    for step in (1, 2):
        criterion(step * student[part], teacher[part], batch)
    moved = (criterion.memories != before).any(2)
    return {"memories": criterion.memories, "constants": criterion.constants, "moved": moved}


def balance(folder=None):
    """Standardise features twice, and estimate PHI-S; also where a process has none."""
    features = joint_batch()[2]
    part = own_part()
    running = RunningStandardizer(8)
    for share in (1.0, 0.5):
        running(share * features[part], share)
    estimates = []
    for parts in (features[part], features[3:] if part.start == 3 else features[3:3]):
        phi_s = PhiS(8)
        phi_s.add(features[3:] if folder is None and estimates else parts)
        estimates.append((phi_s.finish(), phi_s.mean, phi_s.matrix))
    return {"running": running.state_dict(), "estimates": estimates}


def own_folders(folder):
    """Claim in rank 0 alone; what it meets reaches both."""
    found = {}
    with claimed(folder / "own"):
        dist.barrier()
        found["claims"] = len(list((folder / "own").iterdir()))
        dist.barrier()  # rank 0 releases the folder
    product = folder / "shared" / "result.json"
    elsewhere = product.with_name(".claim-1")
    if distributed.rank() == 0:
        product.parent.mkdir()
        elsewhere.touch()  # somebody else's
        threading.Timer(0.5, lambda: (product.touch(), elsewhere.unlink())).start()
    claim.POLL = 0.05
    for made in (product, folder / "new" / "result.json"):
        with claimed_unless_made(made, "it") as to_make:
            found[made.parent.name] = to_make
    try:
        with claimed(folder / "meeting"):  # a file
            found["error"] = "none"
    except UserError as error:
        found["error"] = str(error)
    with run_folder(str(folder / "own"), [], resume=False) as chosen:
        if distributed.rank() == 0:
            (chosen / "config.py").touch()  # before the other looks
        dist.barrier()
    return found


WORK = (
    own_folders,
    relate,
    remember,
    balance,
    collectives,
    train,
    resume,
    train_batchnorm,
    stop_one,
    save_by_clocks_that_differ,
    meet_nan,
)


def main(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD
    )
    torch.save({work.__name__: work(folder) for work in WORK}, folder / f"rank{rank}.pt")
    distributed.stop()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, forks):
    """Run all the work in two processes and return what each saw."""
    folder = tmp_path_factory.mktemp("two")
    processes = [forks.start(main, rank, folder, folder=folder) for rank in range(WORLD)]
    ended = [process.end(100) for process in processes]
    assert [status for status, _ in ended] == [0, 0], "\n".join(said for _, said in ended)
    results = [torch.load(folder / f"rank{rank}.pt") for rank in range(WORLD)]
    return {
        "folder": folder,
        **{work.__name__: [r[work.__name__] for r in results] for work in WORK},
    }


class TestTwoProcesses:
    def test_both_end_with_equal_weights(self, ranks):
        first, second = (found["weights"] for found in ranks["train"])
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_weights_and_losses_equal_one_process_on_the_joint_batch(self, ranks, tmp_path):
        alone, _ = make(tmp_path)
        before = alone.distiller.student.network[0].weight.clone()
        alone.train()
        found = ranks["train"][0]
        for name, value in alone.distiller.state_dict().items():
            torch.testing.assert_close(found["weights"][name], value, msg=name)
        assert not torch.allclose(before, found["weights"]["student.network.0.weight"])
        for here, there in zip(alone.history, found["history"], strict=True):
            assert there == pytest.approx(
                {k: v for k, v in here.items() if k.startswith("loss")}, rel=1e-4
            )
        assert ranks["train"][1]["history"] == found["history"]

    def test_what_rank_0_wrote_is_there_for_all_when_a_run_returns(self, ranks):
        assert [found["exported"] for found in ranks["train"]] == [True, True]
        lines = (ranks["folder"] / "train" / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2]

    def test_batchnorm_statistics_of_student_and_average_are_shared_at_the_end(self, ranks):
        first, second = ranks["train_batchnorm"]
        for model in ("student", "average"):
            for name, value in first[model].items():
                assert torch.equal(value, second[model][name]), f"{model} {name}"
            assert not torch.equal(first[model]["running_mean"], torch.zeros(4))

    def test_a_signal_to_one_stops_both_after_the_same_step(self, ranks):
        assert [found["steps"] for found in ranks["stop_one"]] == [4, 4]
        assert [found["status"] for found in ranks["stop_one"]] == [143, 143]
        state = checkpoint.load(ranks["folder"] / "stop" / "last.pth")
        assert (state["epoch"], state["step_in_epoch"]) == (0, 4)

    def test_clocks_that_differ_save_at_the_same_step(self, ranks):
        assert [found["saved"] for found in ranks["save_by_clocks_that_differ"]] == [[4, 4], [4, 4]]

    def test_a_nan_in_one_stops_both_and_names_its_first_step(self, ranks):
        messages = [found["message"] for found in ranks["meet_nan"]]
        assert messages[0] == messages[1]
        assert "not finite since step 2;" in messages[0]
        assert not (ranks["folder"] / "nan" / "last.pth").exists()

    def test_a_resumed_run_has_the_weights_everywhere_and_draws_as_it_would_have(self, ranks):
        for found, trained in zip(ranks["resume"], ranks["train"], strict=True):
            for name, value in trained["weights"].items():
                assert torch.equal(found["weights"][name], value)
            assert torch.equal(found["draw"], trained["draw"])
        first, second = (found["draw"] for found in ranks["resume"])
        assert not torch.equal(first, second)

    def test_a_folder_is_claimed_by_rank_0_for_both(self, ranks):
        assert [found["claims"] for found in ranks["own_folders"]] == [1, 1]
        assert not list((ranks["folder"] / "own").glob(".claim-*"))

    def test_both_know_what_rank_0_met(self, ranks):
        for found in ranks["own_folders"]:
            assert found["shared"] is False  # waited for, and made elsewhere
            assert found["new"] is True
            assert "meeting is a file; a run needs a folder" in found["error"]

    def test_collectives(self, ranks):
        for found in ranks["collectives"]:
            assert found["world"] == 2
            assert found["sum"].tolist() == [2, 1]
            assert found["min"].tolist() == [1, -1]
            assert found["any"] == [False, True, True]

    def test_other_data_or_configs_than_that_of_the_first_are_refused_everywhere(self, ranks):
        for found in ranks["collectives"]:
            data, config = found["apart"]
            assert "rank 1 has other data than rank 0 (1 of 2 ranks" in data
            assert "rank 0 and rank 1 have different configs: trainer.epochs is 2 there" in config

    def test_gradients_of_gathered_rows_are_the_sum_of_what_all_processes_ask(self, ranks):
        for rank, found in enumerate(ranks["collectives"]):
            assert found["gathered"].tolist() == [0.0, 0.0, 1.0]
            # Rank r weights the three rows with (r + 1) times 1, 2, 3.
            assert found["asked"].tolist() == [[3.0, 6.0], [9.0]][rank]

    def test_relations_of_gathered_batches_are_those_of_one_process_on_the_joint_batch(self, ranks):
        expected = relate()
        for found in ranks["relate"]:
            torch.testing.assert_close(found["loss"], expected["loss"])
            torch.testing.assert_close(found["gradient"], expected["gradient"])

    def test_memories_are_equal_and_filled_by_all_as_by_one_process_on_the_joint_batch(self, ranks):
        first, second = ranks["remember"]
        expected = remember()
        for name in ("memories", "constants"):
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], expected[name])
        for moved in first["moved"]:
            assert moved.nonzero().flatten().tolist() == [0, 5, 7, 11]

    def test_features_are_balanced_as_by_one_process_on_the_joint_batch(self, ranks):
        first, second = ranks["balance"]
        expected = balance()
        for name, value in expected["running"].items():
            assert torch.equal(first["running"][name], second["running"][name])
            torch.testing.assert_close(first["running"][name], value)
        for one, other, alone in zip(
            first["estimates"], second["estimates"], expected["estimates"], strict=True
        ):
            assert one[0] == alone[0]
            assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))
            torch.testing.assert_close(one[1], alone[1])
            # Of few features most eigenvectors are of the value 0, and not the same everywhere.
            gram = alone[2] @ alone[2].T
            torch.testing.assert_close(one[2] @ one[2].T, gram, rtol=1e-4, atol=1e-4)

    def test_statistics_are_averaged_and_counters_are_not(self, ranks):
        for found in ranks["collectives"]:
            assert found["statistics"]["running_mean"].tolist() == [0.5, 0.5]
            assert found["statistics"]["running_var"].tolist() == [1.0, 1.0]
            assert found["statistics"]["num_batches_tracked"] == 5

    def test_rows_are_gathered_in_rank_order_though_their_numbers_differ(self, ranks):
        for found in ranks["collectives"]:
            assert found["rows"].tolist() == [[0.0] * 3, [0.0] * 3, [1.0] * 3]
            assert found["one_empty"].tolist() == [[0.0] * 3]
            assert found["labels"].tolist() == [0, 1, 0]
            assert found["labels"].dtype == torch.int64


class TestOneProcess:
    def test_collectives_are_the_identity(self):
        value = torch.tensor([1.0, 2.0])
        for name in ("reduce_sum", "reduce_min", "gather_rows", "gather_with_gradient"):
            assert getattr(distributed, name)(value) is value
        assert [distributed.any_process(flag, value.device) for flag in (True, False)] == [
            True,
            False,
        ]
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        distributed.wait_for_all()
        distributed.stop()

    def test_statistics_stay(self):
        norm = nn.BatchNorm1d(2)
        norm.running_mean.fill_(3.0)
        distributed.average_buffers(norm)
        assert norm.running_mean.tolist() == [3.0, 3.0]

    @pytest.mark.parametrize("world", [None, "1"])
    def test_starting_without_torchrun_joins_no_group(self, monkeypatch, world):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if world:
            monkeypatch.setenv("WORLD_SIZE", world)
        assert distributed.start(torch.device("cpu")) == torch.device("cpu")
        assert not dist.is_initialized()


@pytest.mark.parametrize(("rank", "printed"), [(0, "data/[a]: 3 left out\n"), (1, "")])
def test_a_note_is_printed_as_it_is_in_rank_0_alone(rank, printed, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    distributed.print_note("data/[a]: 3 left out")
    assert capsys.readouterr().err == printed
