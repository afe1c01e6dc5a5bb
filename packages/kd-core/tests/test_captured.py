"""The captured step: what is around the recording, on the CPU; the recording itself, on CUDA."""

import copy
import shutil

import pytest
import torch
from kd_core.criteria.crd import CRD
from kd_core.criteria.criterion import Criterion
from kd_core.criteria.kd import KD
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.networks.image_task import ImageTask
from kd_core.runtime import distributed
from kd_core.training import cuda_graph
from kd_core.training.cuda_graph import CapturedStep
from kd_core.training.optimizer import build_optimizer
from kd_core.training.step import TrainStep
from torch import nn

CUDA = torch.cuda.is_available()
SGD = {"type": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
ADAMW = {"type": "torch.optim.AdamW", "lr": 0.01}


class Toy(ImageTask):
    """Classifies images."""

    def forward(self, batch):
        logits = self.network(self.prepare(batch["image"]))
        self.count(logits, batch["label"])
        return {"ce": self.cross_entropy(logits, batch["label"])}


class Reads(Criterion):
    """Looks at a value on the host."""

    takes = "logits"

    def forward(self, student, teacher, batch):
        return student.mean() if student.sum().item() > 0 else -student.mean()


class Played:
    """Stands for CUDA graphs: records without running, replays by running."""

    def __init__(self):
        self.recorded = 0

    def __call__(self, function):
        self.recorded += 1
        losses = {}
        return lambda: losses.update(function()), losses


def network():
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2))
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), pool, nn.Linear(6, 5))


def plain_step(optimizer=SGD, device="cpu", criterion=None, **options):
    torch.manual_seed(0)
    term = Term(criterion or KD(), warmup_epochs=2)
    distiller = Distiller(Toy(network()), Toy(network()), {"kd": term}).to(device)
    distiller.begin(3)
    built = build_optimizer(optimizer, distiller)
    return TrainStep(distiller.train(), built, **options)


def captured_step(step, record=None):
    return CapturedStep(step, step.distiller, step.optimizer, record=record)


def batches(count, device="cpu", sizes=(4,)):
    generator = torch.Generator().manual_seed(1)
    for number in range(count):
        size = sizes[number % len(sizes)]
        image = torch.randint(256, (size, 3, 8, 8), dtype=torch.uint8, generator=generator)
        label = torch.randint(5, (size,), generator=generator)
        batch = {"image": image, "label": label, "index": torch.arange(size)}
        yield {name: value.to(device) for name, value in batch.items()}


def train(step, count=10, sizes=(4,), device="cpu", rate=None):
    """Return every step's losses and the weights at the end."""
    torch.manual_seed(7)
    losses = []
    for number, batch in enumerate(batches(count, device, sizes)):
        if rate:
            step_of = getattr(step, "step", step)
            step_of.optimizer.param_groups[0]["lr"].fill_(rate / (number + 1))
        losses.append({name: value.clone() for name, value in step([batch]).items()})
    distiller = step.distiller
    return losses, copy.deepcopy(distiller.state_dict())


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_it_is_the_plain_step_with_rates_and_warm_up_and_a_last_short_batch(optimizer):
    expected = train(plain_step(optimizer), rate=0.1, sizes=(4, 4, 2))
    record = Played()
    found = train(captured_step(plain_step(optimizer), record), rate=0.1, sizes=(4, 4, 2))
    assert record.recorded == 1  # the short batch came three times, all of them plain
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_in_fp16_the_scale_and_skipped_steps_are_those_of_the_plain_step():
    def spoiled():
        step = plain_step(precision="fp16")
        step.dtype = None
        bias = step.distiller.student.network[0].bias
        count = iter(range(100))
        bias.register_hook(lambda g: g * float("inf") if next(count) % 3 == 0 else g)
        return step

    plain, recorded, record = spoiled(), spoiled(), Played()
    captured = captured_step(recorded, record)
    torch.testing.assert_close(train(captured), train(plain), rtol=0, atol=0)
    assert record.recorded == 1
    assert captured.loss_scale is recorded.loss_scale
    assert captured.loss_scale.skipped == plain.loss_scale.skipped == 4


def test_every_layout_is_recorded_once_after_plain_steps():
    record = Played()
    step = captured_step(plain_step(), record)
    train(step, cuda_graph.WARM_UP)
    assert record.recorded == 0
    train(step, 5, sizes=(4, 2))
    assert record.recorded == 1
    train(step, 20, sizes=(4, 2))
    assert record.recorded == 2


def test_layouts_without_end_stay_plain():
    record = Played()
    step = captured_step(plain_step(), record)
    sizes = tuple(range(2, 10))
    expected = train(plain_step(), 40, sizes)
    torch.testing.assert_close(train(step, 40, sizes), expected, rtol=0, atol=0)
    assert record.recorded == cuda_graph.LAYOUTS


