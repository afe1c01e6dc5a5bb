"""`trainer.teacher_cache`: what it may say, and the loader that it makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_core.config.node import parse_call
from kd_core.config.values import PositiveInt
from kd_core.criteria.topk_labels import TopKLabels
from kd_core.data.loader import Loader
from kd_core.data.split_loader import SplitLoader
from kd_core.distill.distiller import Distiller
from kd_core.distill.teacher import Teacher
from kd_core.distill.term import Term
from kd_core.errors import UserError
from kd_core.networks.roles import tap_list
from kd_core.networks.task import Task
from kd_core.runtime import distributed
from kd_core.training.targets.stored import StoredTargets
from kd_core.training.teacher_cache import CachedTeachers, has_few_views

_WHERE = "trainer.teacher_cache"


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """What `trainer.teacher_cache` says: True, a folder, or a dict of these.

    Args:
        folder: Of this run's targets alone: those of other data, transforms, seeds of the data or
            teachers are then refused. None keeps targets beside the teachers, each apart.
        topk: Keep of logits that the criterion `TopKLabels` reads only so many of the largest
            probabilities, at its temperature. None keeps all logits.
    """

    folder: str | None = None
    topk: PositiveInt | None = None


def parse_cache(value: bool | str | Mapping[str, Any]) -> CacheOptions | None:
    """Return the options of `trainer.teacher_cache`, None for False.

    Raises:
        UserError: If a key is unknown, or a value is wrong.
    """
    if isinstance(value, bool):
        return CacheOptions() if value else None
    if isinstance(value, str):
        value = {"folder": value}
    if not value:
        raise UserError(f"{_WHERE} is an empty dict; write True, or False")
    folder = value.get("folder")
    if isinstance(folder, str) and not folder.strip():
        raise UserError(f"{_WHERE}: the folder has no name; write True, which needs none")
    if isinstance(folder, str) and folder.lstrip().startswith(("{", "[")):
        # An option that Python cannot read is text, and would name a folder.
        raise UserError(
            f"{_WHERE}: got the text {folder!r:.80}, which looks like a dict but cannot be read as "
            "one; write names in quotes, and True for true, such as {'folder': 'kept', 'topk': 10}"
        )
    return CacheOptions(**parse_call(CacheOptions, value, _WHERE).arguments)


def elsewhere(value: bool | str | Mapping[str, Any]) -> bool | dict[str, Any]:
    """Return the same setting without its folder: a trial must not write into it."""
    options = parse_cache(value)
    if options is None:
        return False
    return True if options.topk is None else {"topk": options.topk}


def with_cache(
    loader: Loader,
    distillers: Sequence[Distiller],
    teachers: Mapping[str, Teacher],
    setting: bool | str | Mapping[str, Any],
    *,
    beside: Path,
    precision: str,
    epochs: int,
    same_data_seed: bool = True,
) -> Loader:
    """Return a loader whose batches have the teachers' features from files.

    Few views of images that are in memory are kept once for all epochs, see `CachedTeachers`; all
    else is kept epoch by epoch, see `StoredTargets`.

    Args:
        loader: Training batches.
        distillers: All that learn from these batches.
        teachers: Theirs, by name, with the taps of all set.
        setting: `trainer.teacher_cache`; False leaves the loader as it is.
        beside: Folder for targets where none is named.
        precision: Of the teachers.
        epochs: How many the run has.
        same_data_seed: Whether the config sets `data_seed`, for all seeds.

    Raises:
        UserError: If outputs cannot be kept, or those in a named folder are others.
    """
    options = parse_cache(setting)
    if options is None:
        return loader
    for distiller in distillers:
        _require_replayable(distiller)
    folder = beside if options.folder is None else Path(options.folder)
    topk = _topk_taps(distillers, options.topk)
    cached: CachedTeachers | StoredTargets
    if not topk and has_few_views(loader) and _are_vectors(distillers, teachers):
        cached = CachedTeachers(loader, teachers, folder, precision=precision)
        text = cached.describe(epochs)
    elif isinstance(loader, SplitLoader):
        named = options.folder is not None
        if named and not same_data_seed:
            raise UserError(
                f"{_WHERE}: {folder} is for the targets of one data_seed, and every seed has its "
                "own unless it is set; set data_seed=0, or trainer.teacher_cache=True"
            )
        cached = StoredTargets(
            loader, teachers, folder, precision=precision, topk=topk, named=named
        )
        text = cached.check_space(epochs)
    else:
        raise UserError(
            f"{_WHERE} cannot be used here: {type(loader).__name__} is not a SplitLoader, so "
            "nothing says that its images depend on seed, epoch and place alone; leave it out"
        )
    distributed.print_note(text)
    return cached


def _require_replayable(distiller: Distiller) -> None:
    """Reject distillers whose teachers give something else in another run."""
    name = type(distiller).__name__
    if distiller.peers:
        problem = "networks that teach one another change, so nothing that they give can be kept"
    elif distiller.student_first or type(distiller).run_teacher is not Distiller.run_teacher:
        problem = f"teachers of a {name} run on what the student gives"
    elif isinstance(distiller.student, Task) and distiller.student.changes_data:
        problem = f"{type(distiller.student).__name__} chooses its own samples"
    else:
        return
    raise UserError(f"{_WHERE} cannot be used here: {problem}; leave it out")


def _are_vectors(distillers: Sequence[Distiller], teachers: Mapping[str, Teacher]) -> bool:
    shapes = [
        shape
        for distiller in distillers
        for name in teachers
        for shape in distiller.tap_shapes.get(name, {}).values()
    ]
    return all(len(shape) == 1 for shape in shapes if isinstance(shape, tuple))


def _topk_taps(
    distillers: Sequence[Distiller], topk: int | None
) -> dict[str, dict[str, tuple[int, float]]]:
    """Return the taps of which only the largest probabilities are kept, by teacher.

    Raises:
        UserError: If there are none, or another criterion needs the whole logits.
    """
    found: dict[str, dict[str, tuple[int, float]]] = {}
    if topk is None:
        return found
    terms = [(d.source(name), name, term) for d in distillers for name, term in d.terms.items()]
    for source, _, term in terms:
        if isinstance(term.criterion, TopKLabels):
            (tap,) = tap_list(term.teacher)
            found.setdefault(source, {})[tap] = (topk, float(term.criterion.temperature))
    for source, name, term in terms:
        for tap in tap_list(term.teacher):
            if tap in found.get(source, {}):
                _require_same(name, term, *found[source][tap])
    if not found:
        raise UserError(
            f"{_WHERE}.topk: no term has the criterion TopKLabels, and all others need the whole "
            "logits; leave topk out, or take `kd_core.criteria.topk_labels.TopKLabels`"
        )
    return found


def _require_same(name: str, term: Term, topk: int, temperature: float) -> None:
    """Reject a term that cannot learn from so many probabilities at this temperature."""
    criterion = term.criterion
    if not isinstance(criterion, TopKLabels):
        problem = f"its criterion {type(criterion).__name__} needs the whole logits"
    elif criterion.k > topk:
        problem = f"its k is {criterion.k}, and {topk} are kept; set topk to {criterion.k} at least"
    elif criterion.temperature != temperature:
        problem = (
            f"its temperature is {criterion.temperature:g}, and another term keeps {temperature:g}"
        )
    else:
        return
    raise UserError(f"{_WHERE}.topk: term {name!r} learns from the same tap, but {problem}")
