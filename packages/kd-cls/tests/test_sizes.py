"""Images of a size that a network cannot take: one line says which it was made for."""

import pytest
from kd_cls.data import synthetic
from kd_cls.networks import build_classifier, check_logits
from kd_core.errors import UserError

TIMM = "timm.create_model"
VIT = {
    **{"type": TIMM, "model_name": "vit_tiny_patch16_224"},
    **{"depth": 1, "embed_dim": 24, "num_heads": 3},
}
TOO_SMALL = {
    "a ViT of timm": (VIT, 224, "img_size"),
    "its size set": ({**VIT, "img_size": 64}, 64, "img_size"),
    "Inception of timm": ({"type": TIMM, "model_name": "inception_v3"}, 299, None),
    "a ViT of torchvision": (
        {
            "type": "torchvision.models.VisionTransformer",
            **{"image_size": 64, "patch_size": 16, "num_layers": 1, "num_heads": 1},
            **{"hidden_dim": 8, "mlp_dim": 8},
        },
        64,
        "image_size",
    ),
    "Inception of torchvision": (
        {"type": "torchvision.models.inception_v3", "init_weights": False},
        299,
        None,
    ),
}


@pytest.fixture(scope="module")
def data():
    return synthetic(image_size=32, num_classes=7, num_train=4, num_test=4, batch_size=4)


@pytest.mark.parametrize("kind", TOO_SMALL)
def test_the_size_it_was_made_for_is_told_and_both_ways_on(data, kind):
    network, side, argument = TOO_SMALL[kind]
    student = build_classifier(data, "student", network=network)
    with pytest.raises(UserError, match=f"set size={side} of its node") as told:
        check_logits(student, data.train.sample(2), data, "student")
    assert ("network.img_size=" in str(told.value)) == (argument == "img_size")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("node", [{"size": 64}, {"img_size": 32}, {"dynamic_img_size": True}])
def test_each_way_on_works(data, node):
    size = {key: node[key] for key in node if key == "size"}
    others = {key: node[key] for key in node if key != "size"}
    network = {**VIT, "img_size": 64, **others}
    student = build_classifier(data, "student", network=network, **size)
    check_logits(student, data.train.sample(2), data, "student")


@pytest.mark.parametrize("kind", ["a ViT of timm", "a ViT of torchvision"])
def test_a_head_that_must_be_looked_for_is_told_of_the_size_too(data, kind):
    network, side, _ = TOO_SMALL[kind]

    def build():
        student = build_classifier(data, "student", network=network, new_head=True)
        check_logits(student, data.train.sample(2), data, "student")

    with pytest.raises(UserError, match=f"size={side}"):
        build()
