"""Build objects from config nodes: `type` is an import path, every other key an argument of it."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, cast

from torch import nn

from kd_core.config.kinds import MODULE, Kind, name_of, require_factory
from kd_core.config.values import check_values
from kd_core.errors import UserError, located, nearest

# Model zoos hide this name in **kwargs (torchvision.models.resnet18); no other is passed there.
OFFERED_THROUGH_KWARGS = frozenset({"num_classes"})


def locate(path: str) -> Any:
    """Import the object that a dotted path names, such as `torch.optim.SGD`.

    Raises:
        UserError: If a part of the path does not exist, or its module cannot be imported.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(f"{path!r} is not an import path such as 'torch.optim.SGD'")
    owner: Any = _import_module(parts[0])
    if owner is None:
        hint = _hint(parts[0], [module.name for module in pkgutil.iter_modules()])
        raise UserError(
            f"{path!r}: there is no module {parts[0]!r}{hint} "
            "(is it here, or its folder on PYTHONPATH?)"
        )
    for end in range(2, len(parts) + 1):
        owner = _member(owner, parts[:end], prefer_attribute=end == len(parts))
    return owner


def build(
    node: Mapping[str, Any], where: str = "", *, kind: Kind | None = None, **provided: Any
) -> Any:
    """Call the `type` of a node with its other keys, building nested nodes first.

    The object that a type names is checked before it is called. For a node from a weights file
    this is not enough: see `kd_core.config.trust`.

    Args:
        node: `type` (an import path or a callable) and arguments. Every dict with `type` is a node,
            also as an argument or inside dicts, lists and tuples.
        where: Path of the node in the config, for messages.
        kind: What the node itself must name; nested ones may be anything but Python's own.
        provided: Further arguments. This node and every nested one receive those that they do not
            set themselves and that their callable names as parameters; through **kwargs only
            `num_classes` is passed.

    Raises:
        UserError: If the type names something else, an argument is unknown or missing, or the
            callable raises a TypeError or ValueError.
    """
    function = _function(node, where, kind)
    given = {key: value for key, value in node.items() if key != "type"}
    check_arguments(function, given, where, provided)
    parameters = parameters_of(function)
    offered = {name: provided[name] for name in provided if parameters.takes_offer(name)}
    given = {key: _build_inside(value, _join(where, key), provided) for key, value in given.items()}
    try:
        return function(**(offered | given))
    except UserError as error:
        if not where or str(error).startswith((f"{where}:", f"{where}.")):
            raise
        raise UserError(f"{where}: {error}") from error
    except (TypeError, ValueError, OSError) as error:  # OSError: a file, or a failed download
        raise UserError(f"{_prefix(where)}{name_of(function)}: {error}") from error


def check(
    node: Any, where: str = "", provided: Collection[str] = (), kind: Kind | None = None
) -> None:
    """Check every node in a config, or a part of one, as `build` would, without calling anything.

    Args:
        node: A node, or dicts, lists and tuples that contain nodes.
        where: Path of the node in the config, for messages.
        provided: Names of the arguments that `build` will be given.
        kind: What the node itself must name.

    Raises:
        UserError: If a type cannot be located or names something else, or an argument is unknown
            or missing.
    """
    if isinstance(node, Mapping):
        if "type" in node:
            given = {key: value for key, value in node.items() if key != "type"}
            check_arguments(_function(node, where, kind), given, where, provided)
        for key, value in node.items():
            check(value, _join(where, key), provided)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            check(value, _join(where, index), provided)


def check_arguments(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    where: str = "",
    provided: Collection[str] = (),
) -> None:
    """Check that a callable takes these arguments and that none it requires is missing.

    Args:
        function: What will be called.
        arguments: Its arguments by name; their values are not looked into.
        where: Path of the arguments in the config, for messages.
        provided: Names of the arguments that the caller will add.

    Raises:
        UserError: If an argument is unknown or missing.
    """
    parameters = parameters_of(function)
    for key in arguments:
        if key not in parameters.names and not parameters.open:
            raise UserError(
                f"{_prefix(where)}{name_of(function)} has no parameter {key!r}"
                f"{nearest(key, parameters.names)}"
            )
    missing = [name for name in parameters.required if name not in {*arguments, *provided}]
    if missing:
        raise UserError(
            f"{_prefix(where)}{name_of(function)} needs {', '.join(map(repr, missing))}"
            f"; set {_join(where, missing[0])}"
        )
    check_values(function, arguments, partial(_join, where))


