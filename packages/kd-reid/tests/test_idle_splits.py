"""What says how a set is to be split has an effect, or is refused."""

import pytest
from kd_core.errors import UserError
from kd_reid.data import merged, people
from PIL import Image

OPTIONS = {"image_size": (8, 4), "batch_size": 2}


def furnish(root, *folders):
    """Images of two people by two cameras in each folder."""
    for number, folder in enumerate(folders):
        for person in range(2):
            name = f"{10 * number + person + 1:04}"
            for camera in (1, 2):
                place = root / folder / name / f"cam{camera}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                pixels = (number, person, camera)
                Image.new("RGB", (4, 8), pixels).save(place)
    return str(root)


@pytest.fixture
def parts(tmp_path):
    return furnish(tmp_path / "parts", "train", "test")


@pytest.fixture
def plain(tmp_path):
    return furnish(tmp_path / "plain", "")


@pytest.mark.parametrize(
    "option", [{"train_fraction": 0.5}, {"split_seed": 0}, {"train_fraction": 0.3, "split_seed": 1}]
)
def test_a_share_or_seed_for_a_set_with_parts_is_refused_even_at_its_usual_value(parts, option):
    name = next(iter(option))
    with pytest.raises(UserError, match=rf"^data\.{name}|^{name}: .*is split already \(parts"):
        people(parts, camera=r"cam(\d)", **OPTIONS, **option)
    assert people(parts, camera=r"cam(\d)", **OPTIONS).num_classes == 2


def test_a_share_of_a_merged_set_is_refused_unless_it_divides_the_searched_set(parts, plain):
    more = {"camera": r"cam(\d)", **OPTIONS, "train_fraction": 0.5}
    with pytest.raises(UserError, match=r"train_fraction: .*plain is not one of data\.sources"):
        merged([parts], plain, **more)
    with pytest.raises(UserError, match=r"train_fraction: .*is split already"):
        merged([parts], parts, **more)
