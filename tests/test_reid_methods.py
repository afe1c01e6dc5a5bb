"""Every method trains the re-identification pairs, and plain torchreid loads what comes out.

    uv run pytest tests/test_reid_methods.py --slow

does so at 256 x 128; without `--slow` at 64 x 32, and but for KD with networks of fewer blocks.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from kd_core.config.reading import load_config, save_config
from kd_core.experiment.spec import phases_of
from kd_reid import torchreid
from kd_reid.train import main

sys.path.insert(0, str(Path(__file__).parent))
from documented import make_small

ROOT = Path(__file__).parents[1]
OWN = [path for path in sorted(ROOT.glob("configs/reid/methods/*.py")) if "dml" not in path.stem]
SHARED = [ROOT / f"configs/cls/methods/{name}.py" for name in ("at", "nst", "cc", "vid", "fitnet")]
"""Methods of classification that find what they tap by roles which these networks have too."""

SIZES = [(64, 32), pytest.param((256, 128), marks=pytest.mark.slow)]
STEPS, BATCH = 2, 8
PAIRS = {
    "osnet_x1_0_osnet_x0_25": ("osnet_x1_0", "osnet_x0_25"),
    "densenet121_resnet50": ("densenet121", "resnet50"),
}


def two_steps(pair, method, size, folder):
    """Write the config of a run of two steps with an untrained teacher, and train it."""
    config = load_config([ROOT / f"configs/reid/pairs/{pair}.py", method])
    build = "kd_reid.models.build_model"
    teacher, student = PAIRS[pair]
    assert config["student"]["network"]["name"] == student
    assert config["teacher"]["config"][-1].endswith(f"networks/{teacher}.py")
    config["data"] = {
        "type": "kd_reid.data.synthetic",
        "batch_size": BATCH,
        "image_size": list(size),
        "num_ids": BATCH // 2,
        "images_per_id": STEPS * 2,
    }
    config["student"] |= {"network": {"type": build, "name": student}, "fixed_base_epochs": 0}
    config["teacher"] = {"network": {"type": build, "name": teacher}, "weights": "random"}
    config["trainer"] = {"epochs": 1, "loggers": []}
    config["optimizer"] = {"type": "torch.optim.SGD", "lr": 1e-6}
    config["schedule"] = {"type": "kd_core.training.schedule.constant"}
    if "phases" in config:
        # An untrained DenseNet's features are of 1e8: decoders that learn from them diverge.
        config["phases"]["analysis"] |= {"trainer": {"epochs": 1}, "optimizer": {"lr": 1e-30}}
    save_config(config, folder / "run.py")
    assert main([str(folder / "run.py"), "--work-dir", str(folder / "run")]) == 0
    return config, folder / "run"


@pytest.fixture
def fewer_blocks(method, size, monkeypatch):
    """Let networks have fewer blocks, where images are small and the method is not KD."""
    if size == (64, 32) and method.stem != "kd":
        make_small(monkeypatch)


@pytest.mark.usefixtures("fewer_blocks")
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("method", [*OWN, *SHARED], ids=lambda path: path.stem)
def test_method_trains_and_plain_torchreid_loads_the_student(method, pair, size, tmp_path):
    if pair == "densenet121_resnet50" and size == (64, 32) and method.stem != "kd":
        pytest.skip("large: with --slow, at 256 x 128")
    config, run = two_steps(pair, method, size, tmp_path)
    record = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert record["step"] == STEPS
    for name in [*phases_of(config).values()][-1]["distiller"]["terms"]:
        assert record[f"loss_{name}"] > 0
    plain = torchreid.models.build_model(
        PAIRS[pair][1], BATCH // 2, pretrained=False, use_gpu=False
    )
    plain.load_state_dict(torch.load(run / "student.pth", weights_only=True))
