"""Any network that gives maps teaches a detector: of torchvision, of timm, a user's own."""

import sys
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from kd_core.config.trusted import trusting
from kd_core.criteria.aligners import resize_maps
from kd_core.errors import UserError
from torch import nn
from torchvision.models import mobilenet_v3_small

pytest.importorskip("detectron2")
import kd_det  # noqa: F401  before Detectron2
from kd_det.teachers.levels import measure, pair, sizes_for, strides_of
from kd_det.teachers.network import Geometry, Level, LevelNetwork

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.usefixtures("full_samples")

PKD = {"CRITERION": "kd_core.criteria.pkd.PKD"}
FITNET = {"CRITERION": "kd_core.criteria.fitnet.FitNet"}
VIT = {"NETWORK": "timm:test_vit", "WEIGHTS": "random"}
CONVNEXT = {"NETWORK": "timm:test_convnext", "WEIGHTS": "random"}
TWINS = {"embed_dims": [8] * 2 + [16, 8], "num_heads": [1] * 4, "depths": [1] * 4}
XCIT = {"embed_dim": 8, "num_heads": 1, "depth": 2}
PIXELS = {"FORMAT": "RGB", "RANGE": 255, "PIXEL_MEAN": [0.0] * 3, "PIXEL_STD": [1.0] * 3}

NETS = '''
from dataclasses import dataclass
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, faster_rcnn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone


def rcnn() -> nn.Module:
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    head, predictor = faster_rcnn.TwoMLPHead(7, 2), faster_rcnn.FastRCNNPredictor(2, 4)
    return FasterRCNN(backbone, box_head=head, box_predictor=predictor)


class Pools(nn.Module):
    """Means of the pixels in squares: maps of any stride."""

    def __init__(self, strides: list, form: str = "dict"):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        ceil = form != "floor"
        self.pools = nn.ModuleList(nn.AvgPool2d(stride, ceil_mode=ceil) for stride in strides)
        self.form = form

    def forward(self, images):
        maps = [pool(images) * self.weight for pool in self.pools]
        if self.form == "tensor":
            return maps[0]
        if self.form == "nested":
            return {"pooled": images.mean((2, 3)), "feature_maps": tuple(maps)}
        if self.form == "object":
            return Output(maps[0], None)
        if self.form == "last":
            return [one.permute(0, 2, 3, 1) for one in maps]
        if self.form == "whole":
            return [one.round().long() for one in maps]
        named = {f"m{i}": one for i, one in enumerate(maps)}
        return maps if self.form in ("list", "floor") else named


@dataclass
class Output:
    last_hidden_state: torch.Tensor
    attentions: object


class Fetching(nn.Module):
    def __init__(self, pretrained: bool = True):
        super().__init__()
        assert not pretrained, "it fetches weights"
        self.conv = nn.Conv2d(3, 4, 3, 4)

    def forward(self, images):
        return self.conv(images)
'''


@pytest.fixture(scope="module", autouse=True)
def nets(tmp_path_factory):
    """Write a module of networks of a user, and let it be imported."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets_of_a_teacher.py").write_text(NETS)
    sys.path.insert(0, str(folder))
    yield "nets_of_a_teacher"
    sys.path.remove(str(folder))


def pools(strides, form="dict", **keys):
    """Return a teacher's node of such a network."""
    own = {"NETWORK": "nets_of_a_teacher.Pools", "WEIGHTS": "random", "INPUT": dict(PIXELS)}
    return own | {"ARGS": {"strides": strides, "form": form}} | keys


@pytest.fixture
def taught(build):
    """Build a student of a network; return the distiller."""

    def taught(teacher, terms=None, options=(), kind="faster_rcnn", **nodes):
        terms = terms or {"fitnet": FITNET}
        with trusting("nets_of_a_teacher.Pools", "nets_of_a_teacher.rcnn"):
            return build(kind, terms, options, KD={"TEACHER": teacher, "TERMS": terms}, **nodes)

    return taught


def levels(distiller):
    """Return the shapes of the teacher's taps by name."""
    return {tap[7:-1]: shape for tap, shape in distiller.tap_shapes["teacher"].items()}


def maps_for(distiller, inputs):
    """Return the teacher's maps for a batch of Detectron2."""
    teacher = distiller.teachers["teacher"]
    return {tap[7:-1]: value for tap, value in teacher({"inputs": inputs}).items()}


