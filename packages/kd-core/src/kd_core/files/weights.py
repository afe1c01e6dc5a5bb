"""Read weight files of any common tool without running code in them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kd_core.errors import UserError, located, nearest
from kd_core.files.best_match import choose, matches, state_dicts
from kd_core.files.checkpoint import load_safetensors
from kd_core.files.in_order import in_order_hint, match_in_order
from kd_core.files.mismatch import Mismatch, few
from kd_core.files.sound_weights import unsound
from kd_core.files.torch_files import read_torch_file
from kd_core.files.weight_files import IN_ORDER, is_index, main_file, read_index, split_choice
from kd_core.runtime import distributed

_WRAPPERS = ("model", "state_dict", "net", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and DDP, of torch.compile


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file to the CPU, by name.

    Reads `.safetensors`, and under any other name a file of `torch.save`: a state dict, or a dict
    that holds one as `model`, `state_dict`, `net` or `model_state_dict` (mdistiller, RepDistiller,
    torchvision, timm, Detectron2). From a checkpoint of our own trainer it reads the student.
    Prefixes that DataParallel, DDP and torch.compile put before every name are removed. `path` may
    be a folder or an index of shards too, as Hugging Face writes them, and `FILE#KEY` names
    another entry of the file. `load_weights` finds more by itself, since it knows the network.

    Raises:
        UserError: If there is no such file, if it is damaged or holds anything but plain data, or
            if no state dict is in it.
    """
    path, choice = split_choice(path)
    contents = read_contents(path)
    if choice == IN_ORDER:
        raise UserError(f"{path}: #{IN_ORDER} is for the weights of a whole network; leave it out")
    if choice:
        places = {".".join(keys): tensors for keys, tensors in state_dicts(contents)}
        if choice not in places:
            raise UserError(f"{path}: no state dict under {choice!r}{nearest(choice, places)}")
        state: Any = places[choice]
    else:
        state = _unwrap(contents)
    _require_tensors(state, path)
    return _without_prefixes({str(name): value.detach() for name, value in state.items()})


def read_contents(path: Path) -> Any:
    """Return what a file of weights holds, or the tensors of a folder or of shards, by name.

    Raises:
        UserError: If it cannot be read, or holds anything but plain data.
    """
    file = main_file(path)
    if not is_index(file):
        return _read_one(file)
    wanted = read_index(file)
    found: dict[str, Any] = {}
    for shard in sorted(set(wanted.values())):
        tensors = _read_one(shard)
        names = [name for name, place in wanted.items() if place == shard]
        if not isinstance(tensors, Mapping) or (lost := [n for n in names if n not in tensors]):
            raise UserError(f"{shard}: lacks {few(lost or names)}, which {file.name} places there")
        found |= {name: tensors[name] for name in names}
    return found


