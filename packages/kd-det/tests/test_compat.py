"""Detectron2 works on today's libraries once kd_det is imported, and its absence is explained."""

import importlib
import subprocess
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch


@pytest.fixture
def detectron2():
    """Detectron2, prepared."""
    module = pytest.importorskip("detectron2")
    import kd_det  # noqa: F401

    return module


def test_without_detectron2_both_ways_to_get_it_are_named():
    program = """
import sys; sys.modules["detectron2"] = None
import kd_det.criteria.crosskd; print("criteria need no Detectron2")
kd_det.require_detectron2()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "criteria need no Detectron2" in done.stdout
    assert "Detectron2Error: kd_det needs detectron2" in done.stderr
    assert "uv sync" in done.stderr
    assert "github.com/facebookresearch/detectron2" in done.stderr


def test_a_tool_without_detectron2_says_in_one_line_how_to_get_it():
    program = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "detectron2" else found(name, *rest)
import kd_det
from importlib.machinery import PathFinder
class Others:  # all that is installed, but Detectron2
    def find_spec(self, name, path=None, target=None):
        return None if name == "detectron2" else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Others() if finder is PathFinder else finder for finder in sys.meta_path]
from kd_det.train import main
sys.exit(main(["--num-gpus", "1"]))
"""
    done = subprocess.run([sys.executable, "-W", "always", "-c", program], capture_output=True)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("error: kd_det needs detectron2, which is not installed. Two ways")


@pytest.mark.parametrize("part", ["data", "engine", "evaluation", "layers", "modeling"])
def test_a_part_of_detectron2_can_be_imported(detectron2, part):
    assert importlib.import_module(f"detectron2.{part}").__file__


def test_an_extension_that_is_there_stays(detectron2, monkeypatch):
    import kd_det

    real = ModuleType("detectron2._C")
    real.__spec__ = ModuleSpec("detectron2._C", loader=None)
    monkeypatch.setitem(sys.modules, "detectron2._C", real)
    kd_det.require_detectron2()
    assert sys.modules["detectron2._C"] is real
    assert kd_det.has_extension()


def test_asking_twice_changes_nothing(detectron2):
    import kd_det

    before = importlib.import_module("detectron2._C")
    finders = list(sys.meta_path)
    kd_det.require_detectron2()
    assert sys.modules["detectron2._C"] is before
    assert sys.meta_path == finders


def test_warnings_that_no_user_can_mend_are_silent(detectron2):
    import kd_det

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        kd_det.require_detectron2()
        torch.set_warn_always(True)  # some are given once in a process
        try:
            torch.meshgrid(torch.zeros(2), torch.zeros(2))
            torch.jit.script(torch.nn.ReLU())
        finally:
            torch.set_warn_always(False)
    assert shown == []


def test_focal_loss_of_a_run_rounds_as_it_is_written(detectron2):
    from detectron2.modeling.meta_arch import retinanet
    from fvcore.nn import sigmoid_focal_loss
    from kd_det.release.compat import as_written

    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(3000, 3, generator=generator), torch.eye(3).repeat(1000, 1)

    def gradient(function):
        given = logits.clone().requires_grad_()
        function(given, targets, alpha=0.25, gamma=2.0, reduction="sum").backward()
        return given.grad

    scripted = retinanet.sigmoid_focal_loss_jit
    for _ in range(3):  # TorchScript rewrites it in a process that runs for long
        gradient(scripted)
    with as_written():
        found = gradient(retinanet.sigmoid_focal_loss_jit)
    assert torch.equal(found, gradient(sigmoid_focal_loss))
    assert not torch.equal(found, gradient(scripted))
    assert retinanet.sigmoid_focal_loss_jit is scripted


def test_keys_are_read_as_detectron2_reads_them(detectron2):
    from detectron2.config import get_cfg
    from detectron2.engine import defaults
    from kd_det.release.compat import keys_read_directly
    from omegaconf import OmegaConf

    config = get_cfg()
    config.SEED, config.OUTPUT_DIR = 3, "7"
    lazy = OmegaConf.create({"train": {"seed": 4}})
    asked = [(config, "OUTPUT_DIR", "output_dir", "train.output_dir"), (config, "train.seed")]
    asked += [(config, "SEED", "train.seed"), (lazy, "SEED", "train.seed"), (config, "nowhere")]
    theirs = [defaults._try_get_key(*one, default=-1) for one in asked]
    with keys_read_directly():
        ours = [defaults._try_get_key(*one, default=-1) for one in asked]
    assert ours == theirs == ["7", -1, 3, 4, -1]
    assert [defaults._try_get_key(*one, default=-1) for one in asked] == theirs


def test_a_detectron2_that_reads_its_keys_otherwise_is_left_as_it_is(detectron2, monkeypatch):
    from detectron2.engine import defaults
    from kd_det.release.compat import keys_read_directly

    monkeypatch.delattr(defaults, "_try_get_key")
    with keys_read_directly():
        assert not hasattr(defaults, "_try_get_key")


class TestStandIn:
    @pytest.fixture(autouse=True)
    def skip_where_the_extension_is_real(self, detectron2):
        import kd_det

        if kd_det.has_extension():
            pytest.skip("this Detectron2 has its compiled extension")

    def test_it_says_that_nothing_was_compiled(self):
        from detectron2 import _C

        assert not _C.has_cuda()
        assert _C.get_compiler_version() == _C.get_cuda_version() == "not compiled"

    def test_what_it_lacks_is_explained(self):
        from detectron2.layers.rotated_boxes import pairwise_iou_rotated

        # The official main asks torch for the operator, which then speaks for itself.
        explained = r"box_iou_rotated.*use_fast_impl=False|_OpNamespace.*box_iou_rotated"
        with pytest.raises(AttributeError, match=explained):
            pairwise_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))


def retinanet() -> torch.nn.Module:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()
    model = config.MODEL
    model.DEVICE = "cpu"
    model.META_ARCHITECTURE = "RetinaNet"
    model.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    model.RESNETS.DEPTH = 18
    model.RESNETS.RES2_OUT_CHANNELS = 64
    model.RESNETS.OUT_FEATURES = model.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    model.FPN.OUT_CHANNELS = 16
    model.RETINANET.NUM_CONVS = 1
    model.RETINANET.NUM_CLASSES = 3
    model.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    return build_model(config)


def test_a_detector_trains_and_predicts_on_the_cpu(detectron2):
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    torch.manual_seed(0)
    model, image = retinanet(), torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    boxes = Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]]))
    truth = Instances((64, 64), gt_boxes=boxes, gt_classes=torch.tensor([1]))
    with EventStorage():
        losses = model([{"image": image, "instances": truth}])
    (prediction,) = model.eval()([{"image": image}])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert model.head.cls_score.weight.grad.abs().sum() > 0
    assert prediction["instances"].pred_classes.lt(3).all()
