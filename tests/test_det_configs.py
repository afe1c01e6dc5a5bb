"""Every config of configs/det takes a training step; a new file is found by itself."""

from functools import partial
from itertools import chain
from pathlib import Path

import pytest
import yaml

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from kd_det import distiller
from kd_det.config import read_config
from kd_det.distiller import sample_batch
from kd_det.running import dry_run
from kd_det.train import main

CONFIGS = Path(__file__).parents[1] / "configs/det"
METHODS = sorted(CONFIGS.glob("methods/*.yaml"))
WHOLE = sorted(set(CONFIGS.rglob("*.yaml")) - set(METHODS))
DISTILLED = [path for path in WHOLE if "KD:" in path.read_text()]
FOR_OWN_HEADS = {"ld"}  # methods for heads that Detectron2 does not have

THIN = {
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
}
"""Options for bottleneck blocks; the widths of a ResNet-18 are fixed."""
FEW = {
    "MODEL.WEIGHTS": "",
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 40,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [8, 8],
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
}
"""Options that leave a detector's layers and take most of their channels."""


def few_channels(name, left_out=()):
    """Return options that make the detector of a file small."""
    options = FEW | ({} if "R_18" in name else THIN)
    return [item for key in options if key not in left_out for item in (key, options[key])]


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_every_config_takes_a_step(path, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "synthetic_inputs", partial(dry_run.synthetic_inputs, size=64))
    monkeypatch.setattr(distiller, "sample_batch", partial(sample_batch, size=64))
    options = few_channels(path.stem)
    written = yaml.safe_load(path.read_text()).get("KD", {}).get("TEACHER", {})
    if "CONFIG" in written:
        teacher = few_channels(written["CONFIG"], ["MODEL.WEIGHTS"])
        options += ["KD.TEACHER.OPTS", teacher]
    cfg = read_config(path, options)
    dry_run.dry_run(cfg)
    done = capsys.readouterr().out
    assert "one training step done" in done
    assert all(f" loss_{name} " in done for name in cfg.KD.TERMS)


@pytest.mark.slow
@pytest.mark.parametrize("path", DISTILLED, ids=lambda path: path.stem)
def test_config_takes_a_step_as_it_is(path, capsys):
    few = ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8", "MODEL.WEIGHTS", ""]
    assert main(["--config-file", str(path), "--dry-run", *few]) == 0
    assert "one training step done" in capsys.readouterr().out


def test_every_method_is_part_of_a_config_that_takes_a_step():
    bases = [yaml.safe_load(path.read_text()).get("_BASE_", []) for path in DISTILLED]
    used = {Path(base).stem for base in chain.from_iterable(bases)}
    assert {path.stem for path in METHODS} - used <= FOR_OWN_HEADS
