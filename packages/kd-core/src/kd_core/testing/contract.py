"""The rules of every criterion: functions of its class that raise if the rule is broken."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from kd_core.criteria.criterion import Criterion
from kd_core.distill.weighing import shape_problem
from kd_core.functional import tensors
from kd_core.testing.checks import (
    is_finite,
    make_seeded,
    moved,
    require,
    require_finite,
    value_of,
)
from kd_core.testing.constructors import (
    arguments_are_documented,
    class_and_function_share_their_defaults,
)
from kd_core.testing.extremes import (
    empty_batch_is_finite,
    one_class_is_finite,
    single_sample_is_finite,
    survives_extreme_logits,
)
from kd_core.testing.samples import map_tensors, sample
from kd_core.training.host_reads import NoHostReads

Class = type[Criterion]


def check_contract(cls: Class, **overrides: Any) -> None:
    """Check that a criterion keeps every rule, except those in its `exempt`.

    Args:
        cls: The class, of this package or any other.
        overrides: Constructor arguments, as for `kd_core.testing.make`.

    Raises:
        AssertionError: With a note that names the rule.
    """
    for rule in RULES:
        if rule.__name__ in cls.exempt:
            continue
        try:
            rule(cls, **overrides)
        except SkipTest:
            continue
        except Exception as error:
            error.add_note(f"{cls.__name__} breaks the rule {rule.__name__}")
            raise


def loss_is_a_scalar(cls: Class, **overrides: Any) -> None:
    """The loss of a batch is one number, its mean over the images."""
    problem = shape_problem(value_of(make_seeded(cls, overrides), sample(cls, **overrides)))
    require(not problem, f"{cls.__name__} {problem}")


def gradient_reaches_the_student_only(cls: Class, **overrides: Any) -> None:
    """Every tensor of the student gets a gradient, none of the teacher does."""
    student, teacher, batch = sample(cls, **overrides)
    make_seeded(cls, overrides)(student, teacher, batch).backward()
    for leaf in tensors(student):
        require(leaf.grad is not None and bool(leaf.grad.any()), "no gradient in the student")
    for leaf in tensors(teacher):
        require(leaf.grad is None, "a gradient in the teacher; detach it")


def adapters_receive_gradient(cls: Class, **overrides: Any) -> None:
    """Every parameter of the criterion that is not frozen is trained by its loss."""
    criterion = make_seeded(cls, overrides)
    generator = torch.Generator().manual_seed(0)
    for parameter in criterion.parameters():  # so that a zero initialisation hides nothing
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    criterion(*sample(cls, **overrides)).backward()
    for name, parameter in criterion.named_parameters():
        if not parameter.requires_grad:  # trained by an earlier phase
            continue
        gradient = parameter.grad
        require(gradient is not None and is_finite(gradient), f"no finite gradient in {name}")
        # It is rightly zero for a bias in front of a BatchNorm.
        zero = gradient is not None and not gradient.any()
        require(parameter.ndim < 2 or not zero, f"a zero gradient in {name}")


def zero_at_identity(cls: Class, **overrides: Any) -> None:
    """Equal student and teacher give 0, and finite gradients."""
    student, _, batch = sample(cls, dtype=torch.float64, **overrides)
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(student))
    overrides |= {"student_shapes": shapes, "teacher_shapes": shapes}
    loss = make_seeded(cls, overrides).double()(student, map_tensors(Tensor.clone, student), batch)
    require(abs(loss.item()) < 1e-6, f"{loss.item()} for equal student and teacher")
    require_finite(loss, student)


def order_of_the_batch_does_not_matter(cls: Class, **overrides: Any) -> None:
    """The samples of a batch may come in any order."""
    inputs = sample(cls, dtype=torch.float64, **overrides)
    turned = map_tensors(lambda tensor: _roll(tensor, cls.views), inputs)
    values = [value_of(make_seeded(cls, overrides).double(), given) for given in (inputs, turned)]
    torch.testing.assert_close(*values)


def nan_is_not_hidden(cls: Class, **overrides: Any) -> None:
    """A NaN anywhere in the student's output gives NaN, so that the trainer can stop."""
    inputs = sample(cls, **overrides)
    for leaf in tensors(inputs[0]):
        values = leaf.detach().view(-1)
        for place in (0, -1):
            kept, values[place] = values[place].clone(), torch.nan
            loss = value_of(make_seeded(cls, overrides), inputs)
            values[place] = kept
            require(bool(loss.isnan()), f"{loss.item()} with a NaN in the student")


def result_has_the_precision_of_the_input(cls: Class, **overrides: Any) -> None:
    """Float32 and float64 stay what they are, and agree."""
    values = []
    for dtype in (torch.float32, torch.float64):
        value = value_of(
            make_seeded(cls, overrides).to(dtype), sample(cls, dtype=dtype, **overrides)
        )
        require(value.dtype == dtype, f"{value.dtype} from {dtype}")
        values.append(value.double())
    torch.testing.assert_close(*values, rtol=1e-3, atol=1e-5)


