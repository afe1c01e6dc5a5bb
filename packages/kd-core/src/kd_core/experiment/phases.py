"""Phases: what must be trained before the student, done once and named by what it depends on."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from kd_core.errors import UserError, located
from kd_core.experiment import identity
from kd_core.experiment.differences import essence
from kd_core.experiment.results import check_products
from kd_core.experiment.spec import Experiment
from kd_core.files.artifacts import FILE as STUDENT
from kd_core.files.claim import claimed_unless_made
from kd_core.runtime import distributed
from kd_core.runtime.console import err


def key_of(settings: Mapping[str, Any]) -> str:
    """Return a short name that changes with the settings, and with the content of files in them.

    A teacher's weights thus count by what is in the file, at any place. What cannot change a
    result (see `kd_core.experiment.differences`) leaves the name as it is.
    """
    text = json.dumps(essence(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def ensure(folder: Path, config: Mapping[str, Any], make: Callable[[], Any], title: str) -> None:
    """Train a phase or teacher in a folder, unless this config is finished there already.

    `make` trains with `--resume`, so an interrupted phase is resumed. If another run trains it
    now, wait for that.

    Raises:
        UserError: If another config made what is there, or its product is missing.
    """
    product, is_made = folder / identity.RESULT, partial(is_finished, folder, config)
    with claimed_unless_made(product, title, is_made) as to_make:
        if not to_make:
            distributed.print_note(f"{title}: done before, using {folder}")
            return
        if distributed.rank() == 0:
            err.rule(title, style="dim")
        with identity.begun(folder, config):
            make()
    if not is_finished(folder, config):
        raise UserError(f"{title} ended without its product {product}")


def in_training_of(where: str) -> AbstractContextManager[None]:
    """Report an error inside as one of a teacher's own training, whose places are the same.

    Args:
        where: Place of the teacher in the student's config.
    """
    return located(f"training of {where} (its options begin with {where}.)")


def is_finished(folder: Path, config: Mapping[str, Any]) -> bool:
    """Return whether a config is finished in the folder of a phase or teacher, which it names.

    Raises:
        UserError: If another config made what is there, or a product is missing or another's.
    """
    remedy = f"move {folder} elsewhere, and it is created again"
    identity.check(folder, config, remedy)
    result = identity.finished(folder, config)
    if result is None:
        return False
    if not (folder / STUDENT).is_file():
        raise UserError(f"{folder} is finished, but its {STUDENT} is missing; {remedy}")
    check_products(folder, result, remedy)
    return True


def run_phases(
    experiment: Experiment,
    place_of: Callable[[str, Experiment], tuple[Path, Mapping[str, Any]]],
    train: Callable[[Experiment, Path], Any],
) -> Experiment:
    """Run the phases of an experiment in order but the last, which is returned to be trained.

    Each is trained in a folder of its own; one that is done there is skipped. Any text
    `phase:NAME/FILE` in a later phase becomes the path of that file among the products of NAME.

    Args:
        experiment: With or without phases; without, it is returned as it is.
        place_of: Gives the folder of a phase, from its name and settings, and what is kept there
            of what made it.
        train: Trains a phase in a folder, resuming what is there; writes `result.json` last.
    """
    folders: dict[str, Path | None] = {}
    *earlier, last = experiment.each_phase
    for name, phase in zip(experiment.phases, earlier, strict=True):
        settings = phase.with_products(folders)
        folder, made_by = place_of(name, settings)
        folders[name] = folder
        ensure(folder, made_by, partial(train, settings, folder), f"phase {name}")
    return last.with_products(folders)
