"""What is tried with random teachers, before the hours that training them takes."""

from pathlib import Path

import torch

from kd_core.data.sampling import borrowed_generators
from kd_core.experiment.builder import BuiltExperiment
from kd_core.experiment.run import build_trainer
from kd_core.experiment.spec import Experiment
from kd_core.files.new_files import require_writable_folder
from kd_core.runtime import distributed
from kd_core.runtime.console import err
from kd_core.training.targets.choice import parse_cache

_NO_GRADIENTS = "require grad"
"""In what autograd says to a criterion that asks it for gradients."""


def try_out(experiment: Experiment, built: BuiltExperiment) -> None:
    """Find mistakes that show in nothing but what is built of a config.

    A criterion that fails, or gives something else than a loss, on as many images as a process has
    in a step; and what the trainer refuses: rules of the optimizer that fit no parameter, hooks,
    loggers, a folder that cannot be.

    Args:
        experiment: Without phases.
        built: Of this experiment, for these checks alone.

    Raises:
        UserError: If there is one.
    """
    _try_trainer(experiment, built)
    if built.distiller.terms:
        _try_terms(built)


def _try_trainer(experiment: Experiment, built: BuiltExperiment) -> None:
    if experiment.trainer is None:
        return
    settings = experiment.training()
    cache = parse_cache(settings.get("teacher_cache", False))
    if cache is not None and cache.folder is not None:
        require_writable_folder(Path(cache.folder), "trainer.teacher_cache")
    settings |= {"teacher_cache": False, "accelerate_teachers": False}  # these take a while
    with err.capture():  # the run itself tells of its optimizer and terms
        build_trainer(built.parts, Path(), **settings)


def _try_terms(built: BuiltExperiment) -> None:
    loader = built.data.train
    built.distiller.begin(1, 1)  # or terms that warm up know no epoch
    built.distiller.was_started = True  # so that it is the run that reports what drifts
    with borrowed_generators(), torch.no_grad():  # which takes less memory than a step
        batch = loader.sample(max(loader.batch_size // distributed.world_size(), 1))
        try:
            built.distiller.train()(batch)
        except RuntimeError as error:
            if _NO_GRADIENTS not in str(error):
                raise
