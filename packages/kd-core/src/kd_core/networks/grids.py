"""Heights and widths that layouts of tokens need, measured in every pass."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kd_core.errors import UserError
from kd_core.networks.layouts import Layout
from kd_core.networks.tokens import Size


class Grids:
    """Measures maps at the modules that layouts name, and lays values out by them.

    Args:
        network: Whose modules they are.
        layouts: See `Layout.source`.
    """

    def __init__(self, network: nn.Module, layouts: Iterable[Layout | None]) -> None:
        self.network = network
        self._places = {
            (layout.source, layout.stride is not None)
            for layout in layouts
            if layout is not None and layout.source is not None
        }
        self._sizes: dict[tuple[str, bool], Size] = {}  # by module, and whether of its input

    def hooks(self) -> list[RemovableHandle]:
        """Register the hooks, to be removed by the caller, and forget what was measured."""
        self._sizes.clear()
        return [self._hook(*place) for place in self._places]

    def lay_out(self, layout: Layout | None, value: Any) -> Any:
        """Return a value in its layout; without one, the value itself.

        Raises:
            UserError: If the value is not so, or no image came before it.
        """
        if layout is None:
            return value
        measured = None
        if layout.source is not None:
            measured = self._sizes.get((layout.source, layout.stride is not None))
            if measured is None:
                raise UserError(
                    f"tap {layout.name!r}: no images [N, C, H, W] were seen before it, which give "
                    "the height and width of its tokens; write them, as in "
                    f":{layout.wanted}(prefix={layout.prefix},grid=7x7)"
                )
        return layout.apply(value, measured)

    def _hook(self, path: str, of_input: bool) -> RemovableHandle:
        watched = self.network.get_submodule(path)

        def note(module: nn.Module, value: Any) -> None:
            # A deepcopy of the network made in the block keeps the hooks; there they do nothing.
            if module is watched and isinstance(value, Tensor) and value.dim() == 4:
                self._sizes[path, of_input] = value.shape[2], value.shape[3]

        if not of_input:
            return watched.register_forward_hook(lambda module, args, output: note(module, output))
        return watched.register_forward_pre_hook(
            lambda module, args, kwargs: note(module, first_input(args, kwargs)), with_kwargs=True
        )


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the first input of a module, by place or by name; None without one."""
    return next(iter((*args, *kwargs.values())), None)
