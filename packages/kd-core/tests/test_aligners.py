import pytest
import torch
from kd_core.criteria.aligners import resize_maps, resize_tokens
from kd_core.errors import UserError


def test_maps_are_resized_between_the_centres_of_their_pixels():
    maps = torch.tensor([[[[0.0, 4.0]]]])
    assert resize_maps(maps, (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    assert resize_maps(maps, (1, 2)) is maps


def test_tokens_are_resized_as_the_map_that_they_are():
    tokens = torch.randn(2, 9, 5)
    maps = tokens.transpose(1, 2).reshape(2, 5, 3, 3)
    expected = resize_maps(maps, (4, 4)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(resize_tokens(tokens, 16), expected)
    assert resize_tokens(tokens, 9) is tokens


@pytest.mark.parametrize(("length", "count"), [(10, 9), (9, 10), (197, 196)])
def test_tokens_that_are_not_a_square_are_not_resized(length, count):
    with pytest.raises(UserError, match=rf"{length} tokens.* {count}.*@tokens"):
        resize_tokens(torch.zeros(1, length, 2), count)
