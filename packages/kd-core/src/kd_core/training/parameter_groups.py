"""Parameter groups: rate, weight decay and freezing by the names of parameters, or by depth."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from kd_core.config.node import parse_call
from kd_core.config.values import NonNegative, PositiveShare, check_values
from kd_core.distill.distiller import Distiller
from kd_core.errors import UserError, located, nearest
from kd_core.networks.parameters import (
    behind_orthogonal,
    blocks_of,
    depths_of,
    names_of,
    norms_and_biases,
)
from kd_core.networks.task import network_of


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What holds for the parameters of some names; one of `optimizer.groups`.

    A parameter follows every rule that matches it. Where two give the same setting, the later one
    wins; `lr` and `lr_factor` are one setting.

    Args:
        names: Pattern, or several, such as "student.layer1.*" or "*.bias": `*` stands for any text,
            `?` for one character. A name is that of `student`, `criteria` or `peers`, then the
            criterion's or peer's own name, then the name in the state dict that is exported.
        lr: Initial rate.
        lr_factor: Factor of the initial rate, also of what `layer_decay` makes of it.
        weight_decay: Instead of the optimizer's.
        frozen: Do not train them: no gradient, no momentum, no decay. The running statistics of a
            BatchNorm among them still follow the batches.
    """

    names: str | Sequence[str]
    lr: NonNegative | None = None
    lr_factor: NonNegative | None = None
    weight_decay: NonNegative | None = None
    frozen: bool | None = None

    def __post_init__(self) -> None:
        """Check values, and that the rule says something that can hold."""
        check_values(type(self), vars(self), str)
        settings = {name: value for name, value in vars(self).items() if value is not None}
        if not self.patterns or len(settings) < 2:
            raise UserError("wanted `names` and one of lr, lr_factor, weight_decay, frozen")
        if "lr" in settings and "lr_factor" in settings:
            raise UserError("give lr or lr_factor, not both")

    @property
    def patterns(self) -> list[str]:
        """Return the patterns as a list."""
        return [self.names] if isinstance(self.names, str) else list(self.names)


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """The keys of a config's `optimizer` that are not the optimizer's own.

    Args:
        groups: Rules by name.
        layer_decay: Factor of the rate from one block of a network to the one before it: with n
            blocks, block i has the rate times `layer_decay ** (n + 1 - i)`, what comes before the
            first block counts as block 0, what comes after the last has the whole rate. Blocks are
            the outermost modules with parts in `nn.Sequential` or `nn.ModuleList`.
        decay_norms_and_biases: Whether weight decay holds for biases, for normalisation layers and
            for other vectors and scalars; a rule's `weight_decay` comes after it. It never holds
            for what is behind an orthogonal weight.
    """

    groups: Sequence[Rule] = ()
    layer_decay: PositiveShare | None = None
    decay_norms_and_biases: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        check_values(type(self), vars(self), str)

    @property
    def settings(self) -> set[str]:
        """Return which settings of an optimizer are changed for some parameters."""
        changed = {
            "lr": self.layer_decay is not None
            or any(rule.lr is not None or rule.lr_factor is not None for rule in self.groups),
            "weight_decay": not self.decay_norms_and_biases
            or any(rule.weight_decay is not None for rule in self.groups),
        }
        return {name for name, is_changed in changed.items() if is_changed}


def parse_grouping(node: Mapping[str, Any], where: str) -> Grouping:
    """Return what a config's keys say, see `Grouping`, where each rule is a dict.

    Raises:
        UserError: If a key is unknown, or a value is wrong.
    """
    nodes = node.get("groups", ())
    if not isinstance(nodes, list | tuple):
        raise UserError(f"{where}.groups: wanted a list of dicts, got {nodes!r:.80}")
    rules = [
        parse_call(Rule, each, f"{where}.groups.{number}").build()
        for number, each in enumerate(nodes)
    ]
    rest = {key: value for key, value in node.items() if key != "groups"}
    grouping: Grouping = parse_call(Grouping, rest, where).build(groups=rules)
    return grouping


