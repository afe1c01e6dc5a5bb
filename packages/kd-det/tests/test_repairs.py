"""What today's libraries break of release 0.6 works, and another release is left as it is."""

import importlib
import pkgutil
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType

import numpy as np
import pytest
import torch

detectron2 = pytest.importorskip("detectron2")
import kd_det  # noqa: E402
from kd_det.release import repairs  # noqa: E402
from torch.nn.functional import conv2d  # noqa: E402

without_extension = pytest.mark.skipif(kd_det.has_extension(), reason="it is compiled")
NEEDS = {"caffe2", "panopticapi"}
"""What a few modules import that nobody here has; nothing of ours imports these modules."""


def test_every_module_of_detectron2_can_be_imported():
    missing = set()
    for found in pkgutil.walk_packages(detectron2.__path__, "detectron2.", onerror=lambda _: None):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            missing.add(error.name)
    assert missing <= NEEDS


@pytest.mark.parametrize("norm", ["GN", "BN", "FrozenBN", ""])
def test_a_retinanet_may_have_any_norm_in_its_head(norm):
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.meta_arch.retinanet import RetinaNetHead

    shapes = [ShapeSpec(channels=32, stride=stride) for stride in (8, 16)]
    sizes = {"num_classes": 3, "num_anchors": 1, "conv_dims": [32]}
    head = RetinaNetHead(input_shape=shapes, norm=norm, **sizes)
    logits, _ = head([torch.rand(1, 32, 4, 4), torch.rand(1, 32, 2, 2)])
    assert [one.shape for one in logits] == [(1, 3, 4, 4), (1, 3, 2, 2)]
    assert isinstance(head.cls_subnet[1], torch.nn.GroupNorm) == (norm == "GN")


def test_names_that_numpy_dropped_are_there_for_detectron2_alone():
    from detectron2.data import build
    from detectron2.modeling import anchor_generator

    assert build.np.int is int
    assert build.np.arange is np.arange
    assert not hasattr(np, "int")
    assert not hasattr(anchor_generator, "np") or anchor_generator.np is np


def test_a_category_outside_the_data_set_is_seen_again():
    from detectron2.data import print_instances_class_histogram

    with pytest.raises(AssertionError, match="category_id=7"):  # it was an AttributeError, passed
        print_instances_class_histogram([{"annotations": [{"category_id": 7}]}], ["a", "b"])


def test_an_array_that_need_not_be_copied_may_be():
    from detectron2.layers.mask_ops import paste_mask_in_image_old

    mask = paste_mask_in_image_old(torch.ones(28, 28), torch.tensor([4.0, 4, 20, 20]), 32, 32, 0.5)
    assert mask[10, 10]
    assert not mask[30, 30]


def test_the_export_of_detectron2_can_be_imported_without_caffe2():
    import detectron2.export as export

    assert export.TracingAdapter
    with pytest.raises(AttributeError, match=r"Caffe2Tracer.*caffe2.*TracingAdapter"):
        _ = export.api.Caffe2Tracer


def test_the_model_zoo_needs_no_package_that_setuptools_dropped():
    from detectron2 import model_zoo

    with pytest.raises(RuntimeError, match=r"nothing\.yaml not available in Model Zoo"):
        model_zoo.get_config_file("nothing.yaml")
    assert "pkg_resources" not in sys.modules


@without_extension
@pytest.mark.parametrize("groups", [1, 2])
def test_deformable_convolution_without_offsets_is_convolution(groups):
    from detectron2.layers import DeformConv, ModulatedDeformConv

    torch.manual_seed(0)
    image = torch.rand(2, 4, 9, 7)
    sizes = {"stride": 2, "padding": 1, "groups": groups, "deformable_groups": groups}
    offset, mask = torch.zeros(2, 18 * groups, 5, 4), torch.ones(2, 9 * groups, 5, 4)
    for kind, given in ((DeformConv, ()), (ModulatedDeformConv, (mask,))):
        layer = kind(4, 6, 3, bias=False, **sizes)
        found = layer(image, offset.requires_grad_(), *given)
        wanted = conv2d(image, layer.weight, None, stride=2, padding=1, groups=groups)
        torch.testing.assert_close(found, wanted)
        found.sum().backward()
        assert layer.weight.grad.abs().sum() > 0
    shifted = torch.zeros(2, 18 * groups, 5, 4)
    shifted[:, 1::2] = 1  # of each pair, the second is to the right
    plain = DeformConv(4, 6, 3, **{**sizes, "deformable_groups": groups})
    there = torch.cat([image[..., 1:], torch.zeros(2, 4, 9, 1)], dim=-1)
    inner = (..., slice(1, 4), slice(1, 3))  # zeros beside the image are not shifted
    torch.testing.assert_close(plain(image, shifted)[inner], plain(there, offset * 0)[inner])


@without_extension
def test_rotated_boxes_say_what_they_need_in_one_line():
    from detectron2.layers import ROIAlignRotated, batched_nms_rotated
    from kd_core.errors import UserError

    boxes = torch.tensor([[4.0, 4, 4, 4, 0], [4, 4, 4, 4, 9]])
    with pytest.raises(UserError, match=r"no 'nms_rotated'.*Rotated boxes.*official main"):
        batched_nms_rotated(boxes, torch.ones(2), torch.zeros(2), 0.5)
    with pytest.raises(UserError, match="no 'roi_align_rotated_forward'"):
        ROIAlignRotated(2, 1.0, 0)(torch.rand(1, 2, 8, 8), torch.zeros(1, 6))


NEWER = """
import numpy as np
def get_norm(norm, channels):
    return norm, channels
KINDS = [np.float64, get_norm("GN", 32)]
"""


def test_a_release_without_these_faults_is_left_as_it_is(tmp_path):
    for name in ("modeling.meta_arch.retinanet", "data.build"):
        path = tmp_path / "newer.py"
        path.write_text(NEWER)
        loader = SourceFileLoader(f"detectron2.{name}", str(path))
        module = ModuleType(loader.name)
        module.__spec__ = ModuleSpec(loader.name, loader)
        loader.exec_module(module)
        before = dict(vars(module))
        repairs.repair(module)
        assert all(vars(module)[key] is value for key, value in before.items())


@without_extension
def test_compiled_code_is_used_where_it_is_there():
    module = ModuleType("detectron2.layers.deform_conv")
    module._C = ModuleType("detectron2._C")
    module.deform_conv = compiled = object()
    repairs.repair(module)
    assert module.deform_conv is compiled
