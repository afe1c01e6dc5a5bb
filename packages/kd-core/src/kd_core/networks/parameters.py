"""Parameters of a network: the names that users know, its blocks, how deep each lies."""

from collections.abc import Iterator, Sequence

from torch import nn

from kd_core.networks.task import Task


def names_of(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Return the names of all parameters as users know them, without a task's `network`."""
    wrappers = [
        f"{name}." if name else ""
        for name, module in model.named_modules()
        if isinstance(module, Task)
    ]
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        for wrapper in wrappers:
            if name.startswith(f"{wrapper}network."):
                name = wrapper + name.removeprefix(f"{wrapper}network.")
        names.setdefault(parameter, []).append(name)
    return names


def blocks_of(network: nn.Module) -> list[str]:
    """Return the names of a network's blocks, in its order.

    They are the outermost modules with parts of their own in an `nn.Sequential` or `nn.ModuleList`.
    """
    blocks: list[str] = []
    for name, module in network.named_modules():
        parent = network.get_submodule(name.rpartition(".")[0])
        inside = name.startswith(tuple(f"{block}." for block in blocks))
        in_a_row = bool(name) and isinstance(parent, nn.Sequential | nn.ModuleList)
        has_parts = any(True for _ in module.children()) and any(True for _ in module.parameters())
        if in_a_row and has_parts and not inside:
            blocks.append(name)
    return blocks


def depths_of(network: nn.Module, blocks: Sequence[str]) -> Iterator[tuple[nn.Parameter, int]]:
    """Yield every parameter with its block's number, from 1; 0 before, n + 1 after all blocks."""
    last = 0
    for name, parameter in network.named_parameters():
        inside = [n for n, block in enumerate(blocks, 1) if name.startswith(f"{block}.")]
        if inside:
            last = inside[0]
        yield parameter, last + (not inside and last == len(blocks))


def norms_and_biases(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield parameters that are usually not decayed: of normalisation, biases, other vectors."""
    for module in model.modules():
        is_norm = "Norm" in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            if is_norm or parameter.dim() < 2 or name.endswith("bias"):
                yield parameter


def behind_orthogonal(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the free parameters of orthogonal weights, ours and torch's, which must not decay.

    torch keeps the signs of a matrix in one of them, as whole numbers: once decayed, they round to
    0, and so does the whole weight.
    """
    for module in model.modules():
        if any("Orthogonal" in type(part).__name__ for part in module.children()):
            yield from module.parameters(recurse=False)
