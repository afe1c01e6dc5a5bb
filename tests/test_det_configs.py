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

CONFIGS = Path(__file__).resolve().parents[1] / "configs/det"
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


SHALLOW = {"timm:convnext_tiny": {"depths": [1] * 4}, "timm:vit_small_patch14_dinov2": {"depth": 1}}
"""Arguments of teachers' networks for few blocks."""


def few_blocks(path, written):
    """Return options that take most blocks of a distilled detector and its teacher.

    Only where the whole of each takes a step by a file of its own, or is another library's.
    """
    student, *methods = bases_of(path)
    assert student in WHOLE
    assert all("MODEL" not in yaml.safe_load(file.read_text()) for file in (path, *methods))
    name = f"build{'_retinanet' * path.stem.startswith('retinanet')}_resnet10_fpn_backbone"
    backbone = ["MODEL.BACKBONE.NAME", name]
    options = [*few_channels(""), *backbone]
    if "CONFIG" not in written:
        return options
    assert (path.parent / written["CONFIG"]).resolve() in WHOLE
    return [*options, "KD.TEACHER.OPTS", [*few_channels("", ["MODEL.WEIGHTS"]), *backbone]]


def bases_of(path):
    """Return the files that a config is merged over."""
    bases = yaml.safe_load(path.read_text()).get("_BASE_", [])
    return [
        (path.parent / base).resolve() for base in ([bases] if isinstance(bases, str) else bases)
    ]


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_every_config_takes_a_step(path, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "synthetic_inputs", partial(dry_run.synthetic_inputs, size=64))
    monkeypatch.setattr(distiller, "sample_batch", partial(sample_batch, size=64))
    written = yaml.safe_load(path.read_text()).get("KD", {}).get("TEACHER", {})
    options = few_blocks(path, written) if written else few_channels(path.stem)
    cfg = read_config(path, options)
    cfg.KD.TEACHER.ARGS.update(SHALLOW.get(cfg.KD.TEACHER.NETWORK, {}))
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