class Parameters(NamedTuple):
    """What a callable takes by name; `open` if it takes any name."""

    names: tuple[str, ...]
    required: tuple[str, ...]
    open: bool

    def takes_offer(self, name: str) -> bool:
        """Return whether a provided argument of this name is passed on."""
        return name in self.names or (self.open and name in OFFERED_THROUGH_KWARGS)


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Return what a callable takes."""
    # A module without a constructor inherits `(*args, **kwargs)`, and then rejects all of them.
    if getattr(function, "__init__", None) is nn.Module.__init__:
        return Parameters((), (), open=False)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # written in C, without a signature
        return Parameters((), (), open=True)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return Parameters(
        names=tuple(p.name for p in named),
        required=tuple(p.name for p in named if p.default is p.empty),
        open=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def build_network(node: Mapping[str, Any], where: str, **provided: Any) -> nn.Module:
    """Build a node that must return a module; see `build`."""
    built = build(node, where, kind=MODULE, **provided)
    if not isinstance(built, nn.Module):
        raise UserError(f"{where}: {node['type']} gave a {type(built).__name__}, not a module")
    return built


def require_type(node: Any, where: str, of: str) -> None:
    """Reject anything but a node with a `type`; `of` says what the type should name."""
    if not isinstance(node, Mapping) or "type" not in node:
        raise UserError(
            f"{where}: wanted a dict with `type`, the import path of {of}, got {node!r}"
        )


def _build_inside(value: Any, where: str, provided: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        if "type" in value:
            return build(value, where, **provided)
        return {key: _build_inside(v, _join(where, key), provided) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(
            _build_inside(v, _join(where, index), provided) for index, v in enumerate(value)
        )
    return value


def _function(node: Mapping[str, Any], where: str, kind: Kind | None) -> Callable[..., Any]:
    if "type" not in node:
        raise UserError(f"{_prefix(where)}a node needs `type`, an import path; got {dict(node)!r}")
    function = node["type"]
    if isinstance(function, str):
        with located(_join(where, "type")):
            function = locate(function)
    require_factory(function, _join(where, "type"))
    if kind is not None:
        kind.require(function, _join(where, "type"))
    return cast(Callable[..., Any], function)


def _member(owner: Any, parts: list[str], *, prefer_attribute: bool) -> Any:
    """Return the submodule or attribute of `owner` that the last of `parts` names.

    Where a package has both under one name (`kd_core.build`), the rest of the path decides.
    """
    name = parts[-1]
    if not (prefer_attribute and hasattr(owner, name)) and isinstance(owner, ModuleType):
        module = _import_module(".".join(parts))
        if module is not None:
            return module
    if hasattr(owner, name):
        return getattr(owner, name)
    names = [known for known in dir(owner) if not known.startswith("_")]
    names += [module.name for module in pkgutil.iter_modules(getattr(owner, "__path__", ()))]
    raise UserError(f"{'.'.join(parts[:-1])} has no {name!r}{_hint(name, names)}")


def _import_module(name: str) -> ModuleType | None:
    """Import a module; None if there is no module of this name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise UserError(f"{name} needs {error.name}, which is not installed") from error
    except ImportError as error:
        raise UserError(f"{name} cannot be imported: {error}") from error


def _hint(name: str, names: Collection[str]) -> str:
    """Return only the nearest names: a module has too many to list them all."""
    alike = [known for known in names if known.lower() == name.lower()]
    alike += difflib.get_close_matches(name, names)
    return nearest(name, alike)


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _prefix(where: str) -> str:
    return f"{where}: " if where else ""
