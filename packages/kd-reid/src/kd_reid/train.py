"""Train a re-identification network, alone or with teachers: `tools/reid_train.py`."""

from kd_core.experiment.tool import TrainingTool

from kd_reid import demo
from kd_reid.kit import KIT

TOOL = TrainingTool(KIT, demo.main)

main = TOOL.main
