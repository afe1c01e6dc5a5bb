"""Train the rows of a table and print it: `tools/cls_compare.py`."""

from kd_core.experiment.comparison import ComparisonTool

from kd_cls.train import TOOL

main = ComparisonTool(TOOL).main
