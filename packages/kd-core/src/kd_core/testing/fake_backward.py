"""The backward pass by hand: the derivative of every operator, without autograd's engine."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

Gradients = dict[int, Tensor | None]


def backward(
    self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None
) -> None:
    """Add to the `grad` of all leaves, as `Tensor.backward` does."""
    for leaf, found in _leaves(self, gradient).values():
        with torch.no_grad():
            leaf.grad = found if leaf.grad is None else leaf.grad + found


def grad(
    outputs: Tensor,
    inputs: Sequence[Tensor],
    grad_outputs: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of leaves, as `torch.autograd.grad` does."""
    found = _leaves(outputs, grad_outputs)
    return tuple(found[id(leaf)][1] if id(leaf) in found else None for leaf in inputs)


def _leaves(output: Tensor, gradient: Tensor | None) -> dict[int, tuple[Tensor, Tensor]]:
    """Return every leaf that gets a gradient, with it, by the leaf's id."""
    root = output.grad_fn
    if root is None:
        raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
    leaves: dict[int, tuple[Tensor, Tensor]] = {}
    waiting = _consumers(root)
    first = torch.ones_like(output) if gradient is None else gradient
    arrived: dict[Any, Gradients] = {root: {output.output_nr: first}}
    ready = [root]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            found = _run(node, arrived.pop(node, {}), leaves)
            for (after, place), value in zip(node.next_functions, found, strict=False):
                if after is None:
                    continue
                value = _fitted(value, after._input_metadata[place])
                _add(arrived.setdefault(after, {}), place, value)
                waiting[after] -= 1
                if not waiting[after]:
                    ready.append(after)
    return leaves


def _consumers(root: Any) -> dict[Any, int]:
    """Return how many gradients every operator of the graph waits for."""
    counts: dict[Any, int] = {root: 0}
    rest = [root]
    while rest:
        for after, _ in rest.pop().next_functions:
            if after is None:
                continue
            if after not in counts:
                counts[after] = 0
                rest.append(after)
            counts[after] += 1
    return counts


def _run(
    node: Any, gradients: Gradients, leaves: dict[int, tuple[Tensor, Tensor]]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of an operator's inputs; keep that of a leaf."""
    variable = getattr(node, "variable", None)
    if variable is not None:
        if (value := gradients.get(0)) is not None:
            leaves[id(variable)] = variable, value
        return ()
    if not any(value is not None for value in gradients.values()):
        return (None,) * len(node.next_functions)
    outputs = node._input_metadata
    values = [gradients.get(place) for place in range(len(outputs))]
    if isinstance(node, BackwardCFunction):  # a user's function gets zeros for outputs not used
        pairs = zip(values, outputs, strict=True)
        values = [_zeros(meta) if value is None else value for value, meta in pairs]
        run = node.apply
    else:
        run = node
    found = run(*values)
    return found if isinstance(found, tuple) else (found,)


def _zeros(like: Any) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device)


def _fitted(value: Tensor | None, wanted: Any) -> Tensor | None:
    """Return a gradient in shape and type of what it is the gradient of, as the engine does."""
    if value is None:
        return None
    if value.shape != wanted.shape:
        value = value.sum_to_size(wanted.shape)
    return value.to(wanted.dtype)


def _add(gradients: Gradients, place: int, value: Tensor | None) -> None:
    before = gradients.get(place)
    gradients[place] = value if before is None else before if value is None else before + value