def autocast_loses_nothing(cls: Class, **overrides: Any) -> None:
    """Low-precision inputs under autocast give the float32 result of the same numbers."""
    inputs = sample(cls, dtype=torch.bfloat16, **overrides)
    wide = map_tensors(lambda x: x.float() if x.is_floating_point() else x, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        value = value_of(make_seeded(cls, overrides), inputs)
    require(value.dtype == torch.float32, f"{value.dtype} under autocast")
    torch.testing.assert_close(value, value_of(make_seeded(cls, overrides), wide))


def inputs_are_unchanged(cls: Class, **overrides: Any) -> None:
    """Neither the networks' outputs nor the batch are written to."""
    given = map_tensors(Tensor.detach, sample(cls, **overrides))
    before = map_tensors(Tensor.clone, given)
    value_of(make_seeded(cls, overrides), given)
    for now, then in zip(tensors(given), tensors(before), strict=True):
        require(bool((now == then).all()), "an input was written to")


def state_dict_keeps_the_value(cls: Class, **overrides: Any) -> None:
    """Everything that the loss depends on, besides arguments, is in the state dict."""
    inputs = sample(cls, **overrides)
    first, second = make_seeded(cls, overrides), make_seeded(cls, overrides, seed=1)
    value_of(first, inputs)  # moves the buffers
    second.load_state_dict(first.state_dict())
    for training in (True, False):
        values = [value_of(criterion.train(training), inputs) for criterion in (first, second)]
        torch.testing.assert_close(*values)


def two_calls_agree(cls: Class, **overrides: Any) -> None:
    """The same input gives the same value again: no randomness, no memory."""
    criterion, inputs = make_seeded(cls, overrides), sample(cls, **overrides)
    torch.testing.assert_close(criterion(*inputs), criterion(*inputs))


def nothing_is_read_back(cls: Class, **overrides: Any) -> None:
    """Neither forward nor backward reads a value on the host: the step can be captured."""
    criterion, inputs = make_seeded(cls, overrides), sample(cls, **overrides)
    with NoHostReads():
        criterion(*inputs).backward()


def stays_on_the_gpu(cls: Class, **overrides: Any) -> None:
    """On a GPU nothing is left on the host, read by it or copied from it; see `FakeCuda`."""
    from kd_core.testing.fake_cuda import FakeCuda  # it imports torch's compiler, for seconds

    reads = "nothing_is_read_back" in cls.exempt
    with FakeCuda() as cuda:
        allowed: AbstractContextManager[None] = cuda.waiting() if reads else nullcontext()
        with cuda.waiting():
            criterion = moved(make_seeded(cls, overrides), "cuda")
            inputs = sample(cls, dtype=torch.bfloat16, device="cuda", **overrides)
        with allowed, torch.autocast("cuda", torch.bfloat16):
            loss = criterion(*inputs)
            loss.backward()
    require(loss.device.type == "cuda", f"a loss on {loss.device}")


def cuda_agrees_with_cpu(cls: Class, **overrides: Any) -> None:
    """The value does not depend on the device; skipped where there is no GPU."""
    if not torch.cuda.is_available():
        raise SkipTest("no CUDA device")
    values = [
        value_of(
            moved(make_seeded(cls, overrides).double(), device),
            sample(cls, dtype=torch.float64, device=device, **overrides),
        )
        for device in ("cpu", "cuda")
    ]
    require(values[1].device.type == "cuda", f"a result on {values[1].device}")
    torch.testing.assert_close(values[0], values[1].cpu())


def exemptions_have_a_rule_and_a_reason(cls: Class, **overrides: Any) -> None:
    """`exempt` names rules that exist."""
    names = {rule.__name__ for rule in RULES}
    for name, reason in cls.exempt.items():
        require(name in names and bool(reason), f"exemption {name!r} lacks a rule or a reason")


RULES: tuple[Callable[..., None], ...] = (
    loss_is_a_scalar,
    gradient_reaches_the_student_only,
    adapters_receive_gradient,
    zero_at_identity,
    order_of_the_batch_does_not_matter,
    empty_batch_is_finite,
    single_sample_is_finite,
    one_class_is_finite,
    survives_extreme_logits,
    nan_is_not_hidden,
    result_has_the_precision_of_the_input,
    autocast_loses_nothing,
    inputs_are_unchanged,
    state_dict_keeps_the_value,
    two_calls_agree,
    nothing_is_read_back,
    stays_on_the_gpu,
    cuda_agrees_with_cpu,
    arguments_are_documented,
    class_and_function_share_their_defaults,
    exemptions_have_a_rule_and_a_reason,
)


def _roll(tensor: Tensor, views: int) -> Tensor:
    """Put the last sample first, in every view."""
    return tensor.unflatten(0, (views, -1)).roll(1, 1).flatten(0, 1) if tensor.dim() else tensor
