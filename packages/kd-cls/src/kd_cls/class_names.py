"""Bring a trained classifier's logits into the order of the data's classes, by their names."""

import re
from collections.abc import Mapping, Sequence

from kd_core.errors import UserError
from kd_core.files.mismatch import few
from kd_core.networks.class_order import places_of, renamed, select_classes
from kd_core.networks.probe import first_pass
from torch import Tensor, nn

from kd_cls.classifier import Classifier
from kd_cls.data import DataSplits


def match_classes(
    classifier: Classifier,
    names: Sequence[str],
    data: DataSplits,
    class_map: Mapping[str, str] | None = None,
) -> str:
    """Keep the logits of the data's classes, in the data's order; return what was done.

    A classifier that does not know all of them keeps its own, and `other_classes` says so: its
    features may be learned, its logits may not.

    Args:
        classifier: Trained; its network's last layer is changed.
        names: Of its classes, in the order of its logits.
        data: The classes that are wanted, and images to try it on; without classes nothing is done.
        class_map: What the data's classes are called there, where their names differ; then all of
            them must be there.

    Raises:
        UserError: If it has more or fewer logits than names, or its logits cannot be reordered.
    """
    if not data.classes:
        return ""
    wanted = renamed(data.classes, class_map)
    images = data.train.sample(2)["image"].to(classifier.mean.device)

    def run(network: nn.Module) -> Tensor:
        logits: Tensor = first_pass(classifier, {"image": images})
        return logits

    count = run(classifier.network).shape[1]
    if count != len(names):
        raise UserError(
            f"{len(names)} names of classes for {count} logits; set `classes` to the name of each"
        )
    if not class_map and _by_number(names, wanted):
        return "; its classes have no names to compare, so their order is taken for the data's"
    try:
        places = places_of(wanted, names)
    except UserError as error:
        if class_map:
            raise
        classifier.other_classes = f"knows other classes than the data has: {error}"
        return f"; {classifier.other_classes}"
    select_classes(classifier.network, places, run)
    if len(places) < len(names):
        left = [name for name in names if name not in set(wanted)]
        return (
            f"; of its {len(names)} logits those of the data's {len(wanted)} classes are kept"
            + (f" (left out: {few(left)})")
        )
    moved = sum(place != number for number, place in enumerate(places))
    return f"; {moved} logits are moved to the data's order of classes" if moved else ""


def doubt(names: Sequence[str]) -> str:
    """Return why the order of logits without names is not certain; "" if it is.

    Folders `1`, `2`, `10` are read in the order of text by some programs, and of numbers by others.
    """
    by_text, by_number = sorted(names), sorted(names, key=_natural)
    if by_text == by_number or list(names) not in (by_text, by_number) or _are_numbers(names):
        return ""
    one, other = next(pair for pair in zip(by_text, by_number, strict=True) if pair[0] != pair[1])
    return (
        f"names no classes, and these have two usual orders ({one!r} or {other!r} first); the "
        f"data's is taken, {few(names)}. Set `classes` to the names in the order of the logits if "
        "it is another"
    )


def _by_number(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Return whether one side has numbers in the place of names, and as many as the other."""
    unnamed = _are_numbers(names) or _are_numbers(wanted)
    return unnamed and len(names) == len(wanted) and set(names) != set(wanted)


def _are_numbers(names: Sequence[str]) -> bool:
    return list(names) == [str(number) for number in range(len(names))]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts names as people do: numbers by value, letters whatever their case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
