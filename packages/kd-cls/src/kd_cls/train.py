"""Train a classifier, alone or with teachers: `tools/cls_train.py`."""

from typing import TYPE_CHECKING

from kd_core.experiment.cli import training_main

from kd_cls import TITLE
from kd_cls.catalogue import CATALOGUE

if TYPE_CHECKING:
    from kd_core.experiment.command_line import TrainingTool


def make_tool() -> "TrainingTool":
    """Return the training tool, with all that it imports."""
    from kd_core.experiment.command_line import TrainingTool

    from kd_cls import demo
    from kd_cls.adapter import ADAPTER

    return TrainingTool(ADAPTER, demo.main)


main = training_main(TITLE, make_tool, catalogue=CATALOGUE)
