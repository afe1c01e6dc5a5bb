"""Find a detector's weights in what a file holds: plain, a distiller's, DDP's, an average's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_core.errors import UserError, located
from kd_core.files.best_match import Match, choose, matches, same_tensors
from kd_core.files.weights import read_contents
from kd_core.runtime import distributed
from torch import Tensor

from kd_det.loading import foreign


def read_places(path: Path) -> dict[str, Any]:
    """Return what a file holds, without running code in it.

    Raises:
        UserError: If it cannot be read safely, or is not a dict.
    """
    try:
        contents = read_contents(path)
    except UserError as error:
        if advice := foreign.advice_of_class(str(error)):
            raise UserError(f"{path}: {advice}") from error
        raise
    if not isinstance(contents, Mapping) or not contents:
        came = "an empty one" if contents == {} else f"a {type(contents).__name__}"
        raise UserError(f"{path}: wanted a dict of weights, got {came}")
    return {str(name): value for name, value in contents.items()}


def state_of(
    contents: Mapping[str, Any], own: Mapping[str, Tensor], file: str, choice: str = ""
) -> Mapping[str, Any]:
    """Return the weights of a file that are meant for a detector.

    Those that Detectron2 reads are taken if they fit: what is called `model`, else the whole file.
    Other places and prefixes are searched, and the choice is printed.

    Args:
        contents: What the file holds.
        own: The detector's weights by name.
        file: Its path, for messages.
        choice: A place in the file; "" for none.

    Raises:
        UserError: If several weights of the file fit and differ, or none is in the chosen place.
    """
    plain = contents["model"] if isinstance(contents.get("model"), Mapping) else contents
    with located(file):
        found = matches(contents, own)
        usual = Match("model", {k: v for k, v in plain.items() if isinstance(v, Tensor)})
        if not choice and usual.fits(own):
            others = [m for m in found if m.fits(own) and not same_tensors(m, usual)]
            if others:
                distributed.print_note(
                    f"{file}: took 'model'; others fit too: FILE#{others[0].place} takes them"
                )
            return plain
        match = choose(found, own, choice)
    if match is None or match.place == ("" if plain is contents else "model"):
        return plain
    distributed.print_note(f"{file}: {match.summary()}")
    return match.state
