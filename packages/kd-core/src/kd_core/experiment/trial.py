"""What is tried with random teachers, before the hours that training them takes."""

import torch

from kd_core.data.sampling import borrowed_generators
from kd_core.experiment.builder import BuiltExperiment
from kd_core.experiment.spec import Experiment
from kd_core.runtime import distributed
from kd_core.training.optimizer import build_optimizer

_NO_GRADIENTS = "require grad"
"""In what autograd says to a criterion that asks it for gradients."""


def try_out(experiment: Experiment, built: BuiltExperiment) -> None:
    """Find mistakes that show in nothing but built networks and their losses.

    Rules of the optimizer that fit no parameter; a criterion that fails, or gives something else
    than a loss, on as many images as a process has in a step.

    Args:
        experiment: Without phases.
        built: Of this experiment, for these checks alone.

    Raises:
        UserError: If there is one.
    """
    if experiment.optimizer is not None:
        build_optimizer(experiment.optimizer, built.distiller)
    if not built.distiller.terms:
        return
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