class TestTorchvision:
    def test_equal_weights_give_a_loss_of_zero(self, taught, inputs, storage):
        from kd_det.networks.conversion import convert

        model = {"RESNETS.DEPTH": 18, "RESNETS.RES2_OUT_CHANNELS": 64, "RESNETS.NORM": "FrozenBN"}
        model |= {"RESNETS.STEM_OUT_CHANNELS": 64, "RESNETS.WIDTH_PER_GROUP": 64}
        model |= {"RESNETS.STRIDE_IN_1X1": False, "FPN.OUT_CHANNELS": 256}
        model |= {"BACKBONE.NAME": "build_resnet_fpn_backbone"}
        model |= {"PIXEL_MEAN": [123.675, 116.28, 103.53], "PIXEL_STD": [58.395, 57.12, 57.375]}
        options = [part for key, value in model.items() for part in (f"MODEL.{key}", str(value))]
        teacher = {"NETWORK": "nets_of_a_teacher.rcnn", "WEIGHTS": "random"}
        distiller = taught(teacher, {"pkd": PKD}, [*options, "INPUT.FORMAT", "RGB"])
        source = distiller.teachers["teacher"].network.net.backbone
        with torch.no_grad():
            for place in range(4):  # random weights are small
                source.fpn.inner_blocks[place][0].weight.mul_(3)
        state = convert(source.body.state_dict(), "resnet18")
        for place in range(4):
            for kind, name in (("inner", "lateral"), ("layer", "output")):
                conv = getattr(source.fpn, f"{kind}_blocks")[place][0]
                for part in ("weight", "bias"):
                    state[f"backbone.fpn_{name}{place + 2}.{part}"] = getattr(conv, part)
        wrong = distiller.network.load_state_dict(state, strict=False)
        assert not wrong.unexpected_keys
        assert not any(key.startswith("backbone") for key in wrong.missing_keys)
        assert len(levels(distiller)) == 5
        assert distiller(inputs)["loss_pkd"] < 1e-8
        for one in inputs:  # the two images that are as large as the batch are not padded alike
            one["image"] = one["image"][:, :, :40]
        assert distiller(inputs)["loss_pkd"] < 1e-8

    def test_levels_of_a_detector_are_its_pyramids(self, taught):
        name = "torchvision.models.detection.fasterrcnn_mobilenet_v3_large_fpn"
        term = FITNET | {"STUDENT": ["@fpn[3:]"]}
        distiller = taught({"NETWORK": name, "WEIGHTS": "random"}, {"fitnet": term})
        assert levels(distiller) == {"stride32": (256, 4, 4), "stride64": (256, 2, 2)}

    def test_nothing_is_fetched_unless_it_is_said(self, taught, monkeypatch):
        fetched = []

        def fetch(*args, **kwargs):
            fetched.append(args)
            raise OSError("no network")

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
        node = {"NETWORK": "torchvision.models.mobilenet_v3_small", "WEIGHTS": "random"}
        node["MAPS"] = ["features.1"]
        term = {"fitnet": FITNET | {"STUDENT": ["@fpn[0]"]}}
        taught(node, term)
        asked = {"ARGS": {"weights": "DEFAULT"}}
        taught(node | asked, term)  # as in a dry run, which makes all weights random
        with pytest.raises(UserError, match=r"ARGS.weights 'DEFAULT' would fetch weights"):
            taught(node | asked | {"WEIGHTS": "mine.pth"}, term)
        assert not fetched
        with pytest.raises(UserError, match=r"no network.*name the file"):
            taught(node | {"WEIGHTS": "pretrained"}, term)
        assert fetched

    def test_weights_have_the_networks_own_names(self, taught, inputs, tmp_path):
        node = {"NETWORK": "torchvision.models.mobilenet_v3_small", "MAPS": ["features.1"]}
        term = {"fitnet": FITNET | {"STUDENT": ["@fpn[0]"]}}
        network = mobilenet_v3_small()
        torch.save({"model": network.state_dict()}, tmp_path / "own.pth")
        distiller = taught(node | {"WEIGHTS": str(tmp_path / "own.pth")}, term)
        own = distiller.teachers["teacher"].network.net.state_dict()
        assert all(torch.equal(own[name], value) for name, value in network.state_dict().items())
        torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
        with pytest.raises(UserError, match=r"KD.TEACHER.WEIGHTS: .*does not fit MobileNetV3"):
            taught(node | {"WEIGHTS": str(tmp_path / "vit.pth")}, term)


