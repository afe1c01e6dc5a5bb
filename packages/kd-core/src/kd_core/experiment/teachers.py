"""Teachers: from weights, from a config that is trained first, or random when asked for."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from kd_core.config.trust import names_in
from kd_core.config.trusted import trusting
from kd_core.data.loader_set import has_labels
from kd_core.distill.stored_outputs import knows_only_training_images
from kd_core.errors import UserError
from kd_core.experiment import outputs
from kd_core.experiment.adapter import TaskAdapter
from kd_core.experiment.builder import BuiltExperiment
from kd_core.experiment.differences import with_contents
from kd_core.experiment.phases import ensure, in_training_of, is_finished, key_of
from kd_core.experiment.spec import RANDOM, Experiment, TeacherSpec
from kd_core.networks.task import Task
from kd_core.runtime import distributed
from kd_core.runtime.seed import mix, seed_everything

Train = Callable[[Experiment, Path], Any]


def build_teachers(
    adapter: TaskAdapter,
    specs: Mapping[str, TeacherSpec],
    seed: int,
    data: Any,
    folder: Path,
    train: Train,
    *,
    untrained: bool = False,
    own_data: Callable[[Experiment], Any] | None = None,
) -> dict[str, Task]:
    """Build the teachers of a run, training those whose own experiment was not run yet.

    A teacher's `weights` are a file or, to say that an untrained teacher is meant, "random".
    Otherwise it has an experiment, whose result is kept in `folder` and reused by every student.
    Weights take the place of training it.

    Args:
        adapter: Of the task.
        specs: By name.
        seed: Of what is random in a teacher: all of an untrained one, or a new head.
        data: Of the student; gives classes and statistics that the teacher leaves open.
        folder: Where trained teachers are kept, named by the hash of their experiments.
        train: Trains an experiment in a folder, resuming what is there.
        untrained: Neither load nor train weights; for a dry run.
        own_data: Gives the data of an experiment that was not run yet, so that its untrained
            teacher has the classes which the trained one will have; None takes the student's data.

    Raises:
        UserError: If a teacher has no weights, or they do not fit.
    """
    if not untrained:
        for spec in specs.values():  # of all, before one is trained
            _require_weights(adapter, spec)
    built = {}
    for name, spec in specs.items():
        if not untrained and spec.to_train:
            built[name] = _trained(adapter, spec, data, folder, train)
            continue
        if spec.is_stored:
            built[name] = _stored(spec, data, untrained=untrained)
            continue
        other = None
        if own_data is not None and spec.to_train and _missing(spec, folder):
            with in_training_of(spec.where):
                other = own_data(spec.to_train)
        model = spec.untrained().model if untrained else spec.model
        seed_everything(mix(seed, 0))  # whether or not another was trained just now
        built[name] = adapter.build_model(data if other is None else other, spec.where, **model)
        if other is not None:
            built[name] = adapter.match_data(built[name], other, data)
    return built


def _stored(spec: TeacherSpec, data: Any, *, untrained: bool) -> Any:
    """Build a teacher from a file, which a dry run does not read: its data may be other ones."""
    return (
        outputs.untrained(data)
        if untrained
        else spec.model.function(data, spec.where, **spec.model)
    )


def unfinished(specs: Mapping[str, TeacherSpec], folder: Path) -> list[Path]:
    """Return where the teachers will be that have to be trained first."""
    return [path for spec in specs.values() if (path := _missing(spec, folder))]


def teacher_folder(experiment: Experiment, folder: Path) -> Path:
    """Return where the teacher of an experiment is, or will be, kept."""
    return _place(experiment, folder)[0]


def recorded(experiment: Experiment, seed: int) -> dict[str, Any]:
    """Return what makes a run, to be kept beside it: see `kd_core.experiment.identity`.

    In the place of a file is its name and hash.
    """
    found: dict[str, Any] = with_contents({**experiment.plain(), "seed": seed})
    return found


def phase_place(
    work_dir: Path, shared: Path, seed: int, name: str, phase: Experiment
) -> tuple[Path, dict[str, Any]]:
    """Return where a phase is kept, `<name>-<key>`, and what its key hashes.

    A phase of the teachers alone (see `is_of_teachers`) is in `shared`, student and seed left out
    of the key: every student, seed and run of these teachers takes it from there. Any other is in
    the run's own folder.

    Args:
        work_dir: Folder of the run.
        shared: Folder of teachers.
        seed: Of the run.
        name: Of the phase.
        phase: Its settings.
    """
    made_by = recorded(phase, seed)
    if is_of_teachers(phase):
        work_dir = shared
        made_by = {key: made_by[key] for key in made_by if key not in ("student", "seed")}
    return work_dir / f"{name}-{key_of(made_by)}", made_by


def is_of_teachers(phase: Experiment) -> bool:
    """Return whether a phase trains only criteria, and these look only at teachers.

    A teacher with random weights differs with the seed of the run, so its phase is the run's own.
    """
    blind = all(not term.call.get("student", "output") for term in phase.terms.values())
    random = any(spec.weights == RANDOM for spec in phase.teachers.values())
    return phase.distiller.get("train_student") is False and blind and not random


def teacher_scores(
    adapter: TaskAdapter, built: BuiltExperiment, experiment: Experiment
) -> dict[str, Any]:
    """Measure the teachers on the test set, so that a wrong checkpoint is seen at once.

    Raises:
        UserError: If one is at or below chance, and neither random nor allowed to be.
    """
    scores: dict[str, Any] = {}
    metric = built.parts.metric
    chance = None if experiment.training().get("allow_weak_teacher") else adapter.chance(built.data)
    random = _random_by_choice(experiment)
    for name, teacher in built.teachers.items():
        stored = knows_only_training_images(teacher)
        found = (
            None
            if stored
            else adapter.score_teacher(teacher, built.sample, built.data, built.parts.test)
        )
        if stored:
            text = _score_stored(name, teacher, built.data, chance)
        elif found is None:
            why = "knows other classes" if has_labels(built.data) else "gets images without labels"
            text = f"{why}, so its accuracy cannot be measured here"
            if name in random:
                text += "; its weights are random, so a score against it says nothing"
        else:
            scores[name], score = found, found[metric]
            text = f"{metric} {score:.2f} on the test set"
            if chance is not None and score <= chance and name not in random:
                raise UserError(_no_better(name, score, chance))
        distributed.print_note(f"teacher {name!r}: {text}")
    return scores


def _score_stored(name: str, teacher: nn.Module, data: Any, chance: float | None) -> str:
    """Measure stored outputs on the images that they know: a file in another order is seen."""
    right = outputs.score(teacher, data)
    if right is None:
        return "knows the training images alone, so it is not measured on the test set"
    if chance is not None and right <= chance:
        raise UserError(
            f"teacher {name!r}: its stored outputs are right for {right:.2f} % of the training "
            f"images, no more often than by guessing ({chance:.2f} %): are they in the order of "
            "the images? trainer.allow_weak_teacher=True trains with them all the same"
        )
    return f"its stored outputs are right for {right:.2f} % of the training images"


def _no_better(name: str, score: float, chance: float) -> str:
    return (
        f"teacher {name!r} is right in {score:.2f} % of the test set, no more often than by "
        f"guessing ({chance:.2f} %): are its weights, the order of its classes, its mean, std and "
        "size those of its training? trainer.allow_weak_teacher=True trains with it all the same"
    )


def _random_by_choice(experiment: Experiment) -> set[str]:
    """Return the teachers that are random because the config says so, and their ensembles."""
    names = {name for name, spec in experiment.teachers.items() if spec.weights == RANDOM}
    ensembles: Mapping[str, Any] = experiment.distiller.get("ensembles") or {}
    return names | {name for name, members in ensembles.items() if names & set(members)}


def _require_weights(adapter: TaskAdapter, spec: TeacherSpec) -> None:
    if (
        spec.weights
        or spec.experiment
        or spec.is_stored
        or adapter.is_pretrained(spec.model["network"])
    ):
        return
    raise UserError(
        f"{spec.where}: no weights; name a file (weights=...), a config to train it first "
        f'(config=...), or weights="{RANDOM}" for an untrained one'
    )


def _missing(spec: TeacherSpec, folder: Path) -> Path | None:
    """Return where a teacher will be, if its experiment has to be run first."""
    if spec.to_train is None:
        return None
    path, made_by = _place(spec.to_train, folder)
    return None if is_finished(path, made_by) else path


def _place(experiment: Experiment, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return where the teacher of an experiment is kept, and what its name hashes."""
    made_by = recorded(experiment, experiment.seed)
    return folder / f"teacher-{key_of(made_by)}", made_by


def _trained(
    adapter: TaskAdapter, spec: TeacherSpec, data: Any, folder: Path, train: Train
) -> Task:
    assert spec.experiment is not None, "its caller looked"
    product, made_by = _place(spec.experiment, folder)
    training = partial(train, spec.experiment, product)
    with in_training_of(spec.where):
        ensure(product, made_by, training, f"training of {spec.where}")
    # The config is ours; its product need not be.
    with trusting(*names_in(spec.experiment.student)):
        teacher = adapter.load_finished(product, spec.own)
    matched: Task = adapter.match_teacher(teacher, product, spec.own, data, spec.where)
    return matched
