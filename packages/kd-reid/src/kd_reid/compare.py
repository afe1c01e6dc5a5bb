"""Train the rows of a table and print it: `tools/reid_compare.py`."""

from kd_core.experiment.comparison import ComparisonTool

from kd_reid.train import TOOL

main = ComparisonTool(TOOL).main
