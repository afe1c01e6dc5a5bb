"""What NoHostReads refuses and what it lets pass."""

import pytest
import torch
from kd_core.testing import HostReadError, NoHostReads


def masked_assignment(x):
    x = x.clone()
    x[x == x] = x.flatten().clone()  # with a scalar, torch 2.15 fills without looking


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: 1 if x.sum() > 0 else 0,
        lambda x: x[: x.sum().long()],
        lambda x: x[x > 0],
        masked_assignment,
        lambda x: x.nonzero(),
        lambda x: torch.where(x > 0),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x.unique_consecutive(),
        lambda x: torch.equal(x, x),
        lambda x: torch.allclose(x, x),
        lambda x: x.long().clamp(min=0).flatten().bincount(),
        lambda x: torch.repeat_interleave(x.long().clamp(min=0).flatten()),
        lambda x: torch.multinomial(x.abs(), 2),
        lambda x: torch.linalg.inv(x),
        lambda x: torch.linalg.svd(x),
        lambda x: torch.linalg.eigh(x),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
    ],
)
def test_host_reads_and_shapes_that_depend_on_data_are_refused(read):
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    read(x)
    with pytest.raises(HostReadError), NoHostReads():
        read(x)


def test_the_operator_and_what_to_write_instead_are_named():
    x = torch.randn(4)
    message = r"aten.index with a boolean index.*masked_fill"
    with pytest.raises(HostReadError, match=message), NoHostReads():
        x[x > 0]


def test_a_read_in_the_backward_pass_is_refused():
    class Reads(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2 if grad.sum() > 0 else grad

    loss = Reads.apply(torch.ones(2, requires_grad=True)).sum()
    with pytest.raises(HostReadError, match="_local_scalar_dense"), NoHostReads():
        loss.backward()


def test_masks_and_computed_indices_pass_and_the_mode_ends_with_the_with():
    x = torch.randn(4, 4, requires_grad=True)
    with NoHostReads():
        kept = x.masked_fill(x > 0, 0.0)[x.argmax(1)] + torch.where(x > 0, x, 0.0)
        torch.linalg.inv_ex(x.detach())
        torch.repeat_interleave(x, 2, dim=0)
        torch.repeat_interleave(x, torch.ones(4, dtype=torch.int64), dim=0, output_size=4)
        kept.sum().backward()
    assert len(x.tolist()) == 4
    assert x.sum().item() is not None