class TestTimm:
    def test_images_and_map_of_a_transformer_are_those_by_hand(self, taught, inputs):
        term = {"fitnet": FITNET | {"STUDENT": ["@fpn[2]"]}}
        distiller = taught(VIT, term)
        net = distiller.teachers["teacher"].network.net
        (maps,) = maps_for(distiller, inputs).values()
        images = torch.zeros(2, 3, 64, 96)  # padded as the student's, with zeros
        for row, one in zip(images, inputs, strict=True):
            rgb = one["image"].flip(0).float() / 255
            row[:, : rgb.shape[1], : rgb.shape[2]] = (rgb - 0.5) / 0.5
        tokens = net.forward_features(images)[:, net.num_prefix_tokens :]
        torch.testing.assert_close(maps, tokens.mT.unflatten(2, (4, 6)))

    def test_stages_are_paired_by_their_strides(self, taught, inputs, storage):
        term = FITNET | {"STUDENT": ["@fpn[1:4]"], "TEACHER": ["@fpn[1:4]"]}
        distiller = taught(CONVNEXT, {"fitnet": term}, kind="faster_rcnn")
        assert [(n, s[1]) for n, s in levels(distiller).items()] == [
            ("stride8", 16),
            ("stride16", 8),
            ("stride32", 4),
        ]
        assert distiller(inputs)["loss_fitnet"] > 0

    def test_pairs_do_not_depend_on_where_the_pyramids_begin(self, taught):
        term = FITNET | {"STUDENT": ["@fpn[:3]"], "TEACHER": ["@fpn[:3]"]}
        distiller = taught(CONVNEXT, {"fitnet": term}, kind="retinanet")  # from stride 8 on
        assert list(levels(distiller)) == ["stride8", "stride16", "stride32"]

    def test_features_only_takes_weights_of_the_whole_network(self, taught, tmp_path):
        network = timm.create_model("test_convnext")
        torch.save(network.state_dict(), tmp_path / "own.pth")
        arguments = {"features_only": True, "out_indices": [1, 2]}
        node = CONVNEXT | {"ARGS": arguments, "WEIGHTS": str(tmp_path / "own.pth")}
        distiller = taught(node, {"fitnet": FITNET | {"STUDENT": ["@fpn[1:3]"]}})
        assert list(levels(distiller)) == ["stride8", "stride16"]
        with pytest.raises(UserError, match=r"strides 4, 8, 16, 32, 64, the teacher's 8, 16"):
            taught(node)

    @pytest.mark.parametrize(
        ("name", "arguments", "place"),
        [
            ("twins_pcpvt_small", TWINS, 1),  # its stages are not modules
            ("xcit_nano_12_p8_224", XCIT, -1),  # its blocks give tokens, of one stride
        ],
    )
    def test_maps_that_no_module_gives_are_those_of_timm(
        self, name, arguments, place, taught, inputs
    ):
        node = {"NETWORK": f"timm:{name}", "ARGS": arguments, "WEIGHTS": "random"}
        distiller = taught(node, {"fitnet": FITNET | {"STUDENT": ["@fpn[1]"]}})
        assert list(levels(distiller)) == ["stride8"]
        (maps,) = maps_for(distiller, inputs).values()
        net = distiller.teachers["teacher"].network.net.net
        mean, std = (
            torch.tensor(net.pretrained_cfg[key])[:, None, None] for key in ("mean", "std")
        )
        images = torch.zeros(2, 3, 64, 96)
        for row, one in zip(images, inputs, strict=True):
            rgb = one["image"].flip(0).float() / 255
            row[:, : rgb.shape[1], : rgb.shape[2]] = (rgb - mean) / std
        wanted = net.forward_intermediates(images, norm=place < 0, intermediates_only=True)
        torch.testing.assert_close(maps, wanted[place])

    def test_patches_of_another_size_are_scaled_to_the_students(self, taught, inputs):
        arguments = {"patch_size": 14, "img_size": 112, "dynamic_img_size": True}
        node, term = VIT | {"ARGS": arguments}, {"fitnet": FITNET | {"STUDENT": ["@fpn[2]"]}}
        with pytest.raises(UserError, match=r"RESIZE 0.875 its maps would have stride 16"):
            taught(node, term)
        distiller = taught(node | {"INPUT": {"RESIZE": 0.875}}, term)
        (maps,) = maps_for(distiller, inputs).values()
        assert maps.shape == (2, 64, 4, 6)

    def test_a_network_of_one_size_needs_resized_maps(self, taught, inputs):
        node = VIT | {"ARGS": {"dynamic_img_size": False}}
        with pytest.raises(UserError, match=r"failed on images.*INPUT.SIZE \(160, as it says\)"):
            taught(node)
        with pytest.raises(UserError, match=r"RESIZE_MAPS True"):
            taught(node | {"INPUT": {"SIZE": 160}})
        distiller = taught(node | {"INPUT": {"SIZE": 160}, "RESIZE_MAPS": True})
        shapes = [tuple(one.shape[2:]) for one in maps_for(distiller, inputs).values()]
        assert shapes == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]


