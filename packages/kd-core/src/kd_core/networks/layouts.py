"""Layouts of tapped tensors: NHWC maps and tokens brought to the form that criteria take."""

import re
from dataclasses import dataclass, replace

from torch import Tensor, nn

from kd_core.errors import UserError
from kd_core.networks.tokens import Size, known_tokens

LAYOUTS = ("nhwc", "nchw", "tokens", "map", "cls", "vector", "mean")
"""What may follow a tap, after a colon."""

_GRAMMAR = re.compile(
    r"(?::(?P<order>nhwc|nchw))?(?::(?P<wanted>tokens|map|cls|vector|mean)(?:\((?P<options>.*)\))?)?"
)
_OPTION = re.compile(r"(?P<name>prefix|grid|stride)=(?P<first>\d+)(?:x(?P<second>\d+))?")
_WRITTEN = re.compile(r"(.*?)(:nhwc|:nchw)?(:(?:tokens|map|cls|mean))?(\(.*\))?")
_AT_END = re.compile(rf":(?:{'|'.join(LAYOUTS)})\b(?:\(.*\))?$")
_MAP_AS_TOKENS = re.compile(r"(:nhwc|:nchw):tokens$")
_TELL = "write it, as in :tokens(prefix=1,grid=7x7) or :tokens(prefix=0,stride=16)"
_WRITE = (
    "write :nhwc, :nchw, :tokens, :map, :cls, :mean or :vector, tokens with what the network does "
    "not say as in :tokens(prefix=1,grid=7x7) or :tokens(prefix=0,stride=16)"
)


