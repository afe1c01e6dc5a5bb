"""Rows that come between large tensors: joined as they came, in few pieces."""

import pytest
import torch
from kd_reid.metrics.growing import Growing


@pytest.mark.parametrize("shape", [(), (3,)])
def test_rows_are_joined_as_they_came(shape):
    parts = [torch.rand(count, *shape) for count in (2, 0, 5000, 1, 9000, 3)]
    growing = Growing()
    for part in parts:
        growing.add(part)
    assert torch.equal(growing.joined(), torch.cat(parts))


def test_no_row_is_kept_in_the_tensor_that_it_came_in():
    growing = Growing()
    part = torch.ones(4)
    growing.add(part)
    part.zero_()
    assert growing.joined().tolist() == [1.0] * 4


def test_many_small_parts_take_few_pieces():
    growing = Growing()
    for number in range(100_000 // 50):
        growing.add(torch.full((50,), number))
    assert len(growing._full) < 10
    assert torch.equal(growing.joined(), torch.arange(2000).repeat_interleave(50))


def test_nothing_cannot_be_joined():
    with pytest.raises(ValueError, match="nothing was added"):
        Growing().joined()
