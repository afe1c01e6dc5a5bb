"""Train a classifier, alone or with teachers: `tools/cls_train.py`."""

from kd_core.experiment.tool import TrainingTool

from kd_cls import demo
from kd_cls.kit import KIT

TOOL = TrainingTool(KIT, demo.main)

main = TOOL.main
