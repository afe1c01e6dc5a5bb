"""Train a re-identification network, alone or with teachers: `tools/reid_train.py`."""

from kd_core.experiment.command_line import TrainingTool

from kd_reid import demo
from kd_reid.adapter import ADAPTER

TOOL = TrainingTool(ADAPTER, demo.main)

main = TOOL.main