def load_weights(
    module: nn.Module,
    path: str | Path,
    *,
    strict: bool = True,
    parts: bool = False,
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> None:
    """Load a weights file into a module; see `read_state_dict` for the formats.

    The whole file is searched for the state dict and the prefix whose names and shapes fit best
    (`model_ema`, `state_dict` under `model.` or `backbone.`, and so on). Where that is not simply
    the file's only one, the choice is printed; if several fit and differ, it must be made:
    `FILE#PLACE`. `FILE#in-order` takes tensors of other names by their order, see `match_in_order`.
    Nothing is loaded unless everything fits. A BatchNorm's `num_batches_tracked` may
    be missing: old files lack it.

    Args:
        module: Network or criterion, on any device.
        path: The file.
        strict: Whether names must agree. Otherwise missing and unexpected ones are ignored, but
            shapes must agree, and at least one name.
        parts: Whether the file may lack whole submodules, which then stay unchanged.
        adapt: Changes the file's tensors before they are compared with the module's.

    Raises:
        UserError: If the file cannot be read or does not fit.
    """
    own = module.state_dict()
    state = matching_state(path, own) if strict and not parts else read_state_dict(path)
    state = state if adapt is None else adapt(state)
    wrong = Mismatch.between(state, _parts_in(state, own) if parts else own)
    nothing_fits = len(wrong.unexpected) == len(state)
    if wrong.reshaped or nothing_fits or (strict and str(wrong)):
        raise UserError(
            f"{path}: does not fit {type(module).__name__}: {wrong}{_guess(wrong)}; "
            f"build the network that the file was made for{_other_way(path, own)}"
        )
    check_values(path, state, own)
    module.load_state_dict(state, strict=strict and not parts)


def matching_state(
    path: str | Path, own: Mapping[str, Tensor], *, silent: bool = False
) -> dict[str, Tensor]:
    """Return a file's tensors by a network's names, as `load_weights` finds them.

    Args:
        path: See `read_state_dict`.
        own: The network's tensors by name.
        silent: Do not print where they were.

    Raises:
        UserError: If the file cannot be read, or several state dicts fit and differ.
    """
    file, choice = split_choice(path)
    contents = read_contents(file)
    if not choice and _is_of_trainer(contents):
        return read_state_dict(path)
    with located(str(file)):
        if choice == IN_ORDER:
            renamed, text = match_in_order(main_file(file), contents, own)
            if not silent:
                distributed.print_note(f"{file}: {text}")
            return renamed.state
        match = choose(matches(contents, own), own, choice)
    if match is None:
        return read_state_dict(path)  # which says what is wrong
    _require_tensors(match.state, file)
    if (match.place or match.left) and not silent:
        distributed.print_note(f"{file}: {match.summary()}")
    return match.state


def check_values(path: str | Path, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Reject tensors of a file that are not finite, or of another kind than the network's.

    Raises:
        UserError: Naming the first of them.
    """
    if wrong := unsound(state, own):
        raise UserError(f"{path}: {wrong}; name another file, or save its weights again")


def _require_tensors(state: Any, path: Path) -> None:
    """Reject anything but a state dict of tensors that have shapes."""
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{path}: wanted a state dict, got {type(state).__name__} {state!r:.80}")
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(
            f"{path}: wanted a state dict (tensors by name), or one under "
            f"{', '.join(map(repr, _WRAPPERS))}, but some entries are not tensors: {few(others)}; "
            f"save the state dict alone"
        )
    if nested := next((name for name, value in state.items() if value.is_nested), None):
        raise UserError(f"{path}: {nested} is a nested tensor, which has no shape; save it dense")


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _read_one(path: Path) -> Any:
    return load_safetensors(path)[0] if path.suffix == ".safetensors" else read_torch_file(path)


def _unwrap(contents: Any) -> Any:
    if isinstance(contents, Mapping):
        for key in _WRAPPERS:  # first: a distilled detector's file has both
            if isinstance(contents.get(key), Mapping):
                return _unwrap(contents[key])
        if _is_of_trainer(contents):
            return _student(contents)
    return contents


def _is_of_trainer(contents: Any) -> bool:
    return isinstance(contents, Mapping) and isinstance(contents.get("distiller"), Mapping)


def _student(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the student's network from a checkpoint of the trainer, or its average."""
    if checkpoint.get("average"):
        return checkpoint["average"]
    prefix = "student.network."
    state = checkpoint["distiller"].items()
    return {name.removeprefix(prefix): v for name, v in state if name.startswith(prefix)}


def _parts_in(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's tensors, without the submodules that a file lacks."""
    present = {name.partition(".")[0] for name in state}
    return {name: value for name, value in own.items() if name.partition(".")[0] in present}


def _other_way(path: str | Path, own: Mapping[str, Tensor]) -> str:
    file, choice = split_choice(path)
    return "" if choice else in_order_hint(main_file(file), read_contents(file), own)


def _guess(wrong: Mismatch) -> str:
    """Return the likely cause where all tensors that do not fit are of one module."""
    modules = {name.rpartition(".")[0] for name in wrong.reshaped}
    alone = not wrong.missing and not wrong.unexpected and len(modules) == 1
    return " (other number of classes?)" if alone else ""
