"""What FakeCuda refuses and what it lets pass; its backward pass is that of autograd."""

from unittest import SkipTest

import pytest
import torch
from kd_core.testing import HostReadError, fake_backward
from kd_core.testing.fake_cuda import FakeCuda, WrongDeviceError
from kd_core.training.optimizer import build_optimizer
from torch import nn

HOST = torch.arange(16.0).view(4, 4)
WEIGHT = nn.Parameter(torch.ones(4, 4))


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "code",
    [
        lambda x: x + HOST,
        lambda x: x @ HOST,
        lambda x: x @ WEIGHT,
        lambda x: torch.where(x > 0, x, HOST),
        lambda x: torch.cat([x, HOST]),
        lambda x: torch.stack([x.sum(), HOST.sum()]),
        lambda x: torch.rand(3, device="cuda", generator=generator()),
    ],
)
def test_tensors_of_two_devices_are_refused(code):
    with FakeCuda(), pytest.raises(WrongDeviceError):
        code(torch.ones(4, 4, device="cuda"))


@pytest.mark.parametrize(
    "code",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0, 0]),
        lambda x: 1 if x.sum() > 0 else 0,
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: torch.zeros(4, 4).copy_(x),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
        lambda x: x.multinomial(2),
        lambda x: torch.linalg.inv(x),
    ],
)
def test_host_reads_and_shapes_that_depend_on_data_are_refused(code):
    with FakeCuda(), pytest.raises(HostReadError):
        code(torch.ones(4, 4, device="cuda"))


@pytest.mark.parametrize(
    "code",
    [
        lambda x: HOST.to("cuda"),
        lambda x: torch.tensor(2.0, device="cuda"),
        lambda x: x.new_tensor([2.0]),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x.copy_(HOST),
    ],
)
def test_copies_from_the_host_are_refused_if_it_waits_for_them(code):
    with FakeCuda() as cuda:
        x = torch.ones(4, 4, device="cuda")
        with pytest.raises(HostReadError, match="from the host"):
            code(x)
        with cuda.waiting():
            assert code(x).device.type == "cuda"


def test_what_steps_do_passes_and_the_host_computes():
    with FakeCuda():
        x = torch.randn(4, 4, device="cuda")
        found = [
            x + torch.tensor(2.0),
            torch.full((), 2.0, device="cuda"),
            torch.arange(3, device="cuda"),
            torch.rand_like(x),
            HOST.to("cuda", non_blocking=True) @ x,
            x.masked_fill(x > 0, 0.0)[x.argmax(1)],
        ]
        assert {value.device.type for value in found} == {"cuda"}
        assert HOST.sum().item() == 120
        assert len(HOST[HOST > 0]) == 15
        with torch.autocast("cuda", torch.bfloat16):
            assert (x @ x).dtype == torch.bfloat16
    assert HOST.device.type == "cpu"


@pytest.mark.parametrize("rate", [0.1, 0.001])
def test_before_the_first_step_a_rate_is_known_and_all_else_is_one(rate):
    node = {"type": "torch.optim.AdamW", "lr": rate}
    with FakeCuda() as cuda, cuda.waiting():
        (group,) = build_optimizer(node, nn.Linear(2, 2).to("cuda")).param_groups
        assert group["lr"].device.type == "cuda"
        assert group["lr"].item() == pytest.approx(rate)
        assert torch.zeros(2, device="cuda").tolist() == [1, 1]
        assert torch.zeros(2, device="cuda").cpu().sum() == 2


class Twice(torch.autograd.Function):
    """Has two outputs, of which only one is used."""

    @staticmethod
    def forward(ctx, x):
        return x * 2, x * 3

    @staticmethod
    def backward(ctx, grad, other):
        return 2 * grad + 3 * other


def test_its_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(4 * 36, 5))
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    first, second = network(x).chunk(2)
    loss = Twice.apply(first * second.exp())[0].logsumexp(1).mean() + (first[:, :1] * second).sum()
    leaves = [x, *network.parameters(), torch.ones(2, requires_grad=True)]
    wanted = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    found = fake_backward.grad(loss, leaves, allow_unused=True)
    assert found[-1] is wanted[-1] is None
    torch.testing.assert_close(found[:-1], wanted[:-1])
    for _ in range(2):
        fake_backward.backward(loss)
    torch.testing.assert_close(x.grad, 2 * wanted[0])


def test_a_loss_without_a_graph_has_no_gradient():
    with pytest.raises(RuntimeError, match="does not require grad"):
        fake_backward.backward(torch.ones(()))


def test_a_torch_that_cannot_do_without_the_driver_is_skipped(monkeypatch):
    monkeypatch.delattr("torch._C._ensureCUDADeviceGuardSet")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SkipTest, match="needs a GPU"), FakeCuda():
        pass