class TestOwn:
    @pytest.mark.parametrize("form", ["dict", "list", "tensor", "nested", "object"])
    def test_outputs_of_any_form_have_their_maps_found(self, form, taught, inputs):
        term = {"fitnet": FITNET | {"STUDENT": ["@fpn[2]"]}}
        distiller = taught(pools([16], form), term)
        (maps,) = maps_for(distiller, inputs).values()
        wanted = inputs[0]["image"].flip(0).float()[:, :16, :16].mean((1, 2))
        torch.testing.assert_close(maps[0, :, 0, 0], wanted)

    def test_maps_whose_channels_come_last_must_be_said_to_be_so(self, taught):
        term = {"fitnet": FITNET | {"STUDENT": ["@fpn[2]"]}}
        with pytest.raises(UserError, match=r"write 'output\[0\]:nhwc'"):
            taught(pools([16], "last"), term)
        distiller = taught(pools([16], "last", MAPS=["output[0]:nhwc"]), term)
        assert levels(distiller) == {"stride16": (3, 8, 8)}

    def test_the_deepest_of_equal_strides_teaches(self, taught):
        term = {"fitnet": FITNET | {"STUDENT": ["@fpn[2]"]}}
        distiller = taught(pools([16, 8, 16], "list"), term)
        (level,) = distiller.teachers["teacher"].network.wanted.values()
        assert level.tap == "output[2]"
        with pytest.raises(UserError, match=r"'pools.0' has the stride of 'pools.2'"):
            taught(pools([16, 8, 16], "list", MAPS=["pools.0", "pools.2"]), term)
        term["fitnet"]["TEACHER"] = ["@fpn[0]"]
        with pytest.raises(UserError, match=r"TEACHER names maps of strides 8, STUDENT of 16"):
            taught(pools([16, 8, 16], "list"), term)

    def test_a_network_without_parameters_teaches(self, taught, inputs):
        node = {"NETWORK": "torch.nn.AvgPool2d", "ARGS": {"kernel_size": 16}, "INPUT": PIXELS}
        with trusting("torch.nn.AvgPool2d"):
            term = {"fitnet": FITNET | {"STUDENT": ["@fpn[2]"]}}
            distiller = taught(node | {"WEIGHTS": "random"}, term)
        assert levels(distiller) == {"stride16": (3, 8, 8)}

    def test_strides_that_do_not_divide_the_images_are_measured_with_others(self, taught):
        term = {"fitnet": FITNET | {"STUDENT": ["@fpn[1]"]}}
        node = pools([7, 14], "floor", RESIZE_MAPS=True)
        with pytest.raises(UserError, match=r"18, 18.*36, 36.*MULTIPLE .*patches of 7 pixels"):
            taught(node, term)
        distiller = taught(node | {"INPUT": PIXELS | {"MULTIPLE": 14}}, term)
        (level,) = distiller.teachers["teacher"].network.wanted.values()
        assert level == Level("output[0]", Fraction(7), Fraction(8))

    def test_pretrained_is_switched_off_in_a_factory_of_a_user(self, taught):
        node = {"NETWORK": "nets_of_a_teacher.Fetching", "WEIGHTS": "random", "INPUT": PIXELS}
        term = {"fitnet": FITNET | {"STUDENT": ["@fpn[0]"]}}
        with pytest.raises(UserError, match=r"add --trust nets_of_a_teacher.Fetching"):
            taught(node, term)
        with trusting("nets_of_a_teacher.Fetching"):
            assert list(levels(taught(node, term))) == ["stride4"]
            with pytest.raises(UserError, match=r"it fetches weights"):
                taught(node | {"WEIGHTS": "pretrained"}, term)


