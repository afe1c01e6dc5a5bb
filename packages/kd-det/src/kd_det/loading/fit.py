"""Whether a file gave a detector the weights that it needs, and what stays random."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from kd_core.errors import UserError
from kd_core.files.mismatch import COUNTER, Mismatch, few
from kd_core.runtime import distributed

_STATISTICS = ("running_mean", "running_var")
_CONTAINERS = ("backbone.bottom_up", "backbone", "roi_heads")  # of a detector's parts
_START = (
    "MODEL.WEIGHTS may be a whole detector, of another number of classes too, or a backbone, but "
    "what it gives must fit; give weights of this config, or the config of these weights"
)
_WHOLE = (
    "--eval-only and --resume need all weights of the detector; give the config (depth, heads, "
    "classes) that these weights are of"
)


class Fit(NamedTuple):
    """What of a file went into a detector.

    Args:
        own: Names of all weights of the detector.
        missing: Those that the file lacks.
        unexpected: Names of the file that the detector does not have.
        reshaped: Shapes in the file and in the detector, of weights that have two.
    """

    own: Collection[str]
    missing: Sequence[str]
    unexpected: Sequence[str]
    reshaped: Mapping[str, tuple[Sequence[int], Sequence[int]]]

    @classmethod
    def of(cls, own: Collection[str], incompatible: Any, passed_over: re.Pattern[str]) -> "Fit":
        """Return what Detectron2's checkpointer said.

        Args:
            own: Names of all weights of the detector.
            incompatible: As its `_load_model` returns it.
            passed_over: Finds names that do not count.
        """
        shapes = {name: (there, here) for name, there, here in incompatible.incorrect_shapes}
        missing, more = (
            [name for name in names if name not in shapes and not passed_over.search(name)]
            for names in (incompatible.missing_keys, incompatible.unexpected_keys)
        )
        return cls([n for n in own if not passed_over.search(n)], missing, more, shapes)

    def why_not_evaluated(self) -> str:
        """Return why the detector cannot be evaluated; "" if it can.

        A file may have whole parts more, such as a mask head.
        """
        more = [name for name in self._in_place() if not self._is_spare(name)]
        return self._text(self.missing, more, self.reshaped)

    def why_not_started(self) -> str:
        """Return why training cannot start from it; "" if it can.

        Whole parts may be missing, or too much, but not of the backbone. Where only the number of
        outputs differs, as with other classes, a layer may stay random.
        """
        if self.nothing:
            return self._text(self.missing, self.unexpected, self.reshaped)
        begun = {_part(name) for name in self._loaded()}
        bottom = self._bottom()
        missing = [n for n in self.missing if n.startswith(bottom) or _part(n) in begun]
        missing = [n for n in missing if not self._is_random_layer(n)]
        odd = [name for name in self.reshaped if not self._has_other_outputs(name)]
        more = [name for name in self._in_place() if _part(name) in self._parts()]
        return self._text(missing, more, {name: self.reshaped[name] for name in odd})

    @property
    def nothing(self) -> bool:
        """Whether the backbone, or a network without one, got nothing at all."""
        return not any(name.startswith(self._bottom()) for name in self._loaded())

    def summary(self) -> str:
        """Return in one line what stays random, and what is left out; "" if nothing is."""
        untouched = [*self.missing, *self.reshaped]
        loaded = {_part(name) for name in self._loaded()}
        random = [
            name.rpartition(".")[0] if _part(name) in loaded else _part(name) for name in untouched
        ]
        spare = [_part(name) for name in self.unexpected]
        said = [
            f"{what} {few(list(dict.fromkeys(names)), 6)}"
            for what, names in (("starts random:", random), ("left out of the file:", spare))
            if names
        ]
        return "; ".join(said)

    def _loaded(self) -> list[str]:
        without = {*self.missing, *self.reshaped}
        return [name for name in self.own if name not in without and not name.endswith(COUNTER)]

    def _bottom(self) -> str:
        """Return the prefix of the network that ImageNet's weights are for."""
        for prefix in ("backbone.bottom_up.", "backbone."):
            if any(name.startswith(prefix) for name in self.own):
                return prefix
        return ""

    def _parts(self) -> set[str]:
        return {_part(name) for name in self.own}

    def _in_place(self) -> list[str]:
        """Return the unexpected names where the detector would have them: res4.6 in its res4."""
        return [self._placed(name) for name in self.unexpected]

    def _placed(self, name: str) -> str:
        first = name.partition(".")[0]
        if any(own.startswith(f"{first}.") for own in self.own):
            return name
        for own in self.own:
            before, found, _ = own.partition(f".{first}.")
            if found:
                return f"{before}.{name}"
        return name

    def _is_spare(self, name: str) -> bool:
        return _part(name) not in self._parts() and not name.startswith("backbone.")

    def _has_other_outputs(self, name: str) -> bool:
        there, here = self.reshaped[name]
        same_inputs = len(there) == len(here) > 0 and list(there[1:]) == list(here[1:])
        return same_inputs and not name.startswith(self._bottom() or "backbone.")

    def _is_random_layer(self, name: str) -> bool:
        """Return whether the layer of a missing weight is random for its number of outputs."""
        layer = name.rpartition(".")[0]
        return any(other.rpartition(".")[0] == layer for other in self.reshaped)

    def _text(
        self,
        missing: Sequence[str],
        unexpected: Sequence[str],
        reshaped: Mapping[str, tuple[Sequence[int], Sequence[int]]],
    ) -> str:
        shapes = {
            name: f"{name} is {list(there)} in the file, {list(here)} in the network"
            for name, (there, here) in reshaped.items()
        }
        return str(Mismatch(missing, unexpected, shapes))


