"""Train a classifier, alone or with teachers: `tools/cls_train.py`."""

from kd_core.experiment.command_line import TrainingTool

from kd_cls import demo
from kd_cls.adapter import ADAPTER

TOOL = TrainingTool(ADAPTER, demo.main)

main = TOOL.main
