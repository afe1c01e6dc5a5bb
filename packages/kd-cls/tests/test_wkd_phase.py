"""The distances of WKD-L: made once a teacher, by its logits of unchanged training images."""

from pathlib import Path

import pytest
import torch
from kd_cls.data import synthetic
from kd_cls.models import build_model
from kd_cls.train import main
from kd_core.criteria.class_distances import cka_distance, sharpened

METHODS = Path(__file__).parents[3] / "configs/cls/methods"
DATA = """
data = dict(type="kd_cls.data.synthetic", num_classes=4, num_train=41, batch_size=8, image_size=8)
optimizer = dict(type="torch.optim.SGD", lr=0.01)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=1, loggers=[], allow_weak_teacher=True)
student = dict(network=dict(type="kd_cls.models.build_model", name="tiny"))
teacher = dict(
    network=dict(type="kd_cls.models.build_model", name="tiny"), weights="{weights}"
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wkd")
    torch.manual_seed(0)
    torch.save(build_model("tiny", num_classes=4).state_dict(), folder / "teacher.pth")
    (folder / "data.py").write_text(DATA.format(weights=folder / "teacher.pth"))
    arguments = [str(folder / "data.py"), str(METHODS / "wkd_logits.py")]
    assert main([*arguments, "--work-dir", str(folder / "run"), "--seeds", "0", "1"]) == 0
    return folder


def test_both_seeds_take_the_distances_of_one_phase(folder):
    (made,) = folder.glob("**/distances-*")
    cost = torch.load(made / "criteria/distances.pth")["cost"]
    finished = sorted(folder.glob("run/**/criteria/wkd_logits.pth"))
    assert len(finished) == 2
    assert all(torch.equal(torch.load(file)["cost"], cost) for file in finished)


def test_the_distances_are_those_of_unchanged_images_of_equal_number(folder):
    data = synthetic(num_classes=4, num_train=41, batch_size=41, image_size=8, augment=[])
    network = build_model("tiny", num_classes=4)
    network.load_state_dict(torch.load(folder / "teacher.pth"))
    mean, std = (torch.tensor(value)[:, None, None] for value in (data.mean, data.std))
    batch = next(data.train.epoch(0))
    with torch.no_grad():
        logits = network.eval()((batch["image"] / 255 - mean) / std)[batch["index"].argsort()]
    labels = data.train.labels
    fewest = int(labels.bincount().min())
    assert fewest < labels.bincount().max()
    features = torch.stack([logits[labels == c][:fewest] for c in range(4)])
    (made,) = folder.glob("**/distances-*")
    cost = torch.load(made / "criteria/distances.pth")["cost"]
    torch.testing.assert_close(cost, sharpened(cka_distance(features), 1.0), atol=1e-4, rtol=1e-3)
