"""`run`: from parts to a folder of results."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kd_core.criteria.fitnet import FitNet
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.experiment import report
from kd_core.experiment.parts import Parts
from kd_core.experiment.run import build_trainer, resume_training, run
from kd_core.files import checkpoint
from kd_core.files.checkpoint import load_json
from kd_core.networks.task import Task
from kd_core.training.step import TrainStep
from safetensors import safe_open
from torch import nn


class Toy(Task):
    """Classifies images [N, 3, 4, 4]."""

    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"ce": F.cross_entropy(logits, batch["label"])} if self.training else logits


class Loader:
    """Three batches, the same in every epoch."""

    batch_size = 4

    def __len__(self):
        return 3

    def epoch(self, epoch, start=0):
        for number in range(start, 3):
            image = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(number))
            yield {"image": image, "label": torch.arange(4) % 3, "index": torch.arange(4)}


def network(width):
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Flatten(), nn.Linear(width * 16, 3))


def make_parts(test, val=None, **options):
    torch.manual_seed(0)
    hint = FitNet(student_shapes=((4, 4, 4),), teacher_shapes=((5, 4, 4),))
    terms = {"hint": Term(hint, student=["0"], teacher=["0"])}
    distiller = Distiller(Toy(network(4)), Toy(network(5)), terms, **options)
    return Parts(distiller, Loader(), test, "top1", val=val, metadata={"classes": "[3]"})


def run_once(folder, parts, *, resume=False, **options):
    trainer = build_trainer(
        parts,
        folder,
        optimizer={"type": "torch.optim.SGD", "lr": 0.1},
        schedule={"type": "kd_core.training.schedule.constant"},
        **{"epochs": 4, "loggers": [], **options},
    )
    if resume:
        resume_training(trainer)
    return run(trainer, parts, {"seed": 3}), trainer


def scripted(*values, name="top1"):
    """Return an evaluation that gives these values one after another."""
    rest = iter(values)
    return lambda model: {name: next(rest)}


def test_the_folder_holds_the_student_the_criteria_and_the_result(tmp_path):
    result, trainer = run_once(tmp_path, make_parts(scripted(1.0, 4.0, 2.0, 3.0)))
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    student = {"student.pth", "student.safetensors", "criteria/hint.pth"}
    assert files == {*student, "result.json", "log.jsonl", "best.pth", "last.pth"}
    assert load_json(tmp_path / "result.json") == result
    assert result["peak_memory"]["bytes"] > 10**7  # of this process
    assert result["products"].keys() == student  # by which a teacher's folder is checked
    plain = network(4)
    plain.load_state_dict(torch.load(tmp_path / "student.pth", weights_only=True))
    assert torch.equal(plain[0].weight, trainer.distiller.student.network[0].weight)
    with safe_open(tmp_path / "student.safetensors", framework="pt") as file:
        assert file.metadata()["classes"] == "[3]"


def test_the_result_tells_last_and_best_and_that_the_best_was_chosen_on_test_data(tmp_path):
    result, _ = run_once(tmp_path, make_parts(scripted(1.0, 4.0, 2.0, 3.0)))
    assert result["seed"] == 3
    assert result["last"] == {"epoch": 4, "top1": 3.0}
    assert result["best"] == {"epoch": 2, "top1": 4.0, "chosen_on": "test data"}
    assert result["student_parameters"] == 4 * 27 + 4 + 64 * 3 + 3
    assert result["train_seconds"] > 0
    assert result["images_per_second"] > 0


def test_a_student_that_is_not_trained_is_measured_once(tmp_path):
    parts = make_parts(scripted(7.0), train_student=False)
    result, _ = run_once(tmp_path, parts)
    assert result["last"] == {"epoch": 4, "top1": 7.0}


def test_with_a_validation_part_the_best_weights_are_tested_and_the_last_exported(tmp_path):
    tested = []

    def test(model):
        tested.append(model.network[0].weight.detach().clone())
        return {"top1": 10.0 * len(tested)}

    val = scripted(1.0, 4.0, 2.0, 3.0)
    result, trainer = run_once(tmp_path, make_parts(test, val), keep_every=1)
    assert result["last"] == {"epoch": 4, "top1": 10.0}
    assert result["best"] == {"epoch": 2, "top1": 20.0, "chosen_on": "validation split"}
    assert [record["val_top1"] for record in trainer.history] == [1.0, 4.0, 2.0, 3.0]
    second = checkpoint.load(tmp_path / "epoch_0002.pth")["distiller"]
    exported = torch.load(tmp_path / "student.pth", weights_only=True)
    assert len(tested) == 2  # the test set was not used during training
    assert torch.equal(tested[1], second["student.network.0.weight"])
    assert torch.equal(tested[0], exported["0.weight"])
    assert not torch.equal(tested[0], tested[1])


def test_resuming_a_finished_run_trains_nothing_and_writes_the_results_again(tmp_path):
    first, _ = run_once(tmp_path, make_parts(scripted(1.0, 4.0, 2.0, 3.0)))
    exported = (tmp_path / "student.pth").read_bytes()
    for name in ("student.pth", "student.safetensors", "result.json"):
        (tmp_path / name).unlink()
    again, _ = run_once(tmp_path, make_parts(scripted()), resume=True)
    assert (tmp_path / "student.pth").read_bytes() == exported
    assert load_json(tmp_path / "result.json") == again
    again["peak_memory"] = first["peak_memory"]  # of the process, which only grows
    assert again == first


def test_resume_without_a_checkpoint_starts(tmp_path, capsys):
    _, trainer = run_once(tmp_path, make_parts(scripted(1.0)), resume=True, epochs=1)
    assert trainer.epoch == 1
    assert "resumed" not in capsys.readouterr().err


def test_a_resumed_run_says_where_it_resumes(tmp_path, capsys):
    run_once(tmp_path, make_parts(scripted(1.0, 2.0)), epochs=2)
    run_once(tmp_path, make_parts(scripted(3.0, 4.0)), resume=True)
    assert "last.pth after 2 epochs and 0 steps" in capsys.readouterr().err.replace("\n", " ")


def test_channels_last_reaches_student_and_teacher(tmp_path):
    parts = make_parts(scripted(1.0))
    run_once(tmp_path, parts, epochs=1, channels_last=True)
    teacher = parts.distiller.teachers["teacher"].model
    for model in (parts.distiller.student, teacher):
        assert model.channels_last
        assert model.network[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_speed_counts_the_images_of_an_epoch(tmp_path, accumulate):
    _, trainer = run_once(tmp_path, make_parts(scripted(1.0)), epochs=1, accumulate=accumulate)
    record = trainer.history[0]
    assert 12 / record["images_per_second"] == pytest.approx(trainer.seconds, rel=0.01)


@pytest.mark.parametrize(("flags", "warned"), [("avx2 avx512_bf16", 0), ("avx2", 1), ("", 0)])
def test_a_cpu_without_bf16_is_said_where_it_is_known(flags, warned, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "_cpuinfo", lambda *names: flags)
    run_once(tmp_path, make_parts(scripted(1.0)), epochs=1, precision="bf16")
    assert capsys.readouterr().err.count("no bf16 arithmetic") == warned
    assert report.environment(torch.device("cpu"))["bf16"] is (
        {0: True, 1: False}[warned] if flags else None
    )


def test_compiling_is_refused_for_other_steps(tmp_path):
    with pytest.raises(UserError, match=r"trainer.compile is for the plain step"):
        run_once(tmp_path, make_parts(scripted(1.0)), step={"type": TrainStep}, compile=True)


def test_networks_are_in_nhwc_memory_on_cpus_unless_told_otherwise(tmp_path):
    for number, (flag, expected) in enumerate([(None, True), (False, False)]):
        parts = make_parts(scripted(1.0))
        run_once(tmp_path / str(number), parts, epochs=1, channels_last=flag)
        assert parts.distiller.student.channels_last is expected


class Views(nn.Sequential):
    """Takes a view of its maps, which they do not have in NHWC memory."""

    def forward(self, image):
        maps = self[0](image)
        return self[2](maps.view(len(maps), -1))


def test_a_network_that_cannot_work_in_nhwc_memory_is_left_as_it_is(tmp_path):
    parts = make_parts(scripted(1.0))
    student = parts.distiller.student
    student.network.__class__ = Views
    student.network.register_buffer("seen", torch.zeros(1))
    parts.sample = next(Loader().epoch(0))
    before = torch.get_rng_state()
    build_trainer(
        parts,
        tmp_path,
        optimizer={"type": "torch.optim.SGD", "lr": 0.1},
        schedule={"type": "kd_core.training.schedule.constant"},
        epochs=1,
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert not student.channels_last
    assert student.network[0].weight.is_contiguous()
    assert parts.distiller.teachers["teacher"].model.channels_last
    with pytest.raises(UserError, match="view size"):
        run_once(tmp_path, parts, channels_last=True)


class StepWithoutScale(TrainStep):
    """Somebody's own step."""

    def __init__(self, distiller, optimizer, *, precision="fp32"):
        super().__init__(distiller, optimizer)


def test_a_step_of_one_s_own_that_scales_no_loss_is_refused_in_fp16(tmp_path):
    step = {"type": StepWithoutScale}
    with pytest.raises(UserError, match="StepWithoutScale has no `loss_scale`"):
        run_once(tmp_path, make_parts(scripted(1.0)), step=step, precision="fp16")
