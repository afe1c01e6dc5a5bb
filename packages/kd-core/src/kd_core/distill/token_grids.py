"""Whether tokens of student and teacher can be laid on one another: the grids they come from."""

from torch import nn

from kd_core.criteria.criterion import Side
from kd_core.distill.connections import Teachers, Terms, source_of
from kd_core.errors import UserError
from kd_core.networks.layouts import for_kind
from kd_core.networks.probe import tap_values
from kd_core.networks.roles import tap_list
from kd_core.networks.taps import FeatureTap
from kd_core.networks.task import Batch, network_of

Size = tuple[int, int]
_SIDES: tuple[Side, Side] = ("student", "teacher")


def check_token_grids(terms: Terms, sample: Batch, student: nn.Module, teachers: Teachers) -> None:
    """Reject tokens of unequal grids that are not both square, before training.

    A criterion sees how many tokens there are and not their height and width: 16 tokens may be of
    2 x 8 in the student and of 4 x 4 in the teacher, and would be compared at wrong places. Grids
    that a network does not say are not checked.

    Raises:
        UserError: Names both grids.
    """
    for name, term in terms.items():
        taps = tap_list(term.student), tap_list(term.teacher)
        kinds = zip(*(term.criterion.kinds(len(taps[0]), side) for side in _SIDES), strict=False)
        places = [place for place, both in enumerate(kinds) if both == ("tokens", "tokens")]
        for place in places:
            teacher = teachers[source_of(name, term, teachers)].model
            own = _grid(student, taps[0], place, sample)
            wanted = _grid(teacher, taps[1], place, sample)
            if own and wanted and own != wanted and (own[0] != own[1] or wanted[0] != wanted[1]):
                raise UserError(
                    f"term {name!r}: the student's tokens are of {own[0]} x {own[1]} positions, "
                    f"the teacher's of {wanted[0]} x {wanted[1]}, and only square grids are laid "
                    "on one another; set `size` of a network so that the grids are equal or "
                    "square, or take a criterion on maps, such as DenseMSE"
                )


def _grid(model: nn.Module, taps: list[str], place: int, sample: Batch) -> Size | None:
    """Return height and width of the tokens at a tap; None if the network does not say them."""
    if place >= len(taps):  # refused with the shapes
        return None
    as_map = for_kind(taps[place], "maps")
    if as_map == taps[place]:
        return None
    try:
        _, values = tap_values(model, FeatureTap(network_of(model), as_map), sample)
    except UserError:
        return None
    _, _, height, width = values[as_map].shape
    return height, width