@dataclass
class _Chosen:
    """What holds for one parameter; a weight decay of None is the optimizer's."""

    parameter: nn.Parameter
    names: list[str]
    lr: float | None
    weight_decay: float | None = None
    frozen: bool = False

    def follow(self, rule: Rule, base: float | None) -> None:
        if rule.lr is not None:
            self.lr = rule.lr
        if rule.lr_factor is not None and base is not None:
            self.lr = base * rule.lr_factor
        if rule.weight_decay is not None:
            self.weight_decay = rule.weight_decay
        if rule.frozen is not None:
            self.frozen = rule.frozen


def make_groups(
    model: nn.Module,
    grouping: Grouping,
    lr: float | None,
    where: str = "optimizer",
    *,
    decays: bool = True,
) -> list[dict[str, Any]]:
    """Return a model's trained parameters in groups of equal settings, and freeze what is frozen.

    A group has `params` and, where they differ from the optimizer's, `lr` and `weight_decay`. The
    group with the optimizer's own settings comes first, then the others as they appear.

    Args:
        model: A distiller, or any module.
        grouping: What the config says.
        lr: The optimizer's rate, or None if it has none.
        where: Place of the optimizer in the config, for messages.
        decays: Whether the optimizer has a weight decay, other than 0.

    Raises:
        UserError: If a rule matches no parameter that is trained, or nothing is left to train.
    """
    undecayed = set(behind_orthogonal(model)) if decays else set()
    if not grouping.decay_norms_and_biases:
        undecayed |= set(norms_and_biases(model))
    chosen = _choose(model, grouping, lr, undecayed, where)
    groups: dict[tuple[float | None, float | None], list[nn.Parameter]] = {(lr, None): []}
    for one in chosen:
        if one.frozen:
            one.parameter.requires_grad_(False)
        if one.parameter.requires_grad:
            groups.setdefault((one.lr, one.weight_decay), []).append(one.parameter)
    found = []
    for (rate, weight_decay), parameters in groups.items():
        settings = {"lr": rate, "weight_decay": weight_decay}
        given = {name: value for name, value in settings.items() if value is not None}
        if parameters:
            found.append({"params": parameters, **given})
    if not found:
        raise UserError(f"{where}: nothing to train; every parameter is frozen")
    return found


def _choose(
    model: nn.Module,
    grouping: Grouping,
    lr: float | None,
    undecayed: Collection[nn.Parameter],
    where: str,
) -> list[_Chosen]:
    with located(f"{where}.layer_decay"):
        factors = _layer_factors(model, grouping.layer_decay)
    chosen, bases = [], {}
    for parameter, names in names_of(model).items():
        bases[parameter] = base = None if lr is None else lr * factors.get(parameter, 1.0)
        decay = 0.0 if parameter in undecayed else None
        chosen.append(_Chosen(parameter, names, base, decay))
    known = [name for one in chosen for name in one.names]
    for number, rule in enumerate(grouping.groups):
        with located(f"{where}.groups.{number}"):
            for one in _matched(rule, chosen, known):
                one.follow(rule, bases[one.parameter])
    return chosen


def _matched(rule: Rule, chosen: Sequence[_Chosen], known: Sequence[str]) -> list[_Chosen]:
    matched = []
    for pattern in rule.patterns:
        found = [one for one in chosen if any(fnmatchcase(name, pattern) for name in one.names)]
        if not found:
            raise UserError(f"names {pattern!r} match no parameter{nearest(pattern, known)}")
        if rule.frozen is None and not any(one.parameter.requires_grad for one in found):
            raise UserError(f"names {pattern!r} match only parameters that are not trained")
        matched += found
    return matched


def _layer_factors(model: nn.Module, decay: float | None) -> dict[nn.Parameter, float]:
    if decay is None:
        return {}
    models = [model.student, *model.peers.values()] if isinstance(model, Distiller) else [model]
    factors = {}
    for one in models:
        network = network_of(one)
        blocks = blocks_of(network)
        if len(blocks) < 2:
            raise UserError(
                f"{type(network).__name__} has no blocks in a row, in nn.Sequential "
                "or nn.ModuleList; give lr_factor by `groups`"
            )
        for parameter, depth in depths_of(network, blocks):
            factors[parameter] = decay ** (len(blocks) + 1 - depth)
    return factors