def without_statistics(fit: Fit, names: Collection[str]) -> Fit:
    """Return a fit in which BatchNorms without statistics are whole.

    Caffe2's backbones have only scale and shift; mean 0 and variance 1 are in them.

    Args:
        fit: What was loaded.
        names: Of the file, before they were matched.

    Raises:
        UserError: If scale and shift of BatchNorms would go into other normalisations.
    """
    found = {name for name in fit.own if name not in {*fit.missing, *fit.reshaped}}
    if any("_gn_" in name for name in names):
        return fit
    if any("_bn_" in name for name in names) and not any(n.endswith(_STATISTICS) for n in fit.own):
        raise UserError(
            "the weights have BatchNorms, the detector has other norms; set MODEL.RESNETS.NORM BN, "
            "FrozenBN or SyncBN, or name weights with those norms"
        )

    def is_folded(name: str) -> bool:
        layer, _, leaf = name.rpartition(".")
        return leaf in _STATISTICS and {f"{layer}.weight", f"{layer}.bias"} <= found

    return fit._replace(missing=[name for name in fit.missing if not is_folded(name)])


def print_summary(fit: Fit, file: str) -> None:
    """Print what stays random and what is left out, in the first process."""
    if text := fit.summary():
        distributed.print_note(f"{file}: {text}")


def require(fit: Fit, where: str, *, whole: bool, advice: str) -> None:
    """Reject weights that leave a detector random where it must not be.

    Args:
        fit: What was loaded.
        where: The file and the detector, for the message.
        whole: Whether all of the detector is needed, as for evaluation.
        advice: What to do with a file that has nothing of the detector.

    Raises:
        UserError: If they do not fit.
    """
    if wrong := fit.why_not_evaluated() if whole else fit.why_not_started():
        remedy = advice if fit.nothing and advice else _WHOLE if whole else _START
        raise UserError(f"{where}: {wrong}; {remedy}")


def _part(name: str) -> str:
    """Return the part that a weight is of: backbone.bottom_up.res4, roi_heads.box_head, head."""
    depth = next((c.count(".") + 2 for c in _CONTAINERS if name.startswith(f"{c}.")), 1)
    return ".".join(name.split(".")[:depth])
