"""Function matching: mixed images without labels, which all networks see alike."""

from pathlib import Path

import torch
from kd_cls.adapter import ADAPTER
from kd_cls.classifier import Classifier
from kd_core.criteria.kd import KD, kd
from kd_core.data.sampling import Sampling
from kd_core.distill.distiller import Distiller
from kd_core.distill.term import Term
from kd_core.experiment.parsing import read_experiment
from torch import nn

METHOD = Path(__file__).parents[3] / "configs/cls/methods/function_matching.py"
DATA = """
data = dict(type="kd_cls.data.synthetic", num_classes=5)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
teacher = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"), weights="random")
"""
STATISTICS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)}


def classifier(**statistics):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    return Classifier(network, **(STATISTICS | statistics))


def unlabelled():
    image = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    return {"image": image, "index": torch.arange(6)}


def mixed_by(method, folder):
    """Return an unlabelled batch as the augmentations of a config leave it."""
    (folder / "data.py").write_text(DATA)
    experiment = read_experiment(ADAPTER, [folder / "data.py", method])
    batch = unlabelled()
    for node in experiment.data["augment"]:
        batch = node.build()(batch, Sampling(batch["index"], 0, 0)[0:6])
    return experiment, batch


def test_several_teachers_and_the_student_see_one_mixed_image_and_no_label(tmp_path):
    torch.manual_seed(0)
    experiment, batch = mixed_by(METHOD, tmp_path)
    assert "label" not in batch
    assert batch["image"].dtype == torch.float32
    assert experiment.distiller["task_weight"] == 0
    student, one, two = classifier(), classifier(), classifier(mean=(0.1, 0.2, 0.3))
    terms = {name: Term(KD(temperature=1.0), source=name) for name in ("one", "two")}
    distiller = Distiller(student, {"one": one, "two": two}, terms, task_weight=0, sample=batch)
    losses = distiller.train()(batch)
    assert losses.keys() == {"one", "two"}
    shown = [model.eval()({"image": batch["image"]}) for model in (student, one, two)]
    for name, logits in zip(terms, shown[1:], strict=True):
        torch.testing.assert_close(losses[name], kd(shown[0], logits, temperature=1.0))
    sum(losses.values()).backward()
    assert student.network[1].weight.grad.any()
