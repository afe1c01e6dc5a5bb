"""Find a network's tensors in what a file holds: the state dict and the prefix that fit best."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_core.errors import UserError, nearest
from kd_core.files.mismatch import Mismatch
from kd_core.files.weight_files import IN_ORDER

_DEEPEST = 4  # dicts in dicts; a checkpoint of Lightning's callbacks has three
_MOST_DICTS = 10_000
_LONGEST = 500  # letters of a name
_MOST_PREFIXES = 8  # of one dict, those that fit best


class Match(NamedTuple):
    """Tensors of a file, under the names that a network has for them.

    Args:
        place: Where they are, such as `state_dict.model`; "" for the whole file.
        state: The tensors.
        left: Names of the same state dict that are not of this network.
    """

    place: str
    state: dict[str, Tensor]
    left: Sequence[str] = ()

    def fits(self, own: Mapping[str, Tensor]) -> bool:
        """Return whether a network can be loaded from it, nothing missing and nothing too much."""
        return not str(Mismatch.between(self.state, own))

    def summary(self) -> str:
        """Return in one line where the tensors are, and what is left out."""
        parts = Counter(name.partition(".")[0] for name in self.left)
        left = ", ".join(f"{part} ({count})" for part, count in parts.most_common(3))
        more = ", ..." * (len(parts) > 3)
        rest = f"; left out: {left}{more}" if left else ""
        return f"took the {len(self.state)} tensors under {self.place!r}{rest}"


def state_dicts(contents: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield every dict of tensors by name inside a file's contents, and the keys that lead to it.

    What else is beside the tensors is left out.
    """
    queue: list[tuple[tuple[str, ...], Any]] = [((), contents)]
    for keys, value in queue:
        if not isinstance(value, Mapping) or len(keys) > _DEEPEST or len(queue) > _MOST_DICTS:
            continue
        tensors = {str(k): v.detach() for k, v in value.items() if _has_shape(v) and _is_name(k)}
        if tensors:
            yield keys, tensors
        inner = [(str(k), v) for k, v in value.items() if isinstance(v, Mapping) and _is_name(k)]
        queue += [((*keys, key), v) for key, v in inner]


def matches(contents: Any, own: Mapping[str, Tensor]) -> list[Match]:
    """Return what in a file has a network's names, the best first.

    Args:
        contents: What the file holds.
        own: The network's tensors by name.
    """
    found = [
        pair for keys, tensors in state_dicts(contents) for pair in _matches(keys, tensors, own)
    ]
    # Stable: of equals the first, which is the outermost.
    found.sort(key=lambda pair: (pair[0].fits(own), pair[1]), reverse=True)
    return [match for match, _ in found]


def choose(found: Sequence[Match], own: Mapping[str, Tensor], choice: str) -> Match | None:
    """Return the match that is meant: the one chosen by its place, else the best.

    Args:
        found: From `matches`.
        own: The network's tensors by name.
        choice: A place; "" for none.

    Raises:
        UserError: If nothing is in that place, or several fit and their tensors differ.
    """
    if choice:
        there = [match for match in found if match.place == choice]
        if not there:
            places = [IN_ORDER, *(match.place for match in found if match.place)]
            raise UserError(f"no weights of this network under {choice!r}{nearest(choice, places)}")
        return there[0]
    if not found:
        return None
    best, *others = found
    rivals = [other for other in others if other.fits(own) and not same_tensors(best, other)]
    if best.fits(own) and rivals:
        places = [match.place or "(the whole file)" for match in (best, *rivals)]
        named = next(match.place for match in (best, *rivals) if match.place)
        raise UserError(
            f"holds several weights that fit this network, and they differ: {', '.join(places)}; "
            f"say which, such as weights='FILE#{named}'"
        )
    return best


def same_tensors(one: Match, other: Match) -> bool:
    """Return whether two matches would load the same values."""
    pairs = ((one.state[name], other.state.get(name)) for name in one.state)
    try:
        return all(b is not None and a.shape == b.shape and torch.equal(a, b) for a, b in pairs)
    except (RuntimeError, NotImplementedError):  # sparse, quantised, without values
        return False


def _is_name(key: Any) -> bool:
    return len(str(key)) <= _LONGEST and str(key).isprintable()  # it may be printed, in one line


def _has_shape(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_nested


def _groups(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Return by prefix which tensors have a network's name behind it: old names by new ones."""
    groups: dict[str, dict[str, str]] = {}
    for name in tensors:
        for start in (0, *(place + 1 for place, letter in enumerate(name) if letter == ".")):
            if name[start:] in own:
                groups.setdefault(name[:start], {})[name[start:]] = name
    return groups


def _matches(
    keys: Sequence[str], tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> Iterator[tuple[Match, tuple[int, int]]]:
    """Yield the best matches of one dict of tensors, each with its score."""
    groups = _groups(tensors, own)
    scores = {
        prefix: (
            sum(own[new].shape == tensors[old].shape for new, old in group.items()),
            len(group),
        )
        for prefix, group in groups.items()
    }
    for prefix in sorted(groups, key=lambda prefix: scores[prefix], reverse=True)[:_MOST_PREFIXES]:
        taken = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
        taken |= _elsewhere(groups, prefix, taken, own)
        used = set(taken.values())
        match = Match(
            ".".join([*keys, *filter(None, [prefix.rstrip(".")])]),
            {name: tensors[old] for name, old in taken.items()},
            [name for name in tensors if name not in used],
        )
        yield match, scores[prefix]


def _elsewhere(
    groups: Mapping[str, Mapping[str, str]],
    prefix: str,
    taken: Mapping[str, str],
    own: Mapping[str, Tensor],
) -> dict[str, str]:
    """Return what a prefix lacks, from the only other one that has it: mmengine's `head.`.

    Not from one that has other tensors of the network again: that is another network's.
    """
    others = [
        group
        for other, group in groups.items()
        if not other.startswith(prefix)
        and not prefix.startswith(other)
        and not group.keys() & taken
    ]
    found: dict[str, str] = {}
    for name in own.keys() - taken.keys():
        places = [group[name] for group in others if name in group]
        if len(places) == 1:
            found[name] = places[0]
    return found