def test_accumulated_batches_and_what_teachers_showed_are_inputs_of_the_recording():
    steps = plain_step(), plain_step()
    recorded = captured_step(steps[1], Played())
    for number in range(6):
        pair = []
        for batch in batches(2):
            logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(number))
            pair.append({**batch, "teacher_features": {"teacher": {"output": logits}}})
        torch.manual_seed(number)
        one = steps[0](pair)
        torch.manual_seed(number)
        torch.testing.assert_close(recorded(pair), one, rtol=0, atol=0)


def test_a_step_that_reads_a_value_is_not_captured_and_says_why(capsys):
    record = Played()
    step = captured_step(plain_step(criterion=Reads()), record)
    found = train(step)
    torch.testing.assert_close(found, train(plain_step(criterion=Reads())), rtol=0, atol=0)
    assert record.recorded == 0
    text = capsys.readouterr().err
    assert text.count("not captured as a CUDA graph: the step makes the host wait") == 1
    assert "`.item()`" in text


def test_a_criterion_that_draws_and_keeps_a_memory_reads_nothing():
    criterion = CRD(((5,),), ((5,),), torch.arange(20) % 5, num_negatives=3)
    record = Played()
    step = captured_step(plain_step(criterion=criterion), record)
    train(step)
    assert record.recorded == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m, step: m.setattr(distributed, "is_distributed", lambda: True), "several process"),
        (lambda m, step: setattr(step.distiller.student, "changes_data", True), "Toy changes from"),
        (lambda m, step: step.optimizer.param_groups[0].update(lr=0.1), "SGD keeps its rate on"),
    ],
)
def test_obstacles_are_said_at_once(change, reason, monkeypatch, capsys):
    step = plain_step()
    change(monkeypatch, step)
    captured_step(step, Played())
    assert reason in capsys.readouterr().err


def test_a_recording_that_fails_leaves_the_plain_step(capsys):
    def fail(function):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    found = train(captured_step(plain_step(), fail))
    torch.testing.assert_close(found, train(plain_step()), rtol=0, atol=0)
    text = capsys.readouterr().err
    assert text.endswith(
        "not captured as a CUDA graph: operation not permitted when stream is capturing\n"
    )


def test_after_a_failed_recording_work_continues_on_the_stream_it_was_on(monkeypatch):
    class Graph:
        def __init__(self, *args, **kwargs):
            pass

        def __enter__(self):
            torch.cuda.set_stream("of the recording")

        def __exit__(self, *error):
            raise RuntimeError("capture failed")  # as torch's does, before it leaves its stream

    streams = ["of the steps"]
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    with pytest.raises(RuntimeError, match="capture failed"):
        cuda_graph.CudaGraphs()(dict)
    assert streams == ["of the steps", "of the recording", "of the steps"]


def test_adam_is_asked_to_be_capturable_only_while_it_is_recorded():
    asked = []

    def record(function):
        asked.append(step.optimizer.param_groups[0]["capturable"])
        return Played()(function)

    step = captured_step(plain_step(ADAMW), record)
    train(step)
    assert asked == [True]
    assert step.optimizer.param_groups[0]["capturable"] is False


def test_what_is_frozen_or_let_go_between_epochs_is_recorded_again():
    record = Played()
    step = captured_step(plain_step(), record)
    for epoch in range(4):
        if epoch == 2:
            step.distiller.student.network[0].requires_grad_(False)
        step.before_epoch(None)
        train(step)
    assert record.recorded == 2


@pytest.mark.skipif(not CUDA, reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_on_cuda_it_equals_the_plain_step_as_two_plain_ones_do(optimizer, precision, capsys):
    made = [plain_step(optimizer, "cuda", precision=precision) for _ in range(3)]
    runs = [train(step, 50, (4, 4, 2), "cuda") for step in made[:2]]
    found = train(captured_step(made[2]), 50, (4, 4, 2), "cuda")
    assert "not captured" not in capsys.readouterr().err
    for ours, one, other in zip(*(_flat(run) for run in (found, *runs)), strict=True):
        allowed = 2 * (one - other).abs().max() + 1e-5 * one.abs().max()
        assert (ours - one).abs().max() <= allowed


def _flat(run):
    losses, state = run
    rows = [value.double() for each in losses for value in each.values()]
    return [*rows, *(value.double() for value in state.values())]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_a_compiled_step_is_the_plain_step():
    steps = plain_step(), plain_step(compile=True)
    for step in steps:
        step.distiller.student.network[3][2].p = 0  # compiled code draws otherwise
    found, expected = (train(step, 4) for step in reversed(steps))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