class TestLevels:
    def test_maps_smaller_than_their_images_are_refused_with_what_helps(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 9, 4))
        level = {"a": Level("0", Fraction(4), Fraction(4))}
        network = LevelNetwork(net, Geometry(Fraction(1), 1, 0), level)
        with pytest.raises(UserError, match=r"6x6 positions.*no padding.*another map"):
            network(torch.rand(1, 3, 32, 32))
        with pytest.raises(UserError, match=r"6x6 positions.*set KD.TEACHER.INPUT.MULTIPLE"):
            network(torch.rand(1, 3, 30, 30))

    def test_strides_count_growth_and_not_borders(self):
        conv = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2))  # 31 and 63 positions
        lengths = measure(conv, conv, ["0", "1"], [128, 256])
        assert lengths["1"] == [(31, 31), (63, 63)]
        assert strides_of(lengths, [128, 256]) == {"0": 2, "1": 4}

    def test_sizes_are_multiples_and_the_second_is_twice_the_first(self):
        assert [sizes_for(m) for m in (1, 14, 16, 200)] == [
            [128, 256],
            [224, 448],
            [128, 256],
            [200, 400],
        ]

    def test_maps_are_resized_where_their_positions_are_in_the_image(self):
        """Means of squares of a linear picture are linear, whatever the squares."""
        ramp = torch.arange(96.0).expand(1, 3, 64, 96)
        for own in (4, 12):
            net = nn.Sequential(nn.AvgPool2d(own, ceil_mode=True))
            level = {"a": Level("0", Fraction(own), Fraction(8))}
            maps = LevelNetwork(net, Geometry(Fraction(1), own, 0), level)(ramp)["a"]
            assert maps.shape == (1, 3, 8, 12)
            torch.testing.assert_close(maps[0, 0, 0, 1:-1], torch.arange(11.5, 90, 8)[:10])

    def test_resizing_is_that_of_the_aligners_where_areas_are_equal(self):
        images = torch.rand(2, 3, 64, 96)
        net = nn.Sequential(nn.AvgPool2d(16))
        level = {"a": Level("0", Fraction(16), Fraction(8))}
        maps = LevelNetwork(net, Geometry(Fraction(1), 1, 0), level)(images)["a"]
        torch.testing.assert_close(maps, resize_maps(net(images), (8, 12)))

    def test_scaled_images_cover_the_same_area(self):
        images = torch.rand(1, 3, 90, 70)
        for geometry in (Geometry(Fraction(7, 8), 14, 0), Geometry(Fraction(1), 1, 224)):
            fitted, factor = geometry.fit(images)
            seen = (Fraction(side) / factor for side in fitted.shape[2:])
            assert all(side >= own for side, own in zip(seen, (90, 70), strict=True))
            assert fitted.shape[2] % 14 == fitted.shape[3] % 14 == 0

    def test_a_layer_that_works_in_place_does_not_change_a_map(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))
        level = {n: Level(n, Fraction(4), Fraction(4)) for n in ("0", "2")}
        images = torch.rand(1, 3, 16, 16)
        maps = LevelNetwork(net, Geometry(Fraction(1), 1, 0), level)(images)
        torch.testing.assert_close(maps["0"], net[0](images))

    def test_the_nearest_map_is_taken_if_it_may_be_resized(self):
        strides, teacher = {"s": Fraction(64), "q": Fraction(4)}, {"a": Fraction(16)}
        assert pair(["s", "q"], strides, teacher, "x", resize=True) == [("a", 64), ("a", 4)]


@dataclass
class Refused:
    node: dict
    term: dict
    message: str
    options: tuple = ()


