"""A finished embedder reads a user's images right, or says in one line what is wrong."""

import pytest
import torch
from kd_core.errors import UserError
from kd_reid.embedder import Embedder
from kd_reid.images import check_images, refuse_others
from kd_reid.models import build_model


@pytest.fixture(scope="module")
def embedder():
    found = Embedder(build_model("osnet_tiny", 3), size=(32, 16)).eval()
    refuse_others(found)
    return found


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(2, 32, 16, 3), r"channels are last: images.permute\(0, 3, 1, 2\)"),
        (torch.zeros(2, 32, 16, 4), "channels are last"),
        (torch.zeros(2, 4, 32, 16), r"images\[:, :3\]"),
        (torch.zeros(2, 5, 32, 16), r"\[2, 5, 32, 16\]; wanted"),
        (torch.zeros(3, 32, 16), r"images\[None\]"),
        (torch.zeros(2, 3, 0, 16), "there are none"),
        (torch.zeros(0, 3, 32, 16, dtype=torch.uint8), "there are none"),
        (torch.full((2, 3, 32, 16), 200.0), "divide them by 255"),
        (torch.full((2, 3, 32, 16), -2.0), "normalised already"),
        ([[1]], "list"),
    ],
)
def test_other_images_are_refused_in_one_line(images, text, embedder):
    with pytest.raises(UserError, match=text) as error:
        embedder({"image": images})
    assert "\n" not in str(error.value)


def test_bytes_floats_and_grey_images_are_the_same(embedder):
    grey = torch.randint(0, 256, (2, 1, 32, 16), dtype=torch.uint8)
    kinds = grey.expand(-1, 3, -1, -1), grey / 255, grey
    with torch.no_grad():
        first, *others = (embedder({"image": images}).embedding for images in kinds)
    for other in others:
        torch.testing.assert_close(other, first)


def test_plain_images_pass():
    check_images(torch.rand(1, 3, 8, 8))
