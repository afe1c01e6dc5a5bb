"""Every method lowers its loss on a fixed batch, for every pair, or says why it cannot.

    uv run pytest tests/test_methods_learn.py --slow

runs all pairs; without `--slow` two small ones.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kd_cls.adapter import ADAPTER
from kd_core.errors import UserError
from kd_core.experiment.builder import build_data, build_experiment
from kd_core.experiment.parsing import read_experiment
from kd_core.experiment.run import build_trainer
from kd_core.experiment.teachers import build_teachers
from kd_core.networks.probe import calibrate_batchnorm
from kd_core.training.optimizer import parse_optimizer

pytestmark = pytest.mark.spread

ROOT = Path(__file__).parents[1]
METHODS = [
    path
    for path in sorted(ROOT.glob("configs/cls/methods/*.py"))
    if "_base_" not in path.read_text(encoding="utf-8")  # the same method at another rate
]
ZOO = "kd_cls.models.build_model"
SMALL = [(f"{ZOO}:resnet14", f"{ZOO}:resnet8"), (f"{ZOO}:wrn_16_1", f"{ZOO}:ShuffleV2_x0_2")]
LARGE = [
    (f"{ZOO}:resnet32x4", f"{ZOO}:resnet8x4"),
    (f"{ZOO}:wrn_40_2", f"{ZOO}:ShuffleV1"),
    (f"{ZOO}:vgg13", f"{ZOO}:MobileNetV2"),
    (f"{ZOO}:ResNet50", f"{ZOO}:vgg8"),
    ("torchvision.models.resnet34:", "torchvision.models.resnet18:"),
]
PAIRS = [*SMALL, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in LARGE)]

UNSTEADY = {
    "crd": "negatives are drawn in every step, from a memory that moves",
    "ctkd": "its temperature is trained to raise the loss",
    "mgd": "the mask is drawn in every step",
    "seed": "its target changes while the ring fills, and its least value is the target's entropy",
}
"""Methods whose loss need not fall on a fixed batch, so that only its finiteness is checked."""

COLLECTING = {"wkd", "wkd_logits"}
"""Methods whose first phase trains nothing: it keeps the teacher's logits, and its loss is 0."""

RATES = {"catkd": 2e-4}  # its weight depends on the pair, and is not that of the pairs here
"""Learning rates that differ from 0.002."""

REFUSALS = {
    "fsp": "equal channels",
    "afds": "channels",
    "kdsvd": "equal widths",
    "mgd": "equal size",
    "reviewkd_torchvision": "no such role",
    "deit_hard": "has no module 'head'",
    "l2d": "no such role",  # of one embedding a class
    "vitkd": "distiller.terms.vitkd",  # other numbers of tokens, or none
}
"""Methods that refuse some pairs at construction, and what they then ask for."""

STEPS, ENDS = 6, 2
"""Of a phase, and how many of the first and last of them are compared."""

NOISY = {"sl_enc": 12}
"""Steps of methods that draw noise, whose loss falls by less than that in fewer."""

DATA = """
data = dict(type="kd_cls.data.synthetic", num_classes=20, num_train=40, batch_size=8,
    image_size=16)
optimizer = dict(type="torch.optim.SGD", lr=0.002, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones=[150])
trainer = dict(epochs=240, loggers=[])
"""


def network(text):
    path, _, name = text.partition(":")
    return f"dict(type={path!r}, name={name!r})" if name else f"dict(type={path!r})"


def configs(folder, method, teacher, student):
    """Return the stages of a method for two networks, each to be trained on synthetic images."""
    pair = f"student = dict(network={network(student)})\n"
    if "peers = " not in method.read_text(encoding="utf-8"):
        pair += f"teacher = dict(network={network(teacher)}, weights='random')\n"
    (folder / "data.py").write_text(DATA)
    (folder / "pair.py").write_text(pair)
    rate = RATES.get(method.stem, 0.002)
    optimizer = {"type": "torch.optim.SGD", "lr": rate, "momentum": 0.9}
    files = [folder / "data.py", folder / "pair.py", method]
    return [
        replace(phase, optimizer=parse_optimizer(optimizer), terms=without_warmup(phase.terms))
        for phase in read_experiment(ADAPTER, files).without_products()
    ]


def without_warmup(terms):
    return {
        name: replace(term, call=term.call.changed(warmup_epochs=0)) for name, term in terms.items()
    }


def losses(phase, steps):
    """Train on one batch for some steps; return the sum of the losses of each."""
    cpu = torch.device("cpu")
    data, specs = build_data(phase.data, 0, cpu), phase.teachers
    teachers = build_teachers(ADAPTER, specs, 0, data, Path(), lambda *args: None, untrained=True)
    built = build_experiment(ADAPTER, phase, 0, cpu, data, teachers)
    trainer = build_trainer(built.parts, Path(), **phase.training())
    batch = next(built.parts.loader.epoch(0))
    for teacher in teachers.values():
        calibrate_batchnorm(teacher, batch)
    built.distiller.train()
    return [sum(trainer.step([batch]).values()).item() for _ in range(steps)]


def curves_of(folder, method, teacher, student):
    steps = NOISY.get(method.stem, STEPS)
    return [losses(phase, steps) for phase in configs(folder, method, teacher, student)]


def curves_or_refusal(folder, method, teacher, student):
    """Return what `curves_of` does, or what a method of `REFUSALS` says against a pair."""
    try:
        return curves_of(folder, method, teacher, student), ""
    except UserError as error:
        if method.stem not in REFUSALS:
            raise
        return [], str(error)


@pytest.mark.parametrize(("teacher", "student"), PAIRS)
@pytest.mark.parametrize("method", METHODS, ids=lambda path: path.stem)
def test_loss_falls_on_a_fixed_batch(method, teacher, student, tmp_path):
    curves, refusal = curves_or_refusal(tmp_path, method, teacher, student)
    if refusal:
        assert REFUSALS[method.stem] in refusal
        return
    if method.stem in COLLECTING:
        assert not any(curves.pop(0))
    for curve in curves:
        first, last = sum(curve[:ENDS]), sum(curve[-ENDS:])
        assert torch.tensor(curve).isfinite().all(), curve
        assert last < first or method.stem in UNSTEADY, curve