PATH = {"MAPS": ["stages.1"]}
REFUSED = {
    "both": Refused(VIT | {"CONFIG": "teacher.yaml"}, {}, "CONFIG .* and NETWORK 'timm:test_vit'"),
    "no weights": Refused({"NETWORK": "timm:test_vit"}, {}, "WEIGHTS is empty: set a file"),
    "missing file": Refused(VIT | {"WEIGHTS": "no.pth"}, {}, "KD.TEACHER.WEIGHTS: no weights file"),
    "python": Refused(VIT | {"NETWORK": "os.system"}, {}, "is Python's own"),
    "scheme": Refused(VIT | {"NETWORK": "tim:x"}, {}, "begins with 'tim'"),
    "hub": Refused(VIT | {"NETWORK": "hf-hub:a/b"}, {}, "may be a file or an address"),
    "a path": Refused(VIT | {"ARGS": {"checkpoint_path": "x.pth"}}, {}, "may be a file"),
    "no network": Refused({"CONFIG": "t.yaml", "WEIGHTS": "random"} | PATH, {}, "MAPS is for KD"),
    "opts": Refused(VIT | {"OPTS": ["SEED", 1]}, {}, "OPTS is for a teacher of Detectron2"),
    "inherit": Refused(VIT, {}, "KD.INHERIT", ("KD.INHERIT", "['head.']")),
    "logits": Refused(VIT, {"TEACHER": ["@roi_logits"]}, "heads of KD.TEACHER.NETWORK cannot"),
    "masks": Refused(VIT, {"TEACHER": ["@mask_logits"]}, "heads of KD.TEACHER.NETWORK cannot"),
    "objectness": Refused(VIT, {"TEACHER": ["@rpn_logits[0]"]}, "heads of KD.TEACHER.NETWORK"),
    "a path tapped": Refused(VIT, {"TEACHER": ["norm"]}, r"MAPS \['norm'\]"),
    "module": Refused(CONVNEXT | {"MAPS": ["stages.9"]}, {}, "no module 'stages.9'"),
    "no map": Refused(CONVNEXT | {"MAPS": ["head.fc"]}, {}, "'head.fc' gives no map"),
    "no maps": Refused(
        {"NETWORK": "torchvision.models.resnet18", "WEIGHTS": "random"}, {}, "'layer1', 'layer2'"
    ),
    "unknown images": Refused(pools([16]) | {"INPUT": {}}, {}, "RANGE.*does not say which images"),
    "units": Refused(VIT | {"INPUT": {"PIXEL_MEAN": [123.0] * 3}}, {}, "from 0 to 1 .*one unit"),
    "no number": Refused(VIT | {"INPUT": {"PIXEL_STD": [float("nan")] * 3}}, {}, "three finite"),
    "whole numbers": Refused(pools([16], "whole"), {}, r"gives no map that grows.*\(no maps for"),
    "one size": Refused(
        pools([16]) | {"INPUT": PIXELS | {"SIZE": 100}, "RESIZE_MAPS": True},
        {},
        r"divides INPUT.SIZE .*\(7, 7\).*\[100\]",
    ),
    "order": Refused(VIT | {"INPUT": {"FORMAT": "GBR"}}, {}, "'GBR'; wanted RGB or BGR"),
    "ratio": Refused(VIT | {"INPUT": {"RESIZE": 0.8712}}, {}, "RESIZE is 0.8712; wanted a simple"),
    "student": Refused(VIT, {"STUDENT": ["@roi_logits"]}, "gives no map of a stride"),
    "timm's name": Refused(VIT | {"NETWORK": "timm:convnext_tinny"}, {}, "mean.*'convnext_tiny'"),
    "out_indices": Refused(VIT | {"ARGS": {"out_indices": 3}}, {}, "wanted a list of numbers"),
    "level": Refused(CONVNEXT | {"ARGS": {"out_indices": [7]}}, {}, "there are 4 levels"),
    "taps": Refused(CONVNEXT | {"MAPS": [3]}, {}, r"MAPS is \[3\]"),
    "argument": Refused(VIT | {"ARGS": {"type": "x"}}, {}, "write the import path as"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_suit_is_refused(case, taught):
    refused = REFUSED[case]
    with pytest.raises(UserError, match=refused.message):
        taught(refused.node, {"fitnet": FITNET | refused.term}, refused.options)
