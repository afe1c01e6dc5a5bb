"""A transformer at another size than its weights were trained at gives what its library gives."""

import pytest
import timm
import torch
from kd_cls.data import synthetic
from kd_cls.libraries.positions import with_positions
from kd_cls.networks import build_classifier
from kd_core.errors import UserError
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

NAMES = {
    "vit_tiny_patch16_224": {"embed_dim": 24, "depth": 1, "num_heads": 3},
    "vit_small_patch14_reg4_dinov2": {"embed_dim": 24, "depth": 1, "num_heads": 3},
    "swin_tiny_patch4_window7_224": {
        **{"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    },
}
SIDES = {"vit_small_patch14_reg4_dinov2": (140, 70)}  # patches of 14 pixels
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def data():
    return synthetic(image_size=32, num_classes=3, num_train=4, num_test=4, batch_size=4)


def sides_of(name):
    return SIDES.get(name, (224, 96))


def teacher_of(data, name, file, side, **arguments):
    network = {"type": "timm.create_model", "model_name": name, **NAMES[name], **arguments}
    node = {"weights": str(file), "size": side, "mean": MEAN, "std": STD, "classes": data.classes}
    return build_classifier(data, "teacher", network=network, **node).eval()


@pytest.fixture(scope="module", params=NAMES)
def trained(request, tmp_path_factory):
    """Return a network's name and the file of its weights, at their size."""
    torch.manual_seed(0)
    side, _ = sides_of(request.param)
    made = timm.create_model(request.param, img_size=side, num_classes=3, **NAMES[request.param])
    for name, value in made.named_parameters():
        if "pos" in name:
            nn.init.normal_(value)
    file = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    state = {name: value.contiguous() for name, value in made.state_dict().items()}
    save_file(state, file)
    return request.param, file


def prepared(images, side):
    floats = images.float() / 255
    resized = nn.functional.interpolate(floats, (side, side), mode="bilinear", antialias=True)
    return (resized - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_a_teacher_built_for_another_size_gives_exactly_what_timm_gives(data, trained, capsys):
    name, file = trained
    _, side = sides_of(name)
    batch = data.train.sample(2)
    found = teacher_of(data, name, file, side, img_size=side)(batch)
    told = capsys.readouterr().err
    reference = timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file), "num_classes": 3},
        img_size=side,
        num_classes=3,
        **NAMES[name],
    ).eval()
    with torch.no_grad():
        expected = reference(prepared(batch["image"], side))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert "positions of another image size are interpolated" in told


def test_so_does_one_whose_size_is_dynamic(data, trained):
    name, file = trained
    if not name.startswith("vit"):
        pytest.skip("this network has another way")
    old, side = sides_of(name)
    arguments = {"img_size": old, "dynamic_img_size": True}
    batch = data.train.sample(2)
    found = teacher_of(data, name, file, side, **arguments)(batch)
    reference = timm.create_model(name, num_classes=3, **NAMES[name], **arguments).eval()
    timm.models.load_checkpoint(reference, str(file))
    with torch.no_grad():
        expected = reference(prepared(batch["image"], side))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_torchvision_s_positions_are_interpolated_by_torchvision(capsys):
    sizes = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 16}
    old, new = (VisionTransformer(side, num_classes=3, **sizes) for side in (64, 32))
    nn.init.normal_(old.encoder.pos_embedding)
    state = with_positions(new, dict(old.state_dict()))
    new.load_state_dict(state)
    expected = interpolate_embeddings(32, 8, dict(old.state_dict()))
    assert torch.equal(new.encoder.pos_embedding, expected["encoder.pos_embedding"])
    assert "[1, 65, 16] to [1, 17, 16]" in capsys.readouterr().err


@pytest.mark.parametrize("changed", [{"patch_size": 32}, {"embed_dim": 12}, {"reg_tokens": 2}])
def test_weights_that_differ_in_more_than_positions_are_refused_as_before(data, tmp_path, changed):
    name = "vit_tiny_patch16_224"
    made = timm.create_model(name, img_size=64, num_classes=3, **NAMES[name] | changed)
    save_file(made.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="does not fit VisionTransformer"):
        teacher_of(data, name, tmp_path / "w.safetensors", 96, img_size=96)


def test_networks_of_no_library_are_left_alone():
    network = nn.ParameterDict({"pos_embed": torch.zeros(1, 4, 2)})
    state = {"pos_embed": torch.zeros(1, 9, 2)}
    assert with_positions(network, state) is state
