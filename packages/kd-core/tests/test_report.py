"""What a run tells about itself: tables, environment, curves."""

import json
from dataclasses import replace

import pytest
import torch
from kd_core.config.node import Node
from kd_core.criteria.fitnet import FitNet
from kd_core.criteria.kd import KD
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.experiment import report
from kd_core.experiment.spec import Experiment
from kd_core.experiment.tables import plots
from kd_core.experiment.tables.plots import plot_curves
from kd_core.networks.task import Task
from kd_core.training.schedule import multi_step
from rich.console import Console
from torch import nn
from torch.optim import SGD


class Toy(Task):
    """Classifies images [N, 3, 8, 8]."""

    def forward(self, batch):
        logits = self.network(batch["image"])
        return {"mean": logits.mean()} if self.training else logits


class Twice(nn.Module):
    """Runs one layer two times."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, images):
        return self.layer(self.layer(images))


class DependsOnValues(nn.Module):
    """Cannot be traced: it asks a tensor for its attribute that a tracer does not give."""

    def forward(self, images):
        if torch.jit.is_tracing():
            raise RuntimeError("a branch on values")
        return images


def toy(width):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))
    return Toy(nn.Sequential(nn.Conv2d(3, width, 3, padding=1), head))


SAMPLE = {"image": torch.zeros(2, 3, 8, 8), "label": torch.tensor([0, 1])}


def shown(table):
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_models_table_counts_parameters_and_multiply_adds():
    network = toy(4).network
    conv, linear = 4 * 27 * 64, 4 * 5
    assert report.parameter_count(network) == 4 * 27 + 4 + 4 * 5 + 5
    assert report.flops(network, SAMPLE["image"][:1]) == pytest.approx(conv + linear, rel=0.05)
    text = shown(report.models_table({"student": (network, SAMPLE["image"][:1])}))
    assert "student" in text
    assert "137" in text


def test_counting_leaves_modes_and_generators_alone():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 2)).train()
    state = torch.get_rng_state()
    report.flops(network, SAMPLE["image"][:1])
    assert network[1].training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_cannot_be_traced_has_no_count():
    assert report.flops(DependsOnValues(), SAMPLE["image"]) is None
    text = shown(report.models_table({"student": (DependsOnValues(), SAMPLE["image"])}))
    assert "not traceable" in text


def test_the_terms_table_shows_weights_taps_shapes_and_extra_parameters():
    student, teacher = toy(4), toy(6)
    hint = FitNet(student_shapes=((4, 8, 8),), teacher_shapes=((6, 8, 8),))
    terms = {
        "kd": Term(KD(), weight=0.5, warmup_epochs=2),
        "hint": Term(hint, student=["0"], teacher=["0"]),
    }
    text = shown(report.terms_table(Distiller(student, teacher, terms, sample=SAMPLE)))
    for wanted in ("KD", "0.5 (warm-up 2 epochs)", "output [N, 5]", "0 [N, 4, 8, 8]"):
        assert wanted in text
    assert str(report.parameter_count(hint)) in text
    assert report.parameter_count(hint) > 0


@pytest.mark.parametrize(
    ("weight", "rows"),
    [
        (0.1, ["task loss 0.1"]),
        (0, ["task loss 0 (off)"]),
        ({"ce": 0.5, "center": 1.0}, ["task loss ce 0.5"]),
        (1.0, []),
    ],
)
def test_the_terms_table_shows_the_task_s_weight_where_it_is_not_one(weight, rows):
    distiller = Distiller(toy(4), toy(6), {"kd": Term(KD())}, sample=SAMPLE, task_weight=weight)
    lines = [" ".join(line.replace("│", " ").split()) for line in table_of(distiller).splitlines()]
    assert [line for line in lines if line.startswith("task loss")] == rows
    distiller.train_student = False  # its losses are not computed
    assert "task loss" not in table_of(distiller)


def table_of(distiller):
    return shown(report.terms_table(distiller))


def test_the_recipe_is_one_line_of_what_the_config_says():
    experiment = Experiment(
        data=Node(dict, {"type": "x", "batch_size": 64, "root": "photos"}),
        student=Node(dict),
        distiller=Node(dict),
        optimizer=Node(SGD, {"lr": 0.05, "param_groups": [{"lr": 1.0}]}, type="torch.optim.SGD"),
        schedule=Node(dict, {"milestones": (60, 80)}, type=multi_step),
        trainer=Node(dict, {"epochs": 100, "loggers": [], "precision": "bf16", "hooks": [object]}),
    )
    wanted = "SGD lr=0.05; multi_step milestones=(60,80); batch_size=64 epochs=100 precision=bf16"
    assert report.recipe_line(experiment) == wanted
    assert report.recipe_line(replace(experiment, optimizer=None, trainer=None)) == (
        "multi_step milestones=(60,80); batch_size=64"
    )


def test_the_listing_shows_every_module_that_runs_as_a_tap():
    text = shown(report.taps_listing(toy(4), SAMPLE))
    for wanted in ("output", "[N, 5]", "1.2", "[N, 4, 8, 8]", "AdaptiveAvgPool2d"):
        assert wanted in text
    twice = report.taps_listing(Toy(Twice()), {"image": torch.zeros(2, 4)})
    assert "layer[*]" in shown(twice)


def test_the_listing_leaves_no_hooks_and_no_trace():
    model = toy(4)
    report.taps_listing(model, SAMPLE)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_the_environment_can_be_written_as_json():
    found = report.environment(torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0] or (
        found["packages"]["torch"] == torch.__version__
    )
    assert found["threads"] == torch.get_num_threads()
    assert found["device"]


def test_curves_are_drawn_over_the_epochs_that_have_the_metric(tmp_path):
    pytest.importorskip("matplotlib")
    history = [{"epoch": 1}, {"epoch": 2, "top1": 50.0}, {"epoch": 4, "top1": 60.0}]
    other = [{"epoch": 2, "top1": 52.0}]
    plot_curves({"student": [history, other]}, "top1", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_curves_have_every_name_and_a_style_of_their_own(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    figures = []
    save = plots.save_png
    monkeypatch.setattr(plots, "save_png", lambda *given: figures.append(given[0]) or save(*given))
    names = ["_hidden", "$\\frac$ 10 %", "two\nlines", "日本", *(f"row {n}" for n in range(18))]
    history = [{"epoch": 1, "top1": 50.0}, {"epoch": 2, "top1": 60.0}]
    later = [{"epoch": 1, "top1": 54.0}, {"epoch": 2, "top1": None}]
    without = {"nothing": [[{"epoch": 1, "ece": 0.1, "top1": float("nan")}]]}
    runs = {name: [history, later] for name in names}
    drawn = plot_curves({**runs, **without}, "top1", tmp_path / "a.png", ylabel="top-1 %")
    assert drawn == names
    (figure,) = figures
    (axes,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        name.replace("\n", " ") for name in names
    ]
    styles = {(line.get_linestyle(), line.get_color()) for line in axes.lines}
    assert len(styles) == len(names)
    assert axes.lines[0].get_ydata().tolist() == [52.0, 60.0]
    band = axes.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((52 - 8**0.5, 60))


def test_curves_without_matplotlib_are_the_user_s_error(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UserError, match="matplotlib"):
        plot_curves({}, "top1", tmp_path / "curves.png")