@dataclass(frozen=True)
class Layout:
    """How a tapped tensor is laid out, and what is made of it.

    Args:
        name: Text of the whole tap, for messages.
        order: "nhwc" or "nchw" of a map; "" of anything else.
        wanted: "map", "tokens", "cls" (the class token), "mean" (over the image's positions) or
            "vector" (of a map of one position).
        prefix: Number of tokens before those of the image; None if nobody said it.
        exact: Whether there are always so many: it was written, not read from the network.
        grid: Height and width of the tokens.
        stride: Pixels of the network's input for one token, down and across.
        source: Path of the convolution whose output has the tokens' height and width; with
            `stride`, of the module that gets the images.
    """

    name: str
    order: str = ""
    wanted: str = "map"
    prefix: int | None = None
    exact: bool = False
    grid: Size | None = None
    stride: Size | None = None
    source: str | None = None

    def apply(self, value: object, measured: Size | None) -> Tensor:
        """Return a value in the form that is wanted; a view where one is possible.

        Args:
            value: What the module gave.
            measured: Height and width at `source` in this pass.
        """
        if not isinstance(value, Tensor):
            raise self._error(f"gives a {type(value).__name__}, not one tensor; name one by [key]")
        if self.order:
            return self._of_map(value)
        if self.wanted == "vector":
            return self._vector(value)
        return self._of_tokens(value, measured)

    def _of_map(self, value: Tensor) -> Tensor:
        if value.dim() != 4:
            raise self._error(f"is for maps of four dimensions; the module gives {_shape(value)}")
        maps = value.permute(0, 3, 1, 2) if self.order == "nhwc" else value
        if self.wanted == "mean":
            return maps.mean((2, 3))
        return maps if self.wanted == "map" else maps.flatten(2).mT

    def _vector(self, value: Tensor) -> Tensor:
        if value.dim() < 2 or sum(size > 1 for size in value.shape[1:]) > 1:
            raise self._error(
                f"is for one position, [N, D, 1, 1]; the module gives {_shape(value)}"
            )
        return value.flatten(1)

    def _of_tokens(self, value: Tensor, measured: Size | None) -> Tensor:
        if value.dim() != 3:
            more = "; write :nhwc or :nchw for a map" if value.dim() == 4 else ""
            raise self._error(f"is for tokens [N, L, D]; the module gives {_shape(value)}{more}")
        count, grid = value.shape[1], self._grid(value.shape[1], measured)
        prefix = self.prefix or 0
        if grid is not None:
            found = count - grid[0] * grid[1]
            # A network may add its class token in later blocks: before them there is no prefix.
            if found != prefix and (self.exact or found != 0):
                raise self._error(
                    f"{count} tokens are not {prefix} and {grid[0]}x{grid[1]} of the image; say "
                    "how many, as in :tokens(prefix=1,grid=7x7)"
                )
            prefix = found
        if prefix > count or (self.wanted == "cls" and not prefix):
            raise self._error(f"{count} tokens without {self._missing()}; say how many")
        if self.wanted == "cls":
            return value[:, 0]
        tokens = value[:, prefix:]
        if self.wanted == "mean":
            return tokens.mean(1)
        return tokens if grid is None or self.wanted == "tokens" else tokens.mT.unflatten(2, grid)

    def _missing(self) -> str:
        return "a class token" if self.wanted == "cls" else f"{self.prefix} before the image's"

    def _grid(self, count: int, measured: Size | None) -> Size | None:
        if self.stride is None or self.grid is not None:
            return self.grid or measured
        if measured is None:
            return None
        floor = measured[0] // self.stride[0], measured[1] // self.stride[1]
        ceil = -(-measured[0] // self.stride[0]), -(-measured[1] // self.stride[1])
        rest = count - (self.prefix or 0)
        return ceil if rest == ceil[0] * ceil[1] else floor  # networks round down, or pad

    def _error(self, problem: str) -> UserError:
        return UserError(f"tap {self.name!r}: {problem}")


def parse_layout(text: str, name: str, network: nn.Module, path: str) -> Layout | None:
    """Parse the layout at the end of a tap, such as `:nhwc` or `:tokens(prefix=1,grid=7x7)`.

    What is not written is taken from the network, if it says it; see `known_tokens`.

    Args:
        text: From the first colon of the layout on; without one, None is returned.
        name: The whole tap, for messages.
        network: Whose tap it is.
        path: Of the tapped module.

    Raises:
        UserError: If it is not a layout, or something that it needs is not known.
    """
    if not text:
        return None
    match = _GRAMMAR.fullmatch(text)
    order, wanted, options = (match[1] or "", match[2], match[3]) if match else ("", None, None)
    of_map = bool(order) and (wanted not in (None, "tokens", "mean") or options is not None)
    if match is None or of_map or (wanted == "vector" and options is not None):
        raise UserError(f"tap {name!r}: {text!r} is not a layout; {_WRITE}")
    layout = Layout(name, order, wanted or "map")
    if order or wanted == "vector":
        return layout
    return _known(_with_options(layout, options), network, path)


def _with_options(layout: Layout, options: str | None) -> Layout:
    if options is None:
        return layout
    given: dict[str, Size] = {}
    for text in options.replace(" ", "").split(","):
        option = _OPTION.fullmatch(text)
        if option is None or option["name"] in given or (option[1] == "prefix" and option[3]):
            raise UserError(f"tap {layout.name!r}: {text!r} is not an option of tokens; {_WRITE}")
        first = int(option["first"])
        given[option["name"]] = first, int(option["second"] or first)
    grid, stride = given.get("grid"), given.get("stride")
    if (grid and stride) or 0 in (*(grid or ()), *(stride or ())):
        raise UserError(f"tap {layout.name!r}: tokens have a grid or a stride above 0; {_WRITE}")
    prefix = given["prefix"][0] if "prefix" in given else None
    source = None if stride is None else ""
    exact = prefix is not None
    return replace(layout, prefix=prefix, exact=exact, grid=grid, stride=stride, source=source)


def _known(layout: Layout, network: nn.Module, path: str) -> Layout:
    """Return the layout with what the network says of its tokens, where nothing was written."""
    facts = known_tokens(network, path)
    if facts is not None:
        if layout.wanted == "cls" and not layout.exact and not facts.class_token:
            raise UserError(
                f"tap {layout.name!r}: the network has no class token; use :tokens or @pooled"
            )
        if layout.prefix is None:
            layout = replace(layout, prefix=facts.prefix)
        if layout.grid is None and layout.stride is None:
            layout = replace(layout, source=facts.patches)
    if layout.prefix is None:
        raise UserError(
            f"tap {layout.name!r}: how many tokens come before those of the image (class and "
            f"register tokens)? {type(network).__name__} does not say it; {_TELL}"
        )
    if layout.wanted == "map" and layout.grid is None and layout.source is None:
        raise UserError(
            f"tap {layout.name!r}: which height and width do the tokens have? "
            f"{type(network).__name__} does not say it; {_TELL}"
        )
    return layout


def has_layout(tap: str) -> bool:
    """Return whether a tap ends in a layout, such as `norm:cls`."""
    return _AT_END.search(tap) is not None


def for_kind(tap: str, kind: str) -> str:
    """Return a tap with the layout that a criterion of this kind takes.

    Args:
        tap: Such as `blocks.3:tokens`, which becomes `blocks.3:map` for a criterion on maps.
        kind: What the criterion takes, such as `maps`.
    """
    if kind == "maps":
        return re.sub(r"(?<!:nhwc|:nchw):tokens\b", ":map", re.sub(_MAP_AS_TOKENS, r"\1", tap))
    if kind == "tokens":
        return re.sub(r":map\b", ":tokens", re.sub(r"(:nhwc|:nchw)$", r"\1:tokens", tap))
    return tap


def in_layout(tap: str, wanted: str) -> str:
    """Return a tap of a role in another layout.

    Args:
        tap: Such as `layer4`, `norm:nhwc` or `blocks.3:tokens`; without a layout, of a map
            [N, C, H, W].
        wanted: "map", "tokens", "cls" or "mean", as in `@map:mean`.
    """
    plain, order, word, options = _WRITTEN.fullmatch(tap).groups("")  # type: ignore[union-attr]
    if word and not order:
        return f"{plain}:{wanted}{options}"
    if wanted == "map":
        return plain + order
    return f"{plain}{order or ':nchw'}:{wanted}"


def _shape(value: Tensor) -> str:
    return f"[{', '.join(['N', *map(str, value.shape[1:])])}]"
